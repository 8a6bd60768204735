"""One categorical latent with a reward that rises by small equal steps.

    f(z) = ½ + k/(K R),    k = 1, …, K the category,    log α_k = tilt · k/K

The reward is large and its differences are small, so that an estimator must subtract the former to
see the latter.  It is a black box: f is given for the K categories alone.

Yin, Yue & Zhou, "ARSM: augment-REINFORCE-swap-merge estimator for gradient backpropagation through
categorical variables", 2019, arXiv 1905.01413, with K = R = 30 and, at the start, equal
probabilities.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.knobs import AtLeast2, Positive


@dataclass(eq=False)
class GradedReward(Task):
    relaxable = False
    categories: AtLeast2 = 5
    ratio: Positive = 2.0
    tilt: float = 1.0

    def problem(self, batch: Any = None) -> Problem:
        steps = torch.arange(1, self.categories + 1, dtype=torch.float64) / self.categories  # [K]
        rewards = 0.5 + steps / self.ratio  # [K]

        def cost(z: Tensor) -> Tensor:  # [..., 1, K] -> [...]
            return z.squeeze(-2) @ rewards.to(z)

        return Problem((self.tilt * steps)[None, None], Cost(cost))
