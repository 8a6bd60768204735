"""K = 2 seen as one bit: category 1 is b = 1, its logit φ = log α₁ − log α₀, and θ = σ(φ).

With ĝ the estimate for φ, the estimates for the two logits are (−ĝ, ĝ), which ∇φ supplies itself.
"""

import torch
from torch import Tensor

from gradest import Cost
from gradest.randomness import draws


def bit_logits(logits: Tensor) -> Tensor:
    """φ: [..., N, 2] -> [..., N]."""
    return logits[..., 1] - logits[..., 0]


def vertices(b: Tensor, like: Tensor) -> Tensor:
    """Bits as one-hot codes in the dtype of `like`: [..., N] -> [..., N, 2]."""
    return torch.stack([~b, b], -1).to(like)


def antithetic_pair(logits: Tensor) -> tuple[Tensor, Tensor]:
    """u ~ U(0, 1)ᴺ, and the bits b = 1[u < θ] and b̃ = 1[u > 1 − θ] that share it.

    [R, N, 2] -> u [R, N], and b and b̃ as [R, 2, N].  In float64 whatever the dtype of the logits;
    1 − u < θ, since 1 − θ would round to 1 while θ is still far from 0.
    """
    theta = bit_logits(logits.detach().double()).sigmoid()
    u = draws().uniform(theta.shape, theta)
    return u, torch.stack([u < theta, 1 - u < theta], 1)


def cost_and_slope(f: Cost, z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z), and f' along the bits with z = (1 − b, b): [R, S, N, 2] -> [R, S] and [R, S, N]."""
    z = z.detach().requires_grad_()
    cost = f(z)
    (slope,) = torch.autograd.grad(cost.sum(), z, retain_graph=True)
    return cost, slope[..., 1] - slope[..., 0]
