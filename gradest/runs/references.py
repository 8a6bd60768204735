"""References that replace unknown truths in a run, measured once per task and recorded."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from gradest.contracts import Task, built_in
from gradest.costs import outcomes
from gradest.knobs import build
from gradest.measurement import ReferencePrecision, closed_form, measure_reference, needs_reference
from gradest.plugins import (
    PluginBundle,
    Registry,
    catalogue_estimators,
    digest_of_class,
    digest_of_code,
)
from gradest.runs.cells import Keyed, canonical
from gradest.runs.journal import Journal, Record
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.processes import Failed, Job, UnderWay, in_processes
from gradest.runs.progress import display
from gradest.runs.workers import Workers, answers
from gradest.support import collector_paused, described, in_a_line


@dataclass(frozen=True)
class ReferenceCell(Keyed):
    """A reference for the truth of a task, as plain data like a Cell.

    The estimator that measures it is chosen later and stored in the record.
    """

    task: str
    task_knobs: Mapping[str, Any]
    task_version: int
    device: str
    precision: Mapping[str, Any]

    @property
    def _fields(self) -> dict[str, Any]:
        return {"reference": self.plain}  # cells of other kinds do not have this key


def _reference_cell(cell: MeasuringCell, precision: ReferencePrecision, core: str) -> ReferenceCell:
    """The reference that replaces the truth of a cell's task if that is unknown.

    `core` is the digest of the code that measures references.
    """
    return ReferenceCell(
        code={
            "task": cell.code["task"],
            "core": core,
            "torch": cell.code["torch"],
        },
        task=cell.task,
        task_knobs=cell.task_knobs,
        task_version=cell.task_version,
        device=cell.device,
        precision=precision.model_dump(),
    )


def _key(cell_key: str, estimator: str) -> str:
    """The key of a reference, which depends on the code of the estimator that measures it."""
    code = digest_of_class(catalogue_estimators()[estimator])
    return hashlib.sha256(f"{cell_key} {estimator} {code}".encode()).hexdigest()


def _recorded(journal: Journal) -> dict[str, Record]:
    """key of a reference cell -> its record, if the code of its estimator is unchanged."""
    return {
        record["of"]: record
        for record in journal.opened
        if record["kind"] == "reference"
        and "of" in record  # older records do not contain the key of their cell
        and record["reference"]["estimator"] in catalogue_estimators()
        and record["key"] == _key(record["of"], record["reference"]["estimator"])
    }


def references(
    cells: Sequence[MeasuringCell],
    precision: ReferencePrecision | None,
    journal: Journal,
    registry: Registry,
    bundle: PluginBundle,
    workers: Workers,
) -> dict[str, Record]:
    """cell key -> the record of the reference, for cells whose truth is unknown.

    A reference whose measurement fails is reported and not recorded; its cells have no truth.
    Without a precision none is measured.
    """
    if precision is None or not cells:
        return {}
    wanted = _wanted(cells, precision)
    unknown = _unknown_truths({r.key: r for r in wanted.values()}, registry, bundle, workers)
    needed_for = {key: r for key, r in wanted.items() if unknown[r.key]}
    records = _recorded(journal)
    missing = {c.key: c for c in needed_for.values() if c.key not in records}
    if missing:
        jobs = [
            Job(key, _measure, (cell, bundle), _foreign(cell, registry))
            for key, cell in missing.items()
        ]
        under_way = UnderWay()
        running = partial(under_way.named, {key: in_a_line(c.task) for key, c in missing.items()})
        with (
            display("references", len(jobs), workers.jobs, running=running) as progress,
            closing(answers(jobs, workers, under_way, not registry.foreign)) as results,
        ):
            for job, record in results:
                task = missing[job.key].task
                if isinstance(record, Failed):
                    record = {"reference": None, "reason": str(record)}
                if record["reference"] is None:
                    progress.done(task, "failed", record["reason"])
                    continue
                estimator = record["reference"]["estimator"]
                identity = {"kind": "reference", "of": job.key, "key": _key(job.key, estimator)}
                record = {**identity, "cell": missing[job.key].plain, **record}
                journal.append(record)
                records[job.key] = record
                progress.done(f"{task} by {estimator}", "ok", "")
    return {key: records[c.key] for key, c in needed_for.items() if c.key in records}


@collector_paused(freeze=True)
def _wanted(
    cells: Sequence[MeasuringCell], precision: ReferencePrecision
) -> dict[str, ReferenceCell]:
    """cell key -> the reference that it needs if its truth is unknown."""
    core = digest_of_code(measure_reference.__module__)  # once: it reads every file
    of_tasks: dict[tuple[str, str, str], ReferenceCell] = {}
    wanted = {}
    for cell in cells:
        task = cell.task, canonical(cell.task_knobs), cell.device
        if task not in of_tasks:
            of_tasks[task] = _reference_cell(cell, precision, core)
        wanted[cell.key] = of_tasks[task]
    return wanted


def _measure(cell: ReferenceCell, bundle: PluginBundle) -> Record:
    """A reference, or None and the reason if it cannot be measured.

    The measurement fails if no estimator of the catalogue applies or if the task raises.
    """
    torch.set_num_threads(1)
    precision = ReferencePrecision(**cell.precision)
    try:
        task = _task(cell, bundle)
        reference = measure_reference(
            task, precision, seed=cell.draw_seed, device=cell.device, progress=False
        )
    except (Exception, SystemExit) as error:  # a cost that raises must affect only its own cells
        return {"reference": None, "reason": described(error)}
    return {"reference": reference.to_json()}


def _unknown_truths(
    cells: Mapping[str, ReferenceCell], registry: Registry, bundle: PluginBundle, workers: Workers
) -> dict[str, bool]:
    """key -> whether the truth of the task is unknown.

    False for a task that fails, since each of its cells will fail in the same way.
    """
    own = [c for c in cells.values() if not _foreign(c, registry)]
    jobs = [
        Job(key, _unknown_in_bundle, (c, bundle), alone=True)
        for key, c in cells.items()
        if _foreign(c, registry)
    ]
    unknown = {c.key: _unknown(build(registry.task(c.task), c.task_knobs)) for c in own}
    with closing(in_processes(jobs, workers.jobs, workers.timeout, UnderWay())) as results:
        return unknown | {job.key: answer is True for job, answer in results}


def _foreign(cell: ReferenceCell, registry: Registry) -> bool:
    return not built_in(registry.task(cell.task))


def _task(cell: ReferenceCell, bundle: PluginBundle) -> Task:
    return build(bundle.registry(frozenset([cell.task])).task(cell.task), cell.task_knobs)


def _unknown_in_bundle(cell: ReferenceCell, bundle: PluginBundle) -> bool:
    return _unknown(_task(cell, bundle))


def _unknown(task: Task) -> bool:
    try:
        problem = task.problem()
        closed = closed_form(task, problem.logits.detach().double(), problem.f)
        # `needs_reference` calls it as well: logits of a wrong shape are the task's fault.
        outcomes(problem)
    except (Exception, SystemExit):  # of a plugin, whose cells will fail in the same way
        return False
    return needs_reference(problem, closed)
