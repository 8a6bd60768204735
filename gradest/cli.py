"""The command line.

Exit status: 0 all ran; 1 some cell or control failed, no cell gave a finite number, a part of the
report could not be made, a file could not be written, a plugin was rejected, or a run got worse, or
nothing was compared, where --fail-on-regression was to tell; 2 the call was wrong; 130 interrupted.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from gradest import catalogue
from gradest.commands.check import check
from gradest.commands.new import Beginning, begin
from gradest.commands.report import report_on
from gradest.commands.suite import run_suite
from gradest.errors import UsageError
from gradest.measuring.precision import Precision
from gradest.registry import Registry
from gradest.running.workers import BACKENDS, Workers


def run() -> NoReturn:
    """The console script."""
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without α must not end a run
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        return _dispatch(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished cells are kept; run again to go on", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradest",
        description="Measures the bias, variance and cost of gradient estimators for discrete "
        "latent variables, each with its uncertainty.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--suite", metavar="NAME|FILE", help="run a suite, or go on with it")
    what.add_argument("--list", action="store_true", help="estimators, tasks and suites")
    what.add_argument(
        "--check", metavar="NAME|FILE", help="certify a plugin (exit status 1: rejected)"
    )
    what.add_argument(
        "--report",
        metavar="DIR",
        type=Path,
        nargs="+",
        help="rebuild the report of a run, or compare runs with the first",
    )
    for kind in ("estimator", "task"):
        what.add_argument(
            f"--new-{kind}",
            dest="new",
            metavar="NAME",
            type=partial(Beginning, kind),
            help=f"begin a plugin: NAME.py, its test and a suite with the {kind} in it",
        )
    parser.add_argument(
        "--fail-on-regression", action="store_true", help="--report: exit status 1 if it got worse"
    )
    as_what = parser.add_mutually_exclusive_group()
    as_what.add_argument("--markdown", action="store_true", help="--list estimators as a table")
    as_what.add_argument("--bibtex", action="store_true", help="--list what estimators cite")
    parser.add_argument("--only-tasks", metavar="GLOB", nargs="+", default=[])
    parser.add_argument("--only-estimators", metavar="GLOB", nargs="+", default=[])
    parser.add_argument(
        "--plugin", metavar="PATH", action="append", default=[], help="a file or folder; repeatable"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="default: results/<suite>; of --new-...: here"
    )
    parser.add_argument("--jobs", metavar="N", type=_positive, default=Workers.jobs)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", metavar="N", type=int, help="instead of the suite's seeds")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--replicates", metavar="N", type=_positive, help="instead of the suite's")
    amount.add_argument(
        "--precision",
        metavar="KEY=VALUE,...",
        type=_precision,
        help="half-widths to reach: variance=0.02,bias=0.005,max_replicates=1000000,max_seconds=60",
    )
    parser.add_argument("--steps", metavar="N", type=_positive, help="of training, likewise")
    parser.add_argument("--fresh", action="store_true", help="measure every cell again")
    parser.add_argument("--dry-run", action="store_true", help="show the cells, run nothing")
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="of a run say only what failed, cells and controls, and where the report is",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="loky", help="of joblib")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask cluster")
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _precision(text: str) -> Precision:
    """Raises ArgumentTypeError naming the key that is wrong and what is possible."""
    given: dict[str, str] = {}
    known = ", ".join(Precision.model_fields)
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key in given:
            raise argparse.ArgumentTypeError(f"{key} stands twice; each once: {known}")
        given[key] = value
    try:
        return Precision.model_validate(given, strict=False)
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"{key}: " for key in problem["loc"][:1])  # nowhere, of what is missing
        raise argparse.ArgumentTypeError(
            f"{where}{problem['msg'].lower()}; known: {known}"
        ) from None


def _dispatch(options: argparse.Namespace) -> int:
    for form in ("markdown", "bibtex"):
        if getattr(options, form) and not options.list:
            raise UsageError(f"--{form} goes with --list")
    if options.fail_on_regression and not options.report:
        raise UsageError("--fail-on-regression goes with --report")
    if options.report:
        return report_on(options.report, options.out, options.fail_on_regression)
    registry = Registry.load(options.plugin)
    if options.list:
        print(_listing(options, registry), end="")
        return 0
    if options.new:
        print(begin(options.new, options.out or Path(), registry))
        return 0
    if options.check:
        return check(options.check, registry)
    return run_suite(options, registry)


def _listing(options: argparse.Namespace, registry: Registry) -> str:
    if options.bibtex:
        return catalogue.bibtex(registry)
    show = catalogue.markdown if options.markdown else catalogue.listing
    return f"{show(registry)}\n"


if __name__ == "__main__":
    run()
