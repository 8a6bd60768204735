"""The command `--suite` with a folder: runs all suites in it, with one table of their claims."""

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from gradest.commands.baseline import AGAINST, baseline, check_agreement
from gradest.commands.dry_run import dry_run, exit_status
from gradest.commands.suite import (
    check_options,
    in_words,
    load_with,
    make_ready,
    run_into,
)
from gradest.errors import DataError, UsageError
from gradest.plugins import Registry
from gradest.report import ClaimsOfRun, list_claims, read_claims, show, write_overview
from gradest.runs import REFERENCE, Cell, Outcome, Suite, SuiteFolder, alone_in
from gradest.support import counted


def run_folder(suite_folder: SuiteFolder, options: argparse.Namespace) -> int:
    """Run all suites of a folder, each into a folder of its own; returns the exit status.

    All are read before the first one runs.  A suite whose data are not available is left out, with
    a warning.  The overview of all claims is written beside the folders of the runs.  Raises
    UsageError as `run_suite` does, and for a selection of tasks or estimators, or `--beside`.
    """
    check_options(options)
    for option in ("only_tasks", "only_estimators", "beside"):
        if getattr(options, option):
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name} applies to one suite, not to the folder {suite_folder.name}")
    registry = Registry.load(options.plugin)
    out = options.out or Path("results") / suite_folder.name
    suites = {
        out / file.stem: load_with(options, str(file), registry) for file in suite_folder.files
    }  # folder of the run -> suite
    if options.dry_run:
        return max([_dry_run(*item, registry, options) for item in suites.items()])
    left_out, claims, results = {}, [], []
    against = {
        folder: baseline(_of_suite(options.against, folder), suite.name, folder, AGAINST)
        for folder, suite in suites.items()
    }
    for folder, suite in suites.items():
        try:
            make_ready(folder, suite, suite.cells, registry, options)
        except DataError as error:
            left_out[suite.name] = str(error)
            print(f"warning: {suite.name} is left out: {error}", file=sys.stderr)
            continue
        with alone_in(folder):
            problems, outcomes = run_into(folder, suite, suite.cells, registry, options)
            claims.append(read_claims(folder))
            results += [problems, _conclude(suite, outcomes, claims[-1], options)]
            results.append(check_agreement(folder, against[folder]))
    with alone_in(out):
        page = write_overview(out, suite_folder.name, claims, left_out)
    if not options.quiet:
        show(list_claims(claims))
        print()
    print(f"report: {page}", flush=True)
    if not results:
        print(f"error: no suite of {suite_folder.name} could be run", file=sys.stderr)
    return max(results, default=1)


def _of_suite(against: str | None, folder: Path) -> str | None:
    """What one suite is compared with: of a folder of runs, the one of the same name."""
    return against if against in (None, REFERENCE) else str(Path(against) / folder.name)


def _dry_run(folder: Path, suite: Suite, registry: Registry, options: argparse.Namespace) -> int:
    print(f"{suite.name}:")
    return dry_run(suite, suite.cells, folder, registry, options)


def _conclude(
    suite: Suite,
    outcomes: Collection[Outcome],
    claims: ClaimsOfRun,
    options: argparse.Namespace,
) -> int:
    """Print a line about a run, and what went wrong in it; returns its exit status."""
    count = Counter(outcome.status for outcome in outcomes)
    failed, refuted = claims.failed_controls, claims.refuted
    if not options.quiet:
        print(f"{suite.name}: {_described(suite.cells, count)}", flush=True)
    for line in (*failed, *refuted):
        print(f"{suite.name}: {line}", file=sys.stderr)
    return 1 if failed or (refuted and options.fail_on_refuted) else exit_status(count)


def _described(cells: Sequence[Cell], count: Counter[str]) -> str:
    return f"{counted(len(cells), 'cell')}, {in_words(count)}"
