"""Logits and costs near the limits of floating point.

    log αₙₖ = spread (2k/(K − 1) − 1),    f(z) = (meanₙ vₖ zₙₖ − 0.45)²,    vₖ = k/(K − 1)

so that at a spread of 50 one category has nearly all the probability and the others as little as
e⁻¹⁰⁰.  The first `masked` categories have log α = −∞.  Off the vertices f is the same parabola of
the mean value.  In place of the parabola the cost may be constant, where every gradient is zero, or
NaN wherever the first latent is mostly in its last category.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.errors import KnobError
from gradest.knobs import AtLeast1, AtLeast2


@dataclass(eq=False)
class Extreme(Task):
    latents: AtLeast1 = 2
    categories: AtLeast2 = 3
    spread: Annotated[float, Ge(0)] = 1.0
    masked: Annotated[int, Ge(0)] = 0
    cost: Literal["quadratic", "constant", "nan"] = "quadratic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masked > self.categories - 2:
            raise KnobError(
                f"{self.name}: masked = {self.masked}; expected at most {self.categories - 2}, "
                f"which leaves two of {self.categories} categories"
            )

    def problem(self, batch: Any = None) -> Problem:
        steps = torch.linspace(-1, 1, self.categories, dtype=torch.float64)
        logits = (self.spread * steps).repeat(1, self.latents, 1)
        logits[..., : self.masked] = -torch.inf
        return Problem(logits, Cost(self._cost))

    def _cost(self, z: Tensor) -> Tensor:  # [..., N, K] -> [...]
        values = torch.linspace(0, 1, self.categories, dtype=torch.float64)
        parabola = ((z @ values.to(z)).mean(-1) - 0.45).square()
        if self.cost == "constant":
            return 1 + 0 * parabola
        if self.cost == "nan":
            return torch.where(z[..., 0, -1] > 0.5, torch.nan, parabola)
        return parabola
