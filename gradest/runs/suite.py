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
from gradest.knobs import build
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
    grids = {
        "tasks": source.grids("tasks", settings.tasks, registry.task),
        "estimators": source.grids("estimators", settings.estimators, registry.estimator),
        "properties": source.grids("properties", settings.properties, find_property),
    }
    sizes = {section: sum(grid.size for grid in own) for section, own in grids.items()}
    sizes["estimators"] += len(also)
    # Before anything is built: building more cells than a run may have takes minutes.
    source.check_size(_factors(settings, sizes))
    source.check_size({("properties",): sizes["properties"], ("seeds",): len(settings.seeds)})
    with preserving("a plugin of this suite, when it is created,"):
        members = {section: source.members(grids[section]) for section in ("tasks", "estimators")}
        members["estimators"] += [Member(each, ("estimators",), {}) for each in also]
        tasks, estimators = ([m.built for m in section] for section in members.values())
        properties = source.members(grids["properties"])
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


def _factors(settings: SuiteFile, sizes: Mapping[str, int]) -> dict[Place, int]:
    """place in the file -> factor of the number of cells with a task and an estimator."""
    factors: dict[Place, int] = {(name,): sizes[name] for name in ("tasks", "estimators")}
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
    precision = settings.precision and settings.precision.model_dump()
    counts = [None] if settings.precision else settings.replicates
    core = _digest(measure)
    for pair, _, estimator in _pairs(tasks, estimators, lambda task: core):
        adapt_steps = _adapt_steps(estimator, settings)
        for dtype, seed, count in itertools.product(settings.dtype, settings.seeds, counts):
            yield MeasuringCell(
                **pair,
                seed=seed,
                replicates=count,
                precision=precision,
                enumerate_draws=settings.enumerate_draws,
                adapt_steps=adapt_steps,
                dtype=dtype,
                tolerant=settings.nonfinite == "count",
                device=device,
            )


def _training_cells(
    settings: SuiteFile, tasks: Sequence[Task], estimators: Sequence[Estimator], device: str
) -> Iterator[TrainingCell | DescentCell]:
    """A cell for each seed of a model, and one for all seeds of another task."""
    training = settings.training
    trained, descended = _digest(train), _digest(descend)
    pairs = _pairs(
        tasks, estimators, lambda task: trained if isinstance(task, Model) else descended
    )
    for (pair, task, estimator), rate in itertools.product(pairs, training.learning_rate):
        if not isinstance(task, Model):
            yield DescentCell(
                **pair,
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
                **pair,
                seed=seed,
                learning_rate=rate,
                training=training.model_dump(exclude={"learning_rate", "descent"}),
                device=device,
            )


def _pairs(
    tasks: Sequence[Task], estimators: Sequence[Estimator], core: Callable[[Task], str]
) -> Iterator[tuple[dict[str, Any], Task, Estimator]]:
    """Each task with each estimator, and the fields of a cell that describe the two.

    `core` is the digest of the code that measures on a task.  Each class is digested once, and the
    knobs of each member are read once.
    """
    digests = {cls: digest_of_class(cls) for cls in {type(m) for m in (*tasks, *estimators)}}
    knobs = [estimator.knobs for estimator in estimators]
    for task in tasks:
        own = {"task": task.name, "task_knobs": task.knobs, "task_version": task.version}
        for estimator, of_estimator in zip(estimators, knobs, strict=True):
            code = {
                "task": digests[type(task)],
                "estimator": digests[type(estimator)],
                "core": core(task),
                "torch": torch.__version__,
            }
            pair = {
                **own,
                "estimator": estimator.name,
                "estimator_knobs": of_estimator,
                "estimator_version": estimator.version,
                "code": code,
            }
            yield pair, task, estimator


def _digest(function: Callable[..., Any]) -> str:
    """The digest of the code that the function runs."""
    return digest_of_code(function.__module__)


def _adapt_steps(estimator: Estimator, settings: SuiteFile) -> int:
    if settings.adapt_steps is None or estimator.adapt_steps == 0:
        return estimator.adapt_steps
    return settings.adapt_steps
