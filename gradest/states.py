"""States of what is trained, in files that are whole or absent: tensors and plain data alone."""

import warnings
from pathlib import Path
from typing import Any

import torch

from gradest.errors import UsageError
from gradest.files import write_atomically


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Raises OSError, in one line, where that is not possible."""
    try:
        write_atomically(path, lambda partial: torch.save(state, partial))
    except (OSError, RuntimeError) as error:  # a full disk makes torch raise either
        raise OSError(f"{path}: cannot be written: {_line(error)}") from error


def load_state(path: Path) -> dict[str, Any]:
    """The state, on the CPU.  Raises UsageError, in one line, for a file that holds none."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file makes the unpickler fail in any way there is
        raise UsageError(f"{path}: unreadable ({_line(error)})") from None


def read_state(path: Path, otherwise: str) -> dict[str, Any] | None:
    """The state, or None where there is none; a damaged file is as good as none.

    `otherwise` ends the warning of a damaged one: what is done instead.
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
