"""The command line.

Exit status: 0 all ran; 1 some cell or control failed, no cell gave a finite number, a part of the
report could not be made, a file could not be written, a plugin was rejected, or a run got worse, or
nothing was compared, where --fail-on-regression was to tell; 2 the call was wrong; 130 interrupted
by Ctrl-C; 143 ended by SIGTERM.
"""

import argparse
import errno
import io
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from gradest import __version__, catalogue
from gradest.commands.check import check
from gradest.commands.new import Scaffold, begin
from gradest.commands.report import report_on
from gradest.commands.suite import run_suite
from gradest.errors import UsageError
from gradest.measuring.arguments import MOST_REPLICATES, MOST_STEPS
from gradest.measuring.precision import Precision
from gradest.registry import Registry
from gradest.running.plain_yaml import INTEGERS
from gradest.running.termination import INTERRUPTED, TERMINATED, Terminated, terminable
from gradest.running.workers import BACKENDS, Workers
from gradest.text import in_a_line, shortened

_MOST_JOBS = 1024

# The modes that an option belongs to; in any other it would be passed over without a word.
_BELONGS = {
    "only_tasks": ("suite",),
    "only_estimators": ("suite",),
    "plugin": ("suite", "list", "check", "new"),
    "out": ("suite", "report", "new"),
    "jobs": ("suite",),
    "device": ("suite",),
    "seed": ("suite",),
    "replicates": ("suite",),
    "precision": ("suite",),
    "steps": ("suite",),
    "fresh": ("suite",),
    "dry_run": ("suite",),
    "quiet": ("suite",),
    "backend": ("suite",),
    "scheduler": ("suite",),
    "markdown": ("list",),
    "bibtex": ("list",),
    "fail_on_regression": ("report",),
}
_MODES = {
    "suite": "--suite",
    "list": "--list",
    "check": "--check",
    "report": "--report",
    "new": "--new-...",
}
# Kept apart from the parser, which then tells what was given from what was not.
_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(_MODES),
    **dict.fromkeys(_BELONGS),
    "only_tasks": [],
    "only_estimators": [],
    "plugin": [],
    "jobs": Workers.jobs,
    "device": "cpu",
    "backend": "loky",
    "fresh": False,
    "dry_run": False,
    "quiet": False,
    "fail_on_regression": False,
}


