"""Advantages as libraries for reinforcement learning compute them, as an estimator."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradest.contracts import ScoreFunction
from gradest.errors import ContractError, UsageError
from gradest.knobs import AtLeast2

Advantages = Callable[[Tensor], Tensor]


def advantages(fn: Advantages, samples: int = 4, *, batched: bool = False) -> type[ScoreFunction]:
    """A class of estimators that weight scores by a function of the rewards of a group.

        ĝ = −1/G Σᵢ aᵢ ∇ log p(zᵢ),    a = fn(r),    rᵢ = −f(zᵢ),    zᵢ ~ p

    The sign turns the ascent of rewards into the gradient of the cost.  fn maps rewards [G] to
    advantages [G] or, where it is `batched`, [B, G] to [B, G], group by group.  G is the knob
    `samples`, at least two.  The class claims to be unbiased and no law; a subclass may claim
    otherwise:

        class Centred(advantages(lambda rewards: rewards - rewards.mean(), samples=8)):
            unbiased = False

    Raises UsageError unless fn is a function and `samples` a whole number of at least two.  An
    estimate raises ContractError for advantages of another shape than the rewards.
    """
    if not callable(fn):
        raise UsageError(f"fn = {fn!r:.60}; expected a function of rewards")
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 2:
        raise UsageError(f"samples = {samples!r:.60}; expected a whole number of at least 2")
    size, name = samples, getattr(fn, "__name__", type(fn).__name__)

    @dataclass(eq=False)
    class Weighted(ScoreFunction):
        laws: ClassVar[frozenset[str]] = frozenset()
        samples: AtLeast2 = size

        def advantages(self, cost: Tensor) -> Tensor:
            rewards = -cost.detach()  # [R, S]
            if batched:
                return -_like(rewards, fn(rewards), name)
            return -torch.stack([_like(group, fn(group), name) for group in rewards])

    # The class belongs to the code that makes it, as a plugin does, and not to the catalogue.
    Weighted.__module__ = sys._getframe(1).f_globals.get("__name__", "__main__")
    Weighted.__name__ = Weighted.__qualname__ = name
    Weighted.__doc__ = fn.__doc__ or f"Scores weighted by {name}."
    return Weighted


def _like(rewards: Tensor, result: Tensor, name: str) -> Tensor:
    """The result in the dtype of the rewards.  Raises ContractError for another shape."""
    if isinstance(result, Tensor) and result.shape == rewards.shape:
        return result.detach().to(rewards)
    shape = list(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
    raise ContractError(
        f"{name}: expected advantages of shape {list(rewards.shape)}, as the rewards, got {shape}"
    )
