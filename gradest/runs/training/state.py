"""The networks that a training keeps, and the file that says how far it is."""

import time
from pathlib import Path

from torch import nn

from gradest.contracts import Model
from gradest.errors import UsageError
from gradest.support import load_state, write_atomically, write_state


def keep_networks(path: Path, networks: nn.Module) -> None:
    """Write the state of the networks, moved to the CPU.  Raises OSError, in one line."""
    write_state(path, {name: part.cpu() for name, part in networks.state_dict().items()})


def load_networks(model: Model, path: str | Path) -> nn.Module:
    """The model's trained networks in float64, for `problem_at` and `decode_images`.

    `model` has the knobs of the training.  Raises UsageError for a task that is not a Model, for a
    file without a state of networks, and for one of other networks.
    """
    if not isinstance(model, Model):
        raise UsageError(
            f"expected a Model, got {model!r}; create one with gradest.make_task(name)"
        )
    networks, state = model.networks(0), load_state(Path(path))
    try:
        networks.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{path}: expected networks of {model.name} with the knobs of the training, got "
            f"others: {reason}"
        ) from None
    return networks.double().requires_grad_(False)


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
