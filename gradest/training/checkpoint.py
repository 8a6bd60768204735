"""Checkpoints: whole files or none, tensors and plain data alone."""

import warnings
from pathlib import Path
from typing import Any

import torch

from gradest.files import write_atomically


def keep(path: Path, state: dict[str, Any]) -> None:
    """Write the state.  Raises OSError, in one line, where that is not possible."""
    try:
        write_atomically(path, lambda partial: torch.save(state, partial))
    except (OSError, RuntimeError) as error:  # a full disk makes torch raise either
        raise OSError(f"{path}: cannot be written: {_line(error)}") from error


def kept(path: Path) -> dict[str, Any] | None:
    """The state, on the CPU, or None where there is none; a damaged file is as good as none."""
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file makes the unpickler fail in any way there is
        warnings.warn(f"{path}: unreadable ({_line(error)}); training from the start", stacklevel=2)
        return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
