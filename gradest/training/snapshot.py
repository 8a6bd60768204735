"""The gradient itself, at a state that training has come to."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gradest.contracts import Estimator, Model, Task
from gradest.costs import Problem
from gradest.errors import NonFiniteGradient
from gradest.knobs import build
from gradest.measuring.measurement import measure
from gradest.measuring.rounding import resolution
from gradest.training.settings import GradientMeasurements
from gradest.training.trainer import Trainer

_ROUNDING = resolution(torch.float64) ** 2
_ADAPT_STEPS = 200  # at most: a state is looked at in passing


class Snapshot(Task):
    """The problem of some observations at fixed networks."""

    def __init__(self, trainer: Trainer, x: Tensor) -> None:
        self.name = trainer.model.name
        self._model: Model = trainer.model
        self._networks = copy.deepcopy(trainer.networks).double().requires_grad_(False)
        self._x = x.double()

    def problem(self, batch: Any = None) -> Problem:
        return self._model.problem_at(self._networks, self._x if batch is None else batch)

    def penalty(self, logits: Tensor) -> Tensor:
        return self._model.penalty(logits)


def fresh_estimator(trainer: Trainer) -> tuple[Estimator, int]:
    """One with the knobs that the trained one has now, and how often it adapts before a look."""
    estimator = build(type(trainer.estimator), trainer.estimator.knobs)
    return estimator, min(estimator.adapt_steps, _ADAPT_STEPS)


def measure_gradient(
    trainer: Trainer, x: Tensor, looks: GradientMeasurements, seed: int
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Variance and, where the truth is known, squared bias in ‖g‖², each with its interval's ends.

    The square, which is debiased and can be negative: a mean of roots would not come down to zero.

    Of a fresh estimator with the knobs that the trained one has now.  Nothing where estimates are
    not finite, as of networks that have diverged.
    """
    estimator, steps = fresh_estimator(trainer)
    snapshot = Snapshot(trainer, x)
    logits = snapshot.problem().logits
    if logits.isnan().any() or logits.isposinf().any():
        return
    try:
        row = measure(
            estimator,
            snapshot,
            replicates=looks.replicates,
            seed=seed,
            adapt_steps=steps,
            dtype=torch.float64,
            device=x.device,
            progress=False,
        ).row()
    except NonFiniteGradient:
        return
    ends = ("", "_low", "_high")
    yield "gradient_variance", {end: row[f"variance{end}"] for end in ends}
    if row["gradient_norm"] > 0:  # NaN where the truth is unknown
        squares = {end: row[f"bias_sq{end}"] / row["gradient_norm"] ** 2 for end in ends}
        # What is enumerated without a bias is left with the rounding of its sums.
        yield (
            "gradient_bias_sq",
            {end: x if abs(x) > _ROUNDING else 0.0 for end, x in squares.items()},
        )
