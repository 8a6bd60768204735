"""A positive semidefinite quadratic: the squared length of a linear map of the latents.

    f(z) = ‖Q x − c‖² = xᵀ QᵀQ x − 2 cᵀQ x + cᵀc,    x = (z₁, …, z_N) ∈ R^{NK}

The entries of Q ∈ R^{M × NK}, M = `rows`, are draws of N(0, 1/M), those of c of N(0, shift²), and
the logits are standard normal, all of `seed`.  Off the vertices f is the same polynomial, which is
convex.

With N = 1 and c = 0 it is the quadratic programme xᵀ A x, A = QᵀQ, of one latent with 4 to 12
categories, on which generalised straight-through estimators are compared; with c the problem of
Paulus, Maddison & Krause, "Rao-Blackwellizing the straight-through Gumbel-softmax gradient
estimator", 2021, arXiv 2010.04838.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.knobs import AtLeast1, AtLeast2


@dataclass(eq=False)
class PSDQuadratic(Task):
    latents: AtLeast1 = 1
    categories: AtLeast2 = 8
    rows: AtLeast1 = 8
    shift: Annotated[float, Ge(0)] = 0.0
    seed: int = 0

    def problem(self, batch: Any = None) -> Problem:
        logits, q, c = self._coefficients()

        def cost(z: Tensor) -> Tensor:  # [..., N, K] -> [...]
            return (z.flatten(-2) @ q.T.to(z) - c.to(z)).square().sum(-1)

        return Problem(logits, Cost(cost))

    def expectation(self, logits: Tensor) -> Tensor:
        """‖Q π − c‖² + Σₙ tr Qₙ (diag πₙ − πₙ πₙᵀ) Qₙᵀ."""
        _, q, c = self._coefficients()
        pi = logits.softmax(-1)  # [B, N, K]
        own = q.to(pi).unflatten(1, pi.shape[1:])  # Q as [M, N, K]
        means = torch.einsum("mnk,bnk->bmn", own, pi)  # Qₙ πₙ
        squares = torch.einsum("mnk,bnk->bmn", own.square(), pi)
        mean = (means.sum(-1) - c.to(pi)).square().sum(-1)
        return mean + (squares - means.square()).sum((-2, -1))

    def _coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """log α [1, N, K], Q [M, NK] and c [M]."""
        draws = torch.Generator().manual_seed(self.seed)
        normal = {"generator": draws, "dtype": torch.float64}
        logits = torch.randn(1, self.latents, self.categories, **normal)
        q = torch.randn(self.rows, self.latents * self.categories, **normal) / self.rows**0.5
        return logits, q, self.shift * torch.randn(self.rows, **normal)
