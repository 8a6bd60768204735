"""The progress of a training, in a small file that other processes read."""

import time
from pathlib import Path

from gradest.files import write_atomically

_FILE = "headway"
_EVERY = 1.0  # seconds between two updates


class ProgressFile:
    """A file with the share of a training's steps that is done, updated at most once a second."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._path, self._steps = folder / _FILE, steps
        self._written = -float("inf")

    def write(self, step: int) -> None:
        """Write the share, if it is due.  Raises OSError where the file cannot be written."""
        now = time.monotonic()
        if now - self._written < _EVERY:
            return
        self._written = now
        share = f"{step / self._steps:.6f}"
        write_atomically(self._path, lambda partial: partial.write_text(share, encoding="utf-8"))


def training_progress(folder: Path) -> float:
    """The share of steps that the training in a folder has done; 0 where there is none."""
    try:
        return float((folder / _FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return 0.0
