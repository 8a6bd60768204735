"""Trained states on disk, each trained once however many processes ask for it."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

State = dict[str, Tensor]


def cache_folder() -> Path:
    """$GRADEST_CACHE, or gradest in the user's cache folder."""
    if named := os.environ.get("GRADEST_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradest"


def cached_state(name: str, identity: dict[str, Any], make: Callable[[], State]) -> State:
    """`make()`, or what it returned before for the same identity.

    A folder that cannot be written costs the cache, not the run.
    """
    text = json.dumps({**identity, "torch": torch.__version__}, sort_keys=True)
    path = cache_folder() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            state = _load(path)
            if state is None:
                state = make()
                _save(state, path)
            return state
    except OSError as error:
        warnings.warn(f"{path.parent}: {error}; the trained state is not kept", stacklevel=2)
        return make()


def _save(state: State, path: Path) -> None:
    partial = path.with_suffix(".partial")
    try:
        torch.save(state, partial)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(error) from error
    partial.replace(path)


def _load(path: Path) -> State | None:
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler fail in any way there is
        reason = " ".join(str(error).split())
        warnings.warn(f"{path}: unreadable ({reason}); training again", stacklevel=3)
        return None
