"""The command `--suite`: runs a suite, writes its report and prints a summary."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from gradest.commands.baseline import (
    AGAINST,
    BESIDE,
    added_estimators,
    baseline,
    check_agreement,
    stand_ins,
    tell_stand_ins,
)
from gradest.commands.report import chosen_formats
from gradest.contracts import Estimator
from gradest.errors import Inapplicable, UsageError
from gradest.plugins import PluginBundle, Registry
from gradest.report import (
    failed_controls,
    load_run,
    rebuild_report,
    refuted_claims,
    report_path,
    show,
    summarize_run,
)
from gradest.runs import (
    Cell,
    Failed,
    Record,
    StandIns,
    Suite,
    Workers,
    alone_in,
    carried,
    describe_run,
    finished,
    keep_stand_ins,
    labels,
    least_timing_seconds,
    load_suite,
    prepare,
    quietly,
    refuse_foreign,
    seconds_expected,
)
from gradest.runs import run as run_cells
from gradest.statistics import FEWEST
from gradest.support import counted, described, in_a_line, listed, message_of

_SHOWN = 0.1  # seconds: shorter expected times are not distinguished


def run_suite(options: argparse.Namespace) -> int:
    """Run the suite of `options`, or print its cells for a dry run; returns the exit status.

    A dry run returns the status that the run would have, judging by the first replicates.  Raises
    UsageError for options that contradict each other or need other hardware, and for an invalid
    suite or output folder.
    """
    check_options(options)
    registry = Registry.load(options.plugin)
    suite = load_with(options, options.suite, registry, added_estimators(options, registry))
    only = [registry.canonical(glob) for glob in options.only_estimators]
    cells = suite.only(options.only_tasks, only)
    folder = options.out or Path("results") / suite.name
    against = baseline(options.against, suite.name, folder, AGAINST)
    others = baseline(options.beside, suite.name, folder, BESIDE)
    if options.dry_run:
        return dry_run(suite, cells, folder, registry, options)
    beside = stand_ins(others, suite, cells, folder, registry, options)
    make_ready(folder, cells, registry, options)
    with alone_in(folder):
        problems = run_into(folder, suite, cells, registry, options, beside)
        tell_stand_ins(beside, options.quiet)
        status = _conclude(cells, folder, options.quiet, options.fail_on_refuted)
        return max(problems, status, check_agreement(folder, against))


def check_options(options: argparse.Namespace) -> None:
    """Raises UsageError for options that contradict each other or need other hardware."""
    chosen_formats(options.formats)
    if options.scheduler and options.backend != "dask":
        raise UsageError("--scheduler requires --backend dask")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is available; use --device cpu")
    if options.replicates is not None and options.replicates < FEWEST:
        raise UsageError(
            f"--replicates: expected at least {FEWEST}, which the intervals need, "
            f"got {options.replicates}"
        )


def load_with(
    options: argparse.Namespace, name: str, registry: Registry, also: Sequence[Estimator] = ()
) -> Suite:
    """The suite of that name or in that file, with the overrides of the options.

    Raises UsageError for a suite that cannot be run.
    """
    return load_suite(
        name,
        registry,
        replicates=options.replicates,
        precision=options.precision,
        seed=options.seed,
        steps=options.steps,
        device=options.device,
        also=also,
    )


def make_ready(
    folder: Path, cells: Sequence[Cell], registry: Registry, options: argparse.Namespace
) -> None:
    """Fetch the data of the cells, and see that `folder` can take them, before it is locked.

    Raises UsageError, of which DataError stands for data that are not available.
    """
    prepare(cells, registry, PluginBundle.of(options.plugin))
    refuse_foreign(folder, options.fresh)


def run_into(
    folder: Path,
    suite: Suite,
    cells: Sequence[Cell],
    registry: Registry,
    options: argparse.Namespace,
    beside: StandIns | None = None,
) -> int:
    """Run cells of a suite and write the report into `folder`, which the caller has locked.

    The report ranks the rows of `beside` too.
    Returns 1 if part of the report is missing, which is printed, and 0 otherwise.  Raises
    UsageError if the workers are unavailable.
    """
    started = datetime.now(UTC)
    jobs = options.jobs or Workers.jobs
    with quietly(options.quiet):
        run_cells(
            suite.name,
            cells,
            folder,
            registry,
            PluginBundle.of(options.plugin),
            Workers(jobs, options.backend, options.scheduler, suite.settings.cell_timeout),
            suite.settings.reference,
            options.fresh,
            suite.settings.timed,
        )
    description = describe_run(suite, registry, started) | keep_stand_ins(folder, beside)
    formats = chosen_formats(options.formats)
    problems = rebuild_report(folder, description | carried(folder), formats=formats)
    for line in problems:
        print(f"warning: {folder}: {line}", file=sys.stderr)
    return int(bool(problems))


def dry_run(
    suite: Suite,
    cells: Sequence[Cell],
    folder: Path,
    registry: Registry,
    options: argparse.Namespace,
) -> int:
    """Print the cells and their expected times; returns the status that the run would have."""
    records = {} if options.fresh else finished(folder / "journal.jsonl")
    bundle, jobs = PluginBundle.of(options.plugin), options.jobs or Workers.jobs
    names = labels(cells)
    total = longest = 0.0
    done, untimed = 0, []
    count: Counter[str] = Counter()
    for cell in cells:
        record = records.get(cell.key, {})
        status = record.get("status")
        if status in ("ok", "skipped"):
            state = "done"
            done += 1
        else:
            try:
                seconds = seconds_expected(cell, registry, bundle)
                total, longest = total + seconds, max(longest, seconds)
                status, state = "ok", f"{seconds:.1f} s" if seconds >= _SHOWN else f"<{_SHOWN} s"
            except Inapplicable as error:
                status, state = "skipped", f"would be skipped: {in_a_line(message_of(error))}"
            except Failed as error:  # in a separate process, which has made the message a reason
                status, state = "failed", f"would fail: {in_a_line(str(error))}"
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a plugin may raise anything; a run records it
                status, state = "failed", f"would fail: {described(error)}"
        count[status] += 1
        untimed += [cell] if status == "ok" and "samples" not in record else []
        print(f"{state:>8}  {names[cell.key]}", flush=True)
    # More workers than cells cannot make the longest cell faster.
    expected = max(total / jobs, longest)
    timing = least_timing_seconds(untimed) if suite.settings.timed else 0.0
    print(
        f"{counted(len(cells), 'cell')}, {done:,} done; the others: {_duration(expected)} with "
        f"{counted(jobs, 'job')}, plus {f'{timing:.0f} s or more of timing, ' if timing else ''}"
        "tables and figures"
    )
    return exit_status(count)


def _duration(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds >= 1 else "less than a second"


def _conclude(cells: Sequence[Cell], folder: Path, quiet: bool, fail_on_refuted: bool) -> int:
    """Print the summary and the path of the report; returns the exit status."""
    loaded = load_run(folder)
    failed = failed_controls(loaded)
    refuted = refuted_claims(loaded) if fail_on_refuted else []
    records = finished(folder / "journal.jsonl")
    count = statuses(cells, records)
    if quiet:
        for line in (*failed, *refuted):
            print(line, file=sys.stderr)
    else:
        print(in_words(count))
        show(summarize_run(folder))
        print()
        if unlisted := loaded.facts.get("unlisted"):
            print(
                f"not in the suite any more, kept in the journal: {listed(unlisted)}; "
                "--fresh discards them"
            )
    print(f"report: {report_path(folder)}", flush=True)
    if not count["ok"]:
        reasons = {records[cell.key]["reason"] for cell in cells} - {None}
        reason = f": {in_a_line(min(reasons))}" if reasons else ""
        print(f"error: no cell gave a finite number{reason}", file=sys.stderr)
    return 1 if failed or refuted else exit_status(count)


def statuses(cells: Sequence[Cell], records: Mapping[str, Record]) -> Counter[str]:
    """How many of the cells are ok, skipped and failed."""
    return Counter(records[cell.key]["status"] for cell in cells)


def in_words(count: Counter[str]) -> str:
    """`12 ok, 0 skipped, 0 failed`."""
    return ", ".join(f"{count[status]} {status}" for status in ("ok", "skipped", "failed"))


def exit_status(count: Counter[str]) -> int:
    """The exit status of a run or a dry run: 0 if a cell has results and none failed."""
    return 0 if count["ok"] and not count["failed"] else 1
