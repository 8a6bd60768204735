"""Sampling without replacement from all K^N outcomes, by stochastic beam search.

Kool, van Hoof & Welling, "Stochastic beams and where to find them: the Gumbel-top-k trick for
sampling sequences without replacement", 2019, arXiv 1903.06059.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gradest.categorical import gumbel, one_hot, sample


class Beam(NamedTuple):
    """Distinct outcomes in the order in which they were drawn: S is `samples`, or K^N if less."""

    z: Tensor  # [R, S, N, K]
    log_p: Tensor  # [R, S]
    log_rest: Tensor  # [R], the probability of all the others together


@torch.no_grad()
def without_replacement(logits: Tensor, samples: int) -> Beam:
    """The outcomes of the S largest log p(z) + G among all K^N, which are never listed.

    A node of the tree of prefixes carries the probability of its leaves and their largest
    perturbed value.  Of a node's children a draw says which has that value; the others are Gumbels
    below it.  The S largest nodes of a level hold the S largest leaves.  What is dropped is
    added up, because 1 − Σ p would round to nothing where the outcomes drawn are nearly certain.
    """
    log_pi = logits.log_softmax(-1)  # [R, N, K]
    log_p = logits.new_zeros(len(logits), 1)  # [R, S]
    top = gumbel(log_p)  # [R, S]
    log_rest = torch.full_like(log_p[:, 0], -torch.inf)  # [R]
    index = torch.empty_like(log_p, dtype=torch.long).unsqueeze(-1)[..., :0]  # [R, S, n]
    for n, categories in enumerate(log_pi.unbind(1)):
        heir = sample(logits[:, n : n + 1], log_p.shape[1]).squeeze(2) > 0  # [R, S, K]
        log_p = log_p.unsqueeze(-1) + categories.unsqueeze(1)  # [R, S, K]
        bound = top.unsqueeze(-1)
        # e⁻ᵍ, exponential with rate p, starts at e⁻ᵗᵒᵖ: it has no memory.
        below = -torch.logaddexp(-bound, -(log_p + gumbel(log_p)))
        top, order = torch.where(heir, bound, below).flatten(1).sort(1, descending=True)
        top, kept, dropped = top[:, :samples], order[:, :samples], order[:, samples:]
        log_rest = torch.logaddexp(log_rest, log_p.flatten(1).gather(1, dropped).logsumexp(1))
        log_p = log_p.flatten(1).gather(1, kept)  # [R, S]
        parent, child = kept // logits.shape[-1], kept % logits.shape[-1]
        prefix = index.gather(1, parent.unsqueeze(-1).expand(-1, -1, n))
        index = torch.cat([prefix, child.unsqueeze(-1)], -1)
    return Beam(one_hot(index, logits), log_p, log_rest)


def log_set_probabilities(log_p: Tensor, log_rest: Tensor) -> list[Tensor]:
    """For each C ⊆ S log p^{−C}(S−C), the probability of drawing the rest of S when C is gone: [R].

    In any order; p^{−C} is p without C, renormalised.  The subsets are counted in binary.  By the
    first draw it is Σ_{s ∈ S−C} p(s)/p(D−C) p^{−C,s}(S−C−s): 2^S subsets in place of S! orders.
    """
    log_p, everything = log_p.unbind(1), 1 << log_p.shape[1]
    found = [torch.zeros_like(log_rest)] * everything
    for without in reversed(range(everything - 1)):
        left = [s for s in range(len(log_p)) if not without >> s & 1]
        first = torch.stack([log_p[s] + found[without | 1 << s] for s in left])
        mass = torch.stack([log_rest, *(log_p[s] for s in left)])
        found[without] = first.logsumexp(0) - mass.logsumexp(0)
    return found
