"""Derivatives that methods need before their backward pass: of a cost, and of a softmax."""

import torch
from torch import Tensor

from gradest import Cost


def cost_and_derivative(f: Cost, z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z) [R], attached to the task's parameters, and f'(z) [R, N, K], for z [R, N, K]."""
    z = z.detach().requires_grad_()
    cost = f(z)
    (derivative,) = torch.autograd.grad(cost.sum(), z, retain_graph=True)
    return cost, derivative


def softmax_pull(y: Tensor, g: Tensor) -> Tensor:
    """J(y) g = y ⊙ g − y yᵀg, what g pulls at the logits of y = softmax: [..., K] twice."""
    pull = y * g
    return pull - y * pull.sum(-1, keepdim=True)
