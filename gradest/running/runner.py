"""Cells to records: in parallel, resumable, each failure for itself."""

import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import torch
from joblib.externals.loky import get_reusable_executor

from gradest.errors import Inapplicable, UsageError
from gradest.knobs import build
from gradest.measuring.monte_carlo_truth import DEFAULT, ReferencePrecision
from gradest.measuring.truth import Reference
from gradest.registry import Registry, Shipment
from gradest.running.cells import Cell, EstimatorCell, canonical, labels
from gradest.running.folder import alone_in
from gradest.running.journal import Journal, Record, append_if_shared
from gradest.running.measuring_cell import MeasuringCell
from gradest.running.progress import display
from gradest.running.results import finished
from gradest.running.timing import ROUNDS, time_cells
from gradest.running.training_cell import NETWORKS, UNFINISHED, TrainingCell, own_folder
from gradest.running.truths import references
from gradest.running.workers import Workers, running_on
from gradest.threads import one_thread
from gradest.training.headway import headway


def run(
    suite: str,
    cells: Sequence[Cell],
    folder: Path,
    registry: Registry,
    shipment: Shipment,
    workers: Workers,
    precision: ReferencePrecision = DEFAULT,
    fresh: bool = False,
    timed: bool = True,
) -> None:
    """Measure and time the cells that the folder's journal lacks; failed ones are tried again.

    Where a task's truth is unknown a reference is measured first, to `precision`.
    `timed` False leaves out the timing, `fresh` forgets what the journal holds.  Raises UsageError
    when the folder holds anything else than this suite's results, cannot be written, or another run
    is at work in it.
    """
    refuse_foreign(folder, fresh)
    with alone_in(folder), one_thread():
        journal = Journal(folder, suite, fresh)
        for line in journal.damage:
            print(f"warning: {folder}: {line}; what it held is measured again", file=sys.stderr)
        if fresh:
            _remove(folder / UNFINISHED)
            _remove(folder / NETWORKS)
        measuring = [cell for cell in cells if isinstance(cell, MeasuringCell)]
        truths = references(measuring, precision, journal, registry, shipment, workers)
        kept = finished(journal.path)
        missing = [c for c in cells if _lacks(kept.get(c.key), truths.get(c.key))]
        if missing:
            under_way = {c.key for c in missing if isinstance(c, TrainingCell)}
            done = partial(_headway, folder, under_way)
            with display("measuring", len(missing), workers.jobs, done) as shown:
                named = labels(cells)
                for record in _records(missing, shipment, journal, workers, truths):
                    if not record.pop("written"):
                        journal.append(record)
                    under_way.discard(record["key"])
                    shown.done(named[record["key"]], record["status"], record["reason"])
        _tidy(folder, cells)
        if timed:
            _time_all(measuring, journal, registry)


def prepare(cells: Sequence[Cell], registry: Registry) -> None:
    """Let every task fetch what it needs.

    Raises UsageError where that is not to be had; whatever else a task raises is left to its cells.
    """
    tasks = {
        (cell.task, canonical(cell.task_knobs)): cell
        for cell in cells
        if isinstance(cell, EstimatorCell)
    }
    for cell in tasks.values():
        try:
            build(registry.task(cell.task), cell.task_knobs).prepare()
        except UsageError:
            raise
        except (Exception, SystemExit):
            # A plugin's own fault, which its cells run into and record; others must go on.
            continue


def measure_cell(
    cell: Cell, shipment: Shipment, journal: str, journal_id: str, truth: Record | None = None
) -> Record:
    """One cell's record, written to the journal here if this machine sees it.

    `truth` is the record of the reference, where one stands for the truth.  Whatever goes wrong
    inside the cell becomes part of its record: the others must go on.
    """
    torch.set_num_threads(1)
    start = time.perf_counter()
    record = {
        "kind": "cell",
        "of": cell.kind,
        "key": cell.key,
        "cell": asdict(cell),
        "reference": truth and truth["key"],
        **_outcome(cell, shipment, Path(journal).parent, truth),
        "elapsed": time.perf_counter() - start,
    }
    written = append_if_shared(Path(journal), journal_id, record)
    if record["status"] == "ok":
        _remove(own_folder(Path(journal).parent, cell.key))
    return {**record, "written": written}


