"""The command line.

Exit status:

- 0: everything ran
- 1: a cell or a control failed, no cell gave a finite number, a part of the report or a file could
  not be written, a plugin was rejected, --fail-on-regression found a regression or nothing to
  compare, --against a cell that disagrees or nothing to compare, --fail-on-refuted a claim that is
  refuted, or --refute a counterexample
- 2: the command line or one of its input files is invalid
- 130, 143: interrupted by Ctrl-C, terminated by SIGTERM
"""

import argparse
import errno
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gradest import __version__
from gradest.errors import UsageError
from gradest.runs import BACKENDS, Devices, find_suites
from gradest.support import (
    INTEGERS,
    INTERRUPTED,
    LONGEST_LIMIT,
    MOST_JOBS,
    MOST_REPLICATES,
    MOST_STEPS,
    PRECISION_KEYS,
    TERMINATED,
    Terminated,
    collector_paused,
    estimator_templates,
    exit_with,
    in_a_line,
    shortened,
    suggestion,
    terminable,
)

# Everything else is imported by the command that needs it: torch takes seconds to load, pandas and
# matplotlib as long again, and --help or a mistyped option needs none of them.
if TYPE_CHECKING:
    from gradest import Precision

# option -> the commands that read it; any other command would silently ignore it.
_COMMANDS_OF_OPTION = {
    "only_tasks": ("suite",),
    "only_estimators": ("suite",),
    "plugin": ("suite", "list", "check", "new", "refute"),
    "like": ("new",),
    "json": ("check",),
    "badge": ("check",),
    "out": ("suite", "report", "new", "refute", "merge"),
    "pool": ("merge",),
    "jobs": ("suite",),
    "device": ("suite",),
    "seed": ("suite", "refute"),
    "replicates": ("suite",),
    "precision": ("suite",),
    "steps": ("suite",),
    "fresh": ("suite",),
    "dry_run": ("suite",),
    "quiet": ("suite",),
    "backend": ("suite",),
    "scheduler": ("suite",),
    "time_limit": ("suite",),
    "against": ("suite",),
    "beside": ("suite",),
    "markdown": ("list",),
    "bibtex": ("list",),
    "fail_on_regression": ("report",),
    "fail_on_refuted": ("suite", "report"),
    "drop_tasks": ("report",),
    "drop_estimators": ("report",),
    "formats": ("suite", "report"),
    "evaluations": ("refute",),
    "budget": ("refute",),
}
_COMMANDS = {
    "suite": "--suite",
    "list": "--list",
    "check": "--check",
    "report": "--report",
    "new": "--new-...",
    "refute": "--refute",
    "merge": "--merge",
}
# The parser itself has no defaults: only so can `parse` see which options the user has set.
_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(_COMMANDS),
    **dict.fromkeys(_COMMANDS_OF_OPTION),
    "only_tasks": [],
    "only_estimators": [],
    "drop_tasks": [],
    "drop_estimators": [],
    "plugin": [],
    "device": Devices(),
    "backend": "loky",
    "fresh": False,
    "dry_run": False,
    "quiet": False,
    "fail_on_regression": False,
    "fail_on_refuted": False,
    "json": False,
    "pool": False,
}
_KEPT = ": finished cells are kept; run the suite again to resume"


