"""A check that the rows of an estimator do not depend on each other: each row is a replicate."""

import copy
from typing import Any

import torch
from torch import Tensor

from gradest.errors import ContractError
from gradest.measurement.replicator import Replicator
from gradest.randomness import Draws, drawing_from, isolated_global_randomness

_ROWS = 4
_UNITS = 2**16  # of rounding, relative to the largest; sums in another order differ by far less


def check_row_independence(replicator: Replicator) -> None:
    """Raise ContractError where the estimate of a row changes with the cost of another row.

    The draws stay the same while the cost of the first row of each data point changes; a baseline
    that averages over a call then changes all rows.  An enumeration, whose rows are outcomes, would
    give such an estimator another batch than it has in use.
    """
    if replicator.problem.f.deep:
        return
    first, other = (_estimates(replicator, factor)[:, 1:] for factor in (1.0, -2.0))
    # An estimator that learns in its calls differs from itself too, which is another fault.
    if _differ(first, other) and not _differ(first, _estimates(replicator, 1.0)[:, 1:]):
        raise ContractError(
            f"{replicator.estimator.name}: rows depend on each other (check 'rows'): the estimate "
            "of a row changes with the cost of another row; compute every row by itself, without "
            "means over the call"
        )


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether they differ by more than rounding; never where there is a NaN."""
    size = torch.maximum(a.abs(), b.abs()).max()
    return bool((a - b).abs().max() > _UNITS * torch.finfo(a.dtype).eps * size)


def _estimates(replicator: Replicator, factor: float) -> Tensor:
    """Estimates [B, R, N · K] with one seed, the cost of each point's first row times `factor`."""
    f = replicator.problem.f

    def fn(z: Tensor, *module: Any) -> Tensor:
        value = f.fn(z, *module)  # [B, R, ...]
        factors = torch.ones_like(value)
        factors[:, 0] = factor
        return value * factors

    other = copy.copy(replicator)
    other.problem = replicator.problem._replace(f=f.changed(fn))
    source = Draws.seeded(0, replicator.logits.device)
    with isolated_global_randomness(0), drawing_from(source):
        return other.each(_ROWS)[0]