def run() -> NoReturn:
    """The console script."""
    status = main()
    if status in (INTERRUPTED, TERMINATED) and threading.active_count() > 1:
        # Threads that still compute are not waited for, and abort an interpreter that ends.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without α must not end a run
            stream.reconfigure(errors="replace")
    try:
        with terminable():
            return _dispatch(parse(arguments))
    except UsageError as error:
        print(f"error: {in_a_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {in_a_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print("interrupted: a run keeps its finished cells, run it again to go on", file=sys.stderr)
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {in_a_line(message)}; see --help\n")


class _Once(argparse.Action):
    """Stores a value, and refuses to do so a second time: which one counts would be a guess."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if hasattr(namespace, self.dest):
            parser.error(f"argument {option_string}: given twice")
        setattr(namespace, self.dest, values)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradest",
        description="Measures the bias, variance and cost of gradient estimators for discrete "
        "latent variables, each with its uncertainty.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.register("action", None, _Once)
    parser.add_argument("--version", action="version", version=f"gradest {__version__}")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--suite", metavar="NAME|FILE", type=_name, help="run a suite, or go on with it"
    )
    what.add_argument("--list", action="store_true", help="estimators, tasks and suites")
    what.add_argument(
        "--check",
        metavar="NAME|FILE",
        type=_name,
        help="certify a plugin (exit status 1: rejected)",
    )
    what.add_argument(
        "--report",
        metavar="DIR",
        type=_path,
        nargs="+",
        help="rebuild the report of a run, or compare runs with the first",
    )
    for kind in ("estimator", "task"):
        what.add_argument(
            f"--new-{kind}",
            dest="new",
            metavar="NAME",
            type=partial(Scaffold, kind),
            help=f"begin a plugin: NAME.py, its test and a suite with the {kind} in it",
        )
    parser.add_argument(
        "--fail-on-regression", action="store_true", help="--report: exit status 1 if it got worse"
    )
    as_what = parser.add_mutually_exclusive_group()
    as_what.add_argument("--markdown", action="store_true", help="--list estimators as a table")
    as_what.add_argument("--bibtex", action="store_true", help="--list what estimators cite")
    parser.add_argument("--only-tasks", metavar="GLOB", nargs="+")
    parser.add_argument("--only-estimators", metavar="GLOB", nargs="+")
    parser.add_argument(
        "--plugin",
        metavar="PATH",
        action="append",
        type=_name,
        help="a file or folder; repeatable",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=_path, help="default: results/<suite>; of --new-...: here"
    )
    parser.add_argument("--jobs", metavar="N", type=_whole(1, _MOST_JOBS))
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument(
        "--seed",
        metavar="N",
        type=_whole(INTEGERS[0], INTEGERS[-1]),
        help="instead of the suite's seeds",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--replicates",
        metavar="N",
        type=_whole(1, MOST_REPLICATES),
        help="instead of the suite's",
    )
    amount.add_argument(
        "--precision",
        metavar="KEY=VALUE,...",
        type=_precision,
        help="half-widths to reach: variance=0.02,bias=0.005,max_replicates=1000000,max_seconds=60",
    )
    parser.add_argument(
        "--steps", metavar="N", type=_whole(1, MOST_STEPS), help="of training, likewise"
    )
    parser.add_argument("--fresh", action="store_true", help="measure every cell again")
    parser.add_argument("--dry-run", action="store_true", help="show the cells, run nothing")
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="of a run say only what failed, cells and controls, and where the report is",
    )
    parser.add_argument("--backend", choices=BACKENDS, help="processes, joblib's threads or Dask")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", type=_word, help="of a running Dask cluster"
    )
    return parser


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to `most`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            told = f"{shortened(text)} is no whole number"
            raise argparse.ArgumentTypeError(told) from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{shortened(number)} is less than {least}")
        if number > most:
            raise argparse.ArgumentTypeError(f"{shortened(number)} is more than {most}")
        return number

    return read


def _word(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def _name(text: str) -> str:
    """A name or a path, as far as the system and a report can hold it."""
    _word(text)
    try:
        text.encode()
        os.stat(text)
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is no UTF-8") from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} cannot be a path") from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            told = f"{shortened(text)}: {error.strerror}"
            raise argparse.ArgumentTypeError(told) from None
    return text


def _path(text: str) -> Path:
    return Path(_name(text))


def _precision(text: str) -> Precision:
    """Raises ArgumentTypeError naming the key that is wrong and what is possible."""
    given: dict[str, str] = {}
    known = ", ".join(Precision.model_fields)
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key in given:
            told = f"{shortened(key)} stands twice; each once: {known}"
            raise argparse.ArgumentTypeError(told)
        given[key] = value
    try:
        asked = Precision.model_validate(given, strict=False)
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"{key}: " for key in problem["loc"][:1])  # nowhere, of what is missing
        raise argparse.ArgumentTypeError(
            f"{where}{problem['msg'].lower()}; known: {known}"
        ) from None
    if asked.max_replicates > MOST_REPLICATES:
        told = f"max_replicates: {shortened(asked.max_replicates)} is more than {MOST_REPLICATES}"
        raise argparse.ArgumentTypeError(told)
    return asked


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line, with the defaults of what was not given.

    Raises UsageError for an option that does not belong to the mode, SystemExit for whatever else
    is wrong.
    """
    given = _parser().parse_args(arguments)
    mode = next(name for name in _MODES if hasattr(given, name))
    for name, modes in _BELONGS.items():
        if hasattr(given, name) and mode not in modes:
            named = [_MODES[each] for each in modes]
            where = " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
            raise UsageError(
                f"--{name.replace('_', '-')} goes with {where}, not with {_MODES[mode]}"
            )
    return argparse.Namespace(**{**_DEFAULTS, **vars(given)})


def _dispatch(options: argparse.Namespace) -> int:
    if options.report:
        return report_on(options.report, options.out, options.fail_on_regression)
    if options.check:
        return check(options.check, options.plugin)
    registry = Registry.load(options.plugin)
    if options.list:
        print(_listing(options, registry), end="")
        return 0
    if options.new:
        print(begin(options.new, options.out or Path(), registry))
        return 0
    return run_suite(options, registry)


def _listing(options: argparse.Namespace, registry: Registry) -> str:
    if options.bibtex:
        return catalogue.bibtex(registry)
    show = catalogue.markdown if options.markdown else catalogue.listing
    return f"{show(registry)}\n"


if __name__ == "__main__":
    run()
