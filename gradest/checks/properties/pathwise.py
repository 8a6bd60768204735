"""The reparameterised gradient of the Concrete distribution."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradest.checks.properties.densities import Draw, Integrable, Temperature
from gradest.checks.properties.quadrature import rule
from gradest.checks.properties.rows import Estimate, Property, Row, log_alpha, subscript
from gradest.concrete import concrete_log_prob, exp_concrete
from gradest.randomness import drawing_from


@dataclass(eq=False)
class Pathwise(Property):
    """E ∇ g(x) = ∇ E g(x): the mean over samples is the derivative of the relaxed expectation.

    Both with respect to log α, of g(x) = (Σₖ (k + 1) xₖ)² + exp(−x₀); the right side by quadrature
    of the density.
    """

    name: ClassVar[str] = "pathwise"
    categories: Integrable = 3
    temperature: Temperature = 0.5
    draws: Draw = 400_000

    def rows(self, seed: int) -> list[Row]:
        exact, error = self._derivative()
        logits = log_alpha(self.categories).expand(self.draws, -1).clone().requires_grad_()
        with drawing_from(self.source(seed)):
            y = exp_concrete(logits, self.temperature)  # [R, K]
        (gradient,) = torch.autograd.grad(g(y.exp()).sum(), logits)
        resolution = 0.05 * float(exact.abs().max())
        return [
            self.row(
                f"∂ E g / ∂ log α{subscript(k)}",
                Estimate.mean(gradient[:, k]),
                "=",
                float(exact[k]),
                resolution,
                float(error[k]),
            )
            for k in range(self.categories)
        ]

    def _derivative(self) -> tuple[Tensor, Tensor]:
        """∂/∂ log α of ∫ p(x) g(x) dx, with its error: ∫ p(x) g(x) ∂ log p(x), [K]."""
        points = rule(self.categories, self.temperature)
        logits = log_alpha(self.categories).expand(len(points.log_x), -1).clone().requires_grad_()
        log_p = concrete_log_prob(points.log_x, logits, self.temperature)  # [M]
        (score,) = torch.autograd.grad(log_p.sum(), logits)  # [M, K]
        return points.integral(log_p.detach(), g(points.log_x.exp()).unsqueeze(-1) * score)


def g(x: Tensor) -> Tensor:
    """The test function g: [..., K] -> [...]."""
    steps = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    return (x @ steps).square() + (-x[..., 0]).exp()
