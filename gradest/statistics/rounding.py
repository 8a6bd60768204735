"""The deviations of a mean that are due to rounding.

A sum of products f · ∇ log p has the rounding of its terms, however small the sum is: near a
stationary point, or with a constant added to f, the terms are far larger than the gradient.  So the
allowance counts the size of the estimates and the size of the costs besides that of the gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gradest.statistics.moments import Moments

# Relative to the gradient: code that computes in single precision, or guards a logarithm with a
# small constant, is off by less.  The margin of `unbiased` is 20,000 times as large.
SINGLE = 2.0**-20


class Arithmetic(NamedTuple):
    """The arithmetic of a measurement: its resolution and the size of the costs."""

    resolution: float  # relative rounding of sums in the dtype
    cost: float = 0.0  # the size |f| of the costs that were summed
    negligible: float = 0.0  # a ‖weight · g‖ up to this is zero up to rounding

    def allowance(self, moments: Moments, exact: Tensor) -> float:
        """The largest deviation of a coordinate's mean that does not show a bias.

            ε (√max E ĝ_d² + max |g_d| + |f|) + 2⁻²⁰ max |g_d|

        The last term is for means without noise, in which the rounding of single precision shows.
        `moments` and `exact` are with respect to log α.
        """
        allowance = self.of_dtype(moments, exact)
        without_noise = float(moments.count.sum()) == 1 or not moments.pooled.m2.any()
        return allowance + (SINGLE * float(exact.abs().max()) if without_noise else 0.0)

    def of_dtype(self, moments: Moments, exact: Tensor) -> float:
        """The part of the allowance for the dtype, without the one for single precision."""
        size = float(moments.mean_square.max().sqrt()) + float(exact.abs().max()) + self.cost
        return self.resolution * size


# Units in the last place that accumulate in sums over all outcomes and over replicates.
UNITS = 1024


def resolution(dtype: torch.dtype) -> float:
    """The size of rounding errors of sums in a dtype, relative to the size of the terms."""
    return UNITS * torch.finfo(dtype).eps
