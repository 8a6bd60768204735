"""`--check`: what the battery finds in a plugin, a line for each law as it is decided.

A plugin is tried in a process of its own, so that one that ends its process is rejected.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from gradest import checks
from gradest.checks.definitions import OF_ESTIMATORS, OF_TASKS
from gradest.contracts import Estimator, Task
from gradest.errors import UsageError
from gradest.registry import Registry, load_plugin
from gradest.running.processes import ending
from gradest.running.template import end_with_parent
from gradest.running.termination import INTERRUPTED
from gradest.threads import one_thread

_ERASE = "\r\x1b[2K"  # what stands on the last line of a terminal

# What a check tells as it goes on: ("testing", law), ("line", text), ("status", "0" or "1") at its
# end, or ("refused", reason).
_Tell = Callable[[str, str], None]


def check(name: str, plugins: Sequence[str]) -> int:
    """Try a plugin, by its name or its path, and return the exit status: 1 where it is rejected.

    Raises UsageError where there is no such plugin.
    """
    if "fork" not in get_all_start_methods():
        told = dict[str, str]()

        def tell(kind: str, text: str) -> None:
            told[kind] = text
            _show(kind, text)

        _check_here(name, plugins, tell)
        return int(told["status"])
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, name, plugins))
    process.start()
    theirs.close()
    law = ""
    try:
        while True:
            kind, text = ours.recv()
            if kind == "refused":
                raise UsageError(text)
            if kind == "status":
                return int(text)
            law = f" while the law {text!r} was tested" if kind == "testing" else law
            _show(kind, text)
    except EOFError:
        process.join()
        print(f"{_erased()}{name}: rejected: {ending(process.exitcode)}{law}", flush=True)
        return 1
    finally:
        process.kill()
        process.join()


def _answer(connection: Connection, name: str, plugins: Sequence[str]) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that listens
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def tell(kind: str, text: str) -> None:
        with suppress(BrokenPipeError):  # nobody listens any more, and this process ends as well
            connection.send((kind, text))

    try:
        _check_here(name, plugins, tell)
    except UsageError as error:
        tell("refused", str(error))
    except KeyboardInterrupt:  # raised by the plugin itself
        os._exit(INTERRUPTED)


def _check_here(name: str, plugins: Sequence[str], tell: _Tell) -> None:
    registry = Registry.load(plugins)
    is_path = Path(name).suffix or Path(name).is_dir()
    classes = load_plugin(Path(name)) if is_path else [registry.find(name)]
    rejected = False
    for found in classes:
        findings = []
        # Small batches: further threads cost as much again in CPU, and hardly save time.
        with one_thread():
            for finding in _findings(found, tell):
                findings.append(finding)
                tell("line", _line(found, finding))
        certified = checks.passed(findings)
        tell("line", f"{found.name}: {_ruling(found) if certified else 'rejected'}")
        rejected = rejected or not certified
    tell("status", str(int(rejected)))


def _findings(found: type[Estimator] | type[Task], tell: _Tell) -> Iterator[checks.Finding]:
    def begin(law: str) -> None:
        tell("testing", law)

    if issubclass(found, Estimator):
        return checks.estimator_findings(found, begin)
    return checks.task_findings(found, begin)


def _line(found: type[Estimator] | type[Task], finding: checks.Finding) -> str:
    """The finding, and what its law asks where a reader has to do something about it."""
    line = f"{finding.status:<13}{finding.law}: {finding.detail}"
    if finding.status not in ("failed", "inconclusive"):
        return line
    definitions = OF_ESTIMATORS if issubclass(found, Estimator) else OF_TASKS
    return f"{line}\n{'':<13}({definitions[finding.law]})"


def _show(kind: str, text: str) -> None:
    """A line; on a terminal also which law is tested, until its finding takes that line."""
    if kind == "line":
        print(f"{_erased()}{text}", flush=True)
    elif kind == "testing" and sys.stdout.isatty():
        print(f"{_ERASE}{'testing':<13}{text}", end="", flush=True)


def _erased() -> str:
    return _ERASE if sys.stdout.isatty() else ""


def _ruling(found: type[Estimator] | type[Task]) -> str:
    if issubclass(found, Estimator) and not found.unbiased and found.degree is None:
        return "certified as biased; without a claim of `degree` nothing vouches for its mean"
    return "certified"
