"""A polynomial programme: independent latents, each with the same power of a distance.

    f(z) = 1/N Σₙ |xₙ − t|^p,    xₙ = zₙ₁,    t = `target`,    p = `exponent`

xₙ is the weight of the first category, so f is the same polynomial off the vertices.  It separates
over the latents, hence E f is known at any N and K.  P(xₙ = 1) is `theta`, the other categories
share the rest equally, and each logit is moved by a draw from U(−spread, spread) of `seed`.

Liu, Dong, Liu, Yu & Gao, "Bridging discrete and backpropagation: straight-through and beyond",
2023, arXiv 2304.08612, with N = 128, θ = ½, t = 0.45 and p = 1.5, 2 or 3.  With p = 2, N = 200 and
t = 0.499 it is the toy problem of Titsias & Shi, "Double control variates for gradient estimation
in discrete latent variable models", 2022, arXiv 2111.05300.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.knobs import AtLeast1, AtLeast2, Probability


@dataclass(eq=False)
class Polynomial(Task):
    latents: AtLeast1 = 4
    categories: AtLeast2 = 2
    exponent: Annotated[float, Ge(1)] = 1.5
    target: float = 0.45
    theta: Probability = 0.3
    spread: Annotated[float, Ge(0)] = 0.01
    seed: int = 0

    def problem(self, batch: Any = None) -> Problem:
        pi = torch.full((self.categories,), self.theta, dtype=torch.float64)  # [K]
        pi[1:] = (1 - self.theta) / (self.categories - 1)
        draws = torch.Generator().manual_seed(self.seed)
        shape = (1, self.latents, self.categories)
        moves = 2 * torch.rand(shape, generator=draws, dtype=torch.float64) - 1  # [1, N, K]
        return Problem(pi.log() + self.spread * moves, Cost(self._cost))

    def expectation(self, logits: Tensor) -> Tensor:
        """1/N Σₙ πₙ₁ |1 − t|^p + (1 − πₙ₁) |t|^p."""
        theta = logits.softmax(-1)[..., 0]  # [B, N]
        one, zero = (abs(x - self.target) ** self.exponent for x in (1, 0))
        return (zero + theta * (one - zero)).mean(-1)

    def _cost(self, z: Tensor) -> Tensor:  # [..., N, K] -> [...]
        return (z[..., 0] - self.target).abs().pow(self.exponent).mean(-1)
