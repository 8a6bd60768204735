"""Reading and validation of suite files, with the line of every entry.

All mistakes that a user can make in a suite are reported here, before anything runs, with the file
and the line.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from gradest.contracts import Estimator, Model, Task
from gradest.errors import KnobError, SuiteError, UsageError
from gradest.knobs import Positive, build, grid
from gradest.measurement import LOG_ALPHA, SCALES, Precision, ReferencePrecision
from gradest.plugins import Registry
from gradest.runs.claims import (
    ClaimError,
    Quantity,
    parse_claim,
    refuse_aliases,
    refuse_ambiguous,
    refuse_mixture,
)
from gradest.runs.plain_yaml import Place, read_document
from gradest.runs.refutation import contestants_of, evaluations_of, spaces_of
from gradest.runs.training import (
    SGD,
    Adam,
    Annealing,
    Category,
    DescentSettings,
    Evaluation,
    GradientMeasurements,
    Optimiser,
    RMSprop,
    TrainingSettings,
)
from gradest.statistics import FEWEST
from gradest.support import (
    DTYPES,
    LONGEST_LIMIT,
    MOST_CELLS,
    MOST_REPLICATES,
    MOST_STEPS,
    described,
    shortened,
    suggestion,
)

Entries = list[Any]


_VALUES, _OUTERMOST = 2, 3  # least values of a nested factor for an interval of its variance

Seconds = Annotated[Positive, Le(LONGEST_LIMIT)]

# One value, or a grid of them.
_Grid = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
Counts = Annotated[list[Annotated[int, Ge(FEWEST), Le(MOST_REPLICATES)]], MinLen(1), _Grid]
Dtypes = Annotated[list[Literal[DTYPES]], MinLen(1), _Grid]


class Claim(BaseModel):
    """A claim that a suite tests: an entry of `claims`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    holds: str  # the relation, as in `variance(disarm) <= variance(arm)`
    says: str = ""  # in words
    source: str = ""  # who says so
    on: Annotated[Entries, MinLen(1)] | None = None  # tasks, by name or with knobs; None: every one
    parameter: str | None = None  # with respect to which gradients are meant; None: the logits
    # Problems among which a counterexample is searched; None: the claim is tested on the tasks.
    for_all: dict[str, Any] | None = None


