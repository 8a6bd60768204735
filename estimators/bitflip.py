"""BitFlip-1: the local expectation gradient of one bit, chosen at random.

    ĝₙ = N θₙ (1 − θₙ) (−1)^bₙ (f(b with bit n flipped) − f(b)),    n ~ Uniform{1..N},    b ~ p

and zero in the other coordinates.  Given n it is the local expectation gradient of that bit, so ĝ
is unbiased, does not vary for N = 1, and has N times the second moment of `local_expectation` at
2 evaluations of f, on the vertices alone, instead of N + 1.

Kunes, Yin, Land, Haviv, Pe'er & Tavaré, "Gradient estimation for binary latent variables via
gradient variance clipping", 2022, arXiv 2208.06124.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, sample, softmax


@dataclass(eq=False)
class BitFlip(Estimator):
    categories = 2
    laws = LAWS
    evaluations = "2"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        b = sample(logits)  # [R, N, 2]
        chosen = sample(torch.zeros_like(logits[..., 0]).unsqueeze(1))  # [R, 1, N], one-hot n
        flipped = torch.where(chosen.transpose(1, 2) > 0, 1 - b, b)  # [R, N, 2]
        cost = f(b)  # [R]
        difference = f.frozen(flipped) - cost  # [R]
        a = softmax(logits).prod(-1, keepdim=True)  # [R, N, 1], θ (1 − θ)
        # flipped − b is ±1 in the two coordinates of bit n, and zero in all others.
        g = b.shape[1] * a * difference[:, None, None] * (flipped - b)  # [R, N, 2]
        return cost + (g * nabla(logits)).sum((-2, -1))  # [R]
