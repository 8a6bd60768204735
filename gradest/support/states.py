"""States of estimators and trainings as tensors and plain data, and files that hold them."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from gradest.errors import UsageError
from gradest.support.files import write_atomically


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state.  Raises OSError with a message in one line if that fails."""
    try:
        write_atomically(path, lambda partial: torch.save(state, partial))
    except (OSError, RuntimeError) as error:  # torch raises either on a full disk
        raise OSError(f"{path}: cannot be written: {_line(error)}") from error


def load_state(path: Path) -> dict[str, Any]:
    """The state, on the CPU.  Raises UsageError if the file contains none."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler may raise any error for a damaged file
        raise UsageError(f"{path}: unreadable ({_line(error)})") from None


def read_state(path: Path, otherwise: str) -> dict[str, Any] | None:
    """The state, or None for a missing or damaged file.

    A damaged file causes a warning that ends with `otherwise`, which says what happens instead.
    """
    if not path.exists():
        return None
    try:
        return load_state(path)
    except UsageError as error:
        warnings.warn(f"{error}; {otherwise}", stacklevel=3)
        return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread in the block, for comparable times and reproducible sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_Stateful = (torch.optim.Optimizer, nn.Module)


def state_of(estimator: Any) -> dict[str, Any]:
    """The state that reset and adapt have built: tensors, optimisers, modules, numbers, containers.

    As plain tensors and data, which a checkpoint can hold.  Raises TypeError for other objects,
    which could not be restored.
    """
    return {
        name: _plain(value, f"{estimator.name}.{name}")
        for name, value in vars(estimator).items()
        if name not in estimator.knobs
    }


def restore(estimator: Any, state: Mapping[str, Any], device: str | torch.device) -> None:
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
        own.load_state_dict(copy.deepcopy(stored))  # an optimiser would share the number of steps
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


@torch.no_grad()
def convert(estimator: Any, fn: Callable[[Tensor], Tensor]) -> None:
    """Apply fn, such as a move to another device, to all tensors of the state, in place."""
    converted: set[int] = set()  # a tensor may be an attribute and a parameter of an optimiser

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) not in converted:
                converted.add(id(value))
                value.data, value.grad = fn(value.data), None
        elif isinstance(value, nn.Module):
            value._apply(fn)
        elif isinstance(value, torch.optim.Optimizer):
            for state in value.state.values():
                for name, item in state.items():
                    if name != "step":  # the number of steps stays what it is, on the CPU
                        visit(item)
        elif isinstance(value, Mapping):
            for item in value.values():
                visit(item)
        elif isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif hasattr(value, "__dict__") and not isinstance(value, type | FunctionType):
            visit(vars(value))

    visit({name: x for name, x in vars(estimator).items() if name not in estimator.knobs})
