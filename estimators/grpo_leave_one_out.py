"""Leave-one-out GRPO: relative to the mean and the spread of the other costs.

    ĝ = 1/S Σₛ (f(zₛ) − f̄₋ₛ) / (σ₋ₛ + ε) ∇ log p(zₛ),    zₛ ~ p

f̄₋ₛ and σ₋ₛ (divisor S − 2) are of the S − 1 other costs, which do not depend on zₛ.  Hence
E ĝ = E[1/(σ₋ₛ + ε)] ∇ E f: the direction is exact for every f, and the bias that of a step size.
Proposed here, as the variant of `grpo` that keeps what its normalisation is for; no paper is known.

Where the others agree σ₋ₛ is zero and the weight 1/ε.  A small ε lets these groups alone count,
so that it is larger here.  Needs f on the vertices alone, and S ≥ 3.

Shao et al., "DeepSeekMath: pushing the limits of mathematical reasoning in open language models",
2024, arXiv 2402.03300.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gradest import LAWS, ScoreFunction
from gradest.knobs import Positive


@dataclass(eq=False)
class LeaveOneOutGRPO(ScoreFunction):
    unbiased = False
    aligned = True
    laws = LAWS - {"scale"}
    samples: Annotated[int, Ge(3)] = 4
    eps: Positive = 1.0

    def advantages(self, cost: Tensor) -> Tensor:
        size = self.samples
        own = torch.eye(size, dtype=torch.bool, device=cost.device)
        x = cost.double().unsqueeze(1).expand(-1, size, -1)  # [R, S, S]
        # Each row without its own cost: a sum over all less the own one would cancel.
        others = x[~own.expand_as(x)].view(len(cost), size, size - 1)  # [R, S, S − 1]
        centred = cost - others.mean(2)  # [R, S]
        return (centred / (others.std(2) + self.eps)).to(cost)
