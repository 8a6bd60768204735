"""Cells that train a model with an estimator."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from gradest.knobs import build
from gradest.measuring.replicator import Replicator
from gradest.measuring.truth import Reference
from gradest.registry import Registry
from gradest.running.cells import EstimatorCell, Payload
from gradest.running.clock import seconds_of
from gradest.running.trial import expected_seconds
from gradest.threads import one_thread
from gradest.training.course import train
from gradest.training.evaluation import negative_bound
from gradest.training.networks import keep_networks
from gradest.training.settings import GradientMeasurements, TrainingSettings
from gradest.training.snapshot import Snapshot, fresh_estimator
from gradest.training.trainer import Trainer

UNFINISHED = "unfinished"  # in a run's folder: a folder for each training that is not finished

NETWORKS = "networks"  # and a file for each that is

_TRIED = 5  # steps by which a training is timed
_POINTS, _CODES = 20, 50  # and what an evaluation is timed by


def own_folder(folder: Path, key: str) -> Path:
    """Where a training of the run in `folder` keeps what it goes on from."""
    return folder / UNFINISHED / key


@dataclass(frozen=True)
class TrainingCell(EstimatorCell):
    """One training."""

    kind: ClassVar[str] = "training"
    settings: ClassVar[tuple[str, ...]] = ("learning_rate", "seed")

    learning_rate: float
    training: Mapping[str, Any]
    device: str

    @property
    def _fields(self) -> dict[str, Any]:
        """Without how often the training is saved, which changes no number."""
        named = {k: v for k, v in self.training.items() if k != "checkpoint_seconds"}
        return {**asdict(self), "training": named}

    @property
    def _file(self) -> str:
        """Of the networks: what tells trainings apart at a glance, and the key that always does."""
        named = [re.sub(r"[^\w.]+", "-", name)[:80] for name in (self.task, self.estimator)]
        rate, seed = f"{self.learning_rate:g}", str(self.seed)
        return "_".join([*named, f"rate{rate}", f"seed{seed}", self.key[:12]]) + ".pt"

    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        settings = TrainingSettings.model_validate(self.training)
        own = own_folder(folder, self.key)
        trainer = self.trainer(registry)
        points, pictures = train(trainer, settings, self.draw_seed, own)
        keep_networks(folder / NETWORKS / self._file, trainer.networks)
        return {"training": {"points": [list(p) for p in points], "pictures": pictures.to_json()}}

    def expected_seconds(self, registry: Registry) -> float:
        """Of the steps, of the bounds, and of the looks at the gradient, as at the first step."""
        settings = TrainingSettings.model_validate(self.training)
        asked = settings.evaluation
        with one_thread():
            trainer = self.trainer(registry)
            gradient = _of_looks(trainer, settings.gradient)
            trainer.advance()  # what is made once is no part of a step
            steps = seconds_of(lambda: [trainer.advance() for _ in range(_TRIED)])
            items = trainer.model.data("test").to(trainer.device)
            few = items[:_POINTS]
            codes = seconds_of(lambda: negative_bound(trainer, few, _CODES)) / len(few) / _CODES
        looks = 2 * (1 + settings.steps // asked.every) * asked.points * asked.samples
        test = min(asked.test_points, len(items)) * asked.test_samples
        return steps / _TRIED * settings.steps + codes * (looks + test) + gradient

    def trainer(self, registry: Registry) -> Trainer:
        """At its first step.  Raises Inapplicable."""
        settings = TrainingSettings.model_validate(self.training)
        return Trainer(
            build(registry.estimator(self.estimator), self.estimator_knobs),
            build(registry.task(self.task), self.task_knobs),
            learning_rate=self.learning_rate,
            batch=settings.batch,
            seed=self.seed,
            anneal=settings.anneal.get(self.estimator, {}),
            dtype=getattr(torch, settings.dtype),
            device=self.device,
        )


def _of_looks(trainer: Trainer, looks: GradientMeasurements | None) -> float:
    """Seconds of all looks at the gradient, but for the truth, of 100,000 codes at the most."""
    if looks is None:
        return 0.0
    estimator, adapt_steps = fresh_estimator(trainer)

    def measured() -> Replicator:
        items = trainer.model.data("train")[: looks.points].to(trainer.device)
        x = trainer.model.preprocess(items, torch.float64)
        return Replicator(estimator, Snapshot(trainer, x), torch.float64, trainer.device)

    one = expected_seconds(measured, adapt_steps, lambda *_: looks.replicates, trainer.device)
    return len(set(looks.steps)) * one
