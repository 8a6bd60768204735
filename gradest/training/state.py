"""The state of an estimator between two steps, as plain tensors that a checkpoint can hold."""

from collections.abc import Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from gradest.contracts import Estimator

_Stateful = (torch.optim.Optimizer, nn.Module)


def state_of(estimator: Estimator) -> dict[str, Any]:
    """What reset and adapt have made: tensors, optimisers, modules, numbers, and what holds them.

    Raises TypeError for anything else, which could not be restored.
    """
    return {
        name: _plain(value, f"{estimator.name}.{name}")
        for name, value in vars(estimator).items()
        if name not in estimator.knobs
    }


def restore(estimator: Estimator, state: Mapping[str, Any], device: str | torch.device) -> None:
    """Put the state into an estimator that was reset for the same problem.

    In place: optimisers hold on to the tensors that they step.
    """
    for name, value in state.items():
        setattr(estimator, name, _filled(getattr(estimator, name), value, device))


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
    raise TypeError(f"{name} is a {type(value).__name__}, which no checkpoint can keep")


@torch.no_grad()
def _filled(own: Any, kept: Any, device: str | torch.device) -> Any:
    if isinstance(own, _Stateful):
        own.load_state_dict(kept)
    elif isinstance(own, Tensor):
        own.copy_(kept)
    elif isinstance(own, list | tuple):
        return type(own)(_filled(mine, item, device) for mine, item in zip(own, kept, strict=True))
    elif isinstance(kept, dict):
        for key, item in kept.items():
            setattr(own, key, _filled(getattr(own, key), item, device))
    else:
        return kept.to(device) if isinstance(kept, Tensor) else kept
    return own
