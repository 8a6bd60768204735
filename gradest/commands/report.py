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
    no runs, or there is nothing to compare.
    """
    if len(folders) > 1:
        path, frame = write_comparison(folders, out or _COMPARISONS)
        worse = regressions(frame)
        print(path)
        print("\n".join(told(worse, len(folders) > 2)) or "no regression")
        return int(fail_on_regression and not worse.empty)
    if fail_on_regression:
        raise UsageError("--fail-on-regression compares runs: --report BASELINE OTHER")
    (folder,) = folders
    write_results(folder, read_run(folder))
    print(write_report(folder))
    return 0
