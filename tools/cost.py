"""What each estimator costs, in evaluations of f and in time: `make cost`.

One row an estimator, whatever the registry holds, with its default knobs: the evaluations of f
per estimate, the microseconds per estimate (forward and backward pass to the logits, in one thread
and in the batches that `measure` takes; no adaptation) and the ratio

    (time of the estimate / its evaluations) / (time of rloo(S) / S),    S = max(2, evaluations)

on the same problem.  What f costs is in the evaluations already; the ratio shows what a method
costs beside them, since leave-one-out does nothing with its S samples but draw, evaluate and
score them.  It needs two, so an estimate with one evaluation is held against half of it; that is
strict, as the halves share their overhead.  A derivative of f counts for nothing, which is strict
as well.  `rloo` against itself should come out as one: what it is off by is the table's own error.

Every method meets N = 4 latents on two tasks: `quadratic`, where f is so cheap that the time is the
method's own, and `categorical_vae`, where f is a small decoder.  K = 4, or K = 2 for binary
methods; the ratio stays within one problem.  It is the median of the rounds' ratios, with the
smallest and the largest, which cover it with 98 %.

Exit status 1 when an estimator is above five in every round of a task and does not claim why
(`Estimator.slow`): its row says UNEXPLAINED.
"""

import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from gradest.errors import Inapplicable
from gradest.plugins.registry import PluginBundle, Registry
from gradest.randomness import Draws, drawing_from
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.timing import time_cells
from gradest.support.markup import table
from gradest.support.numbers import count, interval, number

REFERENCE = "rloo"
LIMIT = 5.0
REPLICATES = 20_000
LATENTS = 4
CATEGORIES = (4, 2)  # the first that a method applies to
TASKS = ("quadratic", "categorical_vae")


class Entry(NamedTuple):
    """One estimator on one task."""

    categories: int
    evaluations: int
    seconds: float  # per estimate
    ratios: Sequence[float]  # one a round

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def slow(self) -> bool:
        return min(self.ratios) > LIMIT


def main(names: Sequence[str] = ()) -> int:
    """Prints the table, of these estimators or of all; the exit status.

    Raises UsageError for an unknown name.
    """
    registry = Registry.load()
    names = names or list(registry.estimators)
    by_task = [_timed(names, task, registry) for task in TASKS]
    rows, status = [], 0
    for name in sorted(by_task[0], key=lambda name: -max(found[name].ratio for found in by_task)):
        entries = [found[name] for found in by_task]
        reason = registry.estimator(name).slow
        if not reason and any(entry.slow for entry in entries):
            reason, status = "UNEXPLAINED", 1
        shared = [name, str(entries[0].categories), count(entries[0].evaluations)]
        rows.append([*shared, *(text for entry in entries for text in _texts(entry)), reason])
    headers = [f"{task}{what}" for task in TASKS for what in (", µs", ", ratio")]
    headers = ["estimator", "K", "evaluations", *headers, f"why it can be above {LIMIT:g}"]
    print(table(headers, rows, left=1))
    for name in sorted(set(names) - set(by_task[0])):
        print(f"{name} applies to none of these problems")
    return status


def _timed(names: Sequence[str], task: str, registry: Registry) -> dict[str, Entry]:
    """The estimators that apply to the task.

    Those with as many evaluations follow their reference at once, so that a slow moment of the
    machine falls on both.
    """
    found = {}
    for name in names:
        for categories in CATEGORIES:
            cell = _cell(name, {}, task, categories)
            try:
                found[name] = cell, _evaluations(cell, registry)
                break
            except Inapplicable:
                continue
    reference = {
        name: _cell(
            REFERENCE, {"samples": max(2, evaluations)}, task, cell.task_knobs["categories"]
        )
        for name, (cell, evaluations) in found.items()
    }
    cells = {}
    for name in sorted(found, key=lambda name: (reference[name].key, name)):
        cells[reference[name].key] = reference[name]
        cells[found[name][0].key] = found[name][0]
    times = time_cells(list(cells.values()), registry, lambda: None, PluginBundle.of([]), None)
    times = dict(zip(cells, times, strict=True))
    return {
        name: Entry(
            cell.task_knobs["categories"],
            evaluations,
            statistics.median(times[cell.key]),
            [
                own / evaluations / (other / reference[name].estimator_knobs["samples"])
                for own, other in zip(times[cell.key], times[reference[name].key], strict=True)
            ],
        )
        for name, (cell, evaluations) in found.items()
    }


def _cell(name: str, knobs: dict[str, Any], task: str, categories: int) -> MeasuringCell:
    return MeasuringCell(
        task=task,
        task_knobs={"latents": LATENTS, "categories": categories},
        estimator=name,
        estimator_knobs=knobs,
        seed=0,
        replicates=REPLICATES,
        precision=None,
        enumerate_draws=None,
        adapt_steps=1,
        dtype="float64",
        tolerant=False,
        device="cpu",
        code={},
        task_version=1,
        estimator_version=1,
    )


def _evaluations(cell: MeasuringCell, registry: Registry) -> int:
    """Raises Inapplicable where the estimator does not apply to the task."""
    replicator = cell.replicator(registry)
    with drawing_from(Draws.seeded(cell.draw_seed)) as source:
        replicator.pilot(source)
    return replicator.evaluations


def _texts(entry: Entry) -> list[str]:
    ratio = interval(entry.ratio, min(entry.ratios), max(entry.ratios))
    return [number(entry.seconds * 1e6), ratio]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
