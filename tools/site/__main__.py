"""`python -m tools.site`: builds the static site."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gradest.errors import UsageError
from tools.site import build, reference, source
from tools.site.standings import Suite

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="folder with a run of each suite (default: results/reference, if it exists)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "site", metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        if options.reference and not options.reference.is_dir():
            raise UsageError(f"--reference: {options.reference} is no folder")
        _build(options.reference or REFERENCE, options.out)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _build(runs: Path, out: Path) -> None:
    began = time.monotonic()
    build.refuse_foreign(out)
    suites = {name: Suite.of(frame) for name, frame in reference.all_results(runs)}
    missing = [name for name in reference.SUITES if name not in suites]
    if missing:
        print(f"{runs}: no reference results of {', '.join(missing)}; built without them")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the site, so that the finished pages need only be renamed.
    with tempfile.TemporaryDirectory(prefix=".gradest-site-", dir=out.parent) as work:
        source.write(ROOT, Path(work) / "source", suites)
        build.build(Path(work), out)
    print(f"site: {out / 'index.html'} ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
