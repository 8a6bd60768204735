"""RODEO: leave-one-out with control variates from a discrete Stein operator.

    ĝ = 1/S Σₖ {[fₖ − mean_{j≠k}(fⱼ + (A hⱼ)(bⱼ))] (bₖ − θ) + (A h̃ₖ)(bₖ)}
    (A h)(x) = 1/N Σᵢ q(¬xᵢ) (h(x with bit i flipped) − h(x))

for the logit φ of θ = σ(φ).  A is the Gibbs operator: q(¬xᵢ) is the chance of the other value of
bit i, and E (A h)(b) = 0 for every h.  What is fed to it extrapolates f from the other samples,

    hₖ(y), h*ₖ(y) = mean_{l≠k} H(f_l, ⟨f'(b_l), y − b_l⟩),    h̃ₖ(y) = h*ₖ(y) (y − θ)

so that no hₖ depends on bₖ: unbiased for every f and H.  H: R² → R² is a network with one hidden
layer (100 leaky units in the authors' code, `width` smooth ones here) that descends E‖ĝ‖².  The
scales β and γ of h and h* that the paper learns are those of its two outputs; they start at zero,
which is leave-one-out.  f must be differentiable at the vertices; it is evaluated there alone, S
times with a derivative, while the N flips of each sample cost evaluations of H.

Shi, Zhou, Hwang, Titsias & Mackey, "Gradient estimation with discrete Stein operators", 2022,
arXiv 2202.09497.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Tuned
from gradest.categorical import leave_one_out_mean, nabla, sample
from gradest.knobs import AtLeast1, AtLeast2

from ._bernoulli import bit_logits, cost_and_slope
from ._network import Network


@dataclass(eq=False)
class RODEO(Tuned):
    differentiates = True
    categories = 2
    laws = LAWS - {"constant", "scale"}
    evaluations = "samples"
    stackable = True
    slow = "runs its network at S² (N + 1) points for S evaluations"
    samples: AtLeast2 = 2
    width: AtLeast1 = 16

    def build(self, logits: Tensor) -> Iterable[Tensor]:
        self._network = Network(self.blocks, 2, self.width, 2, logits)  # H
        return self._network.parameters

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        phi = bit_logits(logits)  # [R, N]
        z = sample(logits, self.samples)  # [R, S, N, 2]
        cost, slope = cost_and_slope(f, z)  # [R, S], [R, S, N]
        b = z[..., 1]  # [R, S, N]
        score, flip = b - phi.sigmoid().unsqueeze(1), 1 - 2 * b
        q = (flip * phi.unsqueeze(1)).sigmoid() / flip.shape[-1]  # q(¬bᵢ)/N, [R, S, N]
        h, h_star = self._extrapolated(cost, slope, b, flip)  # [R, S, 1 + N]
        stein = (q * (h[..., 1:] - h[..., :1])).sum(-1)  # (A h)(b), [R, S]
        # h̃ differs at a flip of bit i by h* that differs, and by y − θ that differs in bit i.
        differs = (q * (h_star[..., 1:] - h_star[..., :1])).sum(-1, keepdim=True)
        stein_tilde = differs * score + q * h_star[..., 1:] * flip  # (A h̃)(b), [R, S, N]
        advantage = cost - leave_one_out_mean(cost + stein, dim=1)  # [R, S]
        g = (advantage.unsqueeze(-1) * score + stein_tilde).mean(1)  # [R, N]
        return cost.mean(1) + (g * nabla(phi)).sum(-1)  # [R]

    def _extrapolated(
        self, cost: Tensor, slope: Tensor, b: Tensor, flip: Tensor
    ) -> tuple[Tensor, Tensor]:
        """hₖ and h*ₖ at bₖ and at its N flips: each [R, S, 1 + N]."""
        own = (slope * b).sum(-1)  # ⟨f'(b_l), b_l⟩, [R, S]
        here = torch.einsum("rkn,rln->rkl", b, slope) - own.unsqueeze(1)  # [R, S, S]
        there = here.unsqueeze(-1) + flip.unsqueeze(2) * slope.unsqueeze(1)  # [R, S, S, N]
        rise = torch.cat([here.unsqueeze(-1), there], -1)  # ⟨f'(b_l), y − b_l⟩, [R, S, S, 1 + N]
        level = cost[:, None, :, None].expand_as(rise)
        h = self._network(torch.stack([level, rise], -1))  # [R, S, S, 1 + N, 2]
        others = 1 - torch.eye(b.shape[1], dtype=h.dtype, device=h.device)
        h = torch.einsum("kl,rklyo->rkyo", others / (b.shape[1] - 1), h)
        return h[..., 0], h[..., 1]
