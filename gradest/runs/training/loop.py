"""One training from start to end: its steps, evaluations, checkpoints and results."""

import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.errors import NonFiniteGradient
from gradest.randomness import Draws, drawing_from
from gradest.runs.training.evaluation import (
    MeanEstimate,
    discrete_objective,
    negative_bound,
    negative_elbo,
    objective,
)
from gradest.runs.training.results import SHOWN, Pictures, generate_pictures
from gradest.runs.training.settings import TrainingSettings
from gradest.runs.training.snapshot import measure_gradient
from gradest.runs.training.state import ProgressFile
from gradest.runs.training.trainer import Trainer, stream_seed
from gradest.statistics import CONFIDENCE, normal_isf
from gradest.support import read_state, write_state


class Point(NamedTuple):
    """A point of a curve.  Costs are in nats for a data point; lower is better."""

    step: int
    seconds: float  # of training steps alone, up to here
    split: str
    metric: str
    value: float
    low: float
    high: float


@dataclass
class TrainingRecord:
    """The results of a training up to some step."""

    points: list[Point]
    seconds: float = 0.0  # of training steps
    total: float = 0.0  # sum of the objectives since the last evaluation
    count: int = 0


def train(
    trainer: Trainer, settings: TrainingSettings, seed: int, folder: Path
) -> tuple[list[Point], Pictures]:
    """Train to the end; returns the curves and the images that the model generates.

    The folder belongs to this training.  It resumes from a checkpoint there, and the results are
    then the same, except for the seconds, as without an interruption.  Raises OSError where the
    folder cannot be written.
    """
    checkpoint, progress = folder / "checkpoint.pt", ProgressFile(folder, settings.steps)
    record = TrainingRecord([])
    if state := read_state(checkpoint, "training from the start"):
        trainer.resume(state["trainer"])
        record = TrainingRecord(
            **{**state["course"], "points": [Point(*p) for p in state["points"]]}
        )
    evaluator = _Evaluator(trainer, settings, seed)
    saved = time.monotonic()
    if trainer.step == 0:
        record.points += evaluator.evaluate(0, record)
    # On the device; one sum between evaluations, so that a checkpoint does not change its rounding.
    total = torch.tensor(record.total, dtype=torch.float64, device=trainer.device)
    start = time.perf_counter()
    while trainer.step < settings.steps:
        progress.write(trainer.step)
        total += trainer.advance()
        record.count += 1
        step = trainer.step
        due = time.monotonic() - saved > settings.checkpoint_seconds or step == settings.steps
        if due or evaluator.is_due(step):
            record.total = float(total)  # waits for the device
            record.seconds += time.perf_counter() - start
            if evaluator.is_due(step):
                record.points += evaluator.evaluate(step, record)
                record.total, record.count = 0.0, 0
                total.zero_()
            if due:
                _save(checkpoint, trainer, record)
                saved = time.monotonic()
            start = time.perf_counter()
    progress.write(trainer.step)
    return record.points + evaluator.evaluate_test(record), evaluator.pictures()


def _save(path: Path, trainer: Trainer, record: TrainingRecord) -> None:
    plain = {k: v for k, v in asdict(record).items() if k != "points"}
    points = [list(p) for p in record.points]
    write_state(path, {"trainer": trainer.state(), "course": plain, "points": points})


class _Evaluator:
    """Evaluations of a training, with draws of their own, so that they do not change it."""

    def __init__(self, trainer: Trainer, settings: TrainingSettings, seed: int) -> None:
        self._trainer, self._settings, self._seed = trainer, settings, seed
        self._title = f"{trainer.estimator.name} on {trainer.model.name}"
        evaluation, gradient = settings.evaluation, settings.gradient
        most = {
            "train": max(evaluation.points, gradient.points if gradient else 0),
            "valid": evaluation.points,
            "test": max(evaluation.test_points, SHOWN),
        }
        self._items = {
            split: _random_items(trainer.model.data(split), count).to(trainer.device)
            for split, count in most.items()
        }

    def is_due(self, step: int) -> bool:
        gradient = self._settings.gradient
        return (
            step % self._settings.evaluation.every == 0
            or step == self._settings.steps
            or (gradient is not None and step in gradient.steps)
        )

    def evaluate(self, step: int, record: TrainingRecord) -> list[Point]:
        """The points of all curves at this step."""
        evaluation = self._settings.evaluation
        points: list[Point] = []

        def add(split: str, metric: str, value: float, low: float, high: float) -> None:
            points.append(Point(step, record.seconds, split, metric, value, low, high))

        if record.count:
            add("train", "running_objective", record.total / record.count, *_UNKNOWN)
        for split in ("train", "valid"):
            items = self._items[split][: evaluation.points]
            with self._draws(split, step):
                own = objective(self._trainer, items)
                if step == 0 and not own.isfinite().all():  # before the training could diverge
                    raise NonFiniteGradient(
                        f"{self._title}: expected a finite objective at step 0, got NaN or inf"
                    )
                discrete = discrete_objective(self._trainer, items)
                metrics = {
                    "objective": own,
                    "gap": discrete - own,  # paired: the same data points
                    "negative_elbo": negative_elbo(self._trainer, items),
                    "negative_bound": negative_bound(self._trainer, items, evaluation.samples),
                }
            for metric, each in metrics.items():
                add(split, metric, *_interval(MeanEstimate.of(each)))
        gradient = self._settings.gradient
        if gradient and step in gradient.steps:
            with self._draws("observed"):
                items = self._items["train"][: gradient.points]
                x = self._trainer.model.preprocess(items, torch.float64)
            for metric, ends in measure_gradient(self._trainer, x, gradient, self._seed):
                add("train", metric, ends[""], ends["_low"], ends["_high"])
        return points

    def evaluate_test(self, record: TrainingRecord) -> list[Point]:
        """The discrete objectives on the test data."""
        evaluation = self._settings.evaluation
        items = self._items["test"][: evaluation.test_points]
        with self._draws("test"):
            metrics = {
                "negative_elbo": negative_elbo(self._trainer, items),
                "negative_bound": negative_bound(self._trainer, items, evaluation.test_samples),
            }
        step = self._trainer.step
        return [
            Point(step, record.seconds, "test", metric, *_interval(MeanEstimate.of(each)))
            for metric, each in metrics.items()
        ]

    def pictures(self) -> Pictures:
        with self._draws("pictures"):
            return generate_pictures(self._trainer, self._items["test"])

    def _draws(self, *what: str | int) -> AbstractContextManager[Draws]:
        return drawing_from(
            Draws.seeded(stream_seed("look", *what, self._seed), self._trainer.device)
        )


def _random_items(items: Tensor, count: int) -> Tensor:
    """A copy of at most `count` random items, the same for every training.

    Random, since published data sets are sorted and their first items are not a sample.
    """
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
    return items[order[:count]]


_UNKNOWN = (float("nan"), float("nan"))


def _interval(mean: MeanEstimate) -> tuple[float, float, float]:
    """The interval at CONFIDENCE, over data points and draws, as of another set of this size."""
    half = float(normal_isf((1 - CONFIDENCE) / 2)) * mean.standard_error
    return mean.value, mean.value - half, mean.value + half
