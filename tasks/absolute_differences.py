"""Independent latents with the sum of their distances from given values.

    f(z) = Σₙ |xₙ − bₙ|,    xₙ = Σ_k k zₙ_k,    k = 0, …, K − 1

The logits are standard normal draws of `seed`, and b is one draw from the model.  Off the vertices
f is the same function of the mean values x, which has a kink where xₙ = bₙ.  It separates over the
latents, hence E f is known at any N and K.

De Smet, Sansone & Zuidberg Dos Martires, "Differentiable sampling of categorical distributions
using the CatLog-derivative trick", 2023, arXiv 2311.12569, with N latents of K categories for
(N, K) = (12, 3), (6, 10) and (3, 100).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.knobs import AtLeast1, AtLeast2


@dataclass(eq=False)
class AbsoluteDifferences(Task):
    latents: AtLeast1 = 3
    categories: AtLeast2 = 4
    seed: int = 0

    def problem(self, batch: Any = None) -> Problem:
        logits, b = self._draws()

        def cost(z: Tensor) -> Tensor:  # [..., N, K] -> [...]
            return (z @ self._values(z) - b.to(z)).abs().sum(-1)

        return Problem(logits, Cost(cost))

    def expectation(self, logits: Tensor) -> Tensor:
        """Σₙ Σ_k πₙ_k |k − bₙ|."""
        _, b = self._draws()
        distances = (self._values(logits) - b.to(logits).unsqueeze(-1)).abs()  # [N, K]
        return (logits.softmax(-1) * distances).sum((-2, -1))

    def _values(self, like: Tensor) -> Tensor:
        """The number that each category stands for, [K]."""
        return torch.arange(self.categories, dtype=like.dtype, device=like.device)

    def _draws(self) -> tuple[Tensor, Tensor]:
        """log α [1, N, K] and b [N]."""
        draws = torch.Generator().manual_seed(self.seed)
        shape = (1, self.latents, self.categories)
        logits = torch.randn(shape, generator=draws, dtype=torch.float64)
        b = torch.multinomial(logits[0].softmax(-1), 1, generator=draws).squeeze(-1)
        return logits, b
