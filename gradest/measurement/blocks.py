"""A problem in several blocks of rows, each with logits, draws and a state of its own.

M copies of a problem of B data points are one problem of M · B data points, block after block, so
that one call of an estimator serves them all.  A block must not notice the others: its draws come
from a generator of its own, and its state is that of its rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.costs import Cost, Problem
from gradest.errors import ContractError
from gradest.knobs import build
from gradest.measurement.problem_checks import problem_of
from gradest.measurement.replicator import Replicator
from gradest.randomness import BlockDraws, drawing_from

_SEEDS = (1, 2, 3)  # of the blocks that are compared: three, since many sizes are even
_ROWS = 8  # replicates of each data point in the comparison


class BlockedTask(Task):
    """M blocks of the problem of a task: logits [M · B, N, K] and the cost for these rows."""

    def __init__(self, task: Task, blocks: int) -> None:
        self.name, self.relaxable, self.blocks = task.name, task.relaxable, blocks
        self.base = task

    def problem(self, batch: Any = None) -> Problem:
        """Raises UsageError where the task does not give a valid problem."""
        problem = problem_of(self.base)
        logits = problem.logits.repeat(self.blocks, 1, 1)
        return Problem(logits, _blocked(problem.f, self.blocks).replicated(None, logits))

    def penalty(self, logits: Tensor) -> Tensor:
        if type(self.base).penalty is Task.penalty:
            return super().penalty(logits)
        return torch.cat([self.base.penalty(part) for part in logits.chunk(self.blocks)])

    def expectation(self, logits: Tensor) -> Tensor | None:
        parts = [self.base.expectation(part) for part in logits.chunk(self.blocks)]
        return None if parts[0] is None else torch.cat(parts)


def _blocked(f: Cost, blocks: int) -> Cost:
    """The cost of M · B data points whose cost for each block of B is f."""

    def fn(z: Tensor, *module: Any) -> Any:  # [M · B, ..., N, K]
        own = z.unflatten(0, (blocks, -1)).transpose(0, 1).contiguous()  # [B, M, ..., N, K]
        value = f.fn(own, *module)
        if f.deep and isinstance(value, Problem):
            return Problem(_rows(value.logits, own), _blocked(value.f, blocks))
        return _rows(value, own)

    prior = f.prior
    if prior is not None and prior.ndim == 3 and len(prior) > 1:  # one for each data point
        prior = prior.repeat(blocks, 1, 1)
    return f.changed(fn, prior=prior)


def _rows(value: Any, z: Tensor) -> Any:
    """[B, M, ...] -> [M · B, ...]; anything else as it is, about which the cost raises an error."""
    if not isinstance(value, Tensor) or value.shape[:2] != z.shape[:2]:
        return value
    return value.transpose(0, 1).flatten(0, 1)


def stackable(estimator: Estimator) -> bool:
    """Whether one instance serves several blocks: it has no state, or holds several."""
    cls = type(estimator)
    stateless = cls.reset is Estimator.reset and cls.adapt is Estimator.adapt
    return cls.stackable or stateless


def block_gap(estimator: Estimator, task: Task, steps: int) -> float:
    """The largest relative difference between blocks that are estimated together and one by one.

    After `steps` of adaptation.  It is rounding for an estimator whose blocks do not notice each
    other, and infinite for one that does not draw for every row.
    """
    try:
        together = _estimates(estimator, task, _SEEDS, steps)
        alone = torch.cat([_estimates(estimator, task, [seed], steps) for seed in _SEEDS])
    except ContractError:
        return torch.inf
    size = torch.maximum(together.abs().max(), alone.abs().max())
    gap = (together - alone).abs().max()
    return float(gap / size) if gap != 0 else 0.0


def _estimates(estimator: Estimator, task: Task, seeds: Sequence[int], steps: int) -> Tensor:
    """Gradients and values of a new instance, a block for each seed: [M · B, rows, N · K + 1]."""
    own = build(type(estimator), estimator.knobs)
    if len(seeds) > 1 and type(own).stackable:
        own.blocks = len(seeds)
    with drawing_from(BlockDraws(seeds)):
        replicator = Replicator(own, BlockedTask(task, len(seeds)))
        replicator.adapt(steps)
        gradient, value = replicator.each(_ROWS)
    return torch.cat([gradient, value.unsqueeze(-1)], -1)
