"""`--check`: what the battery finds in a plugin, a line for each law."""

from pathlib import Path

from gradest import checks
from gradest.contracts import Estimator, Task
from gradest.registry import Registry, load_plugin


def check(name: str, registry: Registry) -> int:
    """Try a plugin, by its name or its path, and return the exit status: 1 where it is rejected.

    Raises UsageError where there is no such plugin.
    """
    is_path = Path(name).suffix or Path(name).is_dir()
    classes = load_plugin(Path(name)) if is_path else [registry.find(name)]
    rejected = False
    for found in classes:
        findings = _findings(found)
        for finding in findings:
            print(f"{finding.status:<13}{finding.law}: {finding.detail}")
        certified = checks.passed(findings)
        print(f"{found.name}: {_ruling(found) if certified else 'rejected'}", flush=True)
        rejected = rejected or not certified
    return int(rejected)


def _findings(found: type[Estimator] | type[Task]) -> list[checks.Finding]:
    if issubclass(found, Estimator):
        return checks.check_estimator(found)
    return checks.check_task(found)


def _ruling(found: type[Estimator] | type[Task]) -> str:
    if issubclass(found, Estimator) and not found.unbiased and found.degree is None:
        return "certified as biased; without a claim of `degree` nothing vouches for its mean"
    return "certified"
