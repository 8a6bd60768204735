"""The command `--merge`: joins finished runs into one, with tables and a report like any run's."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gradest.commands.report import tell_failed_cells
from gradest.errors import UsageError
from gradest.report import failed_controls, load_run, rebuild_report, report_path
from gradest.runs import merge_runs, write_merged


def merge(folders: Sequence[Path], out: Path | None, pool: bool = False) -> int:
    """Merge the runs in the folders into the new folder `out`; returns the exit status.

    With `pool`, measurements that differ in their seeds alone become one cell.  The status is 1 if
    a part of the report is missing or a control failed.  Raises UsageError for runs that cannot be
    merged and for a folder that is not new; nothing is written then.
    """
    if out is None:
        raise UsageError("--merge: expected --out DIR, the folder of the merged run")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: expected a new folder for --out, got one that exists")
    merged = merge_runs(folders, out.resolve().name, pool)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Built beside its place, so that a merged run is there as a whole or not at all.
    staged = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        staged.chmod(0o755)
        write_merged(merged, staged)
        problems = rebuild_report(staged, merged.run)
        loaded = load_run(staged)
        failed = failed_controls(loaded)
        staged.rename(out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    for line in problems:
        print(f"warning: {out}: {line}", file=sys.stderr)
    for line in failed:
        print(line, file=sys.stderr)
    if not problems:
        tell_failed_cells(loaded)
    for line in merged.lines:
        print(line)
    print(report_path(out))
    return int(bool(problems or failed))
