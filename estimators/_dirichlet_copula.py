"""Uniforms that are as unlike each other as n exchangeable ones can be made.

    Uᵢ = (1 − dᵢ)ᵐ,    d ~ Dirichlet(1ₙ),    m = n − 1

Each Uᵢ is uniform on (0, 1); for n = 2 they are u and 1 − u.

Dimitriev & Zhou, "ARMS: Antithetic-REINFORCE-multi-sample gradient for binary variables", 2021,
arXiv 2105.14141.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradest.randomness import draws


def copula_uniforms(shape: Sequence[int], like: Tensor) -> Tensor:
    """U in float64, on the device of `like`: [R, S, ...], coupled along S."""
    e = draws().exponential(shape, like.new_empty(0, dtype=torch.float64))
    # 1 − d is summed over the others: the difference would lose the digits of a small U.
    others = 1 - torch.eye(shape[1], dtype=e.dtype, device=e.device)
    return (torch.einsum("ij,rj...->ri...", others, e) / e.sum(1, keepdim=True)) ** (shape[1] - 1)


def roots(u: Tensor, samples: int) -> Tensor:
    """u^(1/m), the scale on which the distribution of a pair is simple."""
    return u ** (1 / (samples - 1))


def pair_cdf(a: Tensor, b: Tensor, samples: int) -> Tensor:
    """P(Uᵢ ≤ u, Uⱼ ≤ v) = max(0, a + b − 1)ᵐ for i ≠ j, with the roots a of u and b of v."""
    return (a + b - 1).clamp_(min=0) ** (samples - 1)
