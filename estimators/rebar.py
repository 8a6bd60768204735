"""REBAR: the score function with a Concrete control variate, coupled by its noise.

    ĝ = (f(b) − η c(z̃)) ∇ log p(b) + η ∇c(z) − η ∇c(z̃),    c(x) = f(softmax(x / λ))

z = log α + G,  b = argmax z,  z̃ ~ p(z | b), both reparameterised in the logits.  Unbiased for
every f, η and λ, since c(z) and c(z̃) have the same distribution; f must be differentiable on the
simplex.  η and log λ descend E‖ĝ‖² from their start unless `tuned` is false; η = 0 is REINFORCE,
and η = 1 can be worse than it.  `coupled` ties z̃ to z as the authors' code does: the same number,
made of the noise that z | b needs to be there; otherwise z̃ is a draw of its own.  Cost: 3
evaluations of f, 2 of f'.

Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, "REBAR: low-variance, unbiased gradient estimates
for discrete latent variable models", 2017, arXiv 1703.07370.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Tuned
from gradest.categorical import conditional_gumbel, gumbel_max, log_prob, nabla, softmax, tempered
from gradest.knobs import Positive


@dataclass(eq=False)
class REBAR(Tuned):
    relaxes = True
    differentiates = True
    laws = LAWS - {"constant"}
    evaluations = "3"
    stackable = True
    eta: float = 1.0
    temperature: Positive = 0.5
    coupled: bool = True
    tuned: bool = True

    def build(self, logits: Tensor) -> Iterable[Tensor]:
        self._eta = logits.new_full((self.blocks,), self.eta).requires_grad_()
        start = logits.new_full((self.blocks,), self.temperature)
        self._log_temperature = start.log().requires_grad_()
        return self._eta, self._log_temperature

    def adapt(self, logits: Tensor, f: Cost) -> None:
        if self.tuned:
            super().adapt(logits, f)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        b, z = gumbel_max(logits)  # [R, N, K]
        z_tilde = _tied(logits, b, z) if self.coupled else conditional_gumbel(logits, b)
        both = torch.stack([z, z_tilde], 1)  # [R, 2, N, K]
        relaxed = softmax(tempered(both, self.per_row(self._log_temperature.exp(), both)))
        control = f.frozen(relaxed)  # [R, 2]
        c, c_tilde = (self.per_row(self._eta, control) * control).unbind(1)  # [R]
        cost = f(b)  # [R]
        return cost + (cost - c_tilde) * nabla(log_prob(logits, b)) + nabla(c - c_tilde)  # [R]


def _tied(logits: Tensor, b: Tensor, z: Tensor) -> Tensor:
    """The z̃ whose noise given b makes it equal to z; its gradient is that of p(z | b).

    z̃_i = −log(E_i/α_i + E_b/Σα) moves with log α_i and log Σα in the shares ω and 1 − ω, where
    1 − ω = exp(z_i − z_b), and ω = 0 for i = b.
    """
    omega = -torch.expm1(z - z.gather(-1, b.argmax(-1, keepdim=True)))  # [R, N, K]
    total = logits.logsumexp(-1, keepdim=True)
    return z.detach() + omega * nabla(logits) + (1 - omega) * nabla(total)
