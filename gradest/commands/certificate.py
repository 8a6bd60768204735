"""The certificate of a plugin as plain data: what `--check --json` prints, and its badge."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from gradest import __version__
from gradest.checks import OF_ESTIMATORS, OF_TASKS, Finding
from gradest.contracts import Estimator, Task

CERTIFIED, BIASED, REJECTED = "certified", "certified as biased", "rejected"
_COLORS = {CERTIFIED: "brightgreen", BIASED: "yellowgreen", REJECTED: "red"}  # the worst is last


def certify_plugin(
    cls: type[Estimator] | type[Task], findings: Iterable[Finding], verdict: str
) -> dict[str, Any]:
    """The part of a certificate about one class: its verdict, and each check with its detail."""
    estimator = issubclass(cls, Estimator)
    requirements = OF_ESTIMATORS if estimator else OF_TASKS
    return {
        "name": cls.name,
        "kind": "estimator" if estimator else "task",
        "version": cls.version,
        "verdict": verdict,
        "reason": None,
        "checks": [
            {
                "check": finding.law,
                "status": finding.status,
                "detail": finding.detail,
                "requirement": requirements[finding.law],
            }
            for finding in findings
        ],
    }


def reject_unfinished(name: str, reason: str) -> dict[str, Any]:
    """The same for a plugin that ended the process in which it was tested."""
    unknown = {"kind": None, "version": None}
    return {"name": name, **unknown, "verdict": REJECTED, "reason": reason, "checks": []}


def build_certificate(plugins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A certificate: the verdict on all plugins together, the versions and the plugins."""
    return {
        "verdict": _verdict(plugins),
        "versions": {
            "gradest": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "plugins": list(plugins),
    }


def build_badge(plugins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The badge of a certificate in the endpoint format of shields.io."""
    verdict = _verdict(plugins)
    return {
        "schemaVersion": 1,
        "label": "gradest",
        "message": verdict,
        "color": _COLORS[verdict],
    }


def _verdict(plugins: Sequence[Mapping[str, Any]]) -> str:
    """The worst of the verdicts."""
    return max((plugin["verdict"] for plugin in plugins), key=list(_COLORS).index)
