"""The reference results in results/reference/: `make reference`, `make reference SUITE=variance`.

Runs each suite into results/building/, reduces the run, and writes the manifest.  A suite whose
cells and code have not changed since is left as it is; an interrupted build goes on where it was.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradest.errors import UsageError
from gradest.plugins import Registry
from gradest.runs import (
    SuiteFolder,
    find_reference,
    find_suites,
    load_suite,
    read_journal,
    read_manifest,
    read_run,
)
from gradest.runs.reference_results import MANIFEST, VERSION, checksum_of
from gradest.runs.suites import name_of_suite
from gradest.runs.tables import latest
from gradest.support import write_json
from tools import readme, verdict_matrix
from tools.reduced_run import keep_run

ROOT = Path(__file__).parents[1]
KEPT, BUILDING = "reference", "building"  # in results/: what is kept, and the runs that it is from
SUITES = ("smoke", "variance", "catalogue", "landscape", "policy", "published", "training")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.reference")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: {' '.join(SUITES)}")
    parser.add_argument("--jobs", help="as of benchmark.py")
    parser.add_argument("--force", action="store_true", help="also suites that are up to date")
    parser.add_argument("--dry-run", action="store_true", help="say what is not up to date, alone")
    parser.add_argument("--out", type=Path, default=ROOT / "results", help="default: results/")
    options = parser.parse_args(arguments)
    try:
        names = [name for given in options.suites or SUITES for name in _members(given)]
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.dry_run:
        return _tell(names, options.out / KEPT)
    missing = [name for name in names if not _build(name, options)]
    if missing:
        print(f"not built: {', '.join(missing)}; the same command tries again", file=sys.stderr)
    return int(bool(missing))


def _members(given: str) -> list[str]:
    """The names of the suites that an argument stands for: of a folder all of them."""
    found = find_suites(given)
    files = found.files if isinstance(found, SuiteFolder) else [found]
    return [name_of_suite(file) for file in files]


def _tell(names: Sequence[str], kept: Path) -> int:
    """Print the suites that would be run; returns 1 if there are any."""
    stale = [name for name in names if not _up_to_date(name, kept)]
    for name in stale:
        print(f"{name}: not up to date")
    print(f"{len(names) - len(stale)} of {len(names)} suites up to date")
    return int(bool(stale))


def _build(name: str, options: argparse.Namespace) -> bool:
    """Whether the suite has reference results of the present code, now or since earlier."""
    out = options.out.resolve()
    kept, folder = out / KEPT, out / BUILDING / name
    if not options.force and _up_to_date(name, kept):
        print(f"{name}: up to date, {_size(read_manifest(kept)[name]['bytes'])}", flush=True)
        return True
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "benchmark.py"), "--suite", name, "--out", str(folder)]
    command += ["--jobs", options.jobs] if options.jobs else []
    command += ["--fresh"] if options.force else []
    status = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode
    if status in (130, 143, -2, -15):  # interrupted: the next suites are not to be run either
        raise KeyboardInterrupt
    if status:
        print(f"{name}: not kept, the run ended with status {status}", file=sys.stderr, flush=True)
        return False
    described = keep(folder, name, kept)
    seconds, size = time.perf_counter() - start, _size(described["bytes"])
    print(f"{name}: {described['cells']:,} cells, {seconds:.0f} s, {size} kept", flush=True)
    if name == verdict_matrix.SUITE and out == ROOT / "results":
        readme.main()
    return True


def keep(folder: Path, name: str, kept: Path) -> dict[str, Any]:
    """Reduce the run in `folder` to reference results of a suite, and enter it in the manifest.

    Returns what the manifest says of it.  Raises UsageError where there is no run.
    """
    keep_run(folder, kept / name)
    suites = read_manifest(kept) | {name: _described(folder, kept / name)}
    write_json(kept / MANIFEST, {"version": VERSION, "suites": suites})
    return suites[name]


def _described(folder: Path, out: Path) -> dict[str, Any]:
    run = read_run(folder)
    records = latest(read_journal(folder / "journal.jsonl").records)
    cells = [records[cell["key"]] for cell in run["cells"]]
    files = {
        path.name: {"sha256": checksum_of(path), "bytes": path.stat().st_size}
        for path in sorted(out.iterdir())
        if path.is_file()
    }
    return {
        **{key: run[key] for key in ("commit", "finished", "machine", "versions")},
        "implementations": run["implementations"],
        "cells": len(cells),
        "seconds": round(sum(record["elapsed"] for record in cells)),  # of all cells, by one job
        "bytes": sum(file["bytes"] for file in files.values()),
        "files": files,
    }


def _up_to_date(name: str, folder: Path) -> bool:
    """Whether the kept run has the cells of the suite, measured by the present code."""
    try:
        kept = [cell["key"] for cell in read_run(find_reference(name, folder))["cells"]]
    except UsageError:  # there is none, or it is damaged
        return False
    return kept == [cell.key for cell in load_suite(name, Registry.load([])).cells]


def _size(size: int) -> str:
    return f"{size / 1000:,.0f} kB"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: finished cells are kept; the same command goes on", file=sys.stderr)
        sys.exit(130)
