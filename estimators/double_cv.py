"""Double control variates: leave-one-out, with the cost linearised in two places.

    ĝ = 1/S Σₖ [fₖ + uₖ − mean_{j≠k}(fⱼ + uⱼ)] (bₖ − θ) − α mean_k f'(bₖ) θ(1 − θ)
    uₖ = α ⟨bₖ − θ, mean_{j≠k} f'(bⱼ)⟩

for the logit φ of θ = σ(φ).  One control variate lowers the variance of each term, the other that
of the leave-one-out baseline; the last term takes out the mean of what they add, in closed form.
Unbiased for every f and α, although uⱼ holds bₖ.  α = 0 is leave-one-out; α = −1 leaves no variance
when f is affine.  α descends E‖ĝ‖² from its start.  f must be differentiable at the vertices; it is
evaluated there alone, S times with a derivative.

Titsias & Shi, "Double control variates for gradient estimation in discrete latent variable
models", 2022, arXiv 2111.05300.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Tuned
from gradest.categorical import leave_one_out_mean, nabla, sample
from gradest.knobs import AtLeast2

from ._bernoulli import bit_logits, cost_and_slope


@dataclass(eq=False)
class DoubleCV(Tuned):
    differentiates = True
    categories = 2
    laws = LAWS
    evaluations = "samples"
    stackable = True
    samples: AtLeast2 = 2
    alpha: float = 0.0

    def build(self, logits: Tensor) -> Iterable[Tensor]:
        self._alpha = logits.new_full((self.blocks,), self.alpha).requires_grad_()
        return [self._alpha]

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        phi = bit_logits(logits)  # [R, N]
        z = sample(logits, self.samples)  # [R, S, N, 2]
        cost, slope = cost_and_slope(f, z)  # [R, S], [R, S, N]
        score = z[..., 1] - phi.sigmoid().unsqueeze(1)  # b − θ, [R, S, N]
        alpha = self.per_row(self._alpha, cost)  # [R, 1]
        u = alpha * (score * leave_one_out_mean(slope, dim=1)).sum(-1)  # [R, S]
        advantage = cost + u - leave_one_out_mean(cost + u, dim=1)
        mean = alpha * slope.mean(1) * phi.sigmoid() * (-phi).sigmoid()  # [R, N]
        g = (advantage.unsqueeze(-1) * score).mean(1) - mean  # [R, N]
        return cost.mean(1) + (g * nabla(phi)).sum(-1)  # [R]
