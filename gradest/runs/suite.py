"""Suites and the cells they define."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gradest.checks.properties import Property, find_property, run_property
from gradest.contracts import Estimator, Model, Task
from gradest.errors import UsageError
from gradest.knobs import Knobs, build
from gradest.measurement import Precision, measure
from gradest.plugins import Registry, digest_of_class, digest_of_code, preserving
from gradest.runs.cells import Cell, EstimatorCell, canonical
from gradest.runs.descent import descend
from gradest.runs.descent_cell import DescentCell
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.omission import matching
from gradest.runs.plain_yaml import Place
from gradest.runs.property_cell import PropertyCell
from gradest.runs.refutation import refute
from gradest.runs.search_cell import SearchCell
from gradest.runs.size import refuse_too_large
from gradest.runs.suite_file import Member, SuiteFile, SuiteSource
from gradest.runs.suites import find_suite, name_of_suite
from gradest.runs.training import train
from gradest.runs.training_cell import TrainingCell


@dataclass(frozen=True)
class Suite:
    """A resolved suite: its settings and all its cells, in the order of the file."""

    name: str
    settings: SuiteFile
    cells: tuple[Cell, ...]
    claims: Sequence[Mapping[str, Any]] = ()  # as plain data

    def only(self, tasks: Sequence[str], estimators: Sequence[str]) -> list[Cell]:
        """The cells whose task and estimator match one of the globs; without globs all match.

        Cells without a task and an estimator are included.  Raises UsageError for a glob without
        matches.
        """
        named = [cell for cell in self.cells if isinstance(cell, EstimatorCell)]
        kept: dict[str, Collection[str]] = {}
        for kind, globs in (("task", tasks), ("estimator", estimators)):
            names = {getattr(cell, kind) for cell in named}
            subject = f"no {kind} of the suite {self.name}"
            kept[kind] = matching(globs, names, subject) if globs else names
        return [
            cell
            for cell in self.cells
            if not isinstance(cell, EstimatorCell)
            or (cell.task in kept["task"] and cell.estimator in kept["estimator"])
        ]


def load_suite(
    name: str,
    registry: Registry,
    *,
    replicates: int | None = None,
    precision: Precision | None = None,
    seed: int | None = None,
    steps: int | None = None,
    device: str = "cpu",
    also: Sequence[Estimator] = (),
) -> Suite:
    """The built-in suite of that name, or the suite in that file, with overrides.

    The estimators in `also` are measured too, on all of its tasks.

    Raises SuiteError, with file and line, and UsageError for a suite that cannot be run.
    """
    path = find_suite(name)
    source = SuiteSource(path)
    settings = source.validated()
    if settings.training:
        for option, override in (("--replicates", replicates), ("--precision", precision)):
            if override is not None:
                raise UsageError(
                    f"{option} does not apply to {path.stem}, which trains models; use --steps"
                )
    if replicates is not None:
        settings = settings.model_copy(update={"replicates": [replicates], "precision": None})
    if precision is not None:
        settings = settings.model_copy(update={"precision": precision})
    if seed is not None:
        settings = settings.model_copy(update={"seeds": [seed]})
    source.check_looks(settings)  # before --steps, which may leave some of them out
    if steps is not None:
        settings = _training_for(steps, settings, path)
    with preserving("a plugin of this suite, when it is created,"):
        members = {
            "tasks": source.members("tasks", settings.tasks, registry.task),
            "estimators": source.members("estimators", settings.estimators, registry.estimator),
        }
        members["estimators"] += [Member(each, ("estimators",), {}) for each in also]
        tasks, estimators = ([m.built for m in section] for section in members.values())
        properties = source.members("properties", settings.properties, find_property)
        source.check_size(_factors(settings, members))
        source.check_size({("properties",): len(properties), ("seeds",): len(settings.seeds)})
    settings = source.with_canonical_names(settings, registry)
    source.check_controls(settings, {e.name for e in estimators})
    claims = source.resolve_claims(settings, registry, tasks, estimators)
    source.check_parameters(settings, tasks)
    source.check_nested(settings, tasks)
    source.check_training(settings, tasks, estimators)
    refuse_too_large(source, settings, members["tasks"], members["estimators"], device)
    make = _training_cells if settings.training else _measuring_cells
    built = [member.built for member in properties]
    cells = (
        *_property_cells(settings, built),
        *make(settings, tasks, estimators, device),
        *_search_cells(settings, source, registry, estimators),
    )
    return Suite(name_of_suite(path), settings, cells, claims)


def _factors(settings: SuiteFile, members: Mapping[str, Sequence[Member]]) -> dict[Place, int]:
    """place in the file -> factor of the number of cells with a task and an estimator."""
    factors = {(name,): len(section) for name, section in members.items()}
    factors["seeds",] = len(settings.seeds)
    if settings.training:
        return {**factors, ("training", "learning_rate"): len(settings.training.learning_rate)}
    counts = 1 if settings.precision else len(settings.replicates)
    return {**factors, ("dtype",): len(settings.dtype), ("replicates",): counts}


def _training_for(steps: int, settings: SuiteFile, path: Path) -> SuiteFile:
    if settings.training is None:
        raise UsageError(f"--steps does not apply to {path.stem}, which trains no models")
    return settings.model_copy(update={"training": settings.training.lasting(steps)})


def _property_cells(settings: SuiteFile, properties: Iterable[Property]) -> Iterator[PropertyCell]:
    code = {"core": _digest(run_property), "torch": torch.__version__}
    for each, seed in itertools.product(properties, settings.seeds):
        yield PropertyCell(name=each.name, knobs=each.knobs, seed=seed, code=code)


def measuring_cells(
    suite: Suite,
    cells: Sequence[MeasuringCell],
    estimators: Sequence[Estimator],
    registry: Registry,
) -> list[MeasuringCell]:
    """The cells of a suite for these estimators, on the tasks of `cells`, which are some of it."""
    named = {(cell.task, canonical(cell.task_knobs)): cell for cell in cells}
    tasks = [build(registry.task(cell.task), cell.task_knobs) for cell in named.values()]
    return list(_measuring_cells(suite.settings, tasks, estimators, cells[0].device))


def _search_cells(
    settings: SuiteFile,
    source: SuiteSource,
    registry: Registry,
    estimators: Sequence[Estimator],
) -> Iterator[SearchCell]:
    """A cell for every claim that is to hold for all problems of a space."""
    members = source.searched(settings, registry, estimators)
    for claim, own in members:
        classes = {type(each) for each in own}
        name = claim.for_all.get("task")
        classes |= {registry.task(name)} if name in registry.tasks else set()
        yield SearchCell(
            holds=claim.holds,
            for_all=claim.for_all,
            estimators=[[e.name, e.knobs, _adapt_steps(e, settings)] for e in own],
            seed=settings.seeds[0],
            code={
                **{cls.name: digest_of_class(cls) for cls in classes},
                "core": _digest(refute),
                "torch": torch.__version__,
            },
        )


def _measuring_cells(
    settings: SuiteFile, tasks: Sequence[Task], estimators: Sequence[Estimator], device: str
) -> Iterator[MeasuringCell]:
    code = _code([*tasks, *estimators], _digest(measure))
    for task, estimator, dtype, seed, count in itertools.product(
        tasks,
        estimators,
        settings.dtype,
        settings.seeds,
        [None] if settings.precision else settings.replicates,
    ):
        yield MeasuringCell(
            **_pair(task, estimator, code),
            seed=seed,
            replicates=count,
            precision=settings.precision and settings.precision.model_dump(),
            enumerate_draws=settings.enumerate_draws,
            adapt_steps=_adapt_steps(estimator, settings),
            dtype=dtype,
            tolerant=settings.nonfinite == "count",
            device=device,
        )


def _training_cells(
    settings: SuiteFile, tasks: Sequence[Task], estimators: Sequence[Estimator], device: str
) -> Iterator[TrainingCell | DescentCell]:
    """A cell for each seed of a model, and one for all seeds of another task."""
    training = settings.training
    trained, descended = (
        _code([*tasks, *estimators], _digest(function)) for function in (train, descend)
    )
    for task, estimator, rate in itertools.product(tasks, estimators, training.learning_rate):
        if not isinstance(task, Model):
            yield DescentCell(
                **_pair(task, estimator, descended),
                seeds=settings.seeds,
                learning_rate=rate,
                steps=training.steps,
                descent=training.descent.model_dump(exclude_none=True),
                anneal={
                    knob: each.model_dump()
                    for knob, each in training.anneal.get(estimator.name, {}).items()
                },
                dtype=training.descent_dtype,
                device=device,
            )
            continue
        for seed in settings.seeds:
            yield TrainingCell(
                **_pair(task, estimator, trained),
                seed=seed,
                learning_rate=rate,
                training=training.model_dump(exclude={"learning_rate", "descent"}),
                device=device,
            )


def _code(members: Iterable[Knobs], core: str) -> Callable[[Task, Estimator], dict[str, str]]:
    """A function from a pair to the digests of its code; each class is digested once."""
    digests = {cls: digest_of_class(cls) for cls in {type(member) for member in members}}
    return lambda task, estimator: {
        "task": digests[type(task)],
        "estimator": digests[type(estimator)],
        "core": core,
        "torch": torch.__version__,
    }


def _pair(
    task: Task, estimator: Estimator, code: Callable[[Task, Estimator], dict[str, str]]
) -> dict[str, Any]:
    """The fields of a cell that describe its task and estimator."""
    return {
        "task": task.name,
        "task_knobs": task.knobs,
        "task_version": task.version,
        "estimator": estimator.name,
        "estimator_knobs": estimator.knobs,
        "estimator_version": estimator.version,
        "code": code(task, estimator),
    }


def _digest(function: Callable[..., Any]) -> str:
    """The digest of the code that the function runs."""
    return digest_of_code(function.__module__)


def _adapt_steps(estimator: Estimator, settings: SuiteFile) -> int:
    if settings.adapt_steps is None or estimator.adapt_steps == 0:
        return estimator.adapt_steps
    return settings.adapt_steps
