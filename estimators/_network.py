"""A network with one hidden layer, for control variates that are learned."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from gradest.randomness import draws


class Network:
    """x ↦ silu(x W + c) V + d: [R, ..., inputs] -> [R, ..., outputs].

    W comes from the draws in force; V and d start at zero, so that nothing is controlled before
    anything is learned.  SiLU is smooth, so that its slope can be tuned, and does not saturate.
    Each of the `blocks` of rows has a network of its own.
    """

    def __init__(self, blocks: int, inputs: int, width: int, outputs: int, like: Tensor) -> None:
        first = draws().normal((blocks, inputs, width), like).to(like.dtype) / inputs**0.5
        zeros = ((blocks, 1, width), (blocks, width, outputs), (blocks, 1, outputs))
        self.parameters = [first, *(like.new_zeros(shape) for shape in zeros)]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def __call__(self, x: Tensor) -> Tensor:
        w, c, v, d = self.parameters
        rows = x.reshape(len(w), -1, x.shape[-1])
        return torch.baddbmm(d, silu(torch.baddbmm(c, rows, w)), v).view(*x.shape[:-1], -1)
