"""Estimators of published packages, judged: `make audit`.

Each wrapper in `examples/audit/` is measured in a process of its own, on a cubic cost at random
logits (`examples/audit/cubic.py`), and compared with our estimator of the same method: draw by draw
under one seed, and in time.  The scripts in `examples/audit/proofs/` show each bug with the package
alone.  With --write the table and the output of the scripts go into that file.

Exit status 1 when a wrapper that should be measured raised an error.
"""

import argparse
import importlib.metadata
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gradest import Estimator, Task, load_plugin, make_estimator, measure
from gradest.errors import ContractError
from gradest.measurement import ENUMERATED, Replicator
from gradest.randomness import Draws, drawing_from
from gradest.support import described, markup, one_thread
from tools.markers import replaced

FOLDER = Path(__file__).parents[1] / "examples" / "audit"
REPLICATES = 20_000
_SAME_ROWS = 512  # estimates that are compared draw by draw
_TIMED_ROWS, _ROUNDS = 64, 7
_ROUNDING = 1e-6  # of single precision, in which some packages compute


class Entry(NamedTuple):
    """A wrapper, and our estimator of the same method."""

    package: str
    wrapper: str  # FILE.py:Class
    ours: str = ""
    ours_knobs: Mapping[str, Any] = {}
    knobs: Mapping[str, Any] = {}


_TORCH, _PYRO, _RELAXIT, _STORCH = "torch", "pyro-ppl", "relaxit", "storchastic"
ENTRIES = (
    Entry(_TORCH, "torch_itself.py:Score", "reinforce"),
    Entry(_TORCH, "torch_itself.py:GumbelSoftmax", "gumbel_softmax"),
    Entry(_TORCH, "torch_itself.py:HardGumbelSoftmax", "st_gumbel_softmax"),
    Entry(_TORCH, "torch_itself.py:Relaxed", "gumbel_softmax"),
    Entry(_TORCH, "torch_itself.py:StraightThrough", "straight_through"),
    Entry("reinmax", "reinmax_package.py:ReinMax", "reinmax"),
    Entry("vector-quantize-pytorch", "vector_quantize.py:GumbelSample", "straight_through"),
    Entry("pydrobert-pytorch", "pydrobert_estimators.py:Reinforce", "reinforce"),
    Entry("pydrobert-pytorch", "pydrobert_estimators.py:RebarOfBits", "rebar", {"tuned": False}),
    Entry(_PYRO, "pyro_elbos.py:TraceElbo", "reinforce"),
    Entry(_PYRO, "pyro_elbos.py:TraceGraphElbo", "reinforce"),
    Entry(_PYRO, "pyro_elbos.py:TraceEnumElbo", "exact"),
    Entry(_RELAXIT, "relaxit_distributions.py:TopK", "st_gumbel_softmax"),
    Entry(_RELAXIT, "relaxit_distributions.py:Generalized", "st_gumbel_softmax"),
    Entry(
        _RELAXIT, "relaxit_distributions.py:Decoupled", "st_gumbel_softmax", {"temperature": 1.0}
    ),
    Entry(_RELAXIT, "relaxit_distributions.py:StraightThroughBits", "straight_through"),
    Entry(_RELAXIT, "relaxit_distributions.py:HardConcrete"),
    Entry(_RELAXIT, "relaxit_distributions.py:Rebar"),
    Entry(_RELAXIT, "relaxit_distributions.py:GaussianBits"),
    Entry(_STORCH, "storchastic.py:ScoreFunction", "reinforce"),
    Entry(_STORCH, "storchastic.py:BatchAverage", "rloo"),
    *(
        Entry(_STORCH, "storchastic.py:MovingAverage", knobs={"samples": samples})
        for samples in (1, 2, 3)
    ),
    Entry(_STORCH, "storchastic.py:DisARM", "disarm"),
    Entry(_STORCH, "storchastic.py:ARM", "arm"),
    Entry(_STORCH, "storchastic.py:WithoutReplacement", "unordered_set", {"samples": 3}),
    Entry(_STORCH, "storchastic.py:WithoutReplacementByDefault", "unordered_set"),
    Entry(_STORCH, "storchastic.py:UnorderedSet", "unordered_set", {"samples": 3}),
)

_COLUMNS = ("package", "version", "estimator", "verdict", "bias", "agreement", "time")


def audit(entry: Entry) -> dict[str, str]:
    """The row of a wrapper; never raises for what the package does."""
    row = dict.fromkeys(_COLUMNS, "—")
    knobs = ", ".join(f"{name} = {value}" for name, value in entry.knobs.items())
    name = entry.wrapper.partition(":")[2]
    row |= {
        "package": entry.package,
        "version": importlib.metadata.version(entry.package),
        "estimator": f"{name} ({knobs})" if knobs else name,
    }
    try:
        with one_thread():
            return row | _judged(entry)
    except ContractError as error:
        return row | {"verdict": "refused", "bias": str(error)}
    except Exception as error:  # of a package, which may raise anything
        return row | {"verdict": "error", "bias": described(error)}


