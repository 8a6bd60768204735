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
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import log_prob, nabla
from gradest.measurement import LIMIT, all_codes
from gradest.randomness import draws


@dataclass(eq=False)
class SumAndSample(Estimator):
    outcomes = LIMIT
    laws = LAWS - {"constant"}
    evaluations = "min(k + 1, K ** N)"
    slow = "lists the probabilities of all K^N outcomes"
    k: Annotated[int, Ge(0)] = 1

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        codes = all_codes(logits)  # [K^N, N, K]
        log_pi = logits.log_softmax(-1)  # [R, N, K]
        joint = reduce(_outer_sum, log_pi.detach().unbind(1))  # [R, K^N], log p
        # The last outcome is sampled from a set of one, which is to sum it.
        summed = joint.topk(min(self.k, len(codes) - 1)).indices  # [R, k], C
        rest = joint.scatter(1, summed, -torch.inf)  # [R, K^N], log p outside of C
        sampled = draws().categories(rest.unsqueeze(1), 1).squeeze(2)  # [R, 1], z'
        z = codes[torch.cat([summed, sampled], 1)]  # [R, k + 1, N, K]
        cost = f(z)  # [R, k + 1]
        rest = rest.logsumexp(1, keepdim=True)  # [R, 1], log(1 − p(C))
        weight = torch.cat([joint.gather(1, summed), rest], 1).exp()  # [R, k + 1]
        # ∇ log p of the k + 1 outcomes alone, not of all that are listed.
        return (weight * cost * (1 + nabla(log_prob(log_pi.unsqueeze(1), z)))).sum(1)  # [R]


def _outer_sum(a: Tensor, b: Tensor) -> Tensor:
    """[R, C] and [R, K] -> [R, C · K], in the order of `all_codes`."""
    return (a.unsqueeze(2) + b.unsqueeze(1)).flatten(1)
