"""Runs cells in parallel and records them; runs are resumable and failures are isolated."""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gradest.contracts import Task, built_in
from gradest.errors import Inapplicable, UsageError
from gradest.knobs import build
from gradest.measurement import DEFAULT, Reference, ReferencePrecision
from gradest.plugins import Code, PluginBundle, Registry, Settings, changes
from gradest.runs.cells import Cell, EstimatorCell, canonical, foreign, labels, same_cell
from gradest.runs.descent_cell import DescentCell
from gradest.runs.folder import alone_in
from gradest.runs.journal import Journal, Record, append_if_shared
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.processes import Failed, Job, UnderWay, in_own_process
from gradest.runs.progress import display, tell
from gradest.runs.references import references
from gradest.runs.tables import finished, latest
from gradest.runs.timing import ROUNDS, least_seconds, time_cells
from gradest.runs.training import training_progress
from gradest.runs.training_cell import (
    NETWORKS,
    UNFINISHED,
    TrainingCell,
    own_folder,
    unfinished_keys,
)
from gradest.runs.workers import Workers, answers
from gradest.support import (
    collector_paused,
    counted,
    in_a_line,
    message_of,
    one_thread,
    reason_of,
    traceback_of,
)


class Outcome(NamedTuple):
    """How a cell has ended."""

    status: str  # "ok", "skipped" or "failed"
    reason: str | None


def run(
    suite: str,
    cells: Sequence[Cell],
    folder: Path,
    registry: Registry,
    bundle: PluginBundle,
    workers: Workers,
    precision: ReferencePrecision | None = DEFAULT,
    fresh: bool = False,
    timed: bool = True,
) -> dict[str, Outcome]:
    """Measure and time the cells that are missing or failed in the folder's journal.

    Returns how each of the cells has ended, by its key.

    For tasks whose exact gradient is unknown, a reference is measured first, to `precision`, and
    none where that is None.  `timed` = False skips the timing, `fresh` discards the journal.
    Raises UsageError if the folder contains anything other than results of this suite, cannot be
    written, or is in use by another run.
    """
    refuse_foreign(folder, fresh)
    with alone_in(folder), one_thread():
        with collector_paused(freeze=True):
            journal = Journal(folder, suite, fresh)
        for line in journal.damage:
            print(f"warning: {folder}: {line}; its cell is measured again", file=sys.stderr)
        if fresh:
            _remove(folder / UNFINISHED)
            _remove(folder / NETWORKS)
        measuring = [cell for cell in cells if isinstance(cell, MeasuringCell)]
        with collector_paused(freeze=True):
            recorded = latest(journal.opened)
            settled = {c.key for c in measuring if _is_settled(c, recorded.get(c.key))}
        unsettled = [cell for cell in measuring if cell.key not in settled]
        truths = references(unsettled, precision, journal, registry, bundle, workers)
        missing = [
            cell
            for cell in cells
            if cell.key not in settled
            and _is_missing(cell, recorded.get(cell.key), truths.get(cell.key))
        ]
        if missing:
            trainings = {c.key for c in missing if isinstance(c, TrainingCell | DescentCell)}
            done = partial(_progress, folder, trainings)
            names, under_way = labels(cells), UnderWay()
            running = partial(under_way.named, names)
            with (
                display("measuring", len(missing), workers.jobs, done, running) as progress,
                closing(
                    _records(missing, registry, bundle, journal, workers, truths, under_way)
                ) as records,
            ):
                for record in records:
                    if not record.pop("written"):
                        journal.append(record)
                    trainings.discard(record["key"])
                    progress.done(names[record["key"]], record["status"], record["reason"])
            recorded = finished(journal.path)
        else:
            tell(f"nothing to measure: {counted(len(cells), 'cell')} recorded already")
        _tidy(folder, cells, recorded)
        if timed:
            _time_all(measuring, recorded, journal, registry, bundle, workers.timeout)
        return {c.key: Outcome(*(recorded[c.key][x] for x in Outcome._fields)) for c in cells}


