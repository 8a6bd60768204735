"""`python -m tools.site`: builds the static site."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gradest.errors import UsageError
from tools.site import build, reference, source
from tools.site.standings import Suite

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument(
        "--reference",
        type=Path,
        default=ROOT / "results" / "reference",
        metavar="DIR",
        help="folder with a run of each suite (default: results/reference)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "site", metavar="DIR")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "site",
        metavar="DIR",
        help="folder for the source of the pages (default: build/site)",
    )
    options = parser.parse_args(arguments)
    try:
        _build(options.reference, options.out, options.work)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _build(runs: Path, out: Path, work: Path) -> None:
    began = time.monotonic()
    build.refuse_foreign(out)
    suites = {name: Suite.of(frame) for name, frame in reference.all_results(runs)}
    missing = [name for name in reference.SUITES if name not in suites]
    if missing:
        print(f"{runs}: no reference results of {', '.join(missing)}; built without them")
    if work.exists():
        shutil.rmtree(work)
    source.write(ROOT, work / "source", suites)
    build.build(work / "source", work, out)
    print(f"site: {out / 'index.html'} ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
