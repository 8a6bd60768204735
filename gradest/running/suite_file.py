"""A suite file as read: its keys checked, and the line of everything in it.

Everything a user can get wrong in a suite is found here, before anything runs, and named with
its file and line.
"""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from gradest.contracts import Estimator, Model, Task
from gradest.errors import KnobError, SuiteError, UsageError
from gradest.knobs import Positive, build, grid, suggestion
from gradest.measuring.arguments import MOST_REPLICATES, MOST_STEPS
from gradest.measuring.monte_carlo_truth import ReferencePrecision
from gradest.measuring.parameters import SCALES
from gradest.measuring.precision import Precision
from gradest.measuring.schedule import FEWEST
from gradest.running.plain_yaml import Place, read_document
from gradest.text import described, shortened
from gradest.training.settings import Annealing, Evaluation, GradientMeasurements, TrainingSettings

Entries = list[Any]

MOST_CELLS = 10_000

_VALUES, _OUTERMOST = 2, 3  # of a nested level, at least, for its share to be told with an interval

# One value, or a grid of them.
_Grid = BeforeValidator(lambda given: given if isinstance(given, list) else [given])
Counts = Annotated[list[Annotated[int, Ge(FEWEST), Le(MOST_REPLICATES)]], MinLen(1), _Grid]
Dtypes = Annotated[list[Literal["float64", "float32", "float16", "bfloat16"]], MinLen(1), _Grid]


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
    adapt_steps: Annotated[int, Ge(0), Le(MOST_STEPS)] | None = None
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
    ("training", "gradient"): GradientMeasurements,
}


def _keys(place: Place) -> Iterable[str]:
    """The keys that are known in a mapping of the file."""
    annealing = place[:2] == ("training", "anneal")
    return (Annealing if annealing else _WITHIN.get(place, SuiteFile)).model_fields


# Lists whose entries multiply the cells, or name what each row holds: twice would count twice.
_WITHOUT_REPEATS: tuple[Place, ...] = (
    ("replicates",),
    ("seeds",),
    ("dtype",),
    ("parameters",),
    ("training", "learning_rate"),
)


@dataclass(frozen=True)
class Member:
    """A task, an estimator or a property of a suite, and where it stands in the file."""

    built: Any
    place: Place  # of its entry
    values: Mapping[str, Place]  # of its knobs