def prepare(
    cells: Sequence[Cell], registry: Registry, bundle: PluginBundle, timeout: float | None
) -> None:
    """Let every task download the data it needs; plugins have so many seconds for it.

    Raises UsageError if the data are unavailable.  Other errors of a task are printed as
    warnings, and left to its cells.
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
            tell(in_a_line(f"preparing {cell.task}"))
            job = Job(cell.key, _prepare, (cell.task, cell.task_knobs, bundle), alone=True)
            try:
                in_own_process(job, timeout)
            except Failed as error:
                message = f"{cell.task}: prepare() failed: {error}"
                print(f"warning: {in_a_line(message)}", file=sys.stderr)


def _prepare(task: str, knobs: Mapping[str, Any], bundle: PluginBundle) -> None:
    build(bundle.registry(frozenset([task])).task(task), knobs).prepare()


def seconds_expected(
    cell: Cell, registry: Registry, bundle: PluginBundle, timeout: float | None
) -> float:
    """The expected run time of a cell, from a short trial.

    Raises Inapplicable, and Failed for code from outside the catalogue that fails, or whose trial
    alone takes more than `timeout` seconds.
    """
    if not foreign(cell, registry):
        return cell.expected_seconds(registry)
    return in_own_process(Job(cell.key, _expected_seconds, (cell, bundle), alone=True), timeout)


def least_timing_seconds(cells: Sequence[Cell]) -> float:
    """The seconds that timing the cells after their run takes at least."""
    return least_seconds(sum(isinstance(cell, MeasuringCell) for cell in cells))


def _expected_seconds(cell: Cell, bundle: PluginBundle) -> float:
    return cell.expected_seconds(bundle.registry(cell.names))


def measure_cell(
    cell: Cell,
    bundle: PluginBundle,
    journal: str,
    journal_id: str | None,
    truth: Record | None = None,
) -> Record:
    """The record of a cell, written to the journal if this machine has access to it.

    Without `journal_id` the caller writes the record.

    `truth` is the record of the reference that replaces an unknown truth.  Any error inside the
    cell becomes part of its record, so that the other cells go on.  Of a record that is written
    only the outcome is returned: its moments may be megabytes, which the run would only discard.
    """
    record = _record(cell, bundle, Path(journal).parent, truth)
    written = bool(journal_id) and append_if_shared(Path(journal), journal_id, record)
    if written:
        if record["status"] == "ok":  # a checkpoint is kept until then
            _remove(own_folder(Path(journal).parent, cell.key))
        record = {name: record[name] for name in ("key", "status", "reason")}
    return {**record, "written": written}


def measure_foreign_cell(
    cell: Cell, bundle: PluginBundle, folder: str, truth: Record | None
) -> Record:
    """The record of a cell with code from outside the catalogue, run in a process of its own.

    The record is not written in this process, where that code may have changed anything.  A cell
    whose code has changed settings or code that measurements rely on counts as failed.
    """
    settings, code = Settings.take(), Code.current()
    record = _record(cell, bundle, Path(folder), truth)
    if changed := changes(settings, code):
        reason = f"its code {changed}, on which numbers rely"
        if record["status"] == "failed":  # with an error that the change may have caused
            reason = f"{record['reason']}; {reason}"
        record = _without_result(cell, truth, reason)
    json.dumps(record, ensure_ascii=False).encode()  # raises if the record cannot be written
    return {**record, "written": False}


def _record(cell: Cell, bundle: PluginBundle, folder: Path, truth: Record | None) -> Record:
    torch.set_num_threads(1)
    start = time.perf_counter()
    outcome = _outcome(cell, bundle, folder, truth)
    return {**_identity(cell, truth), **outcome, "elapsed": time.perf_counter() - start}


def _identity(cell: Cell, truth: Record | None) -> Record:
    identity = {"kind": "cell", "of": cell.kind, "key": cell.key, "cell": cell.plain}
    return {**identity, "reference": truth and truth["key"]}


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
    except KeyboardInterrupt:  # Ctrl-C; a cell in its own process is recorded as failed
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
    """Yield records in the order of completion; a cell that dies or times out counts as failed."""
    path = journal.path.resolve()
    # A cluster may run a cell twice, and lose a result: only what arrives here is recorded.
    journal_id = None if workers.remote else journal.id

    def job(cell: Cell) -> Job:
        if foreign(cell, registry):
            arguments = (cell, bundle, str(path.parent), truths.get(cell.key))
            return Job(cell.key, measure_foreign_cell, arguments, alone=True)
        arguments = (cell, bundle, str(path), journal_id, truths.get(cell.key))
        return Job(cell.key, measure_cell, arguments, alone=False)

    by_key = {cell.key: cell for cell in cells}
    jobs = [job(cell) for cell in cells]
    with closing(answers(jobs, workers, under_way, not registry.foreign)) as results:
        for done, answer in results:
            if isinstance(answer, Exception):
                truth = truths.get(done.key)
                answer = _without_result(by_key[done.key], truth, str(answer))
            yield answer


def _progress(folder: Path, trainings: Set[str]) -> float:
    """The finished part of the running trainings, as a number of trainings."""
    # Only folders that exist are read: to look for all after each training would be quadratic.
    started = [key for key in unfinished_keys(folder) if key in trainings]
    return sum(training_progress(own_folder(folder, key)) for key in started)


def _tidy(folder: Path, cells: Sequence[Cell], records: Mapping[str, Record]) -> None:
    """Delete the checkpoints of finished trainings, which a killed worker may have left."""
    if not (folder / UNFINISHED).exists():
        return
    for cell in cells:
        if records[cell.key]["status"] != "failed":
            _remove(own_folder(folder, cell.key))
    if not any((folder / UNFINISHED).iterdir()):
        (folder / UNFINISHED).rmdir()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _is_missing(cell: Cell, record: Record | None, truth: Record | None) -> bool:
    """Whether a cell must be measured, for the first time or against another reference."""
    if record is None or record["status"] == "failed":
        return True
    if not same_cell(record["cell"], cell.plain):  # a damaged record
        return True
    return record["status"] == "ok" and record["reference"] != (truth and truth["key"])


def _is_settled(cell: Cell, record: Record | None) -> bool:
    """Whether a recorded measurement holds whatever reference there is, since it needed none.

    A task with such cells alone is not built to see whether its truth is known.
    """
    if _is_missing(cell, record, None):
        return False
    return record["status"] == "skipped" or record["measurement"].get("truth") is not None


def _time_all(
    cells: Sequence[MeasuringCell],
    records: Mapping[str, Record],
    journal: Journal,
    registry: Registry,
    bundle: PluginBundle,
    timeout: float | None,
) -> None:
    untimed = [
        cell
        for cell in cells
        if records[cell.key]["status"] == "ok" and "samples" not in records[cell.key]
    ]
    if not untimed:
        return
    with display("timing", len(untimed) * ROUNDS, 1) as progress:
        timed = time_cells(untimed, registry, progress.advance, bundle, timeout)
    for cell, samples in zip(untimed, timed, strict=True):
        journal.append({"kind": "seconds", "key": cell.key, "samples": samples})


def refuse_foreign(folder: Path, fresh: bool) -> None:
    """Raises UsageError for a folder with other files, for example after a mistyped --out."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder for --out, got a file")
    if (folder / "journal.jsonl").exists() or not folder.exists():
        return
    if (folder / "run.json").exists():  # a run without its journal
        if not fresh:
            raise UsageError(
                f"{folder}: journal.jsonl is missing next to the report; restore it or use "
                "--fresh to measure every cell again"
            )
    elif any(f for f in folder.iterdir() if f.suffix != ".lock"):
        raise UsageError(
            f"{folder}: contains files that are not results of gradest; choose another folder "
            "with --out"
        )
