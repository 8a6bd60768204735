"""The option `--against`: a run is compared with reference results, or with another run."""

import sys
from pathlib import Path

from gradest.errors import UsageError
from gradest.report import write_agreement
from gradest.runs import Baseline, find_baseline

_FOLDER = "against"  # in the folder of the run: the document of the comparison


def baseline(given: str | None, suite: str, folder: Path, option: str) -> Baseline | None:
    """The run that an option names, None where it is not given; `folder` is that of the new run.

    Raises UsageError, before anything is measured, where there is none, and for `folder` itself.
    """
    if given is None:
        return None
    found = find_baseline(given, suite, option)
    if found.folder.resolve() == folder.resolve():
        raise UsageError(
            f"{option} {given}: the folder that this run writes into; choose another with --out"
        )
    return found


def check_agreement(folder: Path, against: Baseline | None) -> int:
    """Compare the run in `folder` and print whether it agrees; returns the exit status.

    That is 1 if a cell or a claim disagrees, or if there was nothing to compare; 0 without a
    baseline.
    """
    if against is None:
        return 0
    path, agreement = write_agreement(against.folder, against.name, folder, folder / _FOLDER)
    print(f"against {against.name}: {agreement.summary}", flush=True)
    for line in agreement.lines():
        print(line, file=sys.stdout if agreement.holds else sys.stderr)
    print(f"comparison: {path}", flush=True)
    return int(not agreement.holds)
