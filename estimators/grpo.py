"""GRPO: costs relative to their group, divided by its standard deviation.

    ĝ = 1/S Σₛ Aₛ ∇ log p(zₛ),    zₛ ~ p
    scale = std:   Aₛ = (f(zₛ) − f̄) / (σ + ε)
    scale = none:  Aₛ = f(zₛ) − f̄

f̄ and σ are the mean and the standard deviation (divisor S − 1) of the group's S costs.  The mean
holds the own cost, so that `none`, known as Dr. GRPO, has the mean (S − 1)/S · ∇ E f: a shorter
step.  σ depends on the samples as well, and so does the weight of a group: `std` is biased in
direction too, unless f takes two values only, and then by a factor that depends on their
probabilities.  For two samples A = ±1/√2, whatever the sizes of the costs: the order alone counts.
Even an affine f can have a mean that points the wrong way, where a large cost is rare.

ε keeps a group of equal costs at zero; it should be far above the rounding of f.  A multiple of f
gives the same estimates as long as σ is far above ε.  Needs f on the vertices alone.

Shao et al., "DeepSeekMath: pushing the limits of mathematical reasoning in open language models",
2024, arXiv 2402.03300; Liu et al., "Understanding R1-Zero-like training: a critical perspective",
2025, arXiv 2503.20783.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gradest import LAWS, ScoreFunction
from gradest.knobs import AtLeast2, Positive


@dataclass(eq=False)
class GRPO(ScoreFunction):
    unbiased = False
    laws = LAWS - {"scale"}
    samples: AtLeast2 = 4
    scale: Literal["std", "none"] = "std"
    eps: Positive = 1e-4

    def advantages(self, cost: Tensor) -> Tensor:
        x = cost.double()  # in single precision equal costs may have another number as their mean
        centred = x - x.mean(1, keepdim=True)  # [R, S]
        if self.scale == "std":
            centred = centred / (x.std(1, keepdim=True) + self.eps)
        return centred.to(cost)
