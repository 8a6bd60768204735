"""Helpers that the tests of several modules share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradest import Task
from gradest.checks import Finding
from gradest.plugins import PluginBundle, Registry, make_task
from gradest.randomness import Draws
from gradest.report import contents
from gradest.report.studies import STUDIES, landscape, rankings
from gradest.runs import references, runner
from gradest.runs.processes import Job
from gradest.runs.provenance import describe_run
from gradest.runs.suite import load_suite
from gradest.runs.tables import write_results
from gradest.runs.workers import Workers

ROOT = Path(__file__).parents[1]  # of the clone

# Chance that a statistical assertion of correct code fails, for each assertion.  Seeds are fixed,
# so this is the chance of choosing an unlucky one, not of a flaky run.
LEVEL = 1e-4

EXACT = 1e-10  # float64 laws: 10⁵ times the rounding of numbers of size one

# The figures that need rows of measurements alone.
MEASUREMENTS = tuple(
    each.name for study in (rankings.STUDY, landscape.STUDY) for each in study.illustrations
)


# Knobs of tasks whose default is too large to enumerate.
SMALL_TASKS: dict[str, dict[str, Any]] = {"sudoku": {"puzzle": "12343.122..343.."}}


def small_task(name: str) -> Task:
    """A task of the catalogue at its default, or smaller where that is too large to enumerate."""
    return make_task(name, **SMALL_TASKS.get(name, {}))


class Prescribed(Draws):
    """Prescribed draws: in the order of the requests, or by their kind, one request of each.

    The kinds are index [R, S, N], exponentials, uniforms and normals.  The logits of the last
    categories are kept, and log_p [R] of all categories.
    """

    def __init__(self, *answers: Tensor, **by_kind: Tensor) -> None:
        super().__init__()
        self.answers, self.by_kind = list(answers), by_kind
        self.logits: Tensor | None = None
        self.log_p: Tensor | float = 0.0

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        self.logits = logits.detach()
        index = self._serve("index", (len(logits), samples, logits.shape[1]))
        log_p = self.logits.log_softmax(-1).unsqueeze(1).expand(-1, samples, -1, -1)
        self.log_p = self.log_p + log_p.gather(-1, index.unsqueeze(-1)).flatten(1).sum(1)
        return index

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._serve("exponentials", shape)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._serve("uniforms", shape)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._serve("normals", shape)

    def _serve(self, kind: str, shape: Sequence[int]) -> Tensor:
        self.count += 1
        answer = self.by_kind.pop(kind) if kind in self.by_kind else self.answers.pop(0)
        assert answer.shape == tuple(shape)
        return answer


class Repeated(Draws):
    """The same uniforms, or the same exponentials, for every request."""

    def __init__(self, u: float = 0.5, e: Tensor | None = None) -> None:
        super().__init__()
        self.u, self.e = u, e

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return torch.full(shape, self.u, dtype=like.dtype)

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        if self.e is None:
            return super().exponential(shape, like)
        return self.e.to(like.dtype).expand(shape).clone()


def broken_laws(findings: Iterable[Finding]) -> set[str]:
    return {finding.law for finding in findings if finding.status == "failed"}


def without_processes(patch: pytest.MonkeyPatch) -> None:
    """Let runs compute every cell in this process, plugins too, which takes a fraction of the time.

    Workers have tests of their own.
    """

    def in_order(jobs: Iterable[Job], *_: object) -> Iterator[tuple[Job, object]]:
        for job in jobs:
            yield job, job.call(*job.arguments)

    patch.setattr(runner, "answers", in_order)
    patch.setattr(references, "in_processes", in_order)


def run_suite(
    folder: Path,
    text: str,
    plugins: Sequence[Path] = (),
    name: str = "mine",
    only: tuple[Sequence[str], Sequence[str]] = ((), ()),
    **options: Any,
) -> Path:
    """Run a suite in this process, with neither times nor a report: the folder of its tables.

    `only` are globs of the tasks and the estimators that are run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    registry, bundle = Registry.load(plugins), PluginBundle.of(plugins)
    suite, out = load_suite(str(path), registry), folder / name
    precision, workers = suite.settings.reference, Workers(jobs=1)
    with pytest.MonkeyPatch.context() as patch:
        without_processes(patch)
        runner.run(
            *(suite.name, suite.only(*only), out, registry, bundle, workers, precision),
            timed=False,
            **options,
        )
    write_results(out, describe_run(suite, registry, datetime.now(UTC)))
    return out


def only_figures(patch: pytest.MonkeyPatch, *names: str, **draws: Callable) -> None:
    """Let reports draw only the figures of these names, or those given by other functions.

    Figures have tests of their own, and take most of the time of a small run.
    """
    kept = []
    for study in STUDIES:
        chosen = [each for each in study.illustrations if each.name in {*names, *draws}]
        changed = (each._replace(draw=draws.get(each.name, each.draw)) for each in chosen)
        kept.append(study._replace(illustrations=tuple(changed)))
    patch.setattr(contents, "STUDIES", tuple(kept))


def every_figure(patch: pytest.MonkeyPatch) -> None:
    """Let reports draw all figures that the rows allow, as for users."""
    patch.setattr(contents, "STUDIES", STUDIES)
