"""CARMS: ARMS for categories, with an importance weight for each pair of samples.

    ĝ = 1/(n(n − 1)) Σ_{i<j} r_ij (f(z_i) − f(z_j)) (z_i − z_j)
    r_ij = π(z_i) π(z_j) / P(z_i, z_j)

with r for each latent, and P the distribution of a pair of samples.  This is CARMS-I: in each
latent the n samples invert one cumulative distribution at the uniforms of a Dirichlet copula, with
the categories in a random order.  The order is one of K(K − 1)/2, uniformly: as in the authors'
code one for each pair of categories that can be the two ends, the others in cyclic sequence between
them.  P is the exact average over the orders.  Unbiased for every f, of which it needs values
alone, since the ends of an order can always meet, so that P(a, b) > 0 for all a ≠ b; with one fixed
order some pairs never meet, and ĝ is biased.  K = n = 2 is DisARM.  Cost: n evaluations of f, and
time that grows as K³.

Dimitriev & Zhou, "CARMS: Categorical-antithetic-REINFORCE multi-sample gradient estimator", 2021,
arXiv 2110.14002.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, one_hot, softmax
from gradest.knobs import AtLeast2
from gradest.randomness import draws

from ._dirichlet_copula import copula_uniforms, pair_cdf, roots


@dataclass(eq=False)
class CARMS(Estimator):
    laws = LAWS - {"labels"}
    evaluations = "samples"
    slow = "averages the distribution of each pair over K (K − 1)/2 orders"
    samples: AtLeast2 = 4

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        pi = softmax(logits.detach().double())  # [R, N, K]
        orders = _orders(logits.shape[-1], logits.device)  # [M, K]
        index = self._sampled(pi, orders)  # [R, S, N]
        z = one_hot(index, logits)  # [R, S, N, K]
        cost = f(z)  # [R, S]
        i, j = torch.triu_indices(self.samples, self.samples, 1, device=logits.device)  # [P]
        r = self._surprise(pi, orders, index, i, j).to(logits)  # [R, P, N]
        weight = (cost[:, i] - cost[:, j]).unsqueeze(-1) * r  # [R, P, N]
        pairs = self.samples * (self.samples - 1)
        g = (weight.unsqueeze(-1) * (z[:, i] - z[:, j])).sum(1) / pairs  # [R, N, K]
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

    def _surprise(self, pi: Tensor, orders: Tensor, index: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """r_ij for the pairs i, j [P] of samples; 0 where their categories agree: [R, P, N]."""
        chosen = pi.unsqueeze(1).expand(*index.shape, -1)
        chosen = chosen.gather(-1, index.unsqueeze(-1)).squeeze(-1)  # π(z_i), [R, S, N]
        law = 0.0
        for order in orders:
            rank = order.argsort()  # [K]
            before = (rank.unsqueeze(1) < rank).to(pi)  # [K, K]
            start = (pi @ before).unsqueeze(1).expand(-1, index.shape[1], -1, -1)
            start = start.gather(-1, index.unsqueeze(-1)).squeeze(-1)  # [R, S, N]
            low, high = roots(start, self.samples), roots(start + chosen, self.samples)
            # index_select, four times as fast as low[:, i].
            ends = (x.index_select(1, pair) for pair in (i, j) for x in (low, high))
            law = law + self._rectangle(*ends)
        law = law / len(orders)  # P(z_i, z_j), [R, P, N]
        differ = index[:, i] != index[:, j]
        # A pair that has met has P > 0; only rounding of a mass below 10⁻¹⁶ says otherwise.
        return torch.where(differ & (law > 0), chosen[:, i] * chosen[:, j] / law, 0.0)

    def _rectangle(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """P(aᵐ ≤ U_i < bᵐ, cᵐ ≤ U_j < dᵐ)."""
        n = self.samples
        return pair_cdf(b, d, n) - pair_cdf(a, d, n) - pair_cdf(b, c, n) + pair_cdf(a, c, n)


def _orders(categories: int, device: torch.device) -> Tensor:
    """For a < b the order a, …, b with the others in cyclic sequence from b on: [M, K]."""
    orders = []
    for a in range(categories):
        for b in range(a + 1, categories):
            after = [(b + step) % categories for step in range(1, categories)]
            orders.append([a, *(k for k in after if k != a), b])
    return torch.tensor(orders, device=device)
