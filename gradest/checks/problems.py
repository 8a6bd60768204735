"""The battery's own problems: asymmetric, curved within a latent and coupled between latents."""

from typing import Any

import torch
from torch import Tensor

from gradest.contracts import Cost, Problem, Task


class Polynomial(Task):
    """f(z) = c + u + u v + v³ with u = w₁ · z and v = w₂ · z; w differs between data points."""

    def __init__(self, name: str, logits: Any, seed: int, offset: float = 0.0) -> None:
        self.name = name
        self._logits = torch.as_tensor(logits, dtype=torch.float64)  # [B, N, K]
        draws = torch.Generator().manual_seed(seed)
        self._weights = torch.randn(2, *self._logits.shape, generator=draws, dtype=torch.float64)
        self._offset = offset

    def problem(self, batch: Any = None) -> Problem:
        def cost(z: Tensor) -> Tensor:  # [B, ..., N, K] -> [B, ...]
            middle = (slice(None), *(None,) * (z.ndim - 3))
            u, v = ((z * w.to(z)[middle]).sum((-2, -1)) for w in self._weights)
            return self._offset + u + u * v + v**3

        return Problem(self._logits, Cost(cost))


def battery() -> list[Task]:
    one = [[[0.7, -0.7, 0.0]]]
    coupled = [[[0.5, -0.7, 0.2], [-0.3, 0.9, 0.0]], [[-0.8, 0.4, 0.3], [0.6, 0.0, -0.7]]]
    bits = [[[0.8, -0.3], [-0.4, 0.1], [0.2, 1.2]]]
    far = [[[0.6, -0.2], [-0.9, 0.1]], [[0.1, 0.4], [0.3, -0.8]]]
    return [
        Polynomial("one categorical", one, seed=0),
        Polynomial("coupled categoricals", coupled, seed=1),
        Polynomial("coupled bits", bits, seed=2),
        # An offset changes no gradient, but magnifies whatever is wrong with a baseline or score.
        Polynomial("bits far from zero", far, seed=3, offset=10.0),
    ]


def extreme(size: float, categories: int) -> Task:
    """Logits ±size: each category alone on top, alone at the bottom, all of them up, all down."""
    top = torch.eye(categories)
    up = torch.cat([top, 1 - top, torch.ones(1, categories), torch.zeros(1, categories)])
    logits = size * (2 * up - 1)  # [B, K]
    return Polynomial(f"logits ±{size:g}", torch.stack([logits, logits.roll(1, 0)], 1), seed=4)
