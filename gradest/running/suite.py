"""A suite and the cells that it stands for."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gradest import categorical, contracts, inference, measuring, moments, randomness
from gradest.contracts import Estimator
from gradest.errors import UsageError
from gradest.knobs import suggestion
from gradest.measuring.precision import Precision
from gradest.registry import Registry, digest_of, source_digest
from gradest.running.suite_file import SuiteFile, SuiteSource

SUITES = Path(inference.__file__).parents[1] / "suites"
# What a measured number depends on beside its plugins.
_MODULES = (categorical, contracts, moments, randomness)
_PACKAGES = (inference, measuring)


@dataclass(frozen=True)
class Cell:
    """One measurement to make: plain data, so that it can travel to any worker."""

    task: str
    task_knobs: Mapping[str, Any]
    estimator: str
    estimator_knobs: Mapping[str, Any]
    seed: int
    replicates: int | None  # None where a precision is asked for
    precision: Mapping[str, Any] | None
    enumerate_draws: bool | None
    adapt_steps: int
    dtype: str
    tolerant: bool
    device: str
    sources: Mapping[str, str]  # what the numbers were computed by

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that determines the numbers."""
        return hashlib.sha256(canonical(asdict(self)).encode()).hexdigest()

    @property
    def draw_seed(self) -> int:
        """Depends on the cell alone, so that it gives the same numbers in any company."""
        return int(hashlib.sha256(f"draws {self.key}".encode()).hexdigest()[:15], 16)


@dataclass(frozen=True)
class Suite:
    """A suite as resolved: its settings and every cell, in the order of the file."""

    name: str
    settings: SuiteFile
    cells: tuple[Cell, ...]

    def only(self, tasks: Sequence[str], estimators: Sequence[str]) -> list[Cell]:
        """The cells whose task and estimator match one of the globs (none given: all).

        Raises UsageError for a glob that matches nothing.
        """
        for kind, globs in (("task", tasks), ("estimator", estimators)):
            names = {getattr(cell, kind) for cell in self.cells}
            for glob in globs:
                if not any(fnmatchcase(name, glob) for name in names):
                    raise UsageError(
                        f"no {kind} of the suite {self.name} matches {glob!r}"
                        f"{suggestion(glob, names)}"
                    )
        return [
            cell
            for cell in self.cells
            if _matches(cell.task, tasks) and _matches(cell.estimator, estimators)
        ]


def labels(cells: Sequence[Cell]) -> dict[str, str]:
    """key -> a short name for each cell, with the knobs in which these cells differ."""
    tasks = _varying([(cell.task, cell.task_knobs) for cell in cells])
    estimators = _varying([(cell.estimator, cell.estimator_knobs) for cell in cells])
    settings = [
        k for k in ("seed", "replicates", "dtype") if len({getattr(c, k) for c in cells}) > 1
    ]
    return {
        cell.key: " ".join(
            [
                _call(cell.task, cell.task_knobs, tasks[cell.task]),
                "×",
                _call(cell.estimator, cell.estimator_knobs, estimators[cell.estimator]),
                *(f"{k}={getattr(cell, k)}" for k in settings),
            ]
        )
        for cell in cells
    }


def suite_names() -> list[str]:
    """The suites that come with gradest."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(
    name: str,
    registry: Registry,
    *,
    replicates: int | None = None,
    precision: Precision | None = None,
    seed: int | None = None,
    device: str = "cpu",
) -> Suite:
    """The suite of that name or file, with the overrides of the command line.

    Raises SuiteError or UsageError, with file and line, for whatever cannot be run.
    """
    path = _find(name)
    source = SuiteSource(path)
    settings = source.validated()
    if replicates is not None:
        settings = settings.model_copy(update={"replicates": [replicates], "precision": None})
    if precision is not None:
        settings = settings.model_copy(update={"precision": precision})
    if seed is not None:
        settings = settings.model_copy(update={"seeds": [seed]})
    tasks = list(source.members("tasks", settings.tasks, registry.task))
    estimators = list(source.members("estimators", settings.estimators, registry.estimator))
    source.check_controls(settings, {e.name for e in estimators})
    source.check_parameters(settings, tasks)
    source.check_nested(settings, tasks)
    core = _core_digest()
    cells = tuple(
        Cell(
            task=task.name,
            task_knobs=task.knobs,
            estimator=estimator.name,
            estimator_knobs=estimator.knobs,
            seed=run_seed,
            replicates=count,
            precision=settings.precision and settings.precision.model_dump(),
            enumerate_draws=settings.enumerate_draws,
            adapt_steps=_adapt_steps(estimator, settings),
            dtype=dtype,
            tolerant=settings.nonfinite == "count",
            device=device,
            sources={
                "task": source_digest(type(task)),
                "estimator": source_digest(type(estimator)),
                "core": core,
                "torch": torch.__version__,
            },
        )
        for task, estimator, dtype, run_seed, count in itertools.product(
            tasks,
            estimators,
            settings.dtype,
            settings.seeds,
            [None] if settings.precision else settings.replicates,
        )
    )
    _refuse_twins(source, cells)
    return Suite(path.stem, settings, cells)


def _core_digest() -> str:
    own = [Path(module.__file__) for module in _MODULES]
    folders = [Path(package.__file__).parent for package in _PACKAGES]
    return digest_of([*own, *(file for folder in folders for file in sorted(folder.glob("*.py")))])


def _adapt_steps(estimator: Estimator, settings: SuiteFile) -> int:
    if settings.adapt_steps is None or estimator.adapt_steps == 0:
        return estimator.adapt_steps
    return settings.adapt_steps


def _refuse_twins(source: SuiteSource, cells: Sequence[Cell]) -> None:
    seen: set[str] = set()
    for cell in cells:
        if cell.key in seen:
            raise source.error(
                (), f"{cell.task} × {cell.estimator} is listed twice with the same knobs"
            )
        seen.add(cell.key)


def _find(name: str) -> Path:
    if name in suite_names():
        return SUITES / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"{path}: no such suite file")
        return path
    raise UsageError(f"unknown suite {name!r}{suggestion(name, suite_names())}")


def _matches(name: str, globs: Sequence[str]) -> bool:
    return not globs or any(fnmatchcase(name, glob) for glob in globs)


def canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _varying(members: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, set[str]]:
    """name -> the knobs in which its occurrences differ."""
    first: dict[str, Mapping[str, Any]] = {}
    varying: dict[str, set[str]] = {}
    for name, knobs in members:
        reference = first.setdefault(name, knobs)
        varying.setdefault(name, set()).update(k for k in knobs if knobs[k] != reference[k])
    return varying


def _call(name: str, knobs: Mapping[str, Any], shown: set[str]) -> str:
    inner = ", ".join(f"{k}={v}" for k, v in knobs.items() if k in shown)
    return f"{name}({inner})" if inner else name