class SuiteFile(BaseModel):
    """The keys of a suite file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    description: str = ""
    replicates: Counts = [10_000]
    precision: Precision | None = None  # replaces a number of replicates
    enumerate_draws: bool | None = None
    reference: ReferencePrecision | None = ReferencePrecision()  # None: biases may be unknown
    seeds: Annotated[list[int], MinLen(1)] = [0]
    parameters: Annotated[list[str], MinLen(1)] = ["alpha", "log_alpha"]
    dtype: Dtypes = ["float64"]
    nested: Annotated[list[str], MinLen(2)] | None = (
        None  # task knobs that vary within each other, outermost first
    )
    nonfinite: Literal["fail", "count"] = "fail"
    timed: bool = True
    figures: bool = True  # whether the report has figures
    cell_timeout: Seconds | None = None  # a cell that takes longer fails
    adapt_steps: Annotated[int, Ge(0), Le(MOST_STEPS)] | None = None
    properties: Entries = []  # of distributions, tested in addition
    training: TrainingSettings | None = None  # train models, or descend the logits of other tasks
    controls: dict[Literal["unbiased", "biased"], list[str]] = {}
    claims: list[Claim] = []
    tasks: Annotated[Entries, MinLen(1)]
    estimators: Annotated[Entries, MinLen(1)]


def _member_of(quantity: Quantity, estimators: Sequence[Estimator]) -> Estimator:
    """The estimator of a suite that a quantity singles out."""
    return next(
        each
        for each in estimators
        if each.name == quantity.estimator
        and all(each.knobs[name] == value for name, value in quantity.knobs.items())
    )


def _kinds(tasks: Sequence[Task]) -> tuple[bool, bool]:
    """Whether some of the tasks are models, and whether some are not."""
    models = [isinstance(task, Model) for task in tasks]
    return any(models), not all(models)


def _logits(parameters: Sequence[str]) -> str:
    """The parameter that a claim is about by default: log α, where it is measured."""
    return LOG_ALPHA if LOG_ALPHA in parameters else parameters[0]


_WITHIN: dict[Place, type[BaseModel]] = {
    ("precision",): Precision,
    ("reference",): ReferencePrecision,
    ("training",): TrainingSettings,
    ("training", "evaluation"): Evaluation,
    ("training", "gradient"): GradientMeasurements,
    ("training", "descent"): DescentSettings,
    ("training", "descent", "probability"): Category,
    ("training", "descent", "optimiser"): Optimiser,
    ("training", "descent", "optimiser", "sgd"): SGD,
    ("training", "descent", "optimiser", "adam"): Adam,
    ("training", "descent", "optimiser", "rmsprop"): RMSprop,
}


def _keys(place: Place) -> Iterable[str]:
    """The valid keys of a mapping in the file."""
    if place[:1] == ("claims",):
        return Claim.model_fields
    annealing = place[:2] == ("training", "anneal")
    return (Annealing if annealing else _WITHIN.get(place, SuiteFile)).model_fields


# Lists without repeated entries: these would add equal cells or rows.
_WITHOUT_REPEATS: tuple[Place, ...] = (
    ("replicates",),
    ("seeds",),
    ("dtype",),
    ("parameters",),
    ("training", "learning_rate"),
)


@dataclass(frozen=True)
class Member:
    """A task, an estimator or a property of a suite with its place in the file."""

    built: Any
    place: Place  # the place of its entry
    values: Mapping[str, Place]  # knob -> the place of its value


@dataclass(frozen=True)
class Grid:
    """An entry of a suite: a class, and the values of each knob with their places."""

    cls: type
    own: Place  # the place of its name
    place: Place  # the place of its entry
    choices: Mapping[str, Sequence[tuple[Place, Any]]]

    @property
    def size(self) -> int:
        """The number of its members."""
        return math.prod(map(len, self.choices.values()))


class SuiteSource:
    """A suite file with the line of every entry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        document = read_document(path)
        self.data, self._lines = document.data, document.lines
        if not isinstance(self.data, dict):
            message = "expected a mapping with the keys tasks and estimators, got "
            raise self.error((), message + shortened(self.data))

    def error(self, place: Place, message: str) -> SuiteError:
        return SuiteError(f"{self.path}:{self._line(place)}: {message}")

    def _line(self, place: Place) -> int:
        """The line of the innermost entry of the file that contains the place."""
        while place not in self._lines:
            place = place[:-1]
        return self._lines[place]

    def validated(self) -> SuiteFile:
        try:
            settings = SuiteFile.model_validate(self.data)
        except ValidationError as error:
            # A misspelt key is also a missing one; its own error says what was meant.
            problem = min(error.errors(), key=lambda each: each["type"] == "missing")
            place = tuple(problem["loc"])
            keys = [place[: i + 1] for i, part in enumerate(place) if isinstance(part, str)]
            name = ".".join(path[-1] for path in keys if path in self._lines or len(path) == 1)
            if problem["type"] == "extra_forbidden":
                message = (
                    f"unknown key {shortened(place[-1])}{suggestion(place[-1], _keys(place[:-1]))}"
                )
            elif problem["type"] == "missing":
                message = f"the key {place[-1]!r} is missing"
            else:
                message = f"{name} = {shortened(problem['input'])}: {problem['msg'].lower()}"
            raise self.error(place, message) from None
        if settings.precision and "replicates" in settings.model_fields_set:
            raise self.error(("replicates",), "expected either replicates or precision, got both")
        for place in _WITHOUT_REPEATS:
            self._refuse_repeats(place)
        return settings

    def _refuse_repeats(self, place: Place) -> None:
        """Raises SuiteError, at the second one, for equal entries of a list.

        Numbers with the same value, such as 1 and 1.0, are equal.
        """
        entries: Any = self.data
        for key in place:
            entries = entries.get(key, {}) if isinstance(entries, dict) else {}
        first: dict[Any, int] = {}
        for number, value in enumerate(entries if isinstance(entries, list) else ()):
            if value in first:
                before = self._line((*place, first[value]))
                raise self.error(
                    (*place, number),
                    f"{'.'.join(map(str, place))}: {shortened(value)} is listed twice, first in "
                    f"line {before}",
                )
            first[value] = number

    def grids(self, section: str, entries: Entries, lookup: Any) -> list[Grid]:
        """The grid of each entry of a section, of which nothing is built yet.

        Raises SuiteError for an invalid name and for an entry with too many members.
        """
        return [
            self._grid((section, number), entry, lookup) for number, entry in enumerate(entries)
        ]

    def members(self, grids: Iterable[Grid]) -> list[Member]:
        """All members of the grids of a section.

        Raises SuiteError for invalid knobs and values and for equal members.
        """
        members: dict[tuple[str, str], Member] = {}
        for each in grids:
            for member in self._members_of(each):
                identity = member.built.name, json.dumps(member.built.knobs, sort_keys=True)
                if identity in members:
                    raise self._repeated(members[identity], member)
                members[identity] = member
        return list(members.values())

    def _grid(self, place: Place, entry: Any, lookup: Any) -> Grid:
        name, knobs = self._name_and_knobs(place, entry)
        try:
            cls = lookup(name)
        except UsageError as error:
            raise self.error(place, str(error)) from None
        own = (*place, name)
        choices = {knob: self._choices(own, cls, knob, value) for knob, value in knobs.items()}
        result = Grid(cls, own, place, choices)
        if result.size > MOST_CELLS:
            raise self.error(own, self._too_many(name, result.size))
        return result

    def _members_of(self, grid: Grid) -> Iterable[Member]:
        for choice in itertools.product(*grid.choices.values()):
            values = {knob: value for knob, (_, value) in zip(grid.choices, choice, strict=True)}
            places = {knob: at for knob, (at, _) in zip(grid.choices, choice, strict=True)}
            try:
                built = build(grid.cls, values)
            except KnobError as error:
                at = next((at for knob, at in places.items() if knob in str(error)), grid.own)
                raise self.error(at, str(error)) from None
            except (Exception, SystemExit, GeneratorExit) as error:
                # The plugin's own validation of its knobs may raise any error.
                message = f"{grid.own[-1]} cannot be created: {described(error)}"
                raise self.error(grid.own, message) from None
            yield Member(built, grid.place, places)

    def _repeated(self, first: Member, second: Member) -> SuiteError:
        """The error for equal members, at the entry or the value that repeats the first one."""
        place = second.place
        if first.place == second.place:  # a grid that contains a value twice
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
        """Raises SuiteError, at the largest factor, if the factors give too many cells."""
        count = math.prod(factors.values())
        if count > MOST_CELLS:
            raise self.error(
                max(factors, key=factors.__getitem__), self._too_many("the suite", count)
            )

    @staticmethod
    def _too_many(subject: str, count: int) -> str:
        number = f"{count:,}" if count < 10**15 else shortened(count)
        return f"{subject}: expected at most {MOST_CELLS:,} cells, got {number} or more"

    def check_controls(self, settings: SuiteFile, estimators: set[str]) -> None:
        """Raises SuiteError for a control that is not an estimator of the suite."""
        for claim, names in settings.controls.items():
            for name in names:
                if name not in estimators:
                    raise self.error(
                        ("controls", claim),
                        f"the control {name!r} is not an estimator of this suite"
                        f"{suggestion(name, estimators)}",
                    )

    def with_canonical_names(self, settings: SuiteFile, registry: Registry) -> SuiteFile:
        """The settings with the names of estimators for their aliases.

        Raises SuiteError where an estimator is annealed under two names.
        """
        controls = {
            claim: list(dict.fromkeys(map(registry.canonical, names)))
            for claim, names in settings.controls.items()
        }
        changes: dict[str, Any] = {"controls": controls}
        if settings.training:
            anneal: dict[str, Any] = {}
            for name, schedules in settings.training.anneal.items():
                if (canonical := registry.canonical(name)) in anneal:
                    message = f"{name!r} is an alias of {canonical!r}, which is annealed as well"
                    raise self.error(("training", "anneal", name), message)
                anneal[canonical] = schedules
            changes["training"] = settings.training.model_copy(update={"anneal": anneal})
        return settings.model_copy(update=changes)

    def resolve_claims(
        self,
        settings: SuiteFile,
        registry: Registry,
        tasks: Sequence[Task],
        estimators: Sequence[Estimator],
    ) -> list[dict[str, Any]]:
        """The claims as plain data.  Raises SuiteError for what the suite cannot test."""
        named = [(estimator.name, estimator.knobs) for estimator in estimators]
        return [
            self._resolve_claim(number, claim, settings, registry, tasks, named)
            for number, claim in enumerate(settings.claims)
        ]

    def _resolve_claim(
        self,
        number: int,
        claim: Claim,
        settings: SuiteFile,
        registry: Registry,
        tasks: Sequence[Task],
        estimators: Sequence[tuple[str, Mapping[str, Any]]],
    ) -> dict[str, Any]:
        own, trained = ("claims", number), settings.training is not None
        models, others = _kinds(tasks) if trained else (False, False)
        try:
            quantities = parse_claim(claim.holds, trained).quantities()
            refuse_aliases(quantities, registry.canonical)
            for quantity in quantities:
                refuse_ambiguous(quantity, estimators)
            refuse_mixture(quantities, models, others)
        except ClaimError as error:
            raise self.error((*own, "holds"), str(error)) from None
        parameter = claim.parameter or _logits(settings.parameters)
        if parameter not in settings.parameters:
            raise self.error(
                (*own, "parameter"),
                f"{parameter!r} is not a parameter of this suite"
                f"{suggestion(parameter, settings.parameters)}",
            )
        places = [
            self._place_of_claim((*own, "on", index), entry, tasks)
            for index, entry in enumerate(claim.on or ())
        ]
        return {**claim.model_dump(), "parameter": parameter, "on": places}

    def searched(
        self, settings: SuiteFile, registry: Registry, estimators: Sequence[Estimator]
    ) -> Iterator[tuple[Claim, list[Estimator]]]:
        """The claims with `for_all`, each with the estimators of its quantities.

        Raises SuiteError for problems that cannot be searched.
        """
        for number, claim in enumerate(settings.claims):
            if claim.for_all is None:
                continue
            own = ("claims", number)
            for key, conflict in (
                ("on", claim.on is not None),
                ("parameter", claim.parameter not in (None, LOG_ALPHA)),
            ):
                if conflict:
                    raise self.error((*own, key), f"for_all does not go with {key}")
            if settings.training:
                raise self.error((*own, "for_all"), "for_all does not apply to training suites")
            relation = parse_claim(claim.holds)
            chosen = [_member_of(quantity, estimators) for quantity in relation.quantities()]
            plain = [(each.name, each.knobs, each.adapt_steps) for each in chosen]
            try:
                contestants = contestants_of(relation, plain, registry)
                spaces_of(claim.for_all, registry, list(contestants.values()))
                evaluations_of(claim.for_all)
            except UsageError as error:
                raise self.error((*own, "for_all"), f"for_all: {error}") from None
            yield claim, chosen

    def _place_of_claim(self, place: Place, entry: Any, tasks: Sequence[Task]) -> dict[str, Any]:
        """The task, and those of its knobs, where a claim holds."""
        name, knobs = self._name_and_knobs(place, entry)
        own = [task for task in tasks if task.name == name]
        if not own:
            raise self.error(
                place,
                f"{name!r} is not a task of this suite"
                f"{suggestion(name, {task.name for task in tasks})}",
            )
        for knob in knobs:
            if knob not in own[0].knobs:
                raise self.error(
                    place, f"{name} has no knob {knob!r}{suggestion(knob, own[0].knobs)}"
                )
        if not any(all(task.knobs[k] == v for k, v in knobs.items()) for task in own):
            raise self.error(place, f"no {name} of this suite has the knobs {shortened(knobs)}")
        return {"task": name, "knobs": knobs}

    def check_parameters(self, settings: SuiteFile, tasks: Sequence[Task]) -> None:
        """Raises SuiteError for a parameter that no task has."""
        available = {*SCALES, *(name for task in tasks for name in task.parameters)}
        for number, name in enumerate(settings.parameters):
            if name not in available:
                raise self.error(
                    ("parameters", number),
                    f"no task of this suite has the parameter {name!r}; available: "
                    f"{', '.join(sorted(available))}",
                )

    def check_nested(self, settings: SuiteFile, tasks: Sequence[Task]) -> None:
        """Raises SuiteError for nested factors that no task has or that take too few values."""
        factors = settings.nested or []
        knobs = {knob for task in tasks for knob in task.knobs}
        for number, name in enumerate(factors):
            if name not in knobs:
                raise self.error(
                    ("nested", number),
                    f"no task of this suite has the knob {name!r}{suggestion(name, knobs)}",
                )
            if name in factors[:number]:
                raise self.error(("nested", number), f"the knob {name!r} is listed twice")
        complete = [task for task in tasks if all(name in task.knobs for name in factors)]
        if factors and not complete:
            raise self.error(("nested",), f"no task of this suite has all of {', '.join(factors)}")
        for number, name in enumerate(factors):
            values: dict[str, set[str]] = {}  # task -> values of the knob
            for task in complete:
                values.setdefault(task.name, set()).add(json.dumps(task.knobs[name]))
            task, most = max(values.items(), key=lambda item: len(item[1]))
            fewest = _VALUES if number else _OUTERMOST
            if len(most) < fewest:
                raise self.error(
                    ("nested", number),
                    f"expected at least {fewest} values of {'the' if number else 'the outermost'} "
                    f"knob {name!r} in {task}, got {len(most)}",
                )

    def check_training(
        self,
        settings: SuiteFile,
        tasks: Sequence[Task],
        estimators: Sequence[Estimator],
    ) -> None:
        """Raises SuiteError for keys that no task of the suite needs and unknown annealed knobs."""
        if settings.training is None:
            return
        for key in settings.training.unused(*_kinds(tasks)):
            if key not in settings.training.model_fields_set:
                continue
            kind = "tasks that are not models" if key == "descent" else "models"
            raise self.error(
                ("training", key),
                f"training.{key} is about {kind}, of which this suite has none",
            )
        knobs = {estimator.name: estimator.knobs for estimator in estimators}
        for name, schedules in settings.training.anneal.items():
            if name not in knobs:
                raise self.error(
                    ("training", "anneal", name),
                    f"{name!r} is not an estimator of this suite{suggestion(name, knobs)}",
                )
            for knob in schedules:
                if knob not in knobs[name]:
                    raise self.error(
                        ("training", "anneal", name, knob),
                        f"{name} has no knob {knob!r}{suggestion(knob, knobs[name])}",
                    )

    def check_looks(self, settings: SuiteFile) -> None:
        """Raises SuiteError for gradient measurements at steps after the end of the training."""
        training = settings.training
        gradient = training.gradient if training else None
        for number, step in enumerate(gradient.steps if gradient else ()):
            if step > training.steps:
                raise self.error(
                    ("training", "gradient", "steps", number),
                    f"training.gradient.steps: step {step} is beyond the end of a training of "
                    f"{training.steps} steps",
                )

    def _name_and_knobs(self, place: Place, entry: Any) -> tuple[str, dict[str, Any]]:
        if isinstance(entry, str):
            return entry, {}
        if isinstance(entry, dict) and len(entry) == 1:
            ((name, knobs),) = entry.items()
            if isinstance(name, str) and (knobs is None or isinstance(knobs, dict)):
                return name, knobs or {}
        raise self.error(
            place, f"expected a name or `name: {{knob: value}}`, got {shortened(entry)}"
        )

    def _choices(self, place: Place, cls: type, knob: str, value: Any) -> list[tuple[Place, Any]]:
        """The values in the grid of a knob, each with its place."""
        try:
            values = grid(cls, knob, value)
        except KnobError as error:
            raise self.error((*place, knob), str(error)) from None
        if values is not value:
            return [((*place, knob), values[0])]
        return [((*place, knob, number), each) for number, each in enumerate(values)]
