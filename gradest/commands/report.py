"""The command `--report`: rebuilds the report of one run, or compares several runs."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradest.errors import UsageError
from gradest.report import (
    MAJORITY,
    PROPERTY,
    Formats,
    LoadedRun,
    Overlap,
    describe_regressions,
    failed_cells,
    failed_controls,
    load_run,
    rebuild_report,
    refuted_claims,
    regressions,
    report_path,
    write_comparison,
)
from gradest.runs import (
    Contents,
    Omission,
    alone_in,
    is_reduced,
    latest,
    read_journal,
    read_run,
)
from gradest.support import counted

_COMPARISONS = Path("results/comparison")
_CELLS_PER_DAMAGE = (
    2  # that a damaged line can hold: without its line break it merges with the next
)
_UNSEALED = "written by an older version without checksums, so that damage cannot be detected"


def report_on(
    folders: Sequence[Path],
    out: Path | None,
    fail_on_regression: bool,
    fail_on_refuted: bool = False,
    drop_tasks: Sequence[str] = (),
    drop_estimators: Sequence[str] = (),
    formats: str | None = None,
) -> int:
    """Rebuild the report of one run, or compare several with the first; returns the exit status.

    The status is 1 if a part of the report is missing or a control failed and, with
    `fail_on_regression`, if a run is worse than the first one or nothing could be compared; with
    `fail_on_refuted`, if a claim is refuted in the run, or in one that is compared.  Tasks and
    estimators that match `drop_tasks` and `drop_estimators` are left out of the report, which has
    all `formats` unless some are named, separated by commas.  Raises UsageError for an unknown
    format, if a folder contains no run or a comparison cannot be written: status 1 must not mean
    anything else than a regression.
    """
    chosen = Formats.chosen(formats)
    if len(folders) > 1:
        if chosen:
            raise UsageError(f"--formats: expected one run, got {len(folders)} to compare")
        for option, globs in (("tasks", drop_tasks), ("estimators", drop_estimators)):
            if globs:
                raise UsageError(
                    f"--drop-{option}: expected one run, got {len(folders)} to compare"
                )
        return _compare(folders, out or _COMPARISONS, fail_on_regression)
    if fail_on_regression:
        raise UsageError(
            "--fail-on-regression: expected several runs to compare, got one; "
            "use --report BASELINE OTHER"
        )
    if out:
        raise UsageError(
            "--out: expected several runs to compare, got one; the report of a single run is "
            "written into its own folder"
        )
    (folder,) = folders
    return _rebuild(folder, fail_on_refuted, drop_tasks, drop_estimators, chosen)


def _rebuild(
    folder: Path,
    fail_on_refuted: bool,
    drop_tasks: Sequence[str],
    drop_estimators: Sequence[str],
    formats: Formats | None,
) -> int:
    """Returns 1 if a part of the report is missing or a control failed, or a claim where asked."""
    # Both errors come before a lock file is created.
    if is_reduced(read_run(folder)):
        raise UsageError(
            f"{folder}: holds reference results, which have no report; compare a run with them: "
            f"--report {folder} RUN"
        )
    with alone_in(folder):
        run = read_run(folder)
        omission = Omission.of(run, drop_tasks, drop_estimators)
        journal = read_journal(folder / "journal.jsonl")
        _refuse_losing(folder, run, journal)
        if not journal.sealed:
            print(f"warning: {folder}: {journal.path.name}: {_UNSEALED}", file=sys.stderr)
        problems = rebuild_report(folder, run, omission, formats)
        loaded = load_run(folder)
        failed = failed_controls(loaded)
        if fail_on_refuted:
            failed += refuted_claims(loaded)
    for line in problems:
        print(f"warning: {folder}: {line}", file=sys.stderr)
    for line in failed:
        print(line, file=sys.stderr)
    if not problems:  # which name the cells that cannot be read
        tell_failed_cells(loaded)
    print(report_path(folder))
    return int(bool(problems or failed))


def tell_failed_cells(run: LoadedRun) -> None:
    """Print how many cells failed, if any; the exit status is that of the run that had them."""
    if failed := failed_cells(run):
        print(counted(failed, "failed cell"), file=sys.stderr)


def _refuse_losing(folder: Path, run: Mapping[str, Any], journal: Contents) -> None:
    """Protect tables whose numbers cannot be derived from the journal any more.

    Cells in damaged lines are known to be missing, and the report says so.  Raises UsageError if
    the journal has lost more cells than its damaged lines explain, or all of them.
    """
    keys = set(latest(journal.records))
    if keys and not run.get("recorded"):  # older versions did not record which cells they had
        return
    expected = {cell["key"] for cell in run.get("cells") or ()} & set(run.get("recorded") or ())
    lost = expected - keys
    if keys and len(lost) <= _CELLS_PER_DAMAGE * len(journal.damage):
        return
    fresh = "" if keys else " with --fresh"
    if not journal.path.exists():
        problem = "is missing"
    elif not keys:
        problem = "contains no cell" + (f" ({journal.told[0]})" if journal.damage else "")
    else:
        problem = f"lacks {len(lost):,} of the {len(expected):,} cells in the report"
    raise UsageError(
        f"{folder}: journal.jsonl, the source of the tables and the report, {problem}; nothing was "
        f"changed; restore the journal, or run the suite again{fresh}"
    )


def _compare(folders: Sequence[Path], out: Path, fail_on_regression: bool) -> int:
    for folder in folders:
        journal = folder / "journal.jsonl"
        if journal.is_file():  # a run that has lost cells must not pass as one without regression
            _refuse_losing(folder, read_run(folder), read_journal(journal))
    try:
        path, frame, shared = write_comparison(folders, out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    worse = regressions(frame)
    for name, overlap in shared.items():
        print(f"{name}: {overlap}")
    print(path)
    for line in describe_regressions(worse, len(folders) > 2):
        print(line)
    print(counted(len(worse), "regression") if len(worse) else _no_regression(shared))
    incomparable = not all(overlap.compared for overlap in shared.values())
    nothing = incomparable and not _has_properties(frame)
    return int(fail_on_regression and (nothing or not worse.empty))


def _no_regression(shared: Mapping[str, Overlap]) -> str:
    """The closing line; it says how many cells were compared if these are few."""
    least = min(shared.values(), key=lambda overlap: overlap.share)
    if not least.compared:
        return "nothing was compared: no cell has results in both runs"
    if least.share < MAJORITY:
        return f"no regression among the {least.compared:,} of {least.total:,} cells compared"
    return "no regression"


def _has_properties(frame: pd.DataFrame) -> bool:
    return bool(frame["kind"].eq(PROPERTY).any())
