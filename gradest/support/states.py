"""Files with the states of trainings: tensors and plain data, written atomically."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gradest.errors import UsageError
from gradest.support.files import write_atomically


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state.  Raises OSError with a message in one line if that fails."""
    try:
        write_atomically(path, lambda partial: torch.save(state, partial))
    except (OSError, RuntimeError) as error:  # torch raises either on a full disk
        raise OSError(f"{path}: cannot be written: {_line(error)}") from error


def load_state(path: Path) -> dict[str, Any]:
    """The state, on the CPU.  Raises UsageError if the file contains none."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler may raise any error for a damaged file
        raise UsageError(f"{path}: unreadable ({_line(error)})") from None


def read_state(path: Path, otherwise: str) -> dict[str, Any] | None:
    """The state, or None for a missing or damaged file.

    A damaged file causes a warning that ends with `otherwise`, which says what happens instead.
    """
    if not path.exists():
        return None
    try:
        return load_state(path)
    except UsageError as error:
        warnings.warn(f"{error}; {otherwise}", stacklevel=3)
        return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread in the block, for comparable times and reproducible sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
