"""Unordered set estimator: outcomes without replacement, averaged over their order.

    ĝ = Σ_{s∈S} p(s) R(S, s) [f(s) − B_s] ∇ log p(s),    R(S, s) = p^{−s}(S−s) / p(S)
    B_s = p(s) f(s) + Σ_{s'≠s} p(s') p^{−s,s'}(S−{s, s'}) / p^{−s}(S−s) f(s')

p(S) is the probability of drawing the set S, in any order; p^{−C} is p without the outcomes C,
renormalised.  The outcomes are those of the joint of all N latents, so S holds k = `samples` of the
K^N, drawn down the tree of prefixes without listing them: ĝ estimates ∇ E f, without bias for every
k, N, K.

Without its baseline B it is REINFORCE averaged over which member of S came first, so the variance
is at most REINFORCE's; with it and k = 2, at most RLOO's.  Neither is always the better.  k = 1,
where there is no B, is REINFORCE, and k = K^N is exact.  The weights of B_s sum to one, so that
f(s) − B_s = Σ_{s'≠s} w_ss' (f(s) − f(s')), which no constant in f touches.

f can be any black box; k evaluations.  p(S) is summed over subsets, of which there are 2^k.

Kool, van Hoof & Welling, "Estimating gradients for discrete random variables by sampling without
replacement", 2020, arXiv 2002.06043.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import log_prob, nabla

from ._without_replacement import log_set_probabilities, without_replacement


@dataclass(eq=False)
class UnorderedSet(Estimator):
    laws = LAWS
    evaluations = "min(samples, K ** N)"
    samples: Annotated[int, Ge(1), Le(10)] = 2
    baseline: bool = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z, log_p, log_rest = without_replacement(logits, self.samples)  # [R, S, N, K], [R, S], [R]
        cost = advantage = f(z)  # [R, S]
        log_set = log_set_probabilities(log_p, log_rest)
        one = [1 << s for s in range(len(log_p[0]))]  # the sets that hold s alone
        first = torch.stack([log_set[s] for s in one], 1)  # [R, S], log p^{−s}(S−s)
        weight = (log_p + first - log_set[0].unsqueeze(1)).exp()  # p(s) R(S, s)
        if self.baseline and len(one) > 1:
            both = torch.stack([torch.stack([log_set[s | t] for t in one], 1) for s in one], 1)
            w = (log_p.unsqueeze(1) + both - first.unsqueeze(2)).exp()  # [R, S, S]
            # The weights of s itself, on the diagonal, meet a difference of zero.
            advantage = (w * (cost.unsqueeze(2) - cost.unsqueeze(1))).sum(2)
        score = nabla(log_prob(logits.unsqueeze(1), z))  # [R, S]
        return (weight * (cost + advantage * score)).sum(1)  # [R]
