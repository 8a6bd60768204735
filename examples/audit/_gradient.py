"""The parts that wrappers share."""

import torch
from torch import Tensor

from gradest.categorical import nabla


def with_gradient(value: Tensor, gradient: Tensor, logits: Tensor) -> Tensor:
    """Estimates [R] of this value [R] whose gradient is that tensor [R, N, K]."""
    return value + (gradient.detach().to(logits) * nabla(logits)).sum((-2, -1))


def from_loss(value: Tensor, loss: Tensor, logits: Tensor) -> Tensor:
    """Estimates [R] with the gradient of a loss that is a sum over rows."""
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    return with_gradient(value, gradient, logits)


def bits(logits: Tensor) -> Tensor:
    """Binary logits [R, N] of the second of two categories, from [R, N, 2]."""
    return logits[..., 1] - logits[..., 0]


def one_hot_bits(b: Tensor) -> Tensor:
    """[..., N] of probabilities or bits to [..., N, 2]."""
    return torch.stack([1 - b, b], -1)
