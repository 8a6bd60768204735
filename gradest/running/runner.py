"""Cells to records: in parallel, resumable, each failure for itself."""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gradest.contracts import Task, built_in
from gradest.errors import Inapplicable, UsageError
from gradest.knobs import build
from gradest.measuring.monte_carlo_truth import DEFAULT, ReferencePrecision
from gradest.measuring.truth import Reference
from gradest.process_state import Code, Settings, changes
from gradest.registry import PluginBundle, Registry
from gradest.running.cells import Cell, EstimatorCell, canonical, foreign, labels
from gradest.running.folder import alone_in
from gradest.running.journal import Journal, Record, append_if_shared
from gradest.running.measuring_cell import MeasuringCell
from gradest.running.processes import Failed, Job, UnderWay, in_own_process
from gradest.running.progress import display
from gradest.running.results import finished
from gradest.running.timing import ROUNDS, time_cells
from gradest.running.training_cell import NETWORKS, UNFINISHED, TrainingCell, own_folder
from gradest.running.truths import references
from gradest.running.workers import Workers, answers
from gradest.text import message_of, reason_of, traceback_of
from gradest.threads import one_thread
from gradest.training.headway import training_progress


def run(
    suite: str,
    cells: Sequence[Cell],
    folder: Path,
    registry: Registry,
    bundle: PluginBundle,
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
        truths = references(measuring, precision, journal, registry, bundle, workers)
        kept = finished(journal.path)
        missing = [c for c in cells if _lacks(kept.get(c.key), truths.get(c.key))]
        if missing:
            trainings = {c.key for c in missing if isinstance(c, TrainingCell)}
            done = partial(_headway, folder, trainings)
            named, under_way = labels(cells), UnderWay()
            running = partial(under_way.named, named)
            with (
                display("measuring", len(missing), workers.jobs, done, running) as shown,
                closing(
                    _records(missing, registry, bundle, journal, workers, truths, under_way)
                ) as records,
            ):
                for record in records:
                    if not record.pop("written"):
                        journal.append(record)
                    trainings.discard(record["key"])
                    shown.done(named[record["key"]], record["status"], record["reason"])
        _tidy(folder, cells)
        if timed:
            _time_all(measuring, journal, registry, bundle, workers.timeout)


def prepare(cells: Sequence[Cell], registry: Registry, bundle: PluginBundle) -> None:
    """Let every task fetch what it needs.

    Raises UsageError where that is not to be had; whatever else a task raises is left to its cells.
    """
    tasks = {
        (cell.task, canonical(cell.task_knobs)): cell
        for cell in cells
        if isinstance(cell, EstimatorCell)
    }
    for cell in tasks.values():
        task = registry.task(cell.task)
        if built_in(task):
            build(task, cell.task_knobs).prepare()
        elif task.prepare is not Task.prepare:
            job = Job(cell.key, _prepare, (cell.task, cell.task_knobs, bundle), alone=True)
            with suppress(Failed):  # each of its cells asks for the same and fails with it
                in_own_process(job, None)


def _prepare(task: str, knobs: Mapping[str, Any], bundle: PluginBundle) -> None:
    build(bundle.registry(frozenset([task])).task(task), knobs).prepare()


def seconds_expected(cell: Cell, registry: Registry, bundle: PluginBundle) -> float:
    """How long the cell will take, from a short trial.  Raises Inapplicable, and Failed for code
    from outside the catalogue that fails."""
    if not foreign(cell, registry):
        return cell.expected_seconds(registry)
    return in_own_process(Job(cell.key, _expected_seconds, (cell, bundle), alone=True), None)


def _expected_seconds(cell: Cell, bundle: PluginBundle) -> float:
    return cell.expected_seconds(bundle.registry(cell.names))


def measure_cell(
    cell: Cell, bundle: PluginBundle, journal: str, journal_id: str, truth: Record | None = None
) -> Record:
    """One cell's record, written to the journal here if this machine sees it.

    `truth` is the record of the reference, where one stands for the truth.  Whatever goes wrong
    inside the cell becomes part of its record: the others must go on.
    """
    record = _record(cell, bundle, Path(journal).parent, truth)
    written = append_if_shared(Path(journal), journal_id, record)
    if record["status"] == "ok":
        _remove(own_folder(Path(journal).parent, cell.key))
    return {**record, "written": written}


def measure_foreign_cell(
    cell: Cell, bundle: PluginBundle, folder: str, truth: Record | None
) -> Record:
    """The record of a cell with code from outside the catalogue; for a process of its own.

    It is not written here, where that code may have changed anything.  A cell whose code has
    changed what numbers rely on has failed, even if its numbers look well.
    """
    settings, code = Settings.take(), Code.take()
    record = _record(cell, bundle, Path(folder), truth)
    if changed := changes(settings, code):
        reason = f"its code {changed}, on which numbers rely"
        if record["status"] == "failed":  # with an error that may come from just that
            reason = f"{record['reason']}; {reason}"
        record = _without_result(cell, truth, reason)
    json.dumps(record, ensure_ascii=False).encode()  # or else it could not be written
    return {**record, "written": False}


def _record(cell: Cell, bundle: PluginBundle, folder: Path, truth: Record | None) -> Record:
    torch.set_num_threads(1)
    start = time.perf_counter()
    outcome = _outcome(cell, bundle, folder, truth)
    return {**_identity(cell, truth), **outcome, "elapsed": time.perf_counter() - start}


def _identity(cell: Cell, truth: Record | None) -> Record:
    named = {"kind": "cell", "of": cell.kind, "key": cell.key, "cell": asdict(cell)}
    return {**named, "reference": truth and truth["key"]}


def _without_result(cell: Cell, truth: Record | None, reason: str) -> Record:
    return {**_identity(cell, truth), "status": "failed", "reason": reason, "written": False}


def _outcome(
    cell: Cell, bundle: PluginBundle, folder: Path, truth: Record | None
) -> dict[str, Any]:
    try:
        reference = truth and Reference.from_json(truth["reference"])
        payload = cell.outcome(bundle.registry(cell.names), folder, reference)
        return {"status": "ok", "reason": "", **payload}
    except Inapplicable as error:
        return {"status": "skipped", "reason": message_of(error)}
    except KeyboardInterrupt:  # Ctrl-C, unless this process is the cell's own
        raise
    except BaseException as error:
        reason = {"reason": reason_of(error), "traceback": traceback_of(error)}
        return {"status": "failed", **reason}


def _records(
    cells: Sequence[Cell],
    registry: Registry,
    bundle: PluginBundle,
    journal: Journal,
    workers: Workers,
    truths: Mapping[str, Record],
    under_way: UnderWay,
) -> Iterator[Record]:
    """Records as they come in.  Whoever ends its process, or takes too long, has failed."""
    path = journal.path.resolve()

    def job(cell: Cell) -> Job:
        if foreign(cell, registry):
            told = (cell, bundle, str(path.parent), truths.get(cell.key))
            return Job(cell.key, measure_foreign_cell, told, alone=True)
        told = (cell, bundle, str(path), journal.id, truths.get(cell.key))
        return Job(cell.key, measure_cell, told, alone=False)

    by_key = {cell.key: cell for cell in cells}
    jobs = [job(cell) for cell in cells]
    with closing(answers(jobs, workers, under_way, not registry.foreign)) as found:
        for done, answer in found:
            if isinstance(answer, Exception):
                truth = truths.get(done.key)
                answer = _without_result(by_key[done.key], truth, str(answer))
            yield answer


def _headway(folder: Path, trainings: Set[str]) -> float:
    """How many trainings those that are under way amount to, by their steps."""
    return sum(training_progress(own_folder(folder, key)) for key in list(trainings))


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


def _time_all(
    cells: Sequence[MeasuringCell],
    journal: Journal,
    registry: Registry,
    bundle: PluginBundle,
    timeout: float | None,
) -> None:
    records = finished(journal.path)
    untimed = [
        cell
        for cell in cells
        if records[cell.key]["status"] == "ok" and "samples" not in records[cell.key]
    ]
    if not untimed:
        return
    with display("timing", len(untimed) * ROUNDS, 1) as shown:
        timed = time_cells(untimed, registry, shown.advance, bundle, timeout)
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
