"""Sum and sample: the k likeliest outcomes summed, one of the others sampled.

    ĝ = Σ_{z∈C} p(z) ĝ₀(z) + (1 − p(C)) ĝ₀(z'),    z' ~ p(· | z ∉ C),    ĝ₀(z) = f(z) ∇ log p(z)

C holds the k likeliest of the K^N outcomes: the joint code is one categorical, as in the paper,
and ĝ₀ the score of the joint, so that ĝ estimates the gradient in all latents at once.

Let z be z' with probability 1 − p(C), else a draw from C.  ĝ is the mean of ĝ₀(z) given z', which
makes it unbiased, with a variance of (1 − p(C))² Var ĝ₀(z') ≤ (1 − p(C)) Var ĝ₀(z).  k = 0 is
REINFORCE, k ≥ K^N − 1 is exact.  k + 1 evaluations of f, on the vertices alone; the K^N
probabilities are listed.

Liu, Regier, Tripuraneni, Jordan & McAuliffe, "Rao-Blackwellized stochastic gradients for discrete
distributions", 2019, arXiv 1810.04777.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, sample
from gradest.enumeration import LIMIT, all_codes


@dataclass(eq=False)
class SumAndSample(Estimator):
    outcomes: ClassVar[int | None] = LIMIT
    laws: ClassVar[frozenset[str]] = LAWS - {"constant"}
    evaluations: ClassVar[str] = "min(k + 1, K ** N)"
    k: Annotated[int, Ge(0)] = 1

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        codes = all_codes(logits)  # [K^N, N, K]
        joint = reduce(_outer_sum, logits.log_softmax(-1).unbind(1))  # [R, K^N], log p
        # The last outcome is sampled from a set of one, which is to sum it.
        summed = joint.topk(min(self.k, len(codes) - 1)).indices  # [R, k], C
        rest = joint.scatter(1, summed, -torch.inf)  # [R, K^N], log p outside of C
        sampled = sample(rest.unsqueeze(1)).argmax(-1)  # [R, 1], z'
        index = torch.cat([summed, sampled], 1)  # [R, k + 1]
        log_p = joint.gather(1, index)  # [R, k + 1]
        log_weight = torch.cat([log_p[:, :-1], rest.logsumexp(1, keepdim=True)], 1)
        cost = f(codes[index])  # [R, k + 1]
        # Detached, because ∇p = p ∇ log p is in the last factor already.
        return (log_weight.detach().exp() * cost * (1 + nabla(log_p))).sum(1)  # [R]


def _outer_sum(a: Tensor, b: Tensor) -> Tensor:
    """[R, C] and [R, K] -> [R, C · K], in the order of `all_codes`."""
    return (a.unsqueeze(2) + b.unsqueeze(1)).flatten(1)
