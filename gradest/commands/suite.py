"""`--suite`: a run from its suite to its report, and what is said of it."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from gradest.errors import Inapplicable, UsageError
from gradest.measuring.schedule import FEWEST
from gradest.registry import Registry, Shipment
from gradest.report import (
    failed_controls,
    load_run,
    rebuild_report,
    report_path,
    show,
    summarize_run,
)
from gradest.running.cells import Cell, labels
from gradest.running.folder import alone_in
from gradest.running.processes import Failed
from gradest.running.progress import quietly
from gradest.running.provenance import describe_run
from gradest.running.results import carried, finished
from gradest.running.runner import prepare, refuse_foreign, seconds_expected
from gradest.running.runner import run as run_cells
from gradest.running.suite import load_suite
from gradest.running.workers import Workers
from gradest.text import described, in_a_line, message_of


def run_suite(options: argparse.Namespace, registry: Registry) -> int:
    """Run the suite of `options`, or tell what would be run, and return the exit status.

    A dry run ends with the status that the run would have, as far as the first replicates tell.
    Raises UsageError for options that go with others or with another machine, and whatever is wrong
    with the suite or its folder.
    """
    if options.scheduler and options.backend != "dask":
        raise UsageError("--scheduler goes with --backend dask")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine has no CUDA device")
    if options.replicates is not None and options.replicates < FEWEST:
        raise UsageError(
            f"--replicates {options.replicates}: at least {FEWEST} are needed for intervals"
        )
    suite = load_suite(
        options.suite,
        registry,
        replicates=options.replicates,
        precision=options.precision,
        seed=options.seed,
        steps=options.steps,
        device=options.device,
    )
    cells = suite.only(options.only_tasks, options.only_estimators)
    folder = options.out or Path("results") / suite.name
    shipment = Shipment.of(options.plugin)
    if options.dry_run:
        return _dry_run(cells, folder, registry, shipment, options)
    started = datetime.now(UTC)
    prepare(cells, registry, shipment)
    refuse_foreign(folder, options.fresh)
    with alone_in(folder):
        with quietly(options.quiet):
            run_cells(
                suite.name,
                cells,
                folder,
                registry,
                shipment,
                Workers(
                    options.jobs, options.backend, options.scheduler, suite.settings.cell_timeout
                ),
                suite.settings.reference,
                options.fresh,
                suite.settings.timed,
            )
        described = describe_run(suite, registry, started)
        told = rebuild_report(folder, described | carried(folder))
        for line in told:
            print(f"warning: {folder}: {line}", file=sys.stderr)
        return max(int(bool(told)), _conclude(cells, folder, options.quiet))


def _dry_run(
    cells: Sequence[Cell],
    folder: Path,
    registry: Registry,
    shipment: Shipment,
    options: argparse.Namespace,
) -> int:
    kept = {} if options.fresh else finished(folder / "journal.jsonl")
    named = labels(cells)
    total = longest = 0.0
    count: Counter[str] = Counter()
    for cell in cells:
        status = kept.get(cell.key, {}).get("status")
        if status in ("ok", "skipped"):
            state = "cached"
        else:
            try:
                seconds = seconds_expected(cell, registry, shipment)
                total, longest = total + seconds, max(longest, seconds)
                status, state = "ok", f"{seconds:.1f} s"
            except Inapplicable as error:
                status, state = "skipped", f"to be skipped: {in_a_line(message_of(error))}"
            except Failed as error:  # in a process of its own, whose message is the reason
                status, state = "failed", f"would fail: {in_a_line(str(error))}"
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever a plugin raises: the run records it as failed
                status, state = "failed", f"would fail: {described(error)}"
        count[status] += 1
        print(f"{state:>8}  {named[cell.key]}", flush=True)
    # The longest cell takes its time however many jobs there are.
    expected = max(total / options.jobs, longest)
    about = f"about {expected:.0f} s" if expected >= 1 else "less than a second"
    print(f"{_counted(len(cells), 'cell')}, {about} with {_counted(options.jobs, 'job')}")
    return _exit_status(count)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _conclude(cells: Sequence[Cell], folder: Path, quiet: bool) -> int:
    """Says how it went, the report's path last, and returns the exit status."""
    failed = failed_controls(load_run(folder))
    records = finished(folder / "journal.jsonl")
    count = Counter(records[cell.key]["status"] for cell in cells)
    if quiet:
        for line in failed:
            print(line, file=sys.stderr)
    else:
        print(", ".join(f"{count[status]} {status}" for status in ("ok", "skipped", "failed")))
        show(summarize_run(folder))
        print()
    print(f"report: {report_path(folder)}", flush=True)
    if not count["ok"]:
        reasons = {records[cell.key]["reason"] for cell in cells} - {None}
        told = f": {in_a_line(min(reasons))}" if reasons else ""
        print(f"error: no cell gave a finite number{told}", file=sys.stderr)
    return 1 if failed else _exit_status(count)


def _exit_status(count: Counter[str]) -> int:
    """Of a run, and of what is foreseen of it: 0 where some cell has numbers and none failed."""
    return 0 if count["ok"] and not count["failed"] else 1
