"""How a run grows with its cells: `make scale`, or `make scale CELLS="1000 10000"`.

For each number of cells of a sweep over θ of one bit with ten estimators, whose moments are
enumerated, the seconds and the peak memory of

    run      measure all cells with two jobs, and write the report
    resume   the same command again, with nothing left to do
    report   tables, figures and pages of the recorded cells, drawn again
    dry run  of the same suite with nothing recorded

and of each the exponent p between successive sizes, seconds ∝ cells^p.  The start of Python and
torch, which every command pays, is in all of them; `import torch` is timed too, as a measure of
the machine.  `overhead` is what a cell costs its job beside its measurement:
(jobs × (run − report) − Σ seconds of the cells) / cells.

`--checkout DIR` times the program of another checkout, with the environment `.venv` in it.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from gradest.support.markup import table
from tools.synthetic_run import suite_text

CELLS = (300, 1000, 3000)
JOBS = 2
HERE = Path(__file__).resolve().parent.parent
_KEPT = ".report.json"  # in a run's folder: says that its report is up to date
_EVERY = 0.05  # seconds between two looks at the memory


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    bytes: int  # of its process and all that it started, at the peak


def timed(checkout: Path, words: Sequence[str]) -> Cost:
    """Run the command line of a checkout.  Raises RuntimeError with its errors if it fails."""
    command = [_python(checkout), str(checkout / "benchmark.py")]
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL, stderr=errors) as each:
            while each.poll() is None:
                peak = max(peak, _bytes(each.pid))
                time.sleep(_EVERY)
        seconds = time.perf_counter() - start
        if each.returncode:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(words)}: {errors.read()}")
    return Cost(seconds, peak)


def importing(checkout: Path) -> float:
    """Seconds of `import torch`, which every command pays: a measure of the machine."""
    start = time.perf_counter()
    subprocess.run([_python(checkout), "-c", "import torch"], check=True)
    return time.perf_counter() - start


def _python(checkout: Path) -> str:
    own = checkout / ".venv" / "bin" / "python"
    return str(own if own.exists() else sys.executable)


def _bytes(number: int) -> int:
    """The memory of a process and its descendants; pages that they share count once for each."""
    total = 0
    try:
        own = psutil.Process(number)
        for each in (own, *own.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:  # it has just ended
        pass
    return total


def costs(checkout: Path, cells: int, place: Path) -> tuple[dict[str, Cost], float]:
    """command -> its cost at this size, and the overhead of a cell in seconds."""
    suite, out = place / "sweep.yaml", place / "run"
    suite.write_text(suite_text(cells, "sweep"), encoding="utf-8")
    run = ["--suite", str(suite), "--quiet", "--jobs", str(JOBS), "--out"]
    result = {name: timed(checkout, [*run, str(out)]) for name in ("run", "resume")}
    (out / _KEPT).unlink(missing_ok=True)
    result["report"] = timed(checkout, ["--report", str(out)])
    result["dry run"] = timed(checkout, [*run, str(place / "dry"), "--dry-run"])
    lines = (out / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    elapsed = sum(record.get("elapsed", 0.0) for record in map(json.loads, lines))
    measuring = result["run"].seconds - result["report"].seconds
    return result, (JOBS * measuring - elapsed) / cells


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.scale")
    parser.add_argument("cells", type=int, nargs="*", default=CELLS)
    parser.add_argument("--checkout", type=Path, default=HERE)
    options = parser.parse_args(words)
    rows: list[list[str]] = []
    heads: list[str] = []
    before: tuple[int, dict[str, Cost]] | None = None
    for cells in options.cells:
        with tempfile.TemporaryDirectory(prefix="gradest-scale-") as place:
            found, overhead = costs(options.checkout.resolve(), cells, Path(place))
        heads = [text for name in found for text in (f"{name}, s", "GiB", "p")]
        row = [f"{cells:,}"]
        for name, cost in found.items():
            power = (
                "" if before is None else f"{_power(cells, cost, before[0], before[1][name]):.2f}"
            )
            row += [f"{cost.seconds:.1f}", f"{cost.bytes / 2**30:.2f}", power]
        rows.append([*row, f"{1000 * overhead:.1f}"])
        print(f"{cells:,} cells: {' '.join(rows[-1])}", file=sys.stderr)
        before = cells, found
    torch = min(importing(options.checkout.resolve()) for _ in range(3))
    print(f"{os.cpu_count()} cores, {JOBS} jobs, import torch {torch:.1f} s")
    print(table(["cells", *heads, "overhead, ms"], rows, left=1))
    return 0


def _power(cells: int, cost: Cost, fewer: int, lower: Cost) -> float:
    return math.log(cost.seconds / lower.seconds) / math.log(cells / fewer)


if __name__ == "__main__":
    sys.exit(main())