class SuiteSource:
    """A suite file with the line of everything in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        document = read_document(path)
        self.data, self._lines = document.data, document.lines
        if not isinstance(self.data, dict):
            raise self.error((), "a suite is a mapping with the keys tasks and estimators")

    def error(self, place: Place, message: str) -> SuiteError:
        return SuiteError(f"{self.path}:{self._line(place)}: {message}")

    def _line(self, place: Place) -> int:
        """Of the innermost entry around the place that the file has."""
        while place not in self._lines:
            place = place[:-1]
        return self._lines[place]

    def validated(self) -> SuiteFile:
        try:
            settings = SuiteFile.model_validate(self.data)
        except ValidationError as error:
            problem = error.errors()[0]
            place = tuple(problem["loc"])
            named = [place[: i + 1] for i, part in enumerate(place) if isinstance(part, str)]
            name = ".".join(path[-1] for path in named if path in self._lines or len(path) == 1)
            if problem["type"] == "extra_forbidden":
                message = (
                    f"unknown key {shortened(place[-1])}{suggestion(place[-1], _keys(place[:-1]))}"
                )
            elif problem["type"] == "missing":
                message = f"the key {name!r} is missing"
            else:
                message = f"{name} = {shortened(problem['input'])}: {problem['msg'].lower()}"
            raise self.error(place, message) from None
        if settings.precision and "replicates" in settings.model_fields_set:
            raise self.error(
                ("replicates",), "replicates and precision are both given; expected one of them"
            )
        for place in _WITHOUT_REPEATS:
            self._refuse_repeats(place)
        return settings

    def _refuse_repeats(self, place: Place) -> None:
        """Raises SuiteError, at the second, for equal entries of the list there, if there is one.

        Numbers that are equal are one value, however they are spelt.
        """
        listed: Any = self.data
        for key in place:
            listed = listed.get(key, {}) if isinstance(listed, dict) else {}
        first: dict[Any, int] = {}
        for number, value in enumerate(listed if isinstance(listed, list) else ()):
            if value in first:
                before = self._line((*place, first[value]))
                raise self.error(
                    (*place, number),
                    f"{'.'.join(map(str, place))}: {shortened(value)} is listed twice, first in "
                    f"line {before}",
                )
            first[value] = number

    def members(self, section: str, entries: Entries, lookup: Any) -> list[Member]:
        """Every task or estimator that the section's entries stand for.

        Raises SuiteError for names, knobs and values that are wrong, for two that are equal, and
        for more of them than a suite may have cells.
        """
        found: dict[tuple[str, str], Member] = {}
        for number, entry in enumerate(entries):
            for member in self._members_of((section, number), entry, lookup):
                identity = member.built.name, json.dumps(member.built.knobs, sort_keys=True)
                if identity in found:
                    raise self._twice(found[identity], member)
                found[identity] = member
                if len(found) > MOST_CELLS:
                    raise self.error(member.place, self._too_many(section, len(found)))
        return list(found.values())

    def _members_of(self, place: Place, entry: Any, lookup: Any) -> Iterable[Member]:
        name, knobs = self._named(place, entry)
        try:
            cls = lookup(name)
        except UsageError as error:
            raise self.error(place, str(error)) from None
        own = (*place, name)
        choices = [self._choices(own, cls, knob, value) for knob, value in knobs.items()]
        count = math.prod(map(len, choices))
        if count > MOST_CELLS:
            raise self.error(own, self._too_many(name, count))
        for chosen in itertools.product(*choices):
            values = {knob: value for knob, (_, value) in zip(knobs, chosen, strict=True)}
            places = {knob: at for knob, (at, _) in zip(knobs, chosen, strict=True)}
            try:
                built = build(cls, values)
            except KnobError as error:
                at = next((at for knob, at in places.items() if knob in str(error)), own)
                raise self.error(at, str(error)) from None
            except (Exception, SystemExit, GeneratorExit) as error:
                # Raised by a plugin's own check of its knobs.
                told = f"{name} cannot be created: {described(error)}"
                raise self.error(own, told) from None
            yield Member(built, place, places)

    def _twice(self, first: Member, second: Member) -> SuiteError:
        """For two members that are equal: at the entry, or at the value, that repeats the other."""
        place = second.place
        if first.place == second.place:  # a grid that lists a value twice
            knobs = [k for k, at in second.values.items() if at != first.values[k]]
            place = second.values[knobs[-1]]
            before = self._line(first.values[knobs[-1]])
        else:
            before = self._line(first.place)
        return self.error(
            place,
            f"{second.built.name} is listed twice with the same knobs, first in line {before}",
        )

    def check_size(self, factors: Mapping[Place, int]) -> None:
        """Raises SuiteError, at the largest factor, where their product is too many cells."""
        count = math.prod(factors.values())
        if count > MOST_CELLS:
            raise self.error(
                max(factors, key=factors.__getitem__), self._too_many("the suite", count)
            )

    @staticmethod
    def _too_many(who: str, count: int) -> str:
        return f"{who}: {shortened(count)} cells or more; a suite has at most {MOST_CELLS:,}"

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
        raise self.error(place, f"{shortened(entry)} is neither a name nor `name: {{knob: value}}`")

    def _choices(self, place: Place, cls: type, knob: str, value: Any) -> list[tuple[Place, Any]]:
        """The values of the knob's grid, each with its place."""
        try:
            values = grid(cls, knob, value)
        except KnobError as error:
            raise self.error((*place, knob), str(error)) from None
        if values is not value:
            return [((*place, knob), values[0])]
        return [((*place, knob, number), each) for number, each in enumerate(values)]
