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
        size = self.latents * self.categories
        draws = torch.Generator().manual_seed(self.seed)
        normal = {"generator": draws, "dtype": torch.float64}
        logits = torch.randn(1, self.latents, self.categories, **normal)
        half = torch.randn(size, size, **normal) / (2 * size**0.5)
        a, b = half + half.T, torch.randn(size, **normal)  # [NK, NK], [NK]

        def cost(z: Tensor) -> Tensor:  # [..., N, K] -> [...]
            x = z.flatten(-2)
            return ((x @ a.to(z) + b.to(z)) * x).sum(-1)

        return Problem(logits, Cost(cost))
