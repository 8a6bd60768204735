"""The derivative of a cost, for methods that need it before their backward pass."""

import torch
from torch import Tensor

from gradest import Cost


def cost_and_derivative(f: Cost, z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z) [R], attached to the task's parameters, and f'(z) [R, N, K], for z [R, N, K]."""
    z = z.detach().requires_grad_()
    cost = f(z)
    (derivative,) = torch.autograd.grad(cost.sum(), z, retain_graph=True)
    return cost, derivative
