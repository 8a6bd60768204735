"""Max-cut: which vertices of a graph go left, so that most edges cross.

    f(b) = −Σ_{i<j} w_ij (bᵢ + bⱼ − 2 bᵢ bⱼ),    b_n ~ Bernoulli(σ(φₙ))

The graph is a cycle, with w_ij = 1 along it, and of an odd length no cut has every edge: the best
one leaves a single edge, f = 1 − vertices.  Off the vertices of the cube f is the multilinear
extension, so that f at the probabilities is E f.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from gradest import Cost, Problem, Task


@dataclass(eq=False)
class MaxCut(Task):
    vertices: Annotated[int, Ge(3)] = 5

    def problem(self, batch: Any = None) -> Problem:
        phi = torch.arange(self.vertices).double().sin()  # [N]
        logits = torch.stack([torch.zeros_like(phi), phi], -1)  # [N, 2]
        return Problem(logits.unsqueeze(0), Cost(_minus_cut))

    def expectation(self, logits: Tensor) -> Tensor:
        """f at the probabilities."""
        return _minus_cut(logits.softmax(-1))


def _minus_cut(z: Tensor) -> Tensor:
    b = z[..., 1]  # [B, ..., N]
    following = b.roll(-1, -1)
    return -(b + following - 2 * b * following).sum(-1)
