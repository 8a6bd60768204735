"""The state of an estimator between two steps, as plain tensors that a checkpoint can hold."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from gradest.contracts import Estimator, Model
from gradest.errors import UsageError
from gradest.support import load_state, write_atomically, write_state

_Stateful = (torch.optim.Optimizer, nn.Module)


def state_of(estimator: Estimator) -> dict[str, Any]:
    """The state that reset and adapt have built: tensors, optimisers, modules, numbers, containers.

    Raises TypeError for other objects, which could not be restored.
    """
    return {
        name: _plain(value, f"{estimator.name}.{name}")
        for name, value in vars(estimator).items()
        if name not in estimator.knobs
    }


def restore(estimator: Estimator, state: Mapping[str, Any], device: str | torch.device) -> None:
    """Load the state into an estimator that was reset for the same problem.

    In place, since optimisers hold references to the tensors that they update.
    """
    for name, value in state.items():
        setattr(estimator, name, _load(getattr(estimator, name), value, device))


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, _Stateful):
        return value.state_dict()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}[{number}]") for number, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__dict__") and not isinstance(value, type | FunctionType):
        return {key: _plain(item, f"{name}.{key}") for key, item in vars(value).items()}
    raise TypeError(
        f"expected {name} to hold tensors, optimisers, modules, numbers or containers of them, got "
        f"{type(value).__name__}, which a checkpoint cannot store"
    )


@torch.no_grad()
def _load(own: Any, stored: Any, device: str | torch.device) -> Any:
    if isinstance(own, _Stateful):
        own.load_state_dict(stored)
    elif isinstance(own, Tensor):
        own.copy_(stored)
    elif isinstance(own, list | tuple):
        return type(own)(_load(mine, item, device) for mine, item in zip(own, stored, strict=True))
    elif isinstance(stored, dict):
        for key, item in stored.items():
            setattr(own, key, _load(getattr(own, key), item, device))
    else:
        return stored.to(device) if isinstance(stored, Tensor) else stored
    return own


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