def _judged(entry: Entry) -> dict[str, str]:
    (cls,) = load_plugin(f"{FOLDER / entry.wrapper.partition(':')[0]}:{_class_of(entry)}")
    (problem,) = load_plugin(FOLDER / "cubic.py")
    task = problem(categories=cls.categories or 3)
    result = measure(cls(**entry.knobs), task, replicates=REPLICATES, progress=False)
    row = result.row()
    judged = {"verdict": row["verdict"], "bias": _bias(row, result.method)}
    if not entry.ours:
        return judged
    ours = make_estimator(entry.ours, **entry.ours_knobs)
    theirs = cls(**entry.knobs)
    return judged | {
        "agreement": _agreement(theirs, ours, task),
        "time": f"{_time_ratio(theirs, ours, task):.1f} ×",
    }


def _class_of(entry: Entry) -> str:
    return entry.wrapper.partition(":")[2]


def _bias(row: Mapping[str, Any], method: str) -> str:
    if method == ENUMERATED:
        return f"{row['relative_bias']:.4%}, enumerated"
    low, high = (
        max(row[f"bias_sq_{end}"], 0.0) ** 0.5 / row["gradient_norm"] for end in ("low", "high")
    )
    return f"{row['relative_bias']:.1%} [{low:.1%}, {high:.1%}]"


def _agreement(theirs: Estimator, ours: Estimator, task: Task) -> str:
    """The largest difference of estimates for the same draws, relative to the largest of ours."""
    a, b = (_estimates(x, task) for x in (theirs, ours))
    gap = float((a - b).abs().max() / b.abs().max())
    if gap <= _ROUNDING:
        return f"{ours.name}, draw by draw to {gap:.0e}"
    a, b = (measure(x, task, replicates=REPLICATES, progress=False) for x in (theirs, ours))
    length = float((a.mean - b.mean).norm() / b.mean.norm())
    if a.method == b.method == ENUMERATED and length <= _ROUNDING:
        return f"{ours.name}, the same mean, enumerated"
    error = float((a.standard_error.square() + b.standard_error.square()).sum().sqrt())
    error /= float(b.mean.norm())
    return f"{ours.name}: the means differ by {length:.1%} (standard error {error:.1%})"


def _estimates(estimator: Estimator, task: Task) -> torch.Tensor:
    with drawing_from(Draws.seeded(1)):
        return Replicator(estimator, task).each(_SAME_ROWS)[0]


def _time_ratio(theirs: Estimator, ours: Estimator, task: Task) -> float:
    """The median ratio of the times of a call, which are taken alternately."""
    with drawing_from(Draws.seeded(0)):
        replicators = [Replicator(x, task) for x in (theirs, ours)]
        seconds: list[list[float]] = [[], []]
        for _ in range(_ROUNDS):
            for times, replicator in zip(seconds, replicators, strict=True):
                start = time.perf_counter()
                replicator.each(_TIMED_ROWS)
                times.append(time.perf_counter() - start)
    return statistics.median(a / b for a, b in zip(*seconds, strict=True))


def audits(entries: Sequence[Entry]) -> Iterator[dict[str, str]]:
    """The rows, each from a process of its own: what a package leaves behind ends with it."""
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        yield from pool.imap(audit, entries)


def proofs(packages: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """The name, which begins with the package, the code and the output of each script."""
    for path in sorted((FOLDER / "proofs").glob("*.py")):
        code = path.read_text(encoding="utf-8")
        if not any(path.stem.startswith(package.partition("-")[0]) for package in packages):
            continue
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(path)], capture_output=True, text=True
        )
        yield path.stem, code, (done.stdout or done.stderr).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.audit")
    parser.add_argument("--only", nargs="+", metavar="PACKAGE", help="audit these packages only")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to this file")
    options = parser.parse_args(arguments)
    packages = list(dict.fromkeys(entry.package for entry in ENTRIES))
    chosen = options.only or packages
    rows = []
    for row in audits([entry for entry in ENTRIES if entry.package in chosen]):
        rows.append(row)
        print(" | ".join(row.values()), flush=True)
    table = markup.table(_COLUMNS, [[markup.escape(x) for x in row.values()] for row in rows], 6)
    scripts = list(proofs(chosen))
    for name, _, output in scripts:
        print(f"\n{name}\n{output}")
    if options.write:
        text = options.write.read_text(encoding="utf-8")
        parts = [
            f"### {name}\n\n```python\n{code}```\n\n```text\n{output}\n```\n"
            for name, code, output in scripts
        ]
        body = "\n".join([table, "", "## Minimal examples", "", *parts])
        page = replaced(text, "<!-- table -->\n", "<!-- end -->", f"{body}\n")
        options.write.write_text(page, encoding="utf-8")
    return int(any(row["verdict"] == "error" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
