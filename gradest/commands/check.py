"""`--check`: what the battery finds in a plugin, a line for each law as it is decided."""

import sys
from collections.abc import Iterator
from pathlib import Path

from gradest import checks
from gradest.checks.definitions import OF_ESTIMATORS, OF_TASKS
from gradest.contracts import Estimator, Task
from gradest.registry import Registry, load_plugin
from gradest.threads import one_thread

_ERASE = "\r\x1b[2K"  # what stands on the last line of a terminal


def check(name: str, registry: Registry) -> int:
    """Try a plugin, by its name or its path, and return the exit status: 1 where it is rejected.

    Raises UsageError where there is no such plugin.
    """
    is_path = Path(name).suffix or Path(name).is_dir()
    classes = load_plugin(Path(name)) if is_path else [registry.find(name)]
    rejected = False
    for found in classes:
        findings = []
        # Small batches: further threads cost as much again in CPU, and hardly save time.
        with one_thread():
            for finding in _findings(found):
                findings.append(finding)
                print(f"{_erased()}{_line(found, finding)}", flush=True)
        certified = checks.passed(findings)
        print(f"{found.name}: {_ruling(found) if certified else 'rejected'}", flush=True)
        rejected = rejected or not certified
    return int(rejected)


def _findings(found: type[Estimator] | type[Task]) -> Iterator[checks.Finding]:
    if issubclass(found, Estimator):
        return checks.estimator_findings(found, _begin)
    return checks.task_findings(found, _begin)


def _line(found: type[Estimator] | type[Task], finding: checks.Finding) -> str:
    """The finding, and what its law asks where a reader has to do something about it."""
    line = f"{finding.status:<13}{finding.law}: {finding.detail}"
    if finding.status not in ("failed", "inconclusive"):
        return line
    definitions = OF_ESTIMATORS if issubclass(found, Estimator) else OF_TASKS
    return f"{line}\n{'':<13}({definitions[finding.law]})"


def _begin(law: str) -> None:
    """On a terminal, says which law is being tested until its finding takes that line."""
    if sys.stdout.isatty():
        print(f"{_ERASE}{'testing':<13}{law}", end="", flush=True)


def _erased() -> str:
    return _ERASE if sys.stdout.isatty() else ""


def _ruling(found: type[Estimator] | type[Task]) -> str:
    if issubclass(found, Estimator) and not found.unbiased and found.degree is None:
        return "certified as biased; without a claim of `degree` nothing vouches for its mean"
    return "certified"
