"""The provenance of a run: everything a reader needs to reproduce it."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gradest import __version__
from gradest.contracts import built_in
from gradest.plugins import Registry, citations, digest_of_class
from gradest.runs.cells import Cell, EstimatorCell
from gradest.runs.descent_cell import DescentCell
from gradest.runs.suite import Suite
from gradest.runs.training_cell import TrainingCell
from gradest.support import in_a_line

_PACKAGES = ("torch", "numpy", "scipy", "pandas", "joblib")


def describe_run(suite: Suite, registry: Registry, started: datetime) -> dict[str, Any]:
    """The content of run.json: the resolved suite, versions, commit and machine.

    It includes the docstrings and references of the estimators, so that a report can be rebuilt
    without the plugins.
    """
    settings = suite.settings
    names = sorted({c.estimator for c in suite.cells if isinstance(c, EstimatorCell)})
    classes = {name: registry.estimator(name) for name in names}
    cited = {name: citations.citation(cls) for name, cls in classes.items()}
    return {
        "suite": suite.name,
        "description": settings.description,
        "command": command_line(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "gradest": __version__,
            **_versions(),
        },
        "commit": _commit(),
        "plugins": _plugins(suite, registry),
        "implementations": _implementations(suite.cells),
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            **_accelerator(suite),
        },
        "seeds": settings.seeds,
        "replicates": None if settings.precision else settings.replicates,
        "precision": settings.precision and settings.precision.model_dump(),
        "nested": settings.nested,
        "dtype": settings.dtype,
        "parameters": settings.parameters,
        "figures": settings.figures,
        "controls": settings.controls,
        "claims": list(suite.claims),
        "references": {name: text for name, text in cited.items() if text},
        "methods": {name: citations.body(cls) for name, cls in classes.items()},
        "training": _training(suite),
        "settings": settings.model_dump(mode="json", exclude_defaults=True),
        "cells": [{"key": cell.key, **cell.plain} for cell in suite.cells],
    }


def _training(suite: Suite) -> dict[str, Any] | None:
    """The settings of trainings that some cell of the suite needs."""
    training, cells = suite.settings.training, suite.cells
    if training is None:
        return None
    kinds = {type(cell) for cell in cells}
    unused = training.unused(TrainingCell in kinds, DescentCell in kinds)
    used = training.model_dump(exclude=set(unused), exclude_none=DescentCell in kinds)
    return used if TrainingCell in kinds else used | {"dtype": training.descent_dtype}


def _plugins(suite: Suite, registry: Registry) -> dict[str, str]:
    """name -> the first digits of the code digest, for code that is not part of the commit."""
    cells = [cell for cell in suite.cells if isinstance(cell, EstimatorCell)]
    tasks = {registry.task(cell.task) for cell in cells}
    estimators = {registry.estimator(cell.estimator) for cell in cells}
    foreign = (cls for cls in tasks | estimators if not built_in(cls))
    return {cls.name: digest_of_class(cls)[:12] for cls in foreign}


def _implementations(cells: Sequence[Cell]) -> dict[str, int]:
    """name -> the version of each task and estimator."""
    return {
        name: version
        for cell in cells
        if isinstance(cell, EstimatorCell)
        for name, version in (
            (cell.task, cell.task_version),
            (cell.estimator, cell.estimator_version),
        )
    }


def _accelerator(suite: Suite) -> dict[str, str]:
    """The name of the GPU, for a suite that ran on one."""
    devices = {getattr(cell, "device", "cpu") for cell in suite.cells} - {"cpu"}
    return {"accelerator": torch.cuda.get_device_name(next(iter(devices)))} if devices else {}


def cpu_model() -> str | None:
    """The model of the processor, on which the last digits of a number may depend."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not on Linux
        return platform.processor() or None
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or None)


def command_line() -> list[str]:
    """The words of the command that this process runs."""
    return [*program(), *map(in_a_line, sys.argv[1:])]


def program() -> list[str]:
    """How the command line was called, without its options."""
    name = Path(sys.argv[0]).name
    return ["python", name] if name.endswith(".py") else [name]


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _commit() -> str | None:
    """The commit of the git clone that this code runs from; None outside of a clone.

    It ends in "-dirty" if a file has changed since, apart from results, which no number depends on.
    """
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    git = ["git", "-C", str(folder)]
    commands = (
        [*git, "describe", "--always", "--abbrev=12"],
        [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"],
    )
    try:
        commit, changes = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changes else commit
