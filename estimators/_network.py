"""A network with one hidden layer, for control variates that are learned."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from gradest.randomness import draws


class Network:
    """x ↦ silu(x W + c) V + d: [..., inputs] -> [..., outputs].

    W comes from the draws in force; V and d start at zero, so that nothing is controlled before
    anything is learned.  SiLU is smooth, so that its slope can be tuned, and does not saturate.
    """

    def __init__(self, inputs: int, width: int, outputs: int, like: Tensor) -> None:
        first = draws().normal((inputs, width), like).to(like.dtype) / inputs**0.5
        zeros = ((width,), (width, outputs), (outputs,))
        self.parameters = [first, *(like.new_zeros(shape) for shape in zeros)]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def __call__(self, x: Tensor) -> Tensor:
        w, c, v, d = self.parameters
        return torch.addmm(d, silu(torch.addmm(c, x.flatten(0, -2), w)), v).unflatten(
            0, x.shape[:-1]
        )
