"""What stands for unknown truths in a run: measured once a task, kept in the journal."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import torch

from gradest.costs import outcomes
from gradest.knobs import build
from gradest.measuring.monte_carlo_truth import ReferencePrecision, measure_reference, needed
from gradest.objectives import closed_form
from gradest.registry import Registry, Shipment, catalogue_estimators, digest_of
from gradest.running.cells import Keyed, canonical
from gradest.running.journal import Journal, Record
from gradest.running.measuring_cell import MeasuringCell
from gradest.running.progress import display
from gradest.running.workers import Workers, running_on
from gradest.text import described


@dataclass(frozen=True)
class ReferenceCell(Keyed):
    """The truth of a task, to be measured: plain data like a Cell."""

    task: str
    task_knobs: Mapping[str, Any]
    device: str
    precision: Mapping[str, Any]
    sources: Mapping[str, str]

    @property
    def _identity(self) -> str:
        return f"reference {canonical(asdict(self))}"


def _reference_cell(cell: MeasuringCell, precision: ReferencePrecision) -> ReferenceCell:
    """What stands for the truth of the cell's task where that is unknown.

    Any estimator of the catalogue may be taken for it, so all their sources count.
    """
    shared = {name: cell.sources[name] for name in ("task", "core", "torch")}
    return ReferenceCell(
        cell.task,
        cell.task_knobs,
        cell.device,
        precision.model_dump(),
        {**shared, "catalogue": _catalogue_digest()},
    )


@cache
def _catalogue_digest() -> str:
    return digest_of(Path(inspect.getfile(e)) for e in catalogue_estimators().values())


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
    unknown = {r.key: _unknown(r, registry) for r in {r.key: r for r in wanted.values()}.values()}
    asked = {key: r for key, r in wanted.items() if unknown[r.key]}
    found = {r["key"]: r for r in journal.records() if r["kind"] == "reference"}
    missing = {c.key: c for c in asked.values() if c.key not in found}
    if missing:
        with display("references", len(missing), workers.jobs) as shown, running_on(workers):
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
            call = joblib.delayed(_measured)
            for record in parallel(call(c, shipment) for c in missing.values()):
                task = record["cell"]["task"]
                if record["reference"] is None:
                    shown.done(task, "failed", record["reason"])
                    continue
                journal.append(record)
                found[record["key"]] = record
                shown.done(f"{task} by {record['reference']['estimator']}", "ok", "")
    return {key: found[c.key] for key, c in asked.items() if c.key in found}


def _measured(cell: ReferenceCell, shipment: Shipment) -> Record:
    """The record of a reference; without one, but with the reason, where measuring it failed.

    It fails where no estimator of the catalogue applies, or where the task raises.
    """
    torch.set_num_threads(1)
    precision = ReferencePrecision(**cell.precision)
    identity = {"kind": "reference", "key": cell.key, "cell": asdict(cell)}
    try:
        task = build(shipment.registry().task(cell.task), cell.task_knobs)
        found = measure_reference(
            task, precision, seed=cell.draw_seed, device=cell.device, progress=False
        )
    except (Exception, SystemExit) as error:  # a cost that raises ends its own cells and no others
        return {**identity, "reference": None, "reason": described(error)}
    return {**identity, "reference": found.to_json()}


def _unknown(cell: ReferenceCell, registry: Registry) -> bool:
    """Whether the task's truth is unknown."""
    task = build(registry.task(cell.task), cell.task_knobs)
    try:
        problem = task.problem()
        closed = closed_form(task, problem.logits.detach().double(), problem.f)
        outcomes(problem)  # which `needed` asks for: logits of no such shape are the task's fault
    except (Exception, SystemExit):  # a plugin's: each of its cells asks the same and fails with it
        return False
    return needed(problem, closed)
