"""Whether rows keep to themselves: each is a replicate, and an enumerated outcome."""

import copy
from typing import Any

import torch
from torch import Tensor

from gradest.errors import ContractError
from gradest.measuring.replicator import Replicator
from gradest.randomness import Draws, drawing_from, global_randomness_kept

_ROWS = 4
_UNITS = 2**16  # of rounding, relative to the largest, that sums in another order stay well below


def refuse_talking_rows(replicator: Replicator) -> None:
    """Raises ContractError where the estimate of a row changes with the cost of another one.

    Under the same draws the cost of the first row of each data point is another one; a baseline
    that is the mean over a call shows it in all rows.  An enumeration would take its outcomes for
    the other samples of such a batch.
    """
    if replicator.problem.f.deep:
        return
    first, other = (_estimates(replicator, factor)[:, 1:] for factor in (1.0, -2.0))
    # An estimator that learns in its calls differs from itself as well, which is another matter.
    if _differ(first, other) and not _differ(first, _estimates(replicator, 1.0)[:, 1:]):
        raise ContractError(
            f"{replicator.estimator.name}: rows talk (law 'rows'): the estimate of a row changes "
            "with the cost of another one; every row is a replicate, without means over the call"
        )


def _differ(a: Tensor, b: Tensor) -> bool:
    """By more than rounding; never where there is a NaN."""
    size = torch.maximum(a.abs(), b.abs()).max()
    return bool((a - b).abs().max() > _UNITS * torch.finfo(a.dtype).eps * size)


def _estimates(replicator: Replicator, factor: float) -> Tensor:
    """[B, R, N · K] under one seed, the cost of each data point's first row times `factor`."""
    f = replicator.problem.f

    def fn(z: Tensor, *module: Any) -> Tensor:
        value = f.fn(z, *module)  # [B, R, ...]
        factors = torch.ones_like(value)
        factors[:, 0] = factor
        return value * factors

    other = copy.copy(replicator)
    other.problem = replicator.problem._replace(f=f.changed(fn))
    source = Draws.seeded(0, replicator.logits.device)
    with global_randomness_kept(0), drawing_from(source):
        return other.each(_ROWS)[0]
