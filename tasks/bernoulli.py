"""Independent bits with a squared cost.

    f(b) = Σₙ (bₙ − t)²,    bₙ ~ Bernoulli(θₙ),    log α = (log(1 − θ), log θ),    t = `target`

Off the vertices f reads the weight of category 1 in place of b, so it is the same parabola.

Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, "REBAR: low-variance, unbiased gradient estimates
for discrete latent variable models", 2017, arXiv 1703.07370, with θ = ½ and a target of 0.45 or
0.499.  The default θ are asymmetric: at ½ several biased estimators look right.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.errors import KnobError
from gradest.knobs import Probability


@dataclass(eq=False)
class Bernoulli(Task):
    theta: tuple[Probability, ...] = (0.3, 0.8, 0.1)
    target: float = 0.45

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.theta:
            raise KnobError(f"{self.name}: theta = (); expected a probability for each latent")

    def problem(self, batch: Any = None) -> Problem:
        theta = torch.tensor(self.theta, dtype=torch.float64)  # [N]
        logits = torch.stack([torch.log1p(-theta), theta.log()], -1)  # [N, 2]
        return Problem(logits.unsqueeze(0), Cost(self._cost))

    def expectation(self, logits: Tensor) -> Tensor:
        """Σₙ (1 − θₙ) t² + θₙ (1 − t)²."""
        costs = logits.new_tensor([self.target**2, (1 - self.target) ** 2])
        return (logits.softmax(-1) @ costs).sum(-1)

    def _cost(self, z: Tensor) -> Tensor:
        return (z[..., 1] - self.target).square().sum(-1)
