"""The command `--check`: runs every check on a plugin and prints one line per check.

The plugin runs in a separate process, so that one that ends its process is rejected.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from gradest import checks
from gradest.checks import OF_ESTIMATORS, OF_TASKS
from gradest.contracts import Estimator, Task
from gradest.errors import UsageError
from gradest.plugins import Registry, load_plugin
from gradest.runs import end_with_parent, ending
from gradest.support import INTERRUPTED, counted, one_thread

_ERASE = "\r\x1b[2K"  # erases the last line of a terminal
_OTHER_STATUSES = ("failed", "inconclusive", "skipped")

# Takes a kind and a text, ("testing", check) or ("line", text), while a check runs.  A process of
# its own ends with ("status", "0" or "1") or ("refused", reason).
_Send = Callable[[str, str], None]


def check(name: str, plugins: Sequence[str]) -> int:
    """Check a plugin, given by name or path, and return the exit status: 1 if it is rejected.

    Raises UsageError if the plugin does not exist.
    """
    if "fork" not in get_all_start_methods():
        return _check_here(name, plugins, _show)
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_check_and_send, args=(sender, name, plugins))
    process.start()
    sender.close()
    progress = ""
    try:
        while True:
            kind, text = receiver.recv()
            if kind == "refused":
                raise UsageError(text)
            if kind == "status":
                return int(text)
            progress = f" during the check {text!r}" if kind == "testing" else progress
            _show(kind, text)
    except EOFError:
        process.join()
        print(f"{_erased()}{name}: rejected: {ending(process.exitcode)}{progress}", flush=True)
        return 1
    finally:
        process.kill()
        process.join()


def _check_and_send(connection: Connection, name: str, plugins: Sequence[str]) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def send(kind: str, text: str) -> None:
        with suppress(BrokenPipeError):  # the parent has ended, and so will this process
            connection.send((kind, text))

    try:
        send("status", str(_check_here(name, plugins, send)))
    except UsageError as error:
        send("refused", str(error))
    except KeyboardInterrupt:  # raised by the plugin itself
        os._exit(INTERRUPTED)


def _check_here(name: str, plugins: Sequence[str], send: _Send) -> int:
    registry = Registry.load(plugins)
    is_path = Path(name).suffix or Path(name).is_dir()
    classes = load_plugin(name) if is_path else [registry.find(name)]
    rejected = False
    for cls in classes:
        findings = []
        # Batches are small: more threads would double the CPU time and hardly save any time.
        with one_thread():
            for finding in _findings(cls, send):
                findings.append(finding)
                send("line", _line(cls, finding))
        certified = checks.passed(findings)
        count = Counter(finding.status for finding in findings)
        others = "".join(f", {count[s]} {s}" for s in _OTHER_STATUSES if count[s])
        verdict = _verdict(cls) if certified else "rejected"
        passed = f"{counted(count['passed'], 'check')} passed"
        send("line", f"{cls.name}: {verdict} ({passed}{others})")
        rejected = rejected or not certified
    return int(rejected)


def _findings(cls: type[Estimator] | type[Task], send: _Send) -> Iterator[checks.Finding]:
    def begin(law: str) -> None:
        send("testing", law)

    if issubclass(cls, Estimator):
        return checks.estimator_findings(cls, begin)
    return checks.task_findings(cls, begin)


def _line(cls: type[Estimator] | type[Task], finding: checks.Finding) -> str:
    """The finding, followed by the requirement if the reader has to act on it."""
    line = f"{finding.status:<13}{finding.law}: {finding.detail}"
    if finding.status not in ("failed", "inconclusive"):
        return line
    definitions = OF_ESTIMATORS if issubclass(cls, Estimator) else OF_TASKS
    return f"{line}\n{'':<13}({definitions[finding.law]})"


def _show(kind: str, text: str) -> None:
    """Print a line; on a terminal also the running check, until its finding replaces it."""
    if kind == "line":
        print(f"{_erased()}{text}", flush=True)
    elif kind == "testing" and sys.stdout.isatty():
        print(f"{_ERASE}{'testing':<13}{text}", end="", flush=True)


def _erased() -> str:
    return _ERASE if sys.stdout.isatty() else ""


def _verdict(cls: type[Estimator] | type[Task]) -> str:
    if issubclass(cls, Estimator) and not cls.unbiased and cls.degree is None:
        return (
            "certified as biased; without `degree`, --check cannot distinguish it from a faulty "
            "implementation"
        )
    return "certified"
