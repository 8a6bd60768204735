"""Integrals over the simplex of two or three categories, with their errors."""

import itertools
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

HOW = "quadrature"

# From t = 10⁻¹¹, so that the part left out is of that size, to t = 75, where densities that decay
# as e^−t are smaller by 10⁻³².
_FIRST, _LAST, _STEP = -3.2, 4.4, 0.05
# Of a sum, relative: its terms are exponentials of numbers of up to 10³, rounded at 10⁻¹⁶.
_ROUNDING = 1e-12


class Rule(NamedTuple):
    """Points and weights: ∫ F(x) dx over K − 1 coordinates ≈ Σ exp(log_weight) F(exp(log_x)).

    The simplex is cut by the largest coordinate, j.  In each part the log-ratios yₖ − y_j = −t/λ
    run over the orthant t > 0, with dx = Πₖ xₖ d(log-ratios).  t = exp(u − exp(−u)) turns any
    integrand that is smooth in each part and decays in t into one whose trapezoidal sum converges
    exponentially: a double-exponential rule.

    Takahasi & Mori, "Double exponential formulas for numerical integration", 1974.
    """

    log_x: Tensor  # [M, K]
    log_weight: Tensor  # [M]
    coarse: Tensor  # [M]: the points of the rule of twice the step

    def integral(self, log_density: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """∫ p(x) values dx, and a bound on its error: [M] and [M, ...] -> [...].

        The bound is the difference from the rule with half the points, whose error is larger by
        orders of magnitude.
        """
        terms = (self.log_weight + log_density).exp()
        terms = terms if values is None else (values.movedim(0, -1) * terms).movedim(-1, 0)
        fine = terms.sum(0)
        coarse = terms[self.coarse].sum(0) * 2 ** (self.log_x.shape[-1] - 1)
        return fine, (fine - coarse).detach().abs() + _ROUNDING * terms.detach().abs().sum(0)

    def where(self, category: int) -> "Rule":
        """The part of the rule in which this category has the largest coordinate."""
        part = self.log_x.argmax(-1) == category
        return Rule(*(each[part] for each in self))


@lru_cache(16)
def rule(categories: int, temperature: float) -> Rule:
    """The rule for densities whose logarithm varies in λ log x over distances of one.

    Raises ValueError for more than three categories: there are 150^(K − 1) points for each of K
    parts.
    """
    if categories > 3:
        raise ValueError(f"expected at most 3 categories for quadrature, got {categories}")
    u = torch.arange(_FIRST, _LAST, _STEP, dtype=torch.float64)
    log_t = u - (-u).exp()
    log_step = log_t + (-u).exp().log1p() + torch.log(u.new_tensor(_STEP / temperature))
    even = torch.arange(len(u)) % 2 == 0
    free = categories - 1
    t = _product(log_t.exp(), free)  # [P, K − 1]
    log_step, even = _product(log_step, free).sum(-1), _product(even, free).all(-1)  # [P]
    ratios = torch.cat([torch.zeros(len(t), 1, dtype=t.dtype), -t / temperature], -1)
    log_x = ratios.log_softmax(-1)  # [P, K], the largest first
    parts = [torch.cat([log_x[:, 1 : k + 1], log_x[:, :1], log_x[:, k + 1 :]], -1)
             for k in range(categories)]  # fmt: skip
    log_x = torch.cat(parts)  # [M, K]
    return Rule(log_x, log_step.repeat(categories) + log_x.sum(-1), even.repeat(categories))


def _product(x: Tensor, times: int) -> Tensor:
    """All tuples of entries: [P] -> [P^times, times]."""
    if times == 1:
        return x.unsqueeze(-1)
    return torch.cartesian_prod(*itertools.repeat(x, times))
