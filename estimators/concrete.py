"""Concrete: the reparameterised gradient of a relaxed sample.

    ĝ = ∇ f(y),    y = softmax((log α + G) / λ),    G ~ Gumbel

Unbiased for E f(y), biased for E f(z) even when f is linear: the bias shrinks as λ², the variance
grows as 1/λ.  Where the objective has a relaxed KL divergence from a prior (`kl = "relaxed"`), the
value is that of a bound of the relaxed model, with densities in the place of probabilities:

    f(y) + log q_{α,λ}(log y) − log p_{a,λ₂}(log y),    λ₂ = `prior_temperature`, or λ if None

The densities are those of log y, whose law is ExpConcrete.  Their mean is KL(q_{α,λ} ‖ p_{a,λ₂}),
never less than KL(Cat(α) ‖ Cat(a)), which stands beside the cost in Gumbel-softmax.  Without a
prior, or with the discrete divergence, this is `gumbel_softmax`, draw by draw.

Maddison, Mnih & Teh, "The Concrete distribution: a continuous relaxation of discrete random
variables", 2017, arXiv 1611.00712.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, PATHWISE, Cost, SurrogateSample
from gradest.categorical import gumbel, softmax
from gradest.concrete import exp_concrete_log_prob
from gradest.knobs import Positive


@dataclass(eq=False)
class Concrete(SurrogateSample):
    relaxes = True
    owns_kl = True
    laws = LAWS | {PATHWISE}
    degree = math.inf
    limit = {"temperature": 0.03}
    temperature: Positive = 0.5
    prior_temperature: Positive | None = None

    def draw(self, logits: Tensor) -> Tensor:
        return softmax(self._unnormalised(logits))

    def _unnormalised(self, logits: Tensor) -> Tensor:
        return (logits + gumbel(logits)) / self.temperature  # [R, N, K]

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = self._unnormalised(logits)
        value = f(softmax(z))  # [R]
        return value + self._divergence(z, logits, f.prior) if f.kl == "relaxed" else value

    def _divergence(self, z: Tensor, logits: Tensor, prior: Tensor) -> Tensor:
        """log q − log p of the relaxed sample: [R, N, K] twice and [N, K] -> [R]."""
        log_y = z.log_softmax(-1)  # the logarithm of y itself, which underflows, would be −∞
        log_q = exp_concrete_log_prob(log_y, logits, self.temperature)  # [R, N]
        log_p = exp_concrete_log_prob(
            log_y, prior.to(z), self.prior_temperature or self.temperature
        )
        return (log_q - log_p).sum(1)
