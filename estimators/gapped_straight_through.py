"""Gapped straight-through (GST): Gumbel-softmax's logits given z, but no noise.

    ĝ = 1/τ J(y) f'(z),    z ~ Cat(α),    y = softmax(φ̃/τ)
    φ̃_z = max φ,    φ̃_j = min(φ_j, max φ − gap)  for j ≠ z,    φ = log α

The logits are moved, at a fixed distance, until z leads by at least the gap, as it does in
st_gumbel_softmax by luck.  No noise is drawn beyond z.  `gap="adaptive"` takes the mean lead that
z has there, E[max − runner-up of φ + G | argmax = z] = −log(1 − π_z)/π_z.  Biased, even for
affine f.

f must be differentiable at the vertices; one evaluation and one derivative.

Fan, Chi, Rudnicky & Ramadge, "Training discrete deep generative models via gapped
straight-through estimator", 2022, arXiv 2206.07235.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import nabla, sample, softmax, straight_through
from gradest.knobs import Positive


@dataclass(eq=False)
class GappedStraightThrough(SurrogateSample):
    gap: Positive | Literal["adaptive"] = 1.0
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        z, phi = sample(logits), logits.detach()  # [R, N, K]
        gap = _mean_lead(phi, z) if self.gap == "adaptive" else self.gap
        top = phi.amax(-1, keepdim=True)  # [R, N, 1]
        moved = torch.where(z > 0, top, torch.minimum(phi, top - gap))
        return straight_through(z, softmax((moved + nabla(logits)) / self.temperature))  # [R]


def _mean_lead(phi: Tensor, z: Tensor) -> Tensor:
    """−log(1 − π_z)/π_z: [R, N, K] -> [R, N, 1]."""
    log_pi = phi.log_softmax(-1)
    # Summed over the others: 1 − π_z would round to zero where z is nearly certain.
    log_others = log_pi.masked_fill(z > 0, -torch.inf).logsumexp(-1, keepdim=True)
    log_own = log_pi.gather(-1, z.argmax(-1, keepdim=True))
    return -log_others * (-log_own).exp()
