"""A test for noise that is shared by estimates which should be independent.

x[m, r] is one number of the estimate of row r in call m.  For calls m, m' and rows r, r' let

    a = x[m, r] − x[m', r],    b = x[m, r'] − x[m', r']

Calls are exchangeable, so that a and b are symmetric about zero, and rows with noise of their own
make them independent: a b > 0 then holds for half of the pairs without a zero, whatever the
distribution of the estimates.  Pairs of disjoint rows and calls are independent, so the count is
binomial: the test is exact.  With rows and calls exchanged, it is a test of whether calls repeat
each other's noise.
"""

import math
from typing import NamedTuple

import scipy
import torch
from torch import Tensor

from gradest.checks.result import EQUAL

_FALSE_ALARM = 1e-10  # of one test of all columns and all ways to pair the rows


class Agreement(NamedTuple):
    """The share of comparisons in which two rows change in the same direction."""

    share: float
    comparisons: int
    p_value: float  # corrected for the number of tests

    @property
    def by_chance(self) -> bool:
        return self.p_value >= _FALSE_ALARM


def agreement(x: Tensor) -> Agreement:
    """The most significant agreement over columns and pairings of rows: x is [M, R, D], M even.

    Rows are paired at the distances 1, 2, 4, ...: noise may be shared by neighbours, by blocks, by
    halves, or by all.
    """
    columns = torch.cat([x, x[..., :-1].norm(dim=-1, keepdim=True)], -1)  # signs may differ
    difference = columns[0::2] - columns[1::2]
    noise = difference.abs() > EQUAL * columns.abs().amax((0, 1))
    sign = torch.where(noise, difference.sign(), 0.0)  # [M / 2, R, D + 1]
    counts = []
    distance = 1
    while 2 * distance <= sign.shape[1]:
        whole = sign.shape[1] // (2 * distance) * 2 * distance
        pairs = sign[:, :whole].unflatten(1, (-1, 2, distance))
        both = (pairs[:, :, 0] * pairs[:, :, 1]).flatten(0, 2)  # [pairs, D + 1]
        counts.append(torch.stack([(both > 0).sum(0), (both != 0).sum(0)]))
        distance *= 2
    agree, compared = torch.stack(counts, 1).flatten(1).numpy()
    p_values = 2 * scipy.stats.binom.sf(agree.clip(compared - agree) - 1, compared, 0.5)
    i = int(p_values.argmin())
    share = float(agree[i] / max(compared[i], 1))
    return Agreement(share, int(compared[i]), min(1.0, float(p_values[i]) * len(p_values)))


def excess(x: Tensor) -> float:
    """The largest ratio of the variance of means of x [M, R, D] to that of independent rows.

    It is one on average where rows are uncorrelated, and outliers enter both variances equally.
    """
    between = x.mean(1).var(0) * x.shape[1]  # [D]
    within = x.var(1).mean(0)
    rounding = (EQUAL * x.abs().amax((0, 1))).square()
    ratio = between / torch.maximum(within, rounding.clamp(min=torch.finfo(x.dtype).tiny))
    return float(torch.where(between > x.shape[1] * rounding, ratio, 0.0).max())


def excessive(ratio: float, calls: int) -> bool:
    """Whether the ratio for means over so many calls is larger than chance explains, or NaN.

    k outliers that outweigh all other rows give a ratio of k if they fall into one call, which
    happens with a probability of M^(1 − k) for M calls; without outliers ratios are far smaller.
    """
    return not ratio <= 1 + math.log(_FALSE_ALARM) / -math.log(calls)
