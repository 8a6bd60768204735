"""The command `--suite`: runs a suite, writes its report and prints a summary."""

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Sequence
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
from gradest.commands.dry_run import dry_run, exit_status, time_limit
from gradest.contracts import Estimator
from gradest.errors import UsageError
from gradest.plugins import PluginBundle, Registry
from gradest.report import (
    Formats,
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
    Outcome,
    StandIns,
    Suite,
    Workers,
    alone_in,
    carried,
    check_backend,
    describe_run,
    keep_stand_ins,
    load_suite,
    prepare,
    quietly,
    refuse_foreign,
)
from gradest.runs import run as run_cells
from gradest.statistics import FEWEST
from gradest.support import collector_paused, in_a_line, listed


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
    _refuse_absent(only, suite, registry)
    cells = suite.only(options.only_tasks, only)
    folder = options.out or Path("results") / suite.name
    against = baseline(options.against, suite.name, folder, AGAINST)
    others = baseline(options.beside, suite.name, folder, BESIDE)
    if options.dry_run:
        return dry_run(suite, cells, folder, registry, options)
    beside = stand_ins(others, suite, cells, folder, registry, options)
    make_ready(folder, suite, cells, registry, options)
    with alone_in(folder):
        problems, outcomes = run_into(folder, suite, cells, registry, options, beside)
        tell_stand_ins(beside, options.quiet)
        status = _conclude(outcomes, folder, options.quiet, options.fail_on_refuted)
        return max(problems, status, check_agreement(folder, against))


def _refuse_absent(names: Sequence[str], suite: Suite, registry: Registry) -> None:
    """Raises UsageError for an estimator that exists, but not in the suite."""
    present = {name for cell in suite.cells for name in cell.names}
    for name in names:
        if name in registry.estimators and name not in present:
            raise UsageError(
                f"--only-estimators: {name} is not in the suite {suite.name}; add it there, or "
                "rank it beside rows that are measured already with --beside, as in "
                "--beside reference"
            )


def check_options(options: argparse.Namespace) -> None:
    """Raises UsageError for options that contradict each other or need other hardware."""
    Formats.chosen(options.formats)
    check_backend(options.backend, options.scheduler, options.device)
    if options.device.kind == "cuda":
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not available:
            message = "no CUDA device is available; use --device cpu"
            raise UsageError(f"--device {options.device}: {message}")
        if missing := [number for number in options.device.gpus if number >= available]:
            raise UsageError(
                f"--device {options.device}: expected numbers below {available}, the number of "
                f"CUDA devices, got {missing[0]}"
            )
    if options.replicates is not None and options.replicates < FEWEST:
        raise UsageError(
            f"--replicates: expected at least {FEWEST}, which the intervals need, "
            f"got {options.replicates}"
        )


@collector_paused(freeze=True)
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
        device=options.device.kind,
        also=also,
    )


def make_ready(
    folder: Path,
    suite: Suite,
    cells: Sequence[Cell],
    registry: Registry,
    options: argparse.Namespace,
) -> None:
    """Fetch the data of the cells, and see that `folder` can take them, before it is locked.

    Raises UsageError, of which DataError stands for data that are not available.
    """
    with quietly(options.quiet):
        prepare(cells, registry, PluginBundle.of(options.plugin), time_limit(suite, options))
    refuse_foreign(folder, options.fresh)


def run_into(
    folder: Path,
    suite: Suite,
    cells: Sequence[Cell],
    registry: Registry,
    options: argparse.Namespace,
    beside: StandIns | None = None,
) -> tuple[int, Collection[Outcome]]:
    """Run cells of a suite and write the report into `folder`, which the caller has locked.

    The report ranks the rows of `beside` too.
    Returns 1 if part of the report is missing, which is printed, and 0 otherwise; and how the cells
    have ended.  Raises UsageError if the workers are unavailable.
    """
    started = datetime.now(UTC)
    jobs = options.jobs or Workers.jobs
    timeout = time_limit(suite, options)
    with quietly(options.quiet):
        outcomes = run_cells(
            suite.name,
            cells,
            folder,
            registry,
            PluginBundle.of(options.plugin),
            Workers(jobs, options.backend, options.scheduler, timeout, gpus=options.device.gpus),
            suite.settings.reference,
            options.fresh,
            suite.settings.timed,
        )
    description = describe_run(suite, registry, started) | keep_stand_ins(folder, beside)
    formats = Formats.chosen(options.formats)
    problems = rebuild_report(folder, description | carried(folder), formats=formats)
    for line in problems:
        print(f"warning: {folder}: {line}", file=sys.stderr)
    return int(bool(problems)), outcomes.values()


def _conclude(
    outcomes: Collection[Outcome], folder: Path, quiet: bool, fail_on_refuted: bool
) -> int:
    """Print the summary and the path of the report; returns the exit status."""
    loaded = load_run(folder)
    failed = failed_controls(loaded)
    refuted = refuted_claims(loaded) if fail_on_refuted else []
    count = Counter(outcome.status for outcome in outcomes)
    if quiet:
        for line in (*failed, *refuted):
            print(line, file=sys.stderr)
    else:
        print(in_words(count))
        show(summarize_run(loaded))
        print()
        if unlisted := loaded.facts.get("unlisted"):
            print(
                f"not in the suite any more, kept in the journal: {listed(unlisted)}; "
                "--fresh discards them"
            )
    print(f"report: {report_path(folder)}", flush=True)
    if not count["ok"]:
        reasons = {outcome.reason for outcome in outcomes} - {None}
        reason = f": {in_a_line(min(reasons))}" if reasons else ""
        print(f"error: no cell gave a finite number{reason}", file=sys.stderr)
    return 1 if failed or refuted else exit_status(count)


def in_words(count: Counter[str]) -> str:
    """`12 ok, 0 skipped, 0 failed`."""
    return ", ".join(f"{count[status]:,} {status}" for status in ("ok", "skipped", "failed"))
