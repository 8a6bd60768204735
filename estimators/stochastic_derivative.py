"""Stochastic derivative: a latent jumps to the category before or after its own.

    ĝₙ_j = π_j (1 − F_{k−1})/π_k · (f(zₙ←k−1) − f(z))    for j < k = zₙ
    ĝₙ_j = π_j F_k/π_k · (f(zₙ←k+1) − f(z))              for j > k,    and zero for j = k

F is the cumulative sum of πₙ, and zₙ←k is z ~ p with latent n set to category k.  If z inverts F at
a uniform, a small change of the logits moves z to a neighbouring category, with the probability in
front of the difference.  Unbiased; the order of the categories matters, and the estimates of a
latent do not sum to zero.  A rare category between two others has a variance of order 1/π_k.

A code has V ≤ 2N neighbours, one fewer for each latent at an end.  `neighbours` of them, in cyclic
sequence from a random one, are evaluated and weighted by V/neighbours; one is the pruned form of
the paper, 2N is all of them.  Needs f on the vertices alone.

Arya, Schauer, Schäfer & Rackauckas, "Automatic differentiation of programs with discrete
randomness", NeurIPS, 2022, arXiv 2210.08572.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, one_hot, sample
from gradest.knobs import AtLeast1


@dataclass(eq=False)
class StochasticDerivative(Estimator):
    laws = LAWS - {"zero sum", "labels"}
    evaluations = "1 + min(neighbours, 2 * N)"
    neighbours: AtLeast1 = 1

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        latents = z.shape[1]
        count = min(self.neighbours, 2 * latents)  # evaluations, also if a row has fewer neighbours
        there, codes, rates = _neighbours(logits.detach(), z)  # [R, 2 N], [R, 2 N, N, K], …
        number = there.sum(1, keepdim=True).clamp(min=1)  # V, [R, 1]
        place = torch.arange(2 * latents, device=z.device)
        first = sample(torch.where(place < number, 0.0, -torch.inf).to(z).unsqueeze(1)).argmax(-1)
        chosen = (first + place[:count]) % number  # [R, P], among those that are there
        weight = (place[:count] < number) * number.to(z) / number.clamp(max=count)  # [R, P]
        chosen = there.to(z).argsort(stable=True, dim=1, descending=True).gather(1, chosen)
        cost = f(z)  # [R]
        change = f.frozen(codes.take_along_dim(chosen[..., None, None], 1)) - cost.unsqueeze(1)
        g = (weight * change).unsqueeze(-1) * rates.take_along_dim(chosen.unsqueeze(-1), 1)
        moved = (chosen // 2).unsqueeze(-1) == torch.arange(latents, device=z.device)  # [R, P, N]
        g = torch.einsum("rpn,rpk->rnk", moved.to(z), g)
        return cost + (g * nabla(logits)).sum((-2, -1))  # [R]


def _neighbours(logits: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether latent n can move down (2n) and up (2n + 1), z moved so, and the rates.

    [R, 2N], [R, 2N, N, K] and [R, 2N, K].  Masked categories are passed over, as if they were none.
    """
    latents, categories = z.shape[1:]
    log_pi, k = logits.log_softmax(-1), torch.arange(categories, device=z.device)
    own = z.argmax(-1, keepdim=True)  # [R, N, 1]
    possible = logits > -torch.inf
    below = torch.where(possible & (k < own), k, -1).amax(-1)  # [R, N]; −1: there is none
    above = torch.where(possible & (k > own), k, categories).amin(-1)
    there = torch.stack([below, above.where(above < categories, -1)], -1)  # [R, N, 2]
    other = one_hot(there.where(there >= 0, own), z.unsqueeze(-2).expand(-1, -1, 2, -1))
    latent = torch.eye(latents, dtype=torch.bool, device=z.device)[:, None, :, None]
    codes = torch.where(latent, other.unsqueeze(-2), z[:, None, None])  # [R, N, 2, N, K]
    tails = log_pi.flip(-1).logcumsumexp(-1).flip(-1), log_pi.logcumsumexp(-1)  # from k, up to k
    rates = [(log_pi + (x - log_pi).gather(-1, own)).exp() for x in tails]
    rates = torch.stack([rates[0] * (k < own), rates[1] * (k > own)], 2)  # [R, N, 2, K]
    return (there >= 0).flatten(1), codes.flatten(1, 2), rates.flatten(1, 2)
