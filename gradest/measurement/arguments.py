"""Checks of the arguments of `measure`, `compare` and `measure_reference`."""

from collections.abc import Sequence
from typing import Any

import torch

from gradest.contracts import Estimator, Task
from gradest.errors import UsageError
from gradest.knobs import check_knobs
from gradest.statistics import FEWEST
from gradest.support import DEVICES, DTYPES, MOST_REPLICATES, MOST_STEPS, SEEDS, shortened

_DTYPES = tuple(getattr(torch, name) for name in DTYPES)


def check_arguments(
    estimators: Sequence[Any],
    task: Any,
    *,
    replicates: Any = FEWEST,
    seed: Any,
    device: Any,
    adapt_steps: Any = None,
    enumerate_draws: Any = None,
    tolerant: Any = False,
    dtype: Any = torch.float64,
) -> None:
    """Raise UsageError, in one line, for the first argument that cannot be used."""
    for estimator in estimators:
        _check_instance(estimator, Estimator, "estimator")
    _check_instance(task, Task, "task")
    _check_whole("replicates", replicates)
    if replicates < FEWEST:
        raise UsageError(
            f"replicates = {shortened(replicates)}; expected at least {FEWEST}, which "
            "intervals need"
        )
    _check_most("replicates", replicates, MOST_REPLICATES)
    check_seed(seed)
    if adapt_steps is not None:
        _check_whole("adapt_steps", adapt_steps)
        if adapt_steps < 0:
            raise UsageError(
                f"adapt_steps = {shortened(adapt_steps)}; expected None or a whole number, 0 or "
                "larger"
            )
        _check_most("adapt_steps", adapt_steps, MOST_STEPS)
    for name, value, choices in (
        ("enumerate_draws", enumerate_draws, (True, False, None)),
        ("tolerant", tolerant, (True, False)),
    ):
        if not any(value is choice for choice in choices):
            raise UsageError(
                f"{name} = {shortened(value)}; expected {' or '.join(map(str, choices))}"
            )
    if not any(dtype is choice for choice in _DTYPES):
        choices = ", ".join(map(str, _DTYPES))
        raise UsageError(f"dtype = {shortened(dtype)}; expected one of {choices}")
    check_device(device)


def check_seed(seed: Any) -> None:
    """Raise UsageError unless the seed is a whole number from 0 to 2⁶³ − 1."""
    _check_whole("seed", seed)
    if not 0 <= seed < SEEDS:
        raise UsageError(f"seed = {shortened(seed)}; expected a whole number from 0 to 2**63 - 1")


def check_device(device: Any) -> None:
    """Raise UsageError for a device that torch does not know, or that this machine lacks."""
    if not isinstance(device, str | torch.device):
        raise UsageError(f"device = {shortened(device)}; expected a torch.device or its name")
    try:
        if torch.empty(0, device=device).device.type not in DEVICES:
            raise NotImplementedError(f"expected {' or '.join(DEVICES)}")
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"device = {shortened(device)} cannot be used: {reason}") from None


def _check_instance(value: Any, kind: type, name: str) -> None:
    if isinstance(value, kind):
        check_knobs(value)
        return
    if isinstance(value, type) and issubclass(value, kind):
        got = f"the class {value.__name__}; create an instance with {value.__name__}()"
    else:
        got = f"{shortened(value)}; create one with gradest.make_{name}(name)"
    raise UsageError(f"expected {'an' if name[0] in 'aeiou' else 'a'} {kind.__name__}, got {got}")


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{name} = {shortened(value)}; expected a whole number")


def _check_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise UsageError(f"{name} = {shortened(value)}; expected at most {most:,}")
