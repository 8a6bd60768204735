"""The course of one training: its steps, the looks at it, its checkpoints, and where it ends."""

import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from gradest.errors import NonFiniteGradient
from gradest.inference import CONFIDENCE
from gradest.randomness import Draws, drawing_from
from gradest.states import read_state, write_state
from gradest.training.evaluation import (
    MeanEstimate,
    discrete_objective,
    negative_bound,
    negative_elbo,
    objective,
)
from gradest.training.headway import ProgressFile
from gradest.training.pictures import SHOWN, Pictures, generate_pictures
from gradest.training.settings import TrainingSettings
from gradest.training.snapshot import measure_gradient
from gradest.training.streams import stream_seed
from gradest.training.trainer import Trainer


class Point(NamedTuple):
    """One number on a curve.  Costs are in nats for a data point; lower is better."""

    step: int
    seconds: float  # of training alone, up to here
    split: str
    metric: str
    value: float
    low: float
    high: float


@dataclass
class TrainingRecord:
    """What has been seen of a training, up to some step."""

    points: list[Point]
    seconds: float = 0.0  # of training steps
    total: float = 0.0  # of the objectives since the last look
    count: int = 0


def train(
    trainer: Trainer, settings: TrainingSettings, seed: int, folder: Path
) -> tuple[list[Point], Pictures]:
    """Train to the end: the curves and what they lead to.

    The folder is the training's own.  It goes on from a checkpoint there, and what it gives is then
    the same, but for the seconds, as if it had never been interrupted.  Raises OSError where the
    folder cannot be written.
    """
    checkpoint, headway = folder / "checkpoint.pt", ProgressFile(folder, settings.steps)
    course = TrainingRecord([])
    if state := read_state(checkpoint, "training from the start"):
        trainer.resume(state["trainer"])
        course = TrainingRecord(
            **{**state["course"], "points": [Point(*p) for p in state["points"]]}
        )
    looker = _Looker(trainer, settings, seed)
    saved = time.monotonic()
    if trainer.step == 0:
        course.points += looker.at(0, course)
    # On the device; one sum from look to look, so that a checkpoint changes no rounding of it.
    total = torch.tensor(course.total, dtype=torch.float64, device=trainer.device)
    start = time.perf_counter()
    while trainer.step < settings.steps:
        headway.at(trainer.step)
        total += trainer.advance()
        course.count += 1
        step = trainer.step
        due = time.monotonic() - saved > settings.checkpoint_seconds or step == settings.steps
        if due or looker.wanted(step):
            course.total = float(total)  # waits for the device
            course.seconds += time.perf_counter() - start
            if looker.wanted(step):
                course.points += looker.at(step, course)
                course.total, course.count = 0.0, 0
                total.zero_()
            if due:
                _save(checkpoint, trainer, course)
                saved = time.monotonic()
            start = time.perf_counter()
    headway.at(trainer.step)
    return course.points + looker.final(course), looker.pictures()


def _save(path: Path, trainer: Trainer, course: TrainingRecord) -> None:
    plain = {k: v for k, v in asdict(course).items() if k != "points"}
    points = [list(p) for p in course.points]
    write_state(path, {"trainer": trainer.state(), "course": plain, "points": points})


class _Looker:
    """What is evaluated, with draws of its own, so that looking changes nothing."""

    def __init__(self, trainer: Trainer, settings: TrainingSettings, seed: int) -> None:
        self._trainer, self._settings, self._seed = trainer, settings, seed
        self._title = f"{trainer.estimator.name} on {trainer.model.name}"
        asked, gradient = settings.evaluation, settings.gradient
        most = {
            "train": max(asked.points, gradient.points if gradient else 0),
            "valid": asked.points,
            "test": max(asked.test_points, SHOWN),
        }
        self._items = {
            split: _some(trainer.model.data(split), count).to(trainer.device)
            for split, count in most.items()
        }

    def wanted(self, step: int) -> bool:
        gradient = self._settings.gradient
        return (
            step % self._settings.evaluation.every == 0
            or step == self._settings.steps
            or (gradient is not None and step in gradient.steps)
        )

    def at(self, step: int, course: TrainingRecord) -> list[Point]:
        """A look on the way."""
        asked = self._settings.evaluation
        found: list[Point] = []

        def note(split: str, metric: str, value: float, low: float, high: float) -> None:
            found.append(Point(step, course.seconds, split, metric, value, low, high))

        if course.count:
            note("train", "running_objective", course.total / course.count, *_UNKNOWN)
        for split in ("train", "valid"):
            items = self._items[split][: asked.points]
            with self._draws(split, step):
                trained_on = objective(self._trainer, items)
                if step == 0 and not trained_on.isfinite().all():  # no training that diverged
                    raise NonFiniteGradient(f"{self._title}: the objective is not finite at step 0")
                discrete = discrete_objective(self._trainer, items)
                found_here = {
                    "objective": trained_on,
                    "gap": discrete - trained_on,  # paired: the same data points
                    "negative_elbo": negative_elbo(self._trainer, items),
                    "negative_bound": negative_bound(self._trainer, items, asked.samples),
                }
            for metric, each in found_here.items():
                note(split, metric, *_interval(MeanEstimate.of(each)))
        gradient = self._settings.gradient
        if gradient and step in gradient.steps:
            with self._draws("observed"):
                items = self._items["train"][: gradient.points]
                x = self._trainer.model.preprocess(items, torch.float64)
            for metric, ends in measure_gradient(self._trainer, x, gradient, self._seed):
                note("train", metric, ends[""], ends["_low"], ends["_high"])
        return found

    def final(self, course: TrainingRecord) -> list[Point]:
        """The discrete objectives on the test data."""
        asked = self._settings.evaluation
        items = self._items["test"][: asked.test_points]
        with self._draws("test"):
            found = {
                "negative_elbo": negative_elbo(self._trainer, items),
                "negative_bound": negative_bound(self._trainer, items, asked.test_samples),
            }
        step = self._trainer.step
        return [
            Point(step, course.seconds, "test", metric, *_interval(MeanEstimate.of(each)))
            for metric, each in found.items()
        ]

    def pictures(self) -> Pictures:
        with self._draws("pictures"):
            return generate_pictures(self._trainer, self._items["test"])

    def _draws(self, *what: str | int) -> AbstractContextManager[Draws]:
        return drawing_from(
            Draws.seeded(stream_seed("look", *what, self._seed), self._trainer.device)
        )


def _some(items: Tensor, count: int) -> Tensor:
    """At most so many, the same for every training: a copy of these alone.

    By chance: published sets are sorted, and their first items no sample.
    """
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
    return items[order[:count]]


_UNKNOWN = (float("nan"), float("nan"))
_REACH = float(stats.norm.isf((1 - CONFIDENCE) / 2))  # in standard errors


def _interval(found: MeanEstimate) -> tuple[float, float, float]:
    """At CONFIDENCE, over data points and draws: of another test set of that size."""
    reach = _REACH * found.standard_error
    return found.value, found.value - reach, found.value + reach
