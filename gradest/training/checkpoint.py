"""Checkpoints: whole files or none, tensors and plain data alone."""

import warnings
from pathlib import Path
from typing import Any

import torch

from gradest.files import write_atomically


def keep(path: Path, state: dict[str, Any]) -> None:
    """Write the state.  Raises OSError where that is not possible."""

    def write(partial: Path) -> None:
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(f"{path}: cannot be written: {error}") from error

    write_atomically(path, write)


def kept(path: Path) -> dict[str, Any] | None:
    """The state, on the CPU, or None where there is none; a damaged file is as good as none."""
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file makes the unpickler fail in any way there is
        reason = " ".join(str(error).split())
        warnings.warn(f"{path}: unreadable ({reason}); training from the start", stacklevel=2)
        return None
