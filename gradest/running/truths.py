"""What stands for unknown truths in a run: measured once a task, kept in the journal."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from gradest.code_digest import digest_of_class, digest_of_code
from gradest.contracts import Task, built_in
from gradest.costs import outcomes
from gradest.knobs import build
from gradest.measuring.monte_carlo_truth import (
    ReferencePrecision,
    measure_reference,
    needs_reference,
)
from gradest.objectives import closed_form
from gradest.registry import Registry, Shipment, catalogue_estimators
from gradest.running.cells import Keyed
from gradest.running.journal import Journal, Record
from gradest.running.measuring_cell import MeasuringCell
from gradest.running.processes import Failed, Job, UnderWay, in_processes
from gradest.running.progress import display
from gradest.running.workers import Workers, answers
from gradest.text import described, in_a_line


@dataclass(frozen=True)
class ReferenceCell(Keyed):
    """The truth of a task, to be measured: plain data like a Cell.

    Which estimator of the catalogue it is measured by is chosen then; the record says so.
    """

    task: str
    task_knobs: Mapping[str, Any]
    task_version: int
    device: str
    precision: Mapping[str, Any]

    @property
    def _fields(self) -> dict[str, Any]:
        return {"reference": asdict(self)}  # no cell of another kind has this key


def _reference_cell(cell: MeasuringCell, precision: ReferencePrecision) -> ReferenceCell:
    """What stands for the truth of the cell's task where that is unknown."""
    return ReferenceCell(
        code={
            "task": cell.code["task"],
            "core": digest_of_code(measure_reference.__module__),
            "torch": cell.code["torch"],
        },
        task=cell.task,
        task_knobs=cell.task_knobs,
        task_version=cell.task_version,
        device=cell.device,
        precision=precision.model_dump(),
    )


def _key(of: str, estimator: str) -> str:
    """Of the reference that answers the key `of`, measured by this estimator as it is written."""
    code = digest_of_class(catalogue_estimators()[estimator])
    return hashlib.sha256(f"{of} {estimator} {code}".encode()).hexdigest()


def _recorded(journal: Journal) -> dict[str, Record]:
    """The key of a reference cell -> its record, if its estimator is the one that it was."""
    return {
        record["of"]: record
        for record in journal.records()
        if record["kind"] == "reference"
        and "of" in record  # those of before do not say what code they are by
        and record["reference"]["estimator"] in catalogue_estimators()
        and record["key"] == _key(record["of"], record["reference"]["estimator"])
    }


def references(
    cells: Sequence[MeasuringCell],
    precision: ReferencePrecision,
    journal: Journal,
    registry: Registry,
    shipment: Shipment,
    workers: Workers,
) -> dict[str, Record]:
    """cell key -> the record of the reference that stands for the truth, where one has to.

    One whose measurement failed is shown as failed and not kept: its cells do without.
    """
    wanted = {c.key: _reference_cell(c, precision) for c in cells}
    unknown = _unknown_truths({r.key: r for r in wanted.values()}, registry, shipment, workers)
    asked = {key: r for key, r in wanted.items() if unknown[r.key]}
    found = _recorded(journal)
    missing = {c.key: c for c in asked.values() if c.key not in found}
    if missing:
        jobs = [
            Job(key, _measured, (each, shipment), _foreign(each, registry))
            for key, each in missing.items()
        ]
        under_way = UnderWay()
        running = partial(under_way.named, {key: in_a_line(c.task) for key, c in missing.items()})
        with (
            display("references", len(jobs), workers.jobs, running=running) as shown,
            closing(answers(jobs, workers, under_way, not registry.foreign)) as measured,
        ):
            for job, record in measured:
                task = missing[job.key].task
                if isinstance(record, Failed):
                    record = {"reference": None, "reason": str(record)}
                if record["reference"] is None:
                    shown.done(task, "failed", record["reason"])
                    continue
                by = record["reference"]["estimator"]
                named = {"kind": "reference", "of": job.key, "key": _key(job.key, by)}
                record = {**named, "cell": asdict(missing[job.key]), **record}
                journal.append(record)
                found[job.key] = record
                shown.done(f"{task} by {record['reference']['estimator']}", "ok", "")
    return {key: found[c.key] for key, c in asked.items() if c.key in found}


def _measured(cell: ReferenceCell, shipment: Shipment) -> Record:
    """A reference; without one, but with the reason, where measuring it failed.

    It fails where no estimator of the catalogue applies, or where the task raises.
    """
    torch.set_num_threads(1)
    precision = ReferencePrecision(**cell.precision)
    try:
        task = _task(cell, shipment)
        found = measure_reference(
            task, precision, seed=cell.draw_seed, device=cell.device, progress=False
        )
    except (Exception, SystemExit) as error:  # a cost that raises ends its own cells and no others
        return {"reference": None, "reason": described(error)}
    return {"reference": found.to_json()}


def _unknown_truths(
    cells: Mapping[str, ReferenceCell], registry: Registry, shipment: Shipment, workers: Workers
) -> dict[str, bool]:
    """key -> whether that task's truth is unknown.

    False for a task that fails: each of its cells asks the same and fails with it.
    """
    own = [c for c in cells.values() if not _foreign(c, registry)]
    jobs = [
        Job(key, _asked_by_name, (c, shipment), alone=True)
        for key, c in cells.items()
        if _foreign(c, registry)
    ]
    unknown = {c.key: _unknown(build(registry.task(c.task), c.task_knobs)) for c in own}
    with closing(in_processes(jobs, workers.jobs, workers.timeout, UnderWay())) as found:
        return unknown | {job.key: answer is True for job, answer in found}


def _foreign(cell: ReferenceCell, registry: Registry) -> bool:
    return not built_in(registry.task(cell.task))


def _task(cell: ReferenceCell, shipment: Shipment) -> Task:
    return build(shipment.registry(frozenset([cell.task])).task(cell.task), cell.task_knobs)


def _asked_by_name(cell: ReferenceCell, shipment: Shipment) -> bool:
    return _unknown(_task(cell, shipment))


def _unknown(task: Task) -> bool:
    try:
        problem = task.problem()
        closed = closed_form(task, problem.logits.detach().double(), problem.f)
        outcomes(problem)  # used by `needs_reference`; it raises for logits of a wrong shape
    except (Exception, SystemExit):  # a plugin's: each of its cells asks the same and fails with it
        return False
    return needs_reference(problem, closed)
