"""`--report`: the report of one run, or of what changed between several."""

from collections.abc import Sequence
from pathlib import Path

from gradest.analysis.differences import regressions
from gradest.errors import UsageError
from gradest.report import write_report
from gradest.report.comparison import told, write_comparison
from gradest.running.results import read_run, write_results

_COMPARISONS = Path("results/comparison")


def report_on(folders: Sequence[Path], out: Path | None, fail_on_regression: bool) -> int:
    """Rebuild the report of one run, or compare several with the first; the exit status.

    That is 1 where something is worse and it was asked to be.  Raises UsageError where folders are
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
    write_results(folder, read_run(folder))
    print(write_report(folder))
    return 0


def _compare(folders: Sequence[Path], out: Path, fail_on_regression: bool) -> int:
    try:
        path, frame = write_comparison(folders, out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    worse = regressions(frame)
    print(path)
    for line in told(worse, len(folders) > 2):
        print(line)
    print(f"{len(worse):,} worse" if len(worse) else "no regression")
    return int(fail_on_regression and not worse.empty)
