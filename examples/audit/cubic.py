"""The problem of the audit: f(z) = (u − 0.3)² + u³/4 with u = Σₙ wₙ · zₙ, at random logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.knobs import AtLeast1, AtLeast2


@dataclass(eq=False)
class Cubic(Task):
    latents: AtLeast1 = 2
    categories: AtLeast2 = 3

    def problem(self, batch: Any = None) -> Problem:
        generator = torch.Generator().manual_seed(0)
        shape = (1, self.latents, self.categories)
        logits, self._weights = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        return Problem(logits, Cost(self._cost))

    def _cost(self, z: Tensor) -> Tensor:  # [B, ..., N, K] -> [B, ...]
        u = (z * self._weights[0].to(z)).sum((-2, -1))
        return (u - 0.3).square() + u**3 / 4
