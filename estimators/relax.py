"""RELAX: REBAR's control variate with a learned surrogate in place of f.

    ĝ = (f(b) − c(z̃)) ∇ log p(b) + ∇c(z) − ∇c(z̃)

z = log α + G,  b = argmax z,  z̃ ~ p(z | b), both reparameterised in the logits.  Unbiased for
every f, of which it needs values alone, and for every c.  Here c is a network with one hidden layer
that descends E‖ĝ‖² and starts at zero, which is REINFORCE.  It reads softmax(z / λ), not z: so ĝ
sums to zero over the categories and no shift of the logits changes it.  It also reads π =
softmax(log α), held constant, which distinguishes data points.  With c = η f(softmax(z / λ)) it
would be REBAR without coupling.  Cost: 1 evaluation of f.

Grathwohl, Choi, Wu, Roeder & Duvenaud, "Backpropagation through the void: optimizing control
variates for black-box gradient estimation", 2018, arXiv 1711.00123.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Tuned
from gradest.categorical import conditional_gumbel, gumbel_max, log_prob, nabla, softmax, tempered
from gradest.knobs import AtLeast1, Positive

from ._network import Network


@dataclass(eq=False)
class RELAX(Tuned):
    laws = LAWS - {"constant", "scale"}
    evaluations = "1"
    slow = "runs its surrogate, a network, twice for one evaluation"
    stackable = True
    temperature: Positive = 0.5
    width: AtLeast1 = 16

    def build(self, logits: Tensor) -> Iterable[Tensor]:
        self._network = Network(self.blocks, 2 * logits[0].numel(), self.width, 1, logits)
        start = logits.new_full((self.blocks,), self.temperature)
        self._log_temperature = start.log().requires_grad_()
        return [*self._network.parameters, self._log_temperature]

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        b, z = gumbel_max(logits)  # [R, N, K]
        z_tilde = conditional_gumbel(logits, b)
        both = torch.stack([z, z_tilde], 1)  # [R, 2, N, K]
        relaxed = softmax(tempered(both, self.per_row(self._log_temperature.exp(), both)))
        c, c_tilde = self._surrogate(logits, f, relaxed).unbind(1)  # [R]
        cost = f(b)  # [R]
        return cost + (cost - c_tilde) * nabla(log_prob(logits, b)) + nabla(c - c_tilde)  # [R]

    def _surrogate(self, logits: Tensor, f: Cost, relaxed: Tensor) -> Tensor:
        """c: [R, 2, N, K] -> [R, 2]."""
        pi = softmax(logits.detach()).unsqueeze(1).expand_as(relaxed)
        return self._network(torch.stack([relaxed, pi], -1).flatten(2)).squeeze(-1)
