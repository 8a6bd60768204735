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

from gradest.support import read_state, write_state

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
            state = read_state(path, "training again")
            if state is None:
                state = make()
                write_state(path, state)
            return state
    except OSError as error:
        warnings.warn(f"{error}; the trained state is not cached", stacklevel=2)
        return make()
