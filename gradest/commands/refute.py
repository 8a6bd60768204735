"""The command `--refute`: searches for a problem on which a claim fails."""

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from gradest.errors import UsageError
from gradest.knobs import build
from gradest.plugins import Registry
from gradest.runs import (
    ClaimError,
    Relation,
    parse_claim,
    refuse_aliases,
    refuse_ambiguous,
    refuse_mixture,
)
from gradest.runs.refutation import (
    EVALUATIONS,
    NAME,
    Trial,
    contestants_of,
    describe,
    refute,
    spaces_of,
    texts,
)
from gradest.support import in_a_line, one_thread, write_text

_FOLDER = Path("results/counterexample")
_SEEDS = 2**32  # of a search, which cannot be negative


def refute_claim(options: argparse.Namespace) -> int:
    """Search general costs for a counterexample; returns 1 if there is one, which is written.

    Raises UsageError for an invalid claim or estimator, and for a folder in which a file of a
    counterexample exists.
    """
    claim = in_a_line(options.refute)
    registry = Registry.load(options.plugin)
    relation, estimators = _read(claim, registry)
    folder = options.out or _FOLDER
    _refuse_existing(folder)
    contestants = contestants_of(relation, estimators, registry)
    trial = Trial(relation, contestants, (options.seed or 0) % _SEEDS)
    spaces = spaces_of({}, registry, list(contestants.values()))
    evaluations = options.evaluations
    if evaluations is None and options.budget is None:
        evaluations = EVALUATIONS
    with one_thread():
        result = refute(trial, spaces, evaluations, options.budget, _show_progress)
    if sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr)
    print(describe(claim, relation, result))
    if result.counterexample is None:
        return 0
    files = {
        folder / name: text for name, text in texts(trial, claim, result.counterexample).items()
    }
    for path, text in files.items():
        write_text(path, text)
        print(f"wrote {path}")
    print(f"run it:\n  {_suite_command(files, options.plugin)}")
    return 1


def _read(claim: str, registry: Registry) -> tuple[Relation, list[tuple[str, dict, int]]]:
    """The relation, and the name, knobs and steps of adaptation of each quantity's estimator.

    Raises UsageError for a claim that cannot be read or tested.
    """
    try:
        relation = parse_claim(claim)
        quantities = relation.quantities()
        refuse_aliases(quantities, registry.canonical)
        refuse_mixture(quantities)
        built = [build(registry.estimator(q.estimator), q.knobs) for q in quantities]
        named = {(each.name, repr(each.knobs)): (each.name, each.knobs) for each in built}
        for quantity in quantities:
            refuse_ambiguous(quantity, list(named.values()))
    except ClaimError as error:
        raise UsageError(f"--refute: {error}") from None
    return relation, [
        (q.estimator, q.knobs, each.adapt_steps) for q, each in zip(quantities, built, strict=True)
    ]


def _refuse_existing(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder for --out, got a file; nothing was searched")
    for suffix in (".yaml", ".py"):
        if (path := folder / f"{NAME}{suffix}").exists():
            raise UsageError(
                f"{path} exists; nothing was searched, choose another folder with --out"
            )


def _show_progress(searched: int, score: float) -> None:
    if sys.stderr.isatty():
        relative = f", relative violation {score:.3g}" if score > -1 else ""
        print(f"\r\x1b[2K{searched:,} problems{relative}", end="", file=sys.stderr, flush=True)


def _suite_command(files: Mapping[Path, str], plugins: list[str]) -> str:
    script = Path(sys.argv[0])
    program = ["python", str(script)] if script.suffix == ".py" else [script.name]
    suite = next(path for path in files if path.suffix == ".yaml")
    loaded = [*plugins, *(str(path) for path in files if path.suffix == ".py")]
    options = [word for path in loaded for word in ("--plugin", path)]
    return shlex.join([*program, "--suite", str(suite), *options])
