"""The gradient itself, at a state that training has come to."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gradest.contracts import Model, Problem, Task
from gradest.knobs import build
from gradest.measuring.measurement import measure
from gradest.training.settings import GradientLooks
from gradest.training.trainer import Trainer

_ADAPT_STEPS = 200  # at most: a state is looked at in passing


class Snapshot(Task):
    """The problem of some observations at fixed networks."""

    def __init__(self, trainer: Trainer, x: Tensor) -> None:
        self.name = trainer.model.name
        self._model: Model = trainer.model
        self._networks = copy.deepcopy(trainer.networks).double().requires_grad_(False)
        self._x = x.double()

    def problem(self, batch: Any = None) -> Problem:
        return self._model.posed(self._networks, self._x if batch is None else batch)

    def penalty(self, logits: Tensor) -> Tensor:
        return self._model.penalty(logits)


def looked_at(
    trainer: Trainer, x: Tensor, looks: GradientLooks, seed: int
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Variance and, where the truth is known, relative bias, each with the ends of its interval.

    Of a fresh estimator with the knobs that the trained one has now.
    """
    estimator = build(type(trainer.estimator), trainer.estimator.knobs)
    row = measure(
        estimator,
        Snapshot(trainer, x),
        replicates=looks.replicates,
        seed=seed,
        adapt_steps=min(estimator.adapt_steps, _ADAPT_STEPS),
        dtype=torch.float64,
        device=x.device,
    ).row()
    ends = ("", "_low", "_high")
    yield "gradient_variance", {end: row[f"variance{end}"] for end in ends}
    norm = row.get("gradient_norm")
    if norm:
        bias = {end: max(row[f"bias_sq{end}"], 0.0) ** 0.5 / norm for end in ends}
        yield "gradient_bias", bias
