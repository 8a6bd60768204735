"""A reward with a KL penalty towards a reference policy, as language models are trained with.

    J = E f(z) + KL(π ‖ ref),    f(z) = −r(z)/β,    r(z) = Σₙ vₙ · zₙ + ½ 1{z₁ = z₂}

for N tokens of K words.  It is E r − β KL, divided by −β.  The logits of ref and v are standard
normal draws from `seed`; the logits of the policy are `distance` away from those of ref, in a
random direction.

`kl` says who computes the divergence: "relaxed" leaves it to an estimator that has one of its own,
for all others it is the closed form, which is the truth.

Ziegler et al., "Fine-tuning language models from human preferences", 2019, arXiv 1909.08593.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.costs import KL
from gradest.knobs import AtLeast2, Positive


@dataclass(eq=False)
class RegularisedReward(Task):
    relaxable: ClassVar[bool] = False  # a reward model reads texts
    tokens: AtLeast2 = 2
    words: AtLeast2 = 3
    beta: Positive = 0.5
    distance: Positive = 1.0
    kl: KL = "relaxed"
    seed: int = 0

    def problem(self, batch: Any = None) -> Problem:
        draws = torch.Generator().manual_seed(self.seed)
        reference, direction, values = torch.randn(
            3, self.tokens, self.words, generator=draws, dtype=torch.float64
        )
        logits = (reference + self.distance * direction / direction.norm()).unsqueeze(0)

        def cost(z: Tensor) -> Tensor:  # [..., N, K] -> [...]
            same = (z[..., 0, :] * z[..., 1, :]).sum(-1)
            return -((z * values.to(z)).sum((-2, -1)) + same / 2) / self.beta

        return Problem(logits, Cost(cost, prior=reference, kl=self.kl, logits=logits))
