"""DisARM for categories: each category is a path of bits down a binary tree.

    aᵢ = log Σ_{right of i} α − log Σ_{left of i} α,    θᵢ = σ(aᵢ)
    bᵢ = 1[uᵢ < θᵢ],    b̃ᵢ = 1[1 − uᵢ < θᵢ]

for the K − 1 inner nodes i of a latent's tree.  The bits lead to z and, independently coupled in
each latent, b̃ to z̃, both Cat(α).  With V and Ṽ the nodes on the two paths,

    ĝ_aᵢ = ½ (f(z) − f(z̃)) · { (bᵢ − b̃ᵢ) σ(|aᵢ|)  in V and Ṽ;   bᵢ − θᵢ  in V alone;
                              −(b̃ᵢ − θᵢ)  in Ṽ alone;   0  elsewhere }

which the derivative of aᵢ takes to log α.  It is DisARM on the bits, averaged over those that are
not on a path.  `stick-breaking` splits one category off after the other, in their order; `tree`
halves them, the smaller half to the left where K is odd.  Unbiased for every f, of which it needs
values alone, for any K (the authors' code needs a power of two for its tree); K = 2 is `disarm`.
2 evaluations of f.

Dong, Mnih & Tucker, "Coupled gradient estimators for discrete latent variables", NeurIPS, 2021,
arXiv 2106.08056.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla
from gradest.randomness import draws


@dataclass(eq=False)
class DisARMCategorical(Estimator):
    laws = LAWS - {"labels"}
    evaluations = "2"
    coding: Literal["stick-breaking", "tree"] = "stick-breaking"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        left, right = self._sides(logits)  # [K − 1, K] each
        phi = logits.clamp(min=torch.finfo(logits.dtype).min).unsqueeze(-2)  # −∞ − (−∞) is NaN
        a = _logsum(phi, right) - _logsum(phi, left)  # [R, N, K − 1]
        theta = a.detach().double().sigmoid()
        u = draws().uniform(theta.shape, theta)
        bits = torch.stack([u < theta, 1 - u < theta], 1)  # [R, 2, N, K − 1]
        z = _codes(bits, left, right).to(logits)  # [R, 2, N, K]
        visited = (z @ (left | right).to(z).T > 0).unbind(1)  # [R, N, K − 1] each
        cost = f(z)  # [R, 2]
        b, other = bits.unbind(1)
        s, t = (torch.where(x, (-a).sigmoid(), -a.sigmoid()) for x in (b, other))  # b − θ
        both = (b.to(a) - other.to(a)) * a.abs().sigmoid()
        g = torch.where(
            visited[0], torch.where(visited[1], both, s), torch.where(visited[1], -t, 0)
        )
        g = 0.5 * (cost[:, :1] - cost[:, 1:]).unsqueeze(-1) * g
        return cost.mean(1) + (g * nabla(a)).sum((-2, -1))  # [R]

    def _sides(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Which categories are to the left and to the right of each node: [K − 1, K] each."""
        splits = list(_splits(0, logits.shape[-1], self.coding == "tree"))  # parents first
        k = torch.arange(logits.shape[-1], device=logits.device)
        start, middle, end = (
            torch.tensor(x, device=k.device).unsqueeze(1) for x in zip(*splits, strict=True)
        )
        return (start <= k) & (k < middle), (middle <= k) & (k < end)


def _splits(start: int, end: int, halves: bool) -> Iterator[tuple[int, int, int]]:
    """(start, middle, end) of each node: the categories before the middle are to its left."""
    if end - start > 1:
        middle = start + (end - start) // 2 if halves else start + 1
        yield start, middle, end
        yield from _splits(start, middle, halves)
        yield from _splits(middle, end, halves)


def _logsum(phi: Tensor, members: Tensor) -> Tensor:
    """[R, N, 1, K] and members [M, K] -> [R, N, M]."""
    return phi.masked_fill(~members, -torch.inf).logsumexp(-1)


def _codes(bits: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The category whose every node has the bit that leads to it: [..., M] -> [..., K]."""
    bits = bits.unsqueeze(-1)
    return ~((left & bits) | (right & ~bits)).any(-2)
