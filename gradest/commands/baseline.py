"""The options `--against` and `--beside`: a run, and reference results or another run.

With `--against` both are compared; with `--beside` rows of the other stand in for estimators that
are not measured.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gradest.contracts import Estimator
from gradest.errors import UsageError
from gradest.knobs import build
from gradest.plugins import Registry
from gradest.report import check_run
from gradest.runs import (
    Baseline,
    Cell,
    StandIns,
    Suite,
    find_baseline,
    find_stand_ins,
    finished,
    load_suite,
    program,
)

AGAINST, BESIDE = "--against", "--beside"
_FOLDER = "against"  # in the folder of the run: the document of the comparison


def baseline(given: str | None, suite: str, folder: Path, option: str) -> Baseline | None:
    """The run that an option names, None where it is not given; `folder` is that of the new run.

    Raises UsageError, before anything is measured, where there is none or it cannot be compared,
    and for `folder` itself.
    """
    if given is None:
        return None
    found = find_baseline(given, suite, option)
    if option == AGAINST:
        check_run(found.folder)
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
    from gradest.report import write_agreement  # which draws, and imports what that takes

    path, agreement = write_agreement(against.folder, against.name, folder, folder / _FOLDER)
    print(f"against {against.name}: {agreement.summary}", flush=True)
    for line in agreement.lines():
        print(line, file=sys.stdout if agreement.holds else sys.stderr)
    print(f"comparison: {path}", flush=True)
    return int(not agreement.holds)


def tell_stand_ins(found: StandIns | None, quiet: bool) -> None:
    """Print how many cells are ranked without being measured, and which ones are not, and why."""
    if found is None:
        return
    if not quiet:
        print(found.summary)
    for line in found.lacking:
        print(line, file=sys.stderr)


def added_estimators(options: argparse.Namespace, registry: Registry) -> list[Estimator]:
    """With either option, what `--only-estimators` names and the suite lacks, at default knobs.

    Raises UsageError for an estimator that needs a value for a knob.
    """
    if not options.only_estimators or (options.beside is None and options.against is None):
        return []
    suite = load_suite(options.suite, registry, device=options.device.kind)
    known = {name for cell in suite.cells for name in cell.names}
    names = dict.fromkeys(map(registry.canonical, options.only_estimators))
    added = [name for name in names if name in registry.estimators and name not in known]
    return [build(registry.estimator(name), {}) for name in added]


def stand_ins(
    others: Baseline | None,
    suite: Suite,
    cells: Sequence[Cell],
    folder: Path,
    registry: Registry,
    options: argparse.Namespace,
) -> StandIns | None:
    """The rows that a report ranks beside those of `cells`, and of cells that `folder` has.

    Raises UsageError if the other run has no measurements, or cannot be read.
    """
    if others is None:
        return None
    recorded = finished(folder / "journal.jsonl")
    measured = [*cells, *(cell for cell in suite.cells if cell.key in recorded)]
    return find_stand_ins(suite, measured, registry, others, _command(folder, options))


def _command(folder: Path, options: argparse.Namespace) -> list[str]:
    """The command of this run, to which names of estimators can be added."""
    given = {
        "--suite": [options.suite],
        "--out": [folder],
        "--only-tasks": options.only_tasks,
        "--seed": [] if options.seed is None else [options.seed],
        "--replicates": [] if options.replicates is None else [options.replicates],
        BESIDE: [options.beside],
    }
    words = [word for name, values in given.items() if values for word in (name, *values)]
    if options.precision is not None:
        targets = options.precision.model_dump(exclude_defaults=True)
        words += ["--precision", ",".join(f"{key}={value}" for key, value in targets.items())]
    words += [word for plugin in options.plugin for word in ("--plugin", plugin)]
    return [*program(), *map(str, words), "--only-estimators", *options.only_estimators]
