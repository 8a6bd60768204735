"""A suite file and the cells that it stands for.

Everything a user can get wrong in a suite is found here, before anything runs, and named with
its file and line.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from annotated_types import Ge, MinLen
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from gradest import categorical, contracts, measurement, moments, randomness, replicator
from gradest.contracts import Estimator
from gradest.errors import KnobError, SuiteError, UsageError
from gradest.knobs import build, grid, suggestion
from gradest.measurement import FEWEST, PARAMETERS
from gradest.registry import Registry, digest_of, source_digest

SUITES = Path(__file__).with_name("suites")
_MEASURING = (categorical, contracts, measurement, moments, randomness, replicator)

Path_ = tuple[str | int, ...]
Entries = list[Any]


# One number, or a grid of them.
Counts = Annotated[
    list[Annotated[int, Ge(FEWEST)]],
    MinLen(1),
    BeforeValidator(lambda given: given if isinstance(given, list) else [given]),
]


class SuiteFile(BaseModel):
    """The keys of a suite file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    description: str = ""
    replicates: Counts = [10_000]
    seeds: Annotated[list[int], MinLen(1)] = [0]
    parameters: Annotated[list[Literal[*PARAMETERS]], MinLen(1)] = ["alpha", "log_alpha"]
    dtype: Literal["float32", "float64"] = "float64"
    adapt_steps: Annotated[int, Ge(0)] | None = None
    controls: dict[Literal["unbiased", "biased"], list[str]] = {}
    tasks: Annotated[Entries, MinLen(1)]
    estimators: Annotated[Entries, MinLen(1)]


@dataclass(frozen=True)
class Cell:
    """One measurement to make: plain data, so that it can travel to any worker."""

    task: str
    task_knobs: Mapping[str, Any]
    estimator: str
    estimator_knobs: Mapping[str, Any]
    seed: int
    replicates: int
    adapt_steps: int
    dtype: str
    device: str
    sources: Mapping[str, str]  # what the numbers were computed by

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that determines the numbers."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()

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
    settings = [k for k in ("seed", "replicates") if len({getattr(c, k) for c in cells}) > 1]
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
    seed: int | None = None,
    device: str = "cpu",
) -> Suite:
    """The suite of that name or file, with the overrides of the command line.

    Raises SuiteError or UsageError, with file and line, for whatever cannot be run.
    """
    path = _find(name)
    source = _Source(path)
    settings = source.validated()
    if replicates is not None:
        settings = settings.model_copy(update={"replicates": [replicates]})
    if seed is not None:
        settings = settings.model_copy(update={"seeds": [seed]})
    tasks = list(source.members("tasks", settings.tasks, registry.task))
    estimators = list(source.members("estimators", settings.estimators, registry.estimator))
    source.check_controls(settings, {e.name for e in estimators})
    core = digest_of(Path(module.__file__) for module in _MEASURING)
    cells = tuple(
        Cell(
            task=task.name,
            task_knobs=task.knobs,
            estimator=estimator.name,
            estimator_knobs=estimator.knobs,
            seed=run_seed,
            replicates=count,
            adapt_steps=_adapt_steps(estimator, settings),
            dtype=settings.dtype,
            device=device,
            sources={
                "task": source_digest(type(task)),
                "estimator": source_digest(type(estimator)),
                "core": core,
                "torch": torch.__version__,
            },
        )
        for task, estimator, run_seed, count in itertools.product(
            tasks, estimators, settings.seeds, settings.replicates
        )
    )
    source.check_distinct(cells)
    return Suite(path.stem, settings, cells)


def _adapt_steps(estimator: Estimator, settings: SuiteFile) -> int:
    if settings.adapt_steps is None or estimator.adapt_steps == 0:
        return estimator.adapt_steps
    return settings.adapt_steps


class _Source:
    """A suite file with the line of everything in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self._lines = {place: line for place, line in self._walk(node, ())} if node else {}
            self.data = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise SuiteError(f"{path}: cannot be read: {error}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise SuiteError(f"{path}:{line}: malformed YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise SuiteError(f"{path}: malformed YAML: {' '.join(str(error).split())}") from None
        if not isinstance(self.data, dict):
            raise self.error((), "a suite is a mapping with the keys tasks and estimators")

    def error(self, place: Path_, message: str) -> SuiteError:
        while place not in self._lines and place:
            place = place[:-1]
        return SuiteError(f"{self.path}:{self._lines.get(place, 1)}: {message}")

    def validated(self) -> SuiteFile:
        try:
            return SuiteFile.model_validate(self.data)
        except ValidationError as error:
            problem = error.errors()[0]
            place = tuple(problem["loc"])
            name = ".".join(str(part) for part in place if part in self.data or part == place[0])
            if problem["type"] == "extra_forbidden":
                message = (
                    f"unknown key {place[-1]!r}{suggestion(place[-1], SuiteFile.model_fields)}"
                )
            elif problem["type"] == "missing":
                message = f"the key {name!r} is missing"
            else:
                message = f"{name} = {problem['input']!r}: {problem['msg'].lower()}"
            raise self.error(place, message) from None

    def members(self, section: str, entries: Entries, lookup: Any) -> Iterator[Any]:
        """Every task or estimator that the section's entries stand for."""
        for number, entry in enumerate(entries):
            place: Path_ = (section, number)
            name, knobs = self._named(place, entry)
            try:
                found = lookup(name)
            except UsageError as error:
                raise self.error(place, str(error)) from None
            choices = [self._choices((*place, name), found, k, v) for k, v in knobs.items()]
            for values in itertools.product(*choices):
                try:
                    yield build(found, dict(zip(knobs, values, strict=True)))
                except KnobError as error:
                    at = next((k for k in knobs if k in str(error)), None)
                    raise self.error((*place, name, at), str(error)) from None

    def check_controls(self, settings: SuiteFile, known: set[str]) -> None:
        for claim, names in settings.controls.items():
            for name in names:
                if name not in known:
                    raise self.error(
                        ("controls", claim),
                        f"the control {name!r} is no estimator of this suite"
                        f"{suggestion(name, known)}",
                    )

    def check_distinct(self, cells: Sequence[Cell]) -> None:
        seen: set[str] = set()
        for cell in cells:
            if cell.key in seen:
                raise self.error(
                    (), f"{cell.task} × {cell.estimator} is listed twice with the same knobs"
                )
            seen.add(cell.key)

    def _named(self, place: Path_, entry: Any) -> tuple[str, dict[str, Any]]:
        if isinstance(entry, str):
            return entry, {}
        if isinstance(entry, dict) and len(entry) == 1:
            ((name, knobs),) = entry.items()
            if isinstance(name, str) and (knobs is None or isinstance(knobs, dict)):
                return name, knobs or {}
        raise self.error(place, f"{entry!r} is neither a name nor `name: {{knob: value}}`")

    def _choices(self, place: Path_, found: type, knob: str, value: Any) -> list[Any]:
        try:
            return grid(found, knob, value)
        except KnobError as error:
            raise self.error((*place, knob), str(error)) from None

    def _walk(self, node: yaml.Node, place: Path_) -> Iterator[tuple[Path_, int]]:
        yield place, node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                yield from self._walk(item, (*place, number))
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise SuiteError(f"{self.path}:{line}: the key {key.value!r} stands twice")
                seen.add(key.value)
                yield (*place, key.value), key.start_mark.line + 1
                for inner, line in self._walk(value, (*place, key.value)):
                    if inner != (*place, key.value):
                        yield inner, line


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


def _canonical(data: Any) -> str:
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
