"""How far a training is, told in a small file to whoever looks at its folder."""

import time
from pathlib import Path

from gradest.files import write_atomically

_FILE = "headway"
_EVERY = 1.0  # seconds between two tellings


class ProgressFile:
    """Tells, at most once a second, which share of a training's steps is done."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._path, self._steps = folder / _FILE, steps
        self._told = -float("inf")

    def at(self, step: int) -> None:
        """Raises OSError where the file cannot be written."""
        now = time.monotonic()
        if now - self._told < _EVERY:
            return
        self._told = now
        share = f"{step / self._steps:.6f}"
        write_atomically(self._path, lambda partial: partial.write_text(share, encoding="utf-8"))


def training_progress(folder: Path) -> float:
    """The share of its steps that the training in a folder has done: 0 where there is none."""
    try:
        return float((folder / _FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return 0.0
