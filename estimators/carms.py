"""CARMS: ARMS for categories, each pair of samples weighed by its surprise.

    ĝ = 1/(n(n − 1)) Σ_{i<j} r_ij (f(z_i) − f(z_j)) (z_i − z_j)
    r_ij = π(z_i) π(z_j) / P(z_i, z_j)

with r latent by latent, and P the law of a pair of samples.  This is CARMS-I: in each latent the n
samples invert one cumulative distribution at the uniforms of a Dirichlet copula, with the
categories in a random order.  The order is one of K(K − 1)/2, uniformly: as in the authors' code
one for each pair of categories that can be the two ends, the others in cyclic sequence between
them.  P is the exact average over the orders.  Unbiased for every f, of which it needs values
alone, since the ends of an order can always meet, so that P(a, b) > 0 for all a ≠ b; with one fixed
order some pairs never meet, and ĝ is biased.  K = n = 2 is DisARM.  Cost: n evaluations of f, and
time that grows as K³.

Dimitriev & Zhou, "CARMS: Categorical-antithetic-REINFORCE multi-sample gradient estimator", 2021,
arXiv 2110.14002.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, one_hot, softmax
from gradest.knobs import AtLeast2
from gradest.randomness import draws

from ._dirichlet_copula import copula_uniforms, pair_cdf


@dataclass(eq=False)
class CARMS(Estimator):
    laws: ClassVar[frozenset[str]] = LAWS - {"labels"}
    evaluations: ClassVar[str] = "samples"
    samples: AtLeast2 = 4

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        pi = softmax(logits.detach().double())  # [R, N, K]
        orders = _orders(logits.shape[-1], logits.device)  # [M, K]
        index = self._sampled(pi, orders)  # [R, S, N]
        z = one_hot(index, logits)  # [R, S, N, K]
        cost = f(z)  # [R, S]
        difference = cost.unsqueeze(2) - cost.unsqueeze(1)  # [R, S, S]
        weight = difference.unsqueeze(-1) * self._surprise(pi, orders, index).to(logits)
        # Σ_{i<j} over (z_i − z_j) is Σ_{i≠j} over z_i alone, r_ij and the difference being what
        # they are under an exchange of i and j.
        weight = weight.sum(2) / (self.samples * (self.samples - 1))  # [R, S, N]
        g = (weight.unsqueeze(-1) * z).sum(1)  # [R, N, K]
        return cost.mean(1) + (g * nabla(logits)).sum((-2, -1))  # [R]

    def _sampled(self, pi: Tensor, orders: Tensor) -> Tensor:
        """n categories for each latent, by inversion in one of the orders: [R, S, N]."""
        rows, latents, _ = pi.shape
        drawn = draws().categories(pi.new_zeros(rows, latents, len(orders)), 1).squeeze(1)
        order = orders[drawn]  # [R, N, K]
        cdf = pi.gather(-1, order).cumsum(-1)
        u = copula_uniforms((rows, self.samples, latents), pi)  # [R, S, N]
        level = (u.movedim(1, -1) * cdf[..., -1:]).contiguous()  # [R, N, S]
        # right=True steps over categories of probability zero; u = 1 stays within the last.
        place = torch.searchsorted(cdf, level, right=True)
        return order.gather(-1, place.clamp(max=pi.shape[-1] - 1)).movedim(-1, 1)

    def _surprise(self, pi: Tensor, orders: Tensor, index: Tensor) -> Tensor:
        """r_ij for samples of different categories, elsewhere 0: [R, S, S, N]."""
        chosen = pi.unsqueeze(1).expand(*index.shape, -1)
        chosen = chosen.gather(-1, index.unsqueeze(-1)).squeeze(-1)  # π(z_i), [R, S, N]
        law = 0.0
        for order in orders:
            rank = order.argsort()  # [K]
            before = (rank.unsqueeze(1) < rank).to(pi)  # [K, K]
            start = (pi @ before).unsqueeze(1).expand(-1, index.shape[1], -1, -1)
            start = start.gather(-1, index.unsqueeze(-1)).squeeze(-1)  # [R, S, N]
            law = law + self._rectangle(start, start + chosen)
        law = law / len(orders)  # P(z_i, z_j), [R, S, S, N]
        differ = index.unsqueeze(2) != index.unsqueeze(1)
        # A pair that has met has P > 0; only rounding of a mass below 10⁻¹⁶ says otherwise.
        ratio = chosen.unsqueeze(2) * chosen.unsqueeze(1) / law
        return torch.where(differ & (law > 0), ratio, 0.0)

    def _rectangle(self, low: Tensor, high: Tensor) -> Tensor:
        """P(low_i ≤ U_i < high_i, low_j ≤ U_j < high_j) for all i and j: [R, S, S, N]."""

        def cdf(u: Tensor, v: Tensor) -> Tensor:
            return pair_cdf(u.unsqueeze(2), v.unsqueeze(1), self.samples)

        return cdf(high, high) - cdf(low, high) - cdf(high, low) + cdf(low, low)


def _orders(categories: int, device: torch.device) -> Tensor:
    """For a < b the order a, …, b with the others in cyclic sequence from b on: [M, K]."""
    orders = []
    for a in range(categories):
        for b in range(a + 1, categories):
            after = [(b + step) % categories for step in range(1, categories)]
            orders.append([a, *(k for k in after if k != a), b])
    return torch.tensor(orders, device=device)
