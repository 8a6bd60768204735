"""Latents coupled through a random quadratic form.

    f(z) = xᵀ A x + bᵀ x,    x = (z₁, …, z_N) ∈ R^{NK},    A symmetric

A, b and the logits are standard normal draws from `seed`; A is scaled by 1/√(NK).  Off the
vertices f is the same polynomial.  The blocks of A on the diagonal curve f within a latent, the
others couple the latents.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.knobs import AtLeast1, AtLeast2


@dataclass(eq=False)
class Quadratic(Task):
    latents: AtLeast1 = 4
    categories: AtLeast2 = 5
    seed: int = 0

    def problem(self, batch: Any = None) -> Problem:
        logits, a, b = self._coefficients()

        def cost(z: Tensor) -> Tensor:  # [..., N, K] -> [...]
            x = z.flatten(-2)
            return ((x @ a.to(z) + b.to(z)) * x).sum(-1)

        return Problem(logits, Cost(cost))

    def expectation(self, logits: Tensor) -> Tensor:
        """πᵀ A π + bᵀ π, with E xₙ xₙᵀ = diag πₙ in place of πₙ πₙᵀ on the diagonal."""
        _, a, b = self._coefficients()
        pi = logits.softmax(-1)  # [B, N, K]
        x = pi.flatten(1)  # [B, N·K]
        mean = ((x @ a.to(x) + b.to(x)) * x).sum(-1)
        blocks = a.to(x).unflatten(0, pi.shape[1:]).unflatten(2, pi.shape[1:])  # [N, K, N, K]
        own = torch.einsum("nknl->nkl", blocks)  # [N, K, K]
        spread = pi.diag_embed() - pi.unsqueeze(-1) * pi.unsqueeze(-2)  # [B, N, K, K]
        return mean + (own * spread).sum((-3, -2, -1))

    def _coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """log α [1, N, K], A [NK, NK] and b [NK]."""
        size = self.latents * self.categories
        draws = torch.Generator().manual_seed(self.seed)
        normal = {"generator": draws, "dtype": torch.float64}
        logits = torch.randn(1, self.latents, self.categories, **normal)
        half = torch.randn(size, size, **normal) / (2 * size**0.5)
        return logits, half + half.T, torch.randn(size, **normal)
