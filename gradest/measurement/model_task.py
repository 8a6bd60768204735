"""A user's own model and batch as a task, without a class for it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradest.contracts import Task
from gradest.costs import Cost, Problem
from gradest.errors import UsageError


def task_of(
    logits_fn: Callable[[Any], Tensor],
    cost_fn: Callable[[Tensor, Any], Tensor],
    batch: Any,
    *,
    name: str = "model",
) -> Task:
    """The task of a model at a batch, for `measure` and `compare`.

        logits = logits_fn(batch)    [B, N, K]
        cost = cost_fn(z, items)     [R, N, K] -> [R]

    `batch` is a tensor, or tuples, lists and dicts of tensors, with B data points on the first axis
    of each.  `items` are those of the rows of z: each data point is repeated, so that cost_fn is
    the code of a training step, without an axis of samples.  It has to be a function of z alone:
    call `model.eval()` where the model has dropout or batch norm.

    Raises UsageError for a logits_fn or a cost_fn that is not a function.
    """
    for argument, fn in (("logits_fn", logits_fn), ("cost_fn", cost_fn)):
        if not callable(fn):
            raise UsageError(f"{argument} = {fn!r:.60}; expected a function")
    return _ModelTask(logits_fn, cost_fn, batch, name)


class _ModelTask(Task):
    """The cost computes in the dtype of the logits, which is that of the model."""

    def __init__(
        self,
        logits_fn: Callable[..., Tensor],
        cost_fn: Callable[..., Tensor],
        batch: Any,
        name: str,
    ) -> None:
        self.name = name
        self._logits_fn, self._cost_fn, self._batch = logits_fn, cost_fn, batch

    def problem(self, batch: Any = None) -> Problem:
        batch = self._batch if batch is None else batch
        with torch.no_grad():
            logits = self._logits_fn(batch)
        dtype = logits.dtype if isinstance(logits, Tensor) and logits.is_floating_point() else None
        return Problem(logits, Cost(partial(self._cost, batch), dtype=dtype))

    def _cost(self, batch: Any, z: Tensor) -> Tensor:
        """[B, ..., N, K] -> [B, ...]."""
        rows = z.flatten(0, -3)  # [R, N, K]
        value = self._cost_fn(rows, _repeated(batch, len(rows) // len(z)))
        matches = isinstance(value, Tensor) and value.shape == rows.shape[:1]
        return value.view(z.shape[:-2]) if matches else value  # else the cost says what is wrong


def _repeated(batch: Any, times: int) -> Any:
    """Each data point `times` times, one after the other."""
    if isinstance(batch, Tensor):
        return batch.repeat_interleave(times, 0)
    if isinstance(batch, Mapping):
        return {key: _repeated(item, times) for key, item in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(_repeated(item, times) for item in batch)
    return batch
