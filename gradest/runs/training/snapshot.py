"""The gradient itself at a state of a training."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gradest.contracts import Estimator, Model, Task
from gradest.costs import Problem
from gradest.errors import NonFiniteGradient
from gradest.knobs import build
from gradest.measurement import measure
from gradest.runs.training.settings import GradientMeasurements
from gradest.runs.training.trainer import Trainer
from gradest.statistics import resolution

_ROUNDING = resolution(torch.float64) ** 2
_ADAPT_STEPS = 200  # at most, to keep the measurement short


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
    """An estimator with the present knobs of the trained one, and its adaptation steps."""
    estimator = build(type(trainer.estimator), trainer.estimator.knobs)
    return estimator, min(estimator.adapt_steps, _ADAPT_STEPS)


def measure_gradient(
    trainer: Trainer, x: Tensor, settings: GradientMeasurements, seed: int
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Measure the variance and, where the truth is known, the squared bias relative to ‖g‖².

    Each comes with the ends of its interval.  The squared bias is debiased and may be negative,
    since a mean of its root would not tend to zero.  The estimator is a fresh one with the present
    knobs of the trained one.  Nothing is yielded where estimates are not finite, such as after the
    training has diverged.
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
            replicates=settings.replicates,
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
        # An enumerated bias of zero differs from zero by the rounding of sums.
        yield (
            "gradient_bias_sq",
            {end: x if abs(x) > _ROUNDING else 0.0 for end, x in squares.items()},
        )
