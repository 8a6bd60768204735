"""The log-convexity of the density of the Concrete distribution."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradest.checks.properties.densities import Few, Temperature
from gradest.checks.properties.rows import Estimate, Property, Row, log_alpha
from gradest.concrete import concrete_log_prob
from gradest.randomness import Draws

_POINTS = 500  # for each spread
_SPREADS = (0.1, 1.0, 5.0, 40.0)  # of λ log x, from the centre of the simplex to its faces
_ROUNDING = 1e-11  # of eigenvalues of order K: 10⁴ roundings in float64


@dataclass(eq=False)
class Convexity(Property):
    """log p(x) is convex for λ ≤ 1/(K − 1), and for no larger λ.

    `relative` is λ (K − 1).  Along a line x + εv in the simplex, v = x w with Σ x w = 0,

        d²/dε² log p = wᵀ (∇² − diag ∇) w,    derivatives of log p(x) in y = log x,

    by automatic differentiation.  This is the Hessian in any K − 1 of the coordinates after a
    change of basis, so its eigenvalues have the same signs, but without a factor 1/x² at the
    faces.  The value is the smallest eigenvalue over all points.  Where coordinate k vanishes, w =
    e_k has 1 − relative, so the points are spread from the centre to the faces: slightly above the
    bound, only the faces have negative eigenvalues.  That none is found below the bound is not a
    proof.
    """

    name: ClassVar[str] = "convexity"
    categories: Few = 3
    relative: Temperature = 1.0

    def rows(self, seed: int) -> list[Row]:
        logits = log_alpha(self.categories)
        temperature = self.relative / (self.categories - 1)
        y = _points(logits, temperature, self.source(seed))
        smallest = float(curvature(y, logits, temperature).amin())
        estimate = Estimate.within(
            smallest, _ROUNDING, f"automatic differentiation, minimum over {len(y):,} points"
        )
        if self.relative <= 1:
            return [self.row("smallest eigenvalue", estimate, "≥", 0.0, 3 * _ROUNDING)]
        return [self.row("smallest eigenvalue", estimate, "<", 0.0)]


def curvature(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Eigenvalues of wᵀ (∇² − diag ∇) w where Σ x w = 0: [M, K] -> [M, K − 1]."""
    y = y.detach().requires_grad_()
    log_p = concrete_log_prob(y, logits, temperature)
    (gradient,) = torch.autograd.grad(log_p.sum(), y, create_graph=True)
    hessian = torch.stack(
        [torch.autograd.grad(g.sum(), y, retain_graph=True)[0] for g in gradient.unbind(-1)], -1
    )  # [M, K, K]
    form = hessian - torch.diag_embed(gradient.detach())
    x = y.detach().exp()
    # The QR decomposition of the column x: the other columns of Q are orthogonal to x.
    basis = torch.linalg.qr(x.unsqueeze(-1), mode="complete").Q[..., 1:]  # [M, K, K − 1]
    return torch.linalg.eigvalsh(basis.mT @ form @ basis)


def _points(logits: Tensor, temperature: float, source: Draws) -> Tensor:
    """Points log x from the centre to the faces, [M, K]."""
    noise = source.exponential((len(_SPREADS), _POINTS, len(logits)), logits)
    scale = logits.new_tensor(_SPREADS)[:, None, None] / temperature
    return (-scale * noise).log_softmax(-1).flatten(0, 1)
