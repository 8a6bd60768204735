"""ARSM: augment, REINFORCE, swap, merge: ARM for categories.

    ĝ_nm = 1/K Σⱼ (f(z^{m⇌j}) − 1/K Σ_{m'} f(z^{m'⇌j})) (1 − K ϖ_nj),    ϖ_n ~ Dirichlet(1_K)

z_n = argmin_k ϖ_nk/α_nk is a draw from p, and z^{m⇌j} the same with ϖ_m and ϖⱼ swapped in every
latent at once: another draw from p.  Unbiased for every f, of which it needs values alone; for
K = 2 it is ARM with u = ϖ₁.  Cost: 1 + K(K − 1)/2 evaluations of f, also where swaps give the same
z; the value is the mean of all of them.

Yin, Yue & Zhou, "ARSM: augment-REINFORCE-swap-merge estimator for gradient backpropagation through
categorical variables", 2019, arXiv 1905.01413.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import gumbel, likeliest, nabla, softmax


@dataclass(eq=False)
class ARSM(Estimator):
    laws = LAWS
    evaluations = "1 + K * (K - 1) / 2"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        categories = logits.shape[-1]
        noise = gumbel(logits)  # −log ϖ up to a constant, [R, N, K]
        swaps, number = _swaps(categories, logits.device)  # [P, K], [K, K]
        swapped = noise[..., swaps].movedim(-2, 1)  # [R, P, N, K]
        cost = f(likeliest(logits.unsqueeze(1) + swapped))  # [R, P]
        of_swap = cost[:, number]  # f(z^{m⇌j}), [R, K, K]
        advantage = of_swap - of_swap.mean(1, keepdim=True)
        weight = 1 - categories * softmax(-noise)  # [R, N, K]
        g = torch.einsum("rmj,rnj->rnm", advantage, weight) / categories  # [R, N, K]
        return cost.mean(1) + (g * nabla(logits)).sum((-2, -1))  # [R]


def _swaps(categories: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The P = 1 + K(K − 1)/2 swaps m ⇌ j as permutations [P, K], and their numbers [K, K].

    Number 0 swaps nothing and stands for m = j.
    """
    m, j = torch.triu_indices(categories, categories, offset=1, device=device)
    order = torch.arange(1, len(m) + 1, device=device)
    swaps = torch.arange(categories, device=device).repeat(len(m) + 1, 1)
    swaps[order, m], swaps[order, j] = j, m
    number = swaps.new_zeros(categories, categories)
    number[m, j] = number[j, m] = order
    return swaps, number
