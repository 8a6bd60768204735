"""Sampling without replacement from all K^N outcomes, one after another down the tree of prefixes.

Shi, Bieber & Sutton, "Incremental sampling without replacement for sequence models", 2020, arXiv
2002.09067.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gradest.categorical import one_hot
from gradest.randomness import draws


class Drawn(NamedTuple):
    """Distinct outcomes in the order in which they were drawn: S is `samples`, or K^N if less.

    Where masks leave fewer, repetitions with p = 0 follow, so that f never sees what cannot happen.
    """

    z: Tensor  # [R, S, N, K]
    log_p: Tensor  # [R, S]
    log_rest: Tensor  # [R], the probability of all the others together


@torch.no_grad()
def without_replacement(logits: Tensor, samples: int) -> Drawn:
    """S outcomes, each drawn from p without those before it, by categories alone: from [R, N, K].

        P(child c of a node at depth n) ∝ π_n(c) r(c),    r(node) = Σ_c π_n(c) r(c)

    r is the share of a node's mass that is not yet drawn: 0 for a leaf that is, 1 for a node on no
    path to one, so that the S paths are all that is kept of the tree.  It is added up, because
    1 − Σ p would round to nothing where the outcomes drawn are nearly certain.
    """
    log_pi = logits.log_softmax(-1)  # [R, N, K]
    rows, latents, categories = log_pi.shape
    samples = min(samples, categories**latents)
    # log π_n(c) r(c) at the nodes of each path, as its leaf left them: the path that came last
    # through a node knows it.  Path 0 is that of no leaf, with r = 1.
    paths = log_pi.new_empty(rows, samples, latents, categories)  # [R, S, N, K]
    paths[:, 0] = log_pi
    index = draws().categories(log_pi, 1)  # [R, 1, N], at once: the first leaf meets no path
    path, log_p = log_pi, []
    log_rest = torch.zeros_like(log_pi[:, 0, 0])  # [R]
    for s in range(samples):
        if s:
            path, leaf = _descent(paths[:, : s + 1], index)  # [R, N, K], [R, N]
            index = torch.cat([index, leaf.unsqueeze(1)], 1)  # [R, S, N]
        own = index[:, s].unsqueeze(-1)  # [R, N, 1]
        step = log_pi.gather(-1, own).squeeze(-1)  # [R, N]
        exhausted = log_rest == -torch.inf  # [R]
        log_p.append(step.sum(1).masked_fill(exhausted, -torch.inf))
        log_r, taken = _taken_off(path, own, step)  # [R, N], [R, N]
        log_rest = log_r[:, 0].masked_fill(exhausted, -torch.inf)
        if s + 1 < samples:
            path = path.scatter(-1, own, taken.unsqueeze(-1))
            # No draw leads to a node with r = 0 unless the root is one.  Repetitions, and draws
            # prescribed in spite of a probability of zero, find π there and no logits of −∞ alone.
            paths[:, s + 1] = torch.where(log_r.unsqueeze(-1) > -torch.inf, path, log_pi)
    return Drawn(one_hot(index, logits), torch.stack(log_p, 1), log_rest)


def _descent(paths: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The logits met on the way to one more leaf, and the leaf: [R, N, K] and [R, N].

    From the paths [R, 1 + S, N, K], the first of no leaf, and the S leaves so far [R, S, N].
    """
    number = torch.arange(1, index.shape[1] + 1, device=index.device)  # [S]
    shared = torch.ones_like(index[..., 0], dtype=torch.bool)  # [R, S]
    met, leaf = [], []
    for n in range(index.shape[2]):
        last = (shared * number).amax(1)  # [R], the last path through this node, 0 where none is
        node = paths[:, :, n].gather(1, last[:, None, None].expand(-1, 1, paths.shape[-1]))
        child = draws().categories(node, 1)[:, 0]  # [R, 1]
        shared = shared & (index[..., n] == child)
        met.append(node)
        leaf.append(child)
    return torch.cat(met, 1), torch.cat(leaf, 1)


def _taken_off(path: Tensor, own: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Without the leaf of a path: log r of its nodes, log π_n(c) r(c) of the child on it: [R, N].

    From the logits of its nodes [R, N, K], the children on it [R, N, 1] and their log π [R, N].
    """
    others = path.scatter(-1, own, -torch.inf).logsumexp(-1)  # [R, N]
    log_r, taken = [torch.full_like(step[:, 0], -torch.inf)], []  # from the leaf upwards
    for n in reversed(range(step.shape[1])):
        taken.append(step[:, n] + log_r[-1])
        log_r.append(torch.logaddexp(others[:, n], taken[-1]))
    return torch.stack(log_r[:0:-1], 1), torch.stack(taken[::-1], 1)


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
        mass = torch.stack([log_rest, *(log_p[s] for s in left)]).logsumexp(0)
        # Where no mass is left there are repetitions alone, which come without fail.
        found[without] = torch.where(mass > -torch.inf, first.logsumexp(0) - mass, 0.0)
    return found
