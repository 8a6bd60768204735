"""AIMLE: I-MLE with an adaptive step, in proportion to the logits.

    ĝ = (z − z') / λ,    z = argmax(log α + G),    z' = argmax(log α − λ d + G)
    λ = β ‖log α‖ / ‖d‖,    d = f'(z)

G is the same Gumbel noise in both, the norms are a row's own.  β moves by a fixed step, up while a
moving average of the number of non-zero entries of ĝ is below one, else down; the paper's step,
0.0001, suits a training run, 0.001 the 1,000 steps of adaptation here.  `central` takes
(argmax(log α + λ d + G) − z')/(2λ) instead: as λ → 0 its mean is ReinMax's, exact for quadratic f,
where the one-sided form stays biased.  At a finite λ both are.  A positive multiple of f gives that
multiple of ĝ; a shift of log α, which changes no probability, changes λ; at log α = 0, ĝ = 0.

f must be differentiable at the vertices; one evaluation and one derivative.

Minervini, Franceschi & Niepert, "Adaptive perturbation-based gradient estimation for discrete
latent variable models", 2023, arXiv 2209.04862.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import gumbel_max, likeliest, nabla, unmasked
from gradest.knobs import Positive, Probability

from ._derivative import cost_and_derivative


@dataclass(eq=False)
class AIMLE(Estimator):
    unbiased = False
    differentiates = True
    evaluations = "1"
    adapt_steps = 1000
    stackable = True
    laws = LAWS - {"shift", "scale"}
    degree = 2
    limit = {"beta": 0.1, "beta_step": 1e-9, "central": True}
    beta: Positive = 1.0  # to begin with
    beta_step: Positive = 0.001
    decay: Probability = 0.9
    central: bool = False

    def reset(self, logits: Tensor) -> None:
        self._beta = logits.new_full((self.blocks,), self.beta)
        self._nonzeros = logits.new_ones(self.blocks)

    def adapt(self, logits: Tensor, f: Cost) -> None:
        _, g = self._estimate(logits, f)
        entries = (g != 0).sum((-2, -1)).to(g)  # [R]
        nonzeros = entries.unflatten(0, (self.blocks, -1)).mean(1)  # [blocks]
        self._nonzeros = self.decay * self._nonzeros + (1 - self.decay) * nonzeros
        up = 2.0 * (self._nonzeros < 1).to(g) - 1.0  # 1 or −1
        self._beta = (self._beta + self.beta_step * up).clamp(min=0.0)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        cost, g = self._estimate(logits.detach(), f)
        return cost + (g * nabla(logits)).sum((-2, -1))  # [R]

    def _estimate(self, logits: Tensor, f: Cost) -> tuple[Tensor, Tensor]:
        """f(z) [R] and ĝ [R, N, K]."""
        z, perturbed = gumbel_max(logits)  # [R, N, K]
        cost, d = cost_and_derivative(f, z)
        d = torch.where(logits > -torch.inf, d, 0.0)  # of what can be drawn
        norms = unmasked(logits).norm(dim=(-2, -1)), d.norm(dim=(-2, -1))  # [R] each
        beta = self.per_row(self._beta, cost)
        lambda_ = (beta * norms[0] / norms[1])[:, None, None]  # [R, 1, 1]
        target = likeliest(perturbed - lambda_ * d)
        other = likeliest(perturbed + lambda_ * d) if self.central else z
        moved = (other - target) / (2 if self.central else 1)
        # Where d = 0, λ is infinite, and the quotient zero as well.
        return cost, torch.where(lambda_ > 0, moved / lambda_, 0.0)