def run() -> NoReturn:
    """Entry point of the console script."""
    exit_with(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show α must not end a run
            stream.reconfigure(errors="replace")
    options = argparse.Namespace(suite=None)  # until they are parsed
    try:
        with terminable():
            options = parse(arguments)
            return _dispatch(options)
    except UsageError as error:
        print(f"error: {in_a_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {in_a_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        kept = "" if not options.suite or options.dry_run else _KEPT
        print(f"interrupted{kept}", file=sys.stderr)
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {in_a_line(message)}; see --help\n")


class _Once(argparse.Action):
    """Stores a value and rejects a second one, since it would be unclear which one counts."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if hasattr(namespace, self.dest):
            parser.error(f"argument {option_string}: expected at most once, got it twice")
        setattr(namespace, self.dest, values)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python benchmark.py" if Path(sys.argv[0]).name == "benchmark.py" else "gradest",
        usage="%(prog)s (--suite ... | --list | --check ... | --report ... | --merge ... | "
        "--refute ... | --new-... NAME) [options]",
        description="Measure the bias, variance and computing time of gradient estimators for "
        "discrete latent variables, each with its statistical uncertainty.",
        epilog="Exit status: 0 success; 1 a cell or a control failed, part of the report is "
        "missing, a plugin was rejected, --fail-on-regression found a regression or nothing to "
        "compare, --against a disagreement, or a claim is refuted by --refute or with "
        "--fail-on-refuted; 2 invalid command "
        "line or input file; 130 interrupted by Ctrl-C; 143 terminated by SIGTERM.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.register("action", None, _Once)
    parser.add_argument("--version", action="version", version=f"gradest {__version__}")
    _add_commands(parser)
    _add_shared_options(parser.add_argument_group("options of several commands"))
    _add_suite_options(parser.add_argument_group("options of --suite"))
    group = parser.add_argument_group("options of --list")
    formats = group.add_mutually_exclusive_group()
    formats.add_argument(
        "--markdown", action="store_true", help="print the estimators as a Markdown table"
    )
    formats.add_argument(
        "--bibtex", action="store_true", help="print the references of the estimators as BibTeX"
    )
    group = parser.add_argument_group("options of --check")
    group.add_argument(
        "--json",
        action="store_true",
        help="print the certificate as JSON instead of a line per check",
    )
    group.add_argument(
        "--badge",
        metavar="FILE.json",
        type=_path,
        help="also write the verdict as an endpoint for a shields.io badge",
    )
    templates = estimator_templates()
    parser.add_argument_group("options of --new-estimator").add_argument(
        "--like",
        choices=templates,
        help="template to start from: "
        + "; ".join(f"{name}, {description}" for name, description in templates.items())
        + " (default: the first)",
    )
    group = parser.add_argument_group("options of --report")
    group.add_argument(
        "--fail-on-regression",
        action="store_true",
        help="exit with status 1 if a later run is worse than the first",
    )
    _add_globs(
        group, "drop", "leave {} whose names match a glob out of the report; they stay in the run"
    )
    parser.add_argument_group("options of --merge").add_argument(
        "--pool",
        action="store_true",
        help="pool measurements that differ in their seeds alone into one with all replicates",
    )
    _add_search_options(parser.add_argument_group("options of --refute"))
    group = parser.add_argument_group("options of --suite and --report")
    group.add_argument(
        "--fail-on-refuted",
        action="store_true",
        help="exit with status 1 if a claim of the suite is refuted",
    )
    group.add_argument(
        "--formats",
        metavar="FORMAT,...",
        type=_nonempty,
        help="formats of the report, among html, md, csv, parquet, tex, png, svg and pdf; nothing "
        "else is drawn or written, and what an earlier report wrote in others is removed (default: "
        "all, but neither svg nor pdf for more than 500 rows)",
    )
    return parser


def _add_commands(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("commands (exactly one is required)")
    commands = group.add_mutually_exclusive_group()
    commands.add_argument(
        "--suite",
        metavar="NAME|FILE|DIR",
        type=_name,
        help="run or resume a suite, given by name or as a YAML file, or all suites of a folder",
    )
    commands.add_argument(
        "--list", action="store_true", help="list the available estimators, tasks and suites"
    )
    commands.add_argument(
        "--check",
        metavar="NAME|FILE[:CLASS]",
        type=_name,
        help="test an estimator or task against its contract and its claims",
    )
    commands.add_argument(
        "--report",
        metavar="DIR",
        type=_path,
        nargs="+",
        help="rebuild the report of a run, or compare further runs with the first",
    )
    commands.add_argument(
        "--merge",
        metavar="DIR",
        type=_path,
        nargs="+",
        help="join finished runs into one, in the new folder of --out",
    )
    commands.add_argument(
        "--refute",
        metavar="CLAIM",
        type=_nonempty,
        help="search for a problem on which a claim fails, such as 'variance(rebar) <= "
        "variance(reinforce)'; exit status 0: none was found, 1: refuted",
    )
    for kind in ("estimator", "task"):
        commands.add_argument(
            f"--new-{kind}",
            dest="new",
            metavar="NAME",
            type=partial(_new_plugin, kind),
            help=f"create a plugin for a new {kind}: NAME.py, its test and a suite",
        )


def _add_shared_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--plugin",
        metavar="PATH",
        action="append",
        type=_name,
        help="load estimators or tasks from a file, FILE:CLASS or folder (repeatable)",
    )
    group.add_argument(
        "--out",
        metavar="DIR",
        type=_path,
        help="output folder (default: results/<suite> for --suite, results/comparison for "
        "--report of several runs, the current folder for --new-..., results/counterexample for "
        "--refute)",
    )
    group.add_argument(
        "--seed",
        metavar="N",
        type=_integer(INTEGERS[0], INTEGERS[-1]),
        help="random seed (overrides the seeds of the suite; default for --refute: 0)",
    )


def _add_globs(group: argparse._ArgumentGroup, prefix: str, meaning: str) -> None:
    """Two options that select tasks and estimators by their names."""
    for kind in ("tasks", "estimators"):
        group.add_argument(
            f"--{prefix}-{kind}", metavar="GLOB", nargs="+", help=meaning.format(kind)
        )


def _add_suite_options(group: argparse._ArgumentGroup) -> None:
    _add_globs(group, "only", "run only the {} whose names match a glob pattern")
    amount = group.add_mutually_exclusive_group()
    amount.add_argument(
        "--replicates",
        metavar="N",
        type=_integer(1, MOST_REPLICATES),
        help="number of gradient estimates per cell (overrides the suite)",
    )
    amount.add_argument(
        "--precision",
        metavar="KEY=VALUE,...",
        type=_precision,
        help="precision to reach (overrides the suite), for example variance=0.02,bias=0.005: the "
        "relative distance from an estimate to the far end of its interval; max_replicates and "
        "max_seconds limit the effort",
    )
    group.add_argument(
        "--steps",
        metavar="N",
        type=_integer(1, MOST_STEPS),
        help="number of training steps (overrides the suite)",
    )
    group.add_argument(
        "--against",
        metavar="reference|DIR",
        type=_name,
        help="compare the run with the reference results of the suite, or with another run; exit "
        "with status 1 if a cell disagrees",
    )
    group.add_argument(
        "--beside",
        metavar="reference|DIR",
        type=_name,
        help="rank what --only-estimators names, which may be new, among the estimators of the "
        "reference results, or of another run, without measuring these again",
    )
    group.add_argument(
        "--device",
        metavar="DEVICE",
        type=_devices,
        help="device to compute on, cpu, cuda or several GPUs, cuda:0,cuda:1, which take cells in "
        "turn (default: cpu)",
    )
    group.add_argument(
        "--jobs",
        metavar="N",
        type=_integer(1, MOST_JOBS),
        help="number of cells measured in parallel (default: number of CPU cores)",
    )
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        help="where cells run: "
        + "; ".join(f"{name}, {backend.title}" for name, backend in BACKENDS.items())
        + " (default: loky)",
    )
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        type=_nonempty,
        help="address of a running Dask scheduler or Ray cluster, for --backend dask or ray "
        "(default: a cluster on this machine)",
    )
    group.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=_time_limit,
        help="seconds after which a cell is stopped and fails (overrides cell_timeout of the "
        "suite)",
    )
    group.add_argument(
        "--fresh", action="store_true", help="discard the recorded cells and measure everything"
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print the cells, which of them are done, and the expected time of the others; run "
        "nothing",
    )
    group.add_argument(
        "--quiet",
        action="store_true",
        help="print only failed cells, failed controls and the path of the report",
    )


def _add_search_options(group: argparse._ArgumentGroup) -> None:
    budget = group.add_mutually_exclusive_group()
    budget.add_argument(
        "--evaluations",
        metavar="N",
        type=_integer(1, MOST_REPLICATES),
        help="number of problems to search (default: 10000)",
    )
    budget.add_argument(
        "--budget",
        metavar="SECONDS",
        type=_seconds,
        help="time to search, instead of --evaluations",
    )


def _devices(text: str) -> Devices:
    try:
        return Devices.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"expected a positive number of seconds, got {shortened(text)}"
        raise argparse.ArgumentTypeError(message)
    return seconds


def _time_limit(text: str) -> float:
    seconds = _seconds(text)
    if seconds > LONGEST_LIMIT:
        message = f"expected at most {LONGEST_LIMIT:,} seconds, got {shortened(text)}"
        raise argparse.ArgumentTypeError(message)
    return seconds


def _integer(least: int, most: int) -> Callable[[str], int]:
    """An argument type for integers from `least` to `most`."""

    def parse_integer(text: str) -> int:
        expected = f"expected an integer from {least} to {most}"
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{expected}, got {shortened(text)}") from None
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{expected}, got {shortened(number)}")
        return number

    return parse_integer


def _nonempty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a value, got an empty string")
    return text


def _name(text: str) -> str:
    """A name or a path that the operating system and a report can represent."""
    _nonempty(text)
    try:
        text.encode()
        os.stat(text)
    except UnicodeEncodeError:
        message = f"expected a path in UTF-8, got {shortened(text)}"
        raise argparse.ArgumentTypeError(message) from None
    except ValueError:  # a null character
        message = f"expected a name or a path, got {shortened(text)}"
        raise argparse.ArgumentTypeError(message) from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            message = f"invalid path {shortened(text)}: {error.strerror}"
            raise argparse.ArgumentTypeError(message) from None
    return text


def _path(text: str) -> Path:
    return Path(_name(text))


def _new_plugin(kind: str, name: str) -> tuple[str, str]:
    return kind, name


def _precision(text: str) -> "Precision":
    """Raises ArgumentTypeError that names the invalid key and the available ones."""
    from pydantic import ValidationError

    from gradest import Precision

    values: dict[str, str] = {}
    available = ", ".join(PRECISION_KEYS)
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key in values:
            message = f"expected each key at most once, got {shortened(key)} twice"
            raise argparse.ArgumentTypeError(f"{message}; available: {available}")
        values[key] = value
    try:
        precision = Precision.model_validate(values, strict=False)
    except ValidationError as error:
        problem = error.errors()[0]
        key = next(iter(problem["loc"]), None)  # a missing target has no location
        if problem["type"] == "extra_forbidden":
            message = f"unknown key {shortened(key)}"
        elif key is None:
            message = problem["msg"]
        else:
            message = f"{key}: {problem['msg'].lower()}, got {shortened(values[key])}"
        raise argparse.ArgumentTypeError(f"{message}; available: {available}") from None
    if precision.max_replicates > MOST_REPLICATES:
        number = shortened(precision.max_replicates)
        message = f"max_replicates: expected at most {MOST_REPLICATES}, got {number}"
        raise argparse.ArgumentTypeError(message)
    return precision


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line, completed by the defaults.

    Raises UsageError for an option that the command does not take, and SystemExit for any other
    mistake.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:
        names = [name for action in parser._actions for name in action.option_strings]
        ending = suggestion(rest[0], names) if rest[0].startswith("-") else "; see --help"
        raise UsageError(f"unrecognized arguments: {in_a_line(' '.join(rest))}{ending}")
    command = next((name for name in _COMMANDS if hasattr(options, name)), None)
    if command is None:
        parser.error(f"expected a command: one of {', '.join(_COMMANDS.values())}")
    for option, commands in _COMMANDS_OF_OPTION.items():
        if hasattr(options, option) and command not in commands:
            *others, last = (_COMMANDS[name] for name in commands)
            expected = f"{', '.join(others)} and {last}" if others else last
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name} applies to {expected}, not to {_COMMANDS[command]}")
    if hasattr(options, "like") and options.new[0] != "estimator":
        raise UsageError(f"--like applies to --new-estimator, not to --new-{options.new[0]}")
    return argparse.Namespace(**{**_DEFAULTS, **vars(options)})


def _dispatch(options: argparse.Namespace) -> int:
    if options.report:
        with collector_paused(freeze=True):
            from gradest.commands import report_on

        return report_on(
            options.report,
            options.out,
            options.fail_on_regression,
            options.fail_on_refuted,
            options.drop_tasks,
            options.drop_estimators,
            options.formats,
        )
    if options.merge:
        from gradest.commands import merge

        return merge(options.merge, options.out, options.pool)
    if options.check:
        from gradest.commands import check

        return check(options.check, options.plugin, options.json, options.badge)
    if options.refute:
        from gradest.commands import refute_claim

        return refute_claim(options)
    if options.new:
        from gradest.commands import Scaffold, write_plugin
        from gradest.plugins import Registry

        registry = Registry.load(options.plugin)
        print(write_plugin(Scaffold(*options.new, options.like), options.out or Path(), registry))
        return 0
    if options.list:
        from gradest.commands import list

        print(list.list_plugins(options.plugin, options.markdown, options.bibtex))
        return 0
    suites = find_suites(options.suite)  # raises UsageError before anything is loaded
    if isinstance(suites, Path):
        with collector_paused(freeze=True):
            from gradest.commands import run_suite

        return run_suite(options)
    with collector_paused(freeze=True):
        from gradest.commands import run_folder

    return run_folder(suites, options)


if __name__ == "__main__":
    run()
