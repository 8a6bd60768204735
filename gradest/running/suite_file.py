"""A suite file as read: its keys checked, and the line of everything in it.

Everything a user can get wrong in a suite is found here, before anything runs, and named with
its file and line.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, MinLen
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from gradest.contracts import Estimator, Model, Task
from gradest.errors import KnobError, SuiteError, UsageError
from gradest.knobs import Positive, build, grid, suggestion
from gradest.measuring.monte_carlo_truth import ReferencePrecision
from gradest.measuring.parameters import SCALES
from gradest.measuring.precision import Precision
from gradest.measuring.schedule import FEWEST
from gradest.reasons import in_a_line, reason_of
from gradest.training.settings import Annealing, Evaluation, GradientLooks, TrainingSettings

Place = tuple[str | int, ...]  # the keys and indices that lead to something in the file
Entries = list[Any]

_VALUES, _OUTERMOST = 2, 3  # of a nested level, at least, for its share to be told with an interval

# One value, or a grid of them.
_Grid = BeforeValidator(lambda given: given if isinstance(given, list) else [given])
Counts = Annotated[list[Annotated[int, Ge(FEWEST)]], MinLen(1), _Grid]
Dtypes = Annotated[list[Literal["float64", "float32", "float16", "bfloat16"]], MinLen(1), _Grid]


class _Loader(yaml.SafeLoader):
    """The safe loader, to which 1e-3 is the number that it is to everybody else."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class SuiteFile(BaseModel):
    """The keys of a suite file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    description: str = ""
    replicates: Counts = [10_000]
    precision: Precision | None = None  # instead of a number of replicates
    enumerate_draws: bool | None = None
    reference: ReferencePrecision = ReferencePrecision()
    seeds: Annotated[list[int], MinLen(1)] = [0]
    parameters: Annotated[list[str], MinLen(1)] = ["alpha", "log_alpha"]
    dtype: Dtypes = ["float64"]
    nested: Annotated[list[str], MinLen(2)] | None = None  # task knobs, outermost level first
    nonfinite: Literal["fail", "count"] = "fail"
    timed: bool = True
    cell_timeout: Positive | None = None  # seconds that a cell may take
    adapt_steps: Annotated[int, Ge(0)] | None = None
    properties: Entries = []  # of distributions, looked at beside
    training: TrainingSettings | None = None  # train models instead of measuring gradients
    controls: dict[Literal["unbiased", "biased"], list[str]] = {}
    tasks: Annotated[Entries, MinLen(1)]
    estimators: Annotated[Entries, MinLen(1)]


_WITHIN: dict[Place, type[BaseModel]] = {
    ("precision",): Precision,
    ("reference",): ReferencePrecision,
    ("training",): TrainingSettings,
    ("training", "evaluation"): Evaluation,
    ("training", "gradient"): GradientLooks,
}


def _keys(place: Place) -> Iterable[str]:
    """The keys that are known in a mapping of the file."""
    annealing = place[:2] == ("training", "anneal")
    return (Annealing if annealing else _WITHIN.get(place, SuiteFile)).model_fields


class SuiteSource:
    """A suite file with the line of everything in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            node = yaml.compose(text, Loader=_Loader)
            self._lines = {place: line for place, line in self._walk(node, ())} if node else {}
            self.data = yaml.load(text, Loader=_Loader)
        except (OSError, UnicodeDecodeError) as error:
            raise SuiteError(f"{path}: cannot be read: {error}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise SuiteError(f"{path}:{line}: malformed YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise SuiteError(f"{path}: malformed YAML: {' '.join(str(error).split())}") from None
        if not isinstance(self.data, dict):
            raise self.error((), "a suite is a mapping with the keys tasks and estimators")

    def error(self, place: Place, message: str) -> SuiteError:
        while place not in self._lines and place:
            place = place[:-1]
        return SuiteError(f"{self.path}:{self._lines.get(place, 1)}: {message}")

    def validated(self) -> SuiteFile:
        try:
            return SuiteFile.model_validate(self.data)
        except ValidationError as error:
            problem = error.errors()[0]
            place = tuple(problem["loc"])
            named = [place[: i + 1] for i, part in enumerate(place) if isinstance(part, str)]
            name = ".".join(path[-1] for path in named if path in self._lines or len(path) == 1)
            if problem["type"] == "extra_forbidden":
                message = f"unknown key {place[-1]!r}{suggestion(place[-1], _keys(place[:-1]))}"
            elif problem["type"] == "missing":
                message = f"the key {name!r} is missing"
            else:
                message = f"{name} = {problem['input']!r}: {problem['msg'].lower()}"
            raise self.error(place, message) from None

    def members(self, section: str, entries: Entries, lookup: Any) -> Iterator[Any]:
        """Every task or estimator that the section's entries stand for."""
        for number, entry in enumerate(entries):
            place: Place = (section, number)
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
                except (Exception, SystemExit, GeneratorExit) as error:  # of a plugin
                    told = f"{name} cannot be created: {in_a_line(reason_of(error))}"
                    raise self.error(place, told) from None

    def check_controls(self, settings: SuiteFile, known: set[str]) -> None:
        for claim, names in settings.controls.items():
            for name in names:
                if name not in known:
                    raise self.error(
                        ("controls", claim),
                        f"the control {name!r} is no estimator of this suite"
                        f"{suggestion(name, known)}",
                    )

    def check_parameters(self, settings: SuiteFile, tasks: Sequence[Task]) -> None:
        known = {*SCALES, *(name for task in tasks for name in task.parameters)}
        for number, name in enumerate(settings.parameters):
            if name not in known:
                raise self.error(
                    ("parameters", number),
                    f"no task of this suite has the parameter {name!r}; known: "
                    f"{', '.join(sorted(known))}",
                )

    def check_nested(self, settings: SuiteFile, tasks: Sequence[Task]) -> None:
        """Raises SuiteError for levels that no task has, or that vary too little to be told."""
        levels = settings.nested or []
        known = {knob for task in tasks for knob in task.knobs}
        for number, name in enumerate(levels):
            if name not in known:
                raise self.error(
                    ("nested", number),
                    f"no task of this suite has the knob {name!r}{suggestion(name, known)}",
                )
            if name in levels[:number]:
                raise self.error(("nested", number), f"the level {name!r} is listed twice")
        having = [task for task in tasks if all(level in task.knobs for level in levels)]
        if levels and not having:
            raise self.error(("nested",), f"no task of this suite has all of {', '.join(levels)}")
        for number, name in enumerate(levels):
            values: dict[str, set[str]] = {}  # of the level, in each task
            for task in having:
                values.setdefault(task.name, set()).add(json.dumps(task.knobs[name]))
            task, found = max(values.items(), key=lambda item: len(item[1]))
            fewest = _VALUES if number else _OUTERMOST
            if len(found) < fewest:
                raise self.error(
                    ("nested", number),
                    f"the level {name!r} takes {len(found)} value{'s' * (len(found) > 1)} in {task}"
                    f"; {'a level' if number else 'the outermost level'} needs at least {fewest}",
                )

    def check_training(
        self,
        settings: SuiteFile,
        tasks: Sequence[Task],
        estimators: Sequence[Estimator],
        models: Iterable[str],
    ) -> None:
        """Raises SuiteError for a task that is none of the `models`, and for annealed knobs."""
        if settings.training is None:
            return
        for task in tasks:
            if not isinstance(task, Model):
                raise self.error(
                    ("training",),
                    f"{task.name} is no model that can be trained; known: {', '.join(models)}",
                )
        known = {estimator.name: estimator.knobs for estimator in estimators}
        for name, falling in settings.training.anneal.items():
            if name not in known:
                raise self.error(
                    ("training", "anneal", name),
                    f"{name!r} is no estimator of this suite{suggestion(name, known)}",
                )
            for knob in falling:
                if knob not in known[name]:
                    raise self.error(
                        ("training", "anneal", name, knob),
                        f"{name} has no knob {knob!r}{suggestion(knob, known[name])}",
                    )

    def check_looks(self, settings: SuiteFile) -> None:
        """Raises SuiteError for a look at the gradient that no training comes to."""
        asked = settings.training
        for number, step in enumerate(asked.gradient.steps if asked and asked.gradient else ()):
            if step > asked.steps:
                raise self.error(
                    ("training", "gradient", "steps", number),
                    f"training.gradient.steps: step {step} is beyond the end of a training of "
                    f"{asked.steps} steps",
                )

    def _named(self, place: Place, entry: Any) -> tuple[str, dict[str, Any]]:
        if isinstance(entry, str):
            return entry, {}
        if isinstance(entry, dict) and len(entry) == 1:
            ((name, knobs),) = entry.items()
            if isinstance(name, str) and (knobs is None or isinstance(knobs, dict)):
                return name, knobs or {}
        raise self.error(place, f"{entry!r} is neither a name nor `name: {{knob: value}}`")

    def _choices(self, place: Place, found: type, knob: str, value: Any) -> list[Any]:
        try:
            return grid(found, knob, value)
        except KnobError as error:
            raise self.error((*place, knob), str(error)) from None

    def _walk(self, node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
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
