"""One categorical latent with a squared cost.

    f(z) = (v · z − t)²,    z ~ Cat(α)

Off the vertices f is the same parabola of the mean value v · z.  The defaults are the three
categories α = (2, 0.5, 1), v = (0, 1, 2) and t = 0.45: skewed probabilities and a curved cost, so
that an estimator which is right only at uniform logits or for linear costs shows it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.errors import KnobError
from gradest.knobs import Positive


@dataclass(eq=False)
class Categorical(Task):
    alpha: tuple[Positive, ...] = (2.0, 0.5, 1.0)
    values: tuple[float, ...] = (0.0, 1.0, 2.0)
    target: float = 0.45

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.alpha) < 2 or len(self.alpha) != len(self.values):
            raise KnobError(
                f"{self.name}: expected an alpha and a value for each of at least two categories, "
                f"got {len(self.alpha)} entries of alpha and {len(self.values)} of values"
            )

    def problem(self, batch: Any = None) -> Problem:
        logits = torch.tensor(self.alpha, dtype=torch.float64).log()  # [K]
        values = torch.tensor(self.values, dtype=torch.float64)  # [K]

        def cost(z: Tensor) -> Tensor:  # [..., 1, K] -> [...]
            return (z.squeeze(-2) @ values.to(z) - self.target).square()

        return Problem(logits[None, None], Cost(cost))
