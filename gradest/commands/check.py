"""The command `--check`: runs every check on a plugin and prints one line per check, or JSON.

The plugin runs in a separate process, so that one that ends its process is rejected.
"""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gradest import checks
from gradest.checks import OF_ESTIMATORS, OF_TASKS
from gradest.commands import certificate
from gradest.contracts import Estimator, Task
from gradest.errors import UsageError
from gradest.plugins import Registry, load_plugin
from gradest.runs import end_with_parent, ending
from gradest.support import INTERRUPTED, counted, one_thread, write_json

_ERASE = "\r\x1b[2K"  # erases the last line of a terminal
_OTHER_STATUSES = ("failed", "inconclusive", "skipped")
_NOTES = {
    certificate.BIASED: (
        "; without `degree`, --check cannot distinguish it from a faulty implementation"
    )
}

# Takes a kind and a text, ("testing", check) or ("line", text), while a check runs, and after all
# checks of a class ("certificate", JSON).  A process of its own ends with ("status", "0" or "1")
# or ("refused", reason).
_Send = Callable[[str, str], None]


def check(
    name: str, plugins: Sequence[str], as_json: bool = False, badge: Path | None = None
) -> int:
    """Check a plugin, given by name or path, and return the exit status: 1 if it is rejected.

    With `as_json` the certificate is all that standard output gets.  `badge` is the path of a file
    for shields.io, written whatever the verdict is.

    Raises UsageError if the plugin, or the folder of the badge, does not exist.
    """
    if badge is not None and not badge.parent.is_dir():
        raise UsageError(f"--badge {badge}: the folder {badge.parent} does not exist")
    certificates: list[dict[str, Any]] = []

    def show(kind: str, text: str) -> None:
        if kind == "certificate":
            certificates.append(json.loads(text))
        elif not as_json:
            _show(kind, text)

    status = _check_apart(name, plugins, show, as_json)
    if as_json:
        whole = certificate.build_certificate(certificates)
        print(json.dumps(whole, indent=2, ensure_ascii=False), flush=True)
    if badge is not None:
        write_json(badge, certificate.build_badge(certificates))
    return status


def _check_apart(name: str, plugins: Sequence[str], show: _Send, silent: bool) -> int:
    """Check in a process of its own, where the system can fork; returns the exit status.

    If `silent`, what the plugin prints goes to standard error.
    """
    if "fork" not in get_all_start_methods():
        with redirect_stdout(sys.stderr) if silent else nullcontext():
            return _check_here(name, plugins, show)
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_check_and_send, args=(sender, name, plugins, silent))
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
            show(kind, text)
    except EOFError:
        process.join()
        reason = f"{ending(process.exitcode)}{progress}"
        show("line", f"{name}: rejected: {reason}")
        show("certificate", json.dumps(certificate.reject_unfinished(name, reason)))
        return 1
    finally:
        process.kill()
        process.join()


def _check_and_send(
    connection: Connection, name: str, plugins: Sequence[str], silent: bool
) -> None:
    end_with_parent()
    if silent:
        sys.stdout = sys.stderr
        os.dup2(2, 1)  # also what is not written by Python
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
        biased = issubclass(cls, Estimator) and not cls.unbiased and cls.degree is None
        verdict = certificate.BIASED if biased else certificate.CERTIFIED
        verdict = verdict if certified else certificate.REJECTED
        plugin = certificate.certify_plugin(cls, findings, verdict)
        send("certificate", json.dumps(plugin))
        passed = f"{counted(count['passed'], 'check')} passed"
        send("line", f"{cls.name}: {verdict}{_NOTES.get(verdict, '')} ({passed}{others})")
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
