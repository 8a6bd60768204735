"""PKPO: the gradient of the best of k costs, from n samples.

    J = E min(f(z₁), …, f(z_k)),    ĝ = Σᵢ (wᵢ − bᵢ) ∇ log p(zᵢ),    zᵢ ~ p,    i = 1 … n

    wᵢ = 1/C(n, k) Σ_{S ∋ i} min_{j ∈ S} f(zⱼ),    over the k-subsets S of the samples

wᵢ is the credit of sample i in Ĵ_k, the mean of the minima over all k-subsets, which is the value.
The baselines do not depend on zᵢ, so that ĝ is unbiased for ∇J; Ĵ(−i) is that of the other samples:

    loo            k/(n − 1) Ĵ_k(−i), the mean credit of the others in a batch without i
    loo_minus_one  k/n Ĵ_{k−1}(−i)
    centred        k/n Ĵ_k(−i), for which the advantages sum to zero; proposed here

A constant added to f changes no estimate with the last two.  All of them are linear in the sorted
costs, and the combinations are those of ranks.  k is the objective's, and n = k + `extra`; loo and
centred need `extra` ≥ 1.  For f = 1 − success J is 1 − pass@k.

Walder & Karkhanis, "Pass@K policy optimization: solving harder reinforcement learning problems",
2025, arXiv 2505.15201.
"""

from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import log_prob, nabla, sample
from gradest.errors import KnobError

Baseline = Literal["none", "loo", "loo_minus_one", "centred"]


@dataclass(eq=False)
class PKPO(Estimator):
    objective = "minimum"
    evaluations = "m + extra"
    laws = LAWS - {"scale"}  # −f has other minima
    extra: Annotated[int, Ge(0)] = 2
    baseline: Baseline = "loo_minus_one"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extra == 0 and self.baseline in ("loo", "centred"):
            raise KnobError(
                f"{self.name}: the baseline {self.baseline!r} needs extra of at least 1"
            )

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        k, n = f.samples, f.samples + self.extra
        z = sample(logits, n)  # [R, n, N, K]
        cost, rank = f(z).sort(1)  # [R, n]
        score = log_prob(logits.unsqueeze(1), z).gather(1, rank)  # [R, n]
        advantage = cost @ cost.new_tensor(_advantages(n, k, self.baseline)).T  # [R, n]
        value = cost @ cost.new_tensor(_minimum(n, k))  # Ĵ_k, [R]
        return value + (advantage * nabla(score)).sum(1)


def _minimum(n: int, k: int) -> list[float]:
    """The coefficients of the sorted costs in Ĵ_k: f₍ⱼ₎ is the least in C(n − j, k − 1) subsets."""
    return [comb(n - j, k - 1) / comb(n, k) for j in range(1, n + 1)]


@cache
def _advantages(n: int, k: int, baseline: Baseline) -> list[list[float]]:
    """The coefficients of the sorted costs, the columns, in w₍ᵢ₎ − b₍ᵢ₎, the rows: [n, n]."""
    rows = []
    for i in range(1, n + 1):
        row = [comb(n - j - 1, k - 2) / comb(n, k) if j < i else 0.0 for j in range(1, n + 1)]
        row[i - 1] = comb(n - i, k - 1) / comb(n, k)
        if baseline != "none":
            size = k - 1 if baseline == "loo_minus_one" else k
            others = _minimum(n - 1, size)
            scale = k / (n - 1 if baseline == "loo" else n)
            others.insert(i - 1, 0.0)
            row = [w - scale * b for w, b in zip(row, others, strict=True)]
        rows.append(row)
    return rows
