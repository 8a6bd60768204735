"""NVIL: REINFORCE with a baseline that a network learns from the input.

    ĝ = (f(z) − C_ψ(x)) ∇ log p(z),    z ~ p,    ψ descends (f(z) − C_ψ(x))²

C_ψ does not depend on z, so ĝ is unbiased for every ψ.  The input x is the logits, which are all
that an estimator sees of a data point; C_ψ(x) = wᵀ tanh(W x + b) + c, whose c stands for the
paper's running mean of the costs.  It starts at zero, as plain REINFORCE.  1 evaluation of f, on
the vertices alone.

Left out is the division by a running standard deviation of f − C_ψ, which would change E ĝ, and the
local signals, which need a cost whose parts are known.

Mnih & Gregor, "Neural variational inference and learning in belief networks", 2014,
arXiv 1402.0030.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Tuned
from gradest.categorical import log_prob, nabla, sample, unmasked
from gradest.knobs import AtLeast1
from gradest.randomness import draws


@dataclass(eq=False)
class NVIL(Tuned):
    laws = LAWS - {"shift", "constant", "scale"}
    evaluations = "1"
    stackable = True
    hidden: AtLeast1 = 100

    def build(self, logits: Tensor) -> Iterable[Tensor]:
        inputs, hidden = logits[0].numel(), self.hidden
        weight = draws().normal((self.blocks, inputs, hidden), logits).to(logits) / inputs**0.5
        sizes = ((1, hidden), (hidden, 1), (1, 1))
        layers = (weight, *(logits.new_zeros(self.blocks, *size) for size in sizes))
        self._layers = [layer.requires_grad_() for layer in layers]
        return self._layers

    def _baseline(self, logits: Tensor) -> Tensor:
        """[R, N, K] -> [R]; of the logits it takes the numbers alone, since ψ is what learns."""
        weight, bias, out, c = self._layers
        x = unmasked(logits.detach()).reshape(self.blocks, -1, weight.shape[1])
        return ((x @ weight + bias).tanh() @ out + c).flatten()

    def tuning_loss(self, logits: Tensor, f: Cost) -> Tensor:
        cost = f(sample(logits)).detach()  # [R]
        return (cost - self._baseline(logits)).square().mean()

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        cost = f(z)  # [R]
        return cost + (cost - self._baseline(logits)) * nabla(log_prob(logits, z))  # [R]