def _outcome(cell: Cell, shipment: Shipment, folder: Path, truth: Record | None) -> dict[str, Any]:
    try:
        reference = truth and Reference.from_json(truth["reference"])
        payload = cell.outcome(shipment.registry(), folder, reference)
        return {"status": "ok", "reason": "", **payload}
    except Inapplicable as error:
        return {"status": "skipped", "reason": str(error)}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}


def _records(
    cells: Sequence[Cell],
    shipment: Shipment,
    journal: Journal,
    workers: Workers,
    truths: Mapping[str, Record],
) -> Iterator[Record]:
    """Records as they come in.  A cell that kills its worker is found and recorded as failed."""
    left = {cell.key: cell for cell in cells}
    where = (str(journal.path.resolve()), journal.id)
    with running_on(workers):
        # One cell a batch: a record counts as finished when it arrives, not when its batch does.
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        call = joblib.delayed(measure_cell)
        try:
            for record in parallel(call(c, shipment, *where, truths.get(c.key)) for c in cells):
                del left[record["key"]]
                yield record
        except BrokenProcessPool:
            known = finished(journal.path)
            for cell in left.values():
                stored = known.get(cell.key)
                yield (
                    {**stored, "written": True}
                    if stored
                    else _alone(cell, shipment, where, truths.get(cell.key))
                )


def _alone(cell: Cell, shipment: Shipment, where: tuple[str, str], truth: Record | None) -> Record:
    executor = get_reusable_executor(max_workers=1)
    try:
        return executor.submit(measure_cell, cell, shipment, *where, truth).result()
    except BrokenProcessPool as error:
        reason = f"its process died: {' '.join(str(error).split())}"
        identity = {"kind": "cell", "of": cell.kind, "key": cell.key, "cell": asdict(cell)}
        return {**identity, "status": "failed", "reason": reason, "written": False}
    finally:
        executor.shutdown()  # joblib would reuse it, and miss what it gives to its own


def _headway(folder: Path, trainings: Set[str]) -> float:
    """How many trainings those that are under way amount to, by their steps."""
    return sum(headway(own_folder(folder, key)) for key in list(trainings))


def _tidy(folder: Path, cells: Sequence[Cell]) -> None:
    """Leave nothing of a training that is finished, even if its worker was killed right after."""
    if not (folder / UNFINISHED).exists():
        return
    records = finished(folder / "journal.jsonl")
    for cell in cells:
        if records[cell.key]["status"] != "failed":
            _remove(own_folder(folder, cell.key))
    if not any((folder / UNFINISHED).iterdir()):
        (folder / UNFINISHED).rmdir()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _lacks(record: Record | None, truth: Record | None) -> bool:
    """Whether a cell is still to be measured, or measured against another reference."""
    if record is None or record["status"] == "failed":
        return True
    return record["status"] == "ok" and record["reference"] != (truth and truth["key"])


def _time_all(cells: Sequence[MeasuringCell], journal: Journal, registry: Registry) -> None:
    records = finished(journal.path)
    untimed = [
        cell
        for cell in cells
        if records[cell.key]["status"] == "ok" and "samples" not in records[cell.key]
    ]
    if not untimed:
        return
    with display("timing", len(untimed) * ROUNDS, 1) as shown:
        timed = time_cells(untimed, registry, shown.advance)
    for cell, samples in zip(untimed, timed, strict=True):
        journal.append({"kind": "seconds", "key": cell.key, "samples": samples})


def refuse_foreign(folder: Path, fresh: bool) -> None:
    """A mistyped --out must not scatter results over somebody's files.  Raises UsageError."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; --out names a folder")
    if (folder / "journal.jsonl").exists() or not folder.exists():
        return
    if (folder / "run.json").exists():  # ours, but for the journal
        if not fresh:
            raise UsageError(
                f"{folder}: holds a report whose journal.jsonl is missing; put it back, or "
                "measure every cell again with --fresh"
            )
    elif any(f for f in folder.iterdir() if f.suffix != ".lock"):
        raise UsageError(
            f"{folder}: holds files that are no results of gradest; name another folder with --out"
        )
