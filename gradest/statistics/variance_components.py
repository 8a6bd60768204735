"""Variance components of a stochastic gradient: draws, minibatches, snapshots, seeds.

The gradients of one network's parameters φ are measured at every combination of nested factors,
such as minibatch within snapshot within seed, called levels here.  With the mean gradient m of
each, [P], and n_l values of level l in each of those above, the mean squares

    MS_l = Π_{k>l} n_k Σ ‖m_l − m_{l−1}‖² / degrees of freedom,    m_{l−1} = mean of m_l over l

have the expectations E MS_l = E MS_{l+1} + σ_l² Π_{k>l} n_k, where the term below the innermost
level is the noise of m itself, tr Cov(ĝ)/R.  Solved from the innermost out they give unbiased
estimates of the σ_l², which may be negative where σ_l² is zero.  The components add up to the
variance of an estimate at random values of all levels.

Searle, Casella & McCulloch, "Variance components", 1992.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.statistics import CONFIDENCE, Interval
from gradest.statistics.distributions import t_ppf

DRAWS = "draws"


class Component(NamedTuple):
    """A variance component, with an interval over the values of the outermost level."""

    name: str
    variance: Interval


def estimate_components(
    levels: Sequence[str], means: Tensor, variance: Tensor, noise: Tensor
) -> list[Component]:
    """The variance components, innermost first: draws, then each level from the last to the first.

    `means` is [n₁, ..., n_L, P], the variance of one estimate and the noise of its mean are
    [n₁, ..., n_L].  Values of the outermost level are independent, so each interval is Student's
    over them, by the jackknife where a component compares them with each other.  It covers other
    values of that level, such as other seeds.

    Raises ValueError for a level with a single value, or an outermost one with two.
    """
    n = len(means)
    if min(means.shape[:-1]) < 2 or n < 3:
        raise ValueError(
            "expected at least three values of the outermost level and two of each other level, "
            f"got {list(means.shape[:-1])}"
        )
    whole = _components(means, variance, noise)
    left_out = [_components(*(_without(x, i) for x in (means, variance, noise))) for i in range(n)]
    # Where a component is an average over the values this is Student's interval.
    pseudo = n * whole - (n - 1) * torch.stack(left_out)  # [n₁, 1 + L]
    error = pseudo.std(0) / n**0.5
    half = t_ppf((1 + CONFIDENCE) / 2, n - 1) * error
    return [
        Component(name, Interval(v, v - h, v + h, e))
        for name, v, h, e in zip(
            [DRAWS, *reversed(levels)], *(x.tolist() for x in (whole, half, error)), strict=True
        )
    ]


def _components(means: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """The components of the draws, then of each level from the innermost out: [1 + L]."""
    components, below, inside = [variance.mean()], noise.mean(), 1
    while means.ndim > 1:
        size = means.shape[-2]
        centre = means.mean(-2)
        spread = (means - centre.unsqueeze(-2)).square().sum(-1)  # [n₁, ..., n_l]
        mean_square = inside * spread.sum(-1).mean() / (size - 1)
        components.append((mean_square - below) / inside)
        means, below, inside = centre, mean_square, inside * size
    return torch.stack(components)


def _without(x: Tensor, i: int) -> Tensor:
    return torch.cat([x[:i], x[i + 1 :]])
