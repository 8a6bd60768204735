"""`--report`: the report of one run, or of what changed between several."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradest.errors import UsageError
from gradest.report import (
    MAJORITY,
    PROPERTY,
    Overlap,
    describe_regressions,
    failed_controls,
    load_run,
    rebuild_report,
    regressions,
    report_path,
    write_comparison,
)
from gradest.running.folder import alone_in
from gradest.running.journal import Contents, read_journal
from gradest.running.results import latest, read_run

_COMPARISONS = Path("results/comparison")
_GLUED = 2  # cells that one damaged line can have held: the end of a line may be what was damaged
_UNSEALED = "of an older version, without checksums: damage in it cannot be seen"


def report_on(folders: Sequence[Path], out: Path | None, fail_on_regression: bool) -> int:
    """Rebuild the report of one run, or compare several with the first; the exit status.

    That is 1 where a part of the report is missing or a control failed, and where something is
    worse and it was asked to be.  Raises UsageError where folders are
    no runs, there is nothing to compare, or a comparison cannot be written: all but a regression
    must be told from one.
    """
    if len(folders) > 1:
        return _compare(folders, out or _COMPARISONS, fail_on_regression)
    if fail_on_regression:
        raise UsageError("--fail-on-regression compares runs: --report BASELINE OTHER")
    if out:
        raise UsageError("--out goes with several folders; the report of a run is in its folder")
    (folder,) = folders
    return _rebuild(folder)


def _rebuild(folder: Path) -> int:
    """1 where something is missing from the report, or a control failed."""
    read_run(folder)  # before a lock is made in what may be no folder of a run
    with alone_in(folder):
        run = read_run(folder)
        journal = read_journal(folder / "journal.jsonl")
        _refuse_losing(folder, run, journal)
        if not journal.sealed:
            print(f"warning: {folder}: {journal.path.name}: {_UNSEALED}", file=sys.stderr)
        told = rebuild_report(folder, run)
        failed = failed_controls(load_run(folder))
    for line in told:
        print(f"warning: {folder}: {line}", file=sys.stderr)
    for line in failed:
        print(line, file=sys.stderr)
    print(report_path(folder))
    return int(bool(told or failed))


def _refuse_losing(folder: Path, run: Mapping[str, Any], journal: Contents) -> None:
    """What is derived must not replace numbers that cannot be derived any more.

    Lines that are damaged can still be seen to be missing, so that their cells are told of in the
    report.  Raises UsageError where the journal has lost more than that, or all.
    """
    held = set(latest(journal.records))
    if held and not run.get("recorded"):  # of a version that did not note what it had
        return
    known = {cell["key"] for cell in run.get("cells") or ()} & set(run.get("recorded") or ())
    lost = known - held
    if held and len(lost) <= _GLUED * len(journal.damage):
        return
    again = "" if held else " with --fresh"
    if not journal.path.exists():
        why = "is missing"
    elif not held:
        why = "holds no cell" + (f" ({journal.told[0]})" if journal.damage else "")
    else:
        why = f"lacks {len(lost):,} of the {len(known):,} cells that the report is of"
    raise UsageError(
        f"{folder}: journal.jsonl, from which tables and report are derived, {why}; they are left "
        f"as they are; put the journal back, or run the suite again{again}"
    )


def _compare(folders: Sequence[Path], out: Path, fail_on_regression: bool) -> int:
    for folder in folders:
        journal = folder / "journal.jsonl"
        if journal.is_file():  # a run that has lost cells is no run without a regression
            _refuse_losing(folder, read_run(folder), read_journal(journal))
    try:
        path, frame, shared = write_comparison(folders, out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    worse = regressions(frame)
    for name, each in shared.items():
        print(f"{name}: {each}")
    print(path)
    for line in describe_regressions(worse, len(folders) > 2):
        print(line)
    print(f"{len(worse):,} worse" if len(worse) else _no_regression(shared))
    nothing = not all(each.compared for each in shared.values()) and not _has_properties(frame)
    return int(fail_on_regression and (nothing or not worse.empty))


def _no_regression(shared: Mapping[str, Overlap]) -> str:
    """Of what, where that is the smaller part of the runs."""
    least = min(shared.values(), key=lambda each: each.share)
    if not least.compared:
        return "nothing is compared: no cell has numbers in both runs"
    if least.share < MAJORITY:
        return f"no regression among the {least.compared:,} of {least.total:,} cells compared"
    return "no regression"


def _has_properties(frame: pd.DataFrame) -> bool:
    return bool(frame["kind"].eq(PROPERTY).any())
