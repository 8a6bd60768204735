"""Bits with a common logit, together one categorical latent.

    f(z) = Σᵢ (xᵢ − pᵢ)²,    x = Σ_c z_c x_c,    log α_c = Σᵢ log Bernoulli(x_ci; sigmoid(η))

The K = 2ᴵ categories are the codes x_c ∈ {0, 1}ᴵ of I bits, p = `targets`.  Off the vertices x is
the mean code, so that f is the same parabola.  Gradients are also with respect to the common logit
η, the parameter `eta`.

Kool, van Hoof & Welling, "Estimating gradients for discrete random variables by sampling without
replacement", 2020, arXiv 2002.06043, with three bits at η = 0 and −4.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gradest import Cost, Problem, Task
from gradest.errors import KnobError

_MOST = 10  # bits, of 1,024 categories


@dataclass(eq=False)
class JointBits(Task):
    parameters = ("eta",)
    eta: float = -1.0
    targets: tuple[float, ...] = (0.6, 0.51, 0.48)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.targets) <= _MOST:
            raise KnobError(
                f"{self.name}: expected 1 to {_MOST} targets, one for each bit, got "
                f"{len(self.targets)}"
            )

    def problem(self, batch: Any = None) -> Problem:
        bits = list(itertools.product((0.0, 1.0), repeat=len(self.targets)))
        codes = torch.tensor(bits, dtype=torch.float64)  # [K, I]
        targets = torch.tensor(self.targets, dtype=torch.float64)  # [I]
        ones = codes.sum(-1)  # [K]
        zeros = len(self.targets) - ones
        logits = ones * logsigmoid(self._eta) + zeros * logsigmoid(-self._eta)  # [K]

        def cost(z: Tensor) -> Tensor:  # [..., 1, K] -> [...]
            return (z.squeeze(-2) @ codes.to(z) - targets.to(z)).square().sum(-1)

        return Problem(logits[None, None], Cost(cost))

    def group(self, name: str) -> Iterable[Tensor]:
        return [self._eta]

    @cached_property
    def _eta(self) -> Tensor:
        return torch.tensor(self.eta, dtype=torch.float64, requires_grad=True)
