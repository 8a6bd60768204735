"""Cells that train a model with an estimator."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch

from gradest.knobs import build
from gradest.measurement import Reference, Replicator
from gradest.plugins import Registry
from gradest.runs.cells import CellTables, EstimatorCell, Payload
from gradest.runs.estimate_runtime import expected_seconds, seconds_of
from gradest.runs.journal import Record
from gradest.runs.training import (
    COLUMNS,
    GradientMeasurements,
    Pictures,
    Snapshot,
    Trainer,
    TrainingSettings,
    fresh_estimator,
    keep_networks,
    negative_bound,
    rows,
    train,
    write_pictures,
)
from gradest.support import one_thread, write_frame

UNFINISHED = "unfinished"  # subfolder of a run with the checkpoints of unfinished trainings
NETWORKS = "networks"  # subfolder of a run with the networks of finished trainings

_TRIAL_STEPS = 5  # training steps in a trial
_POINTS, _CODES = 20, 50  # data points and codes of the evaluation in a trial


def own_folder(folder: Path, key: str) -> Path:
    """The folder with the checkpoints of a training, in the folder of its run."""
    return folder / UNFINISHED / key


def unfinished_keys(folder: Path) -> set[str]:
    """The keys of the trainings that have a folder in that of their run: those under way."""
    unfinished = folder / UNFINISHED
    return {path.name for path in unfinished.iterdir()} if unfinished.is_dir() else set()


class TrainingTables(CellTables):
    """The curves of trainings and the images that their models generate."""

    optional = ("training.parquet", "training.csv", "pictures.npz")

    def __init__(self, run: Mapping[str, Any]) -> None:
        super().__init__(run)
        self._curves: list[tuple[Any, ...]] = []
        self._images: dict[str, Pictures] = {}

    def add(self, record: Record) -> None:
        if record["status"] == "ok":
            self._images[record["key"]] = Pictures.from_json(record["training"]["pictures"])
        self._curves.extend(list(rows(self.suite, record)))

    def write(self, out: Path) -> None:
        if not self._curves:
            return
        frame = pd.DataFrame(self._curves, columns=list(COLUMNS))
        write_frame(out / "training.parquet", frame)
        write_frame(out / "training.csv", frame)
        write_pictures(out / "pictures.npz", self._images)


@dataclass(frozen=True)
class TrainingCell(EstimatorCell):
    """A training of a model with an estimator."""

    kind: ClassVar[str] = "training"
    tables: ClassVar[type[CellTables]] = TrainingTables
    settings: ClassVar[tuple[str, ...]] = ("learning_rate", "seed")

    seed: int
    learning_rate: float
    training: Mapping[str, Any]
    device: str

    @property
    def _fields(self) -> dict[str, Any]:
        """All fields but the interval between checkpoints, which changes no number."""
        training = {k: v for k, v in self.training.items() if k != "checkpoint_seconds"}
        return {**self.plain, "training": training}

    @property
    def _file(self) -> str:
        """The file name of the networks: readable settings, and the key, which is unique."""
        names = [re.sub(r"[^\w.]+", "-", name)[:80] for name in (self.task, self.estimator)]
        rate, seed = f"{self.learning_rate:g}", str(self.seed)
        return "_".join([*names, f"rate{rate}", f"seed{seed}", self.key[:12]]) + ".pt"

    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        settings = TrainingSettings.model_validate(self.training)
        own = own_folder(folder, self.key)
        trainer = self.trainer(registry)
        points, pictures = train(trainer, settings, self.draw_seed, own)
        keep_networks(folder / NETWORKS / self._file, trainer.networks)
        return {"training": {"points": [list(p) for p in points], "pictures": pictures.to_json()}}

    @classmethod
    def without_times(cls, payload: Payload) -> Payload:
        points = [[step, *rest] for step, _, *rest in payload["training"]["points"]]
        return {"training": {**payload["training"], "points": points}}

    def expected_seconds(self, registry: Registry) -> float:
        """The time of the steps, the evaluations and the gradient measurements, from a trial."""
        settings = TrainingSettings.model_validate(self.training)
        evaluation = settings.evaluation
        with one_thread():
            trainer = self.trainer(registry)
            gradient = _seconds_of_gradient(trainer, settings.gradient)
            trainer.advance()  # the first step also creates the state
            steps = seconds_of(lambda: [trainer.advance() for _ in range(_TRIAL_STEPS)])
            items = trainer.model.data("test").to(trainer.device)
            few = items[:_POINTS]
            codes = seconds_of(lambda: negative_bound(trainer, few, _CODES)) / len(few) / _CODES
        bounds = (
            2 * (1 + settings.steps // evaluation.every) * evaluation.points * evaluation.samples
        )
        test = min(evaluation.test_points, len(items)) * evaluation.test_samples
        return steps / _TRIAL_STEPS * settings.steps + codes * (bounds + test) + gradient

    def trainer(self, registry: Registry) -> Trainer:
        """The trainer at its first step.  Raises Inapplicable."""
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


def _seconds_of_gradient(trainer: Trainer, looks: GradientMeasurements | None) -> float:
    """Seconds of all gradient measurements, without the exact gradient, which is limited."""
    if looks is None:
        return 0.0
    estimator, adapt_steps = fresh_estimator(trainer)

    def make() -> Replicator:
        items = trainer.model.data("train")[: looks.points].to(trainer.device)
        x = trainer.model.preprocess(items, torch.float64)
        return Replicator(estimator, Snapshot(trainer, x), torch.float64, trainer.device)

    seconds = expected_seconds(make, adapt_steps, lambda *_: looks.replicates, trainer.device)
    return len(set(looks.steps)) * seconds
