"""Runs of any size for measuring reports: `python -m tools.synthetic_run FOLDER CELLS KIND`.

Measuring ten thousand cells takes an hour, and a report does not see whether it was done.  A few
settings of a task are measured, and every other setting gets the record of one of them, under its
own knobs and key.
"""

import argparse
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from gradest.plugins import Registry
from gradest.runs import Suite, describe_run, load_suite
from gradest.runs.journal import write_journal
from gradest.support import write_json

Kind = Literal["sweep", "tasks"]

_ESTIMATORS = (  # whose draws are all discrete, so that cells are enumerated
    *("exact", "reinforce", {"rloo": {"samples": [2, 4]}}, "local_expectation", "unordered_set"),
    *("straight_through", "reinmax", "disarm", "sum_and_sample"),
)
_EACH = 10  # estimators with their knobs
_MEASURED = 8  # settings


def write_synthetic(folder: Path, cells: int, kind: Kind) -> None:
    """Write the journal.jsonl and the run.json of a run, of which `--report` makes a report.

    There are ten estimators, so that `cells` is rounded down to tens.  A `sweep` is over θ of one
    bit; `tasks` are settings of three bits, which no figure can draw as a curve.  Raises OSError.
    """
    registry = Registry.load(())
    suite = _suite(registry, cells, kind)
    settings = len(suite.cells) // _EACH
    chosen = sorted({n * (settings - 1) // (_MEASURED - 1) for n in range(_MEASURED)})
    measured = {
        (n, m): suite.cells[n * _EACH + m].outcome(registry, folder, None)
        for n in chosen
        for m in range(_EACH)
    }
    records: list[dict[str, Any]] = []
    for at, cell in enumerate(suite.cells):
        setting, estimator = divmod(at, _EACH)
        nearest = min(chosen, key=lambda n: abs(n - setting))
        record = {"kind": "cell", "of": cell.kind, "key": cell.key, "cell": cell.plain}
        record |= {"reference": None, "status": "ok", "reason": ""}
        records.append(record | measured[nearest, estimator] | {"elapsed": 0.0})
    folder.mkdir(parents=True, exist_ok=True)
    write_journal(folder / "journal.jsonl", suite.name, records)
    write_json(folder / "run.json", describe_run(suite, registry, datetime.now(UTC)))


def suite_text(cells: int, kind: Kind) -> str:
    """The YAML of a suite with ten estimators and that many cells, rounded down to tens."""
    settings = max(cells // _EACH, 1)
    places = [round((n + 0.5) / settings, 6) for n in range(settings)]
    thetas = [[p] if kind == "sweep" else [p, 0.3, 0.8] for p in places]
    content = {
        "replicates": 1000,
        "timed": False,
        "parameters": ["log_alpha"],
        "controls": {"unbiased": ["exact"]},
        "tasks": [{"bernoulli": {"theta": thetas}}],
        "estimators": list(_ESTIMATORS),
    }
    return yaml.safe_dump(content)


def _suite(registry: Registry, cells: int, kind: Kind) -> Suite:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{kind}.yaml"
        file.write_text(suite_text(cells, kind))
        return load_suite(str(file), registry)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.synthetic_run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("cells", type=int)
    parser.add_argument("kind", choices=get_args(Kind))
    options = parser.parse_args(arguments)
    write_synthetic(options.folder, options.cells, options.kind)


if __name__ == "__main__":
    main()
