"""Cells to records: in parallel, resumable, each failure for itself."""

import importlib.util
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import torch
from filelock import FileLock, Timeout
from joblib.externals.loky import get_reusable_executor

from gradest.errors import Inapplicable, UsageError
from gradest.journal import Journal, Record, append_if_shared
from gradest.knobs import build
from gradest.measurement import measure
from gradest.precision import Precision
from gradest.progress import display
from gradest.registry import Registry, Shipment
from gradest.results import finished
from gradest.schedule import FEWEST
from gradest.suite import Cell, labels
from gradest.threads import one_thread
from gradest.timing import ROUNDS, time_cells

BACKENDS = ("loky", "threading", "dask")


@dataclass(frozen=True)
class Workers:
    """Where cells are measured: how many at a time, by which joblib backend.

    `scheduler` is the address of a running Dask cluster; without it Dask starts one here.
    """

    jobs: int = joblib.cpu_count()
    backend: str = "loky"
    scheduler: str | None = None


def run(
    suite: str,
    cells: Sequence[Cell],
    folder: Path,
    registry: Registry,
    shipment: Shipment,
    workers: Workers,
    fresh: bool = False,
    timed: bool = True,
) -> None:
    """Measure and time the cells that the folder's journal lacks; failed ones are tried again.

    `timed` False leaves out the timing, `fresh` forgets what the journal holds.  Raises UsageError
    when the folder holds anything else than this suite's results, cannot be written, or another run
    is at work in it.
    """
    _refuse_foreign(folder)
    with _alone_in(folder), one_thread():
        journal = Journal(folder, suite)
        if fresh:
            journal.path.unlink()
            journal = Journal(folder, suite)
        kept = finished(journal.path)
        missing = [c for c in cells if kept.get(c.key, {}).get("status") in (None, "failed")]
        if missing:
            with display("measuring", len(missing), workers.jobs) as shown:
                named = labels(cells)
                for record in _records(missing, shipment, journal, workers):
                    if not record.pop("written"):
                        journal.append(record)
                    shown.done(named[record["key"]], record["status"], record["reason"])
        if timed:
            _time_all(cells, journal, registry)


def measure_cell(cell: Cell, shipment: Shipment, journal: str, journal_id: str) -> Record:
    """One cell's record, written to the journal here if this machine sees it.

    Whatever goes wrong inside the cell becomes part of its record: the others must go on.
    """
    torch.set_num_threads(1)
    start = time.perf_counter()
    record = {
        "kind": "cell",
        "key": cell.key,
        "cell": asdict(cell),
        **_outcome(cell, shipment),
        "elapsed": time.perf_counter() - start,
    }
    return {**record, "written": append_if_shared(Path(journal), journal_id, record)}


def _outcome(cell: Cell, shipment: Shipment) -> dict[str, Any]:
    try:
        registry = _registry(shipment)
        measurement = measure(
            build(registry.estimator(cell.estimator), cell.estimator_knobs),
            build(registry.task(cell.task), cell.task_knobs),
            replicates=cell.replicates or FEWEST,
            precision=None if cell.precision is None else Precision(**cell.precision),
            enumerate_draws=cell.enumerate_draws,
            tolerant=cell.tolerant,
            seed=cell.draw_seed,
            adapt_steps=cell.adapt_steps,
            dtype=getattr(torch, cell.dtype),
            device=cell.device,
        )
        return {"status": "ok", "reason": "", "measurement": measurement.to_json()}
    except Inapplicable as error:
        return {"status": "skipped", "reason": str(error)}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}


@cache
def _registry(shipment: Shipment) -> Registry:
    return Registry.load(shipment.unpacked())


def _records(
    cells: Sequence[Cell], shipment: Shipment, journal: Journal, workers: Workers
) -> Iterator[Record]:
    """Records as they come in.  A cell that kills its worker is found and recorded as failed."""
    left = {cell.key: cell for cell in cells}
    where = (str(journal.path.resolve()), journal.id)
    with _backend(workers):
        # One cell a batch: a record counts as finished when it arrives, not when its batch does.
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        call = joblib.delayed(measure_cell)
        try:
            for record in parallel(call(cell, shipment, *where) for cell in cells):
                del left[record["key"]]
                yield record
        except BrokenProcessPool:
            known = finished(journal.path)
            for cell in left.values():
                stored = known.get(cell.key)
                yield {**stored, "written": True} if stored else _alone(cell, shipment, where)


def _alone(cell: Cell, shipment: Shipment, where: tuple[str, str]) -> Record:
    try:
        executor = get_reusable_executor(max_workers=1)
        return executor.submit(measure_cell, cell, shipment, *where).result()
    except BrokenProcessPool as error:
        reason = f"its process died: {' '.join(str(error).split())}"
        identity = {"kind": "cell", "key": cell.key, "cell": asdict(cell)}
        return {**identity, "status": "failed", "reason": reason, "written": False}


@contextmanager
def _backend(workers: Workers) -> Iterator[None]:
    """Within the block joblib runs on these workers; for Dask a client of its cluster is open."""
    if workers.backend != "dask":
        with joblib.parallel_config(workers.backend, n_jobs=workers.jobs):
            yield
        return
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--backend dask needs Dask: pip install 'gradest[dask]'")
    from distributed import Client, LocalCluster

    local = {"n_workers": workers.jobs, "threads_per_worker": 1, "dashboard_address": ":0"}
    with nullcontext() if workers.scheduler else LocalCluster(**local) as cluster:
        try:
            client = Client(workers.scheduler or cluster, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"no Dask scheduler at {workers.scheduler}: {error}") from None
        with client, joblib.parallel_config("dask", n_jobs=-1):
            yield


def _time_all(cells: Sequence[Cell], journal: Journal, registry: Registry) -> None:
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


def _refuse_foreign(folder: Path) -> None:
    """A mistyped --out must not scatter results over somebody's files."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; --out names a folder")
    ours = (folder / "journal.jsonl").exists()
    if not ours and folder.exists() and any(f for f in folder.iterdir() if f.suffix != ".lock"):
        raise UsageError(
            f"{folder}: holds files that are no results of gradest; name another folder with --out"
        )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder.  Raises UsageError when it cannot be written or another run holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".run.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise UsageError(f"{folder}: another run is writing there") from None
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {os.strerror(error.errno)}") from None
    try:
        yield
    finally:
        lock.release()
