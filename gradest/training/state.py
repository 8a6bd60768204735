"""The state of an estimator between two steps, as plain tensors that a checkpoint can hold."""

from collections.abc import Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from gradest.contracts import Estimator

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
