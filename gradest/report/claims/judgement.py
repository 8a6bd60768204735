"""The verdict on each claim of a run: reproduced, refuted, or cannot tell.

A claim is tested at every place where it must hold: each task of the suite, or those of `on`, at
each dtype.  It is brought into the form `value ~ bound`, where the value is a ratio of the two
sides if both are positive quantities, and their difference otherwise.

    L <= R          two one-sided tests, for and against
    L == R +- t     equivalence: both ends of the tolerance are excluded; or the value is outside
    L == R          refuted by a test; reproduced only by enumeration, where numbers are exact

Of each test the smaller p-value counts, and all tests of a run are one family, by Holm: with 95 %
probability no verdict is wrong.  A claim is reproduced where it is at every place and refuted where
it is at one.

Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing
the equivalence of average bioavailability", 1987.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradest.report.claims.evaluation import (
    Unmeasured,
    Value,
    descended,
    evaluate,
    evidence,
    measured,
    metric,
    rows_of,
)
from gradest.report.frames import tables
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.ranking import LEVEL
from gradest.runs import (
    DESCENDED,
    Expression,
    Median,
    Number,
    Operation,
    Quantity,
    Relation,
    canonical,
    parse_claim,
)
from gradest.runs.refutation import GENERAL
from gradest.statistics import Interval, Sides, holm

REPRODUCED, REFUTED, UNDECIDED = "reproduced", "refuted", "cannot tell"
NOT_REFUTED = "not refuted"  # by a search, which proves nothing
COLUMNS = ("holds", "on", "says", "source", "published", "measured", "low", "high", "verdict")

# Quantities that cannot be negative, whose ratios are compared.
_POSITIVE = {
    *("bias", "relative_bias", "relative_bias_rescaled", "variance", "mse", "work_variance"),
    *("snr", "gradient_norm", "evaluations", "gradient_evaluations", "gradient_variance"),
    "probability",
}
_MIRRORED = {"<=": ">=", "<": ">", ">=": "<=", ">": "<", "==": "=="}


@dataclass(frozen=True)
class Place:
    """Where a claim is tested, and the result."""

    name: str
    interval: Interval
    published: float  # the bound, or the value that is claimed
    symbol: str = ""  # how the measured value is claimed to compare with it
    reproduced: float = 1.0  # p-values, adjusted for all tests of the run
    refuted: float = 1.0
    exact: bool = False
    reason: str = ""  # why the quantities are not known
    searched: int = 0  # problems, where a counterexample was searched
    nearest: str = ""  # where it lies, or the problem that came closest to one

    @property
    def verdict(self) -> str:
        if self.refuted < LEVEL and self.refuted <= self.reproduced:
            return REFUTED
        if self.searched:
            return NOT_REFUTED
        return REPRODUCED if self.reproduced < LEVEL else UNDECIDED


@dataclass(frozen=True)
class Judgement:
    """A claim with its result at every place."""

    holds: str
    says: str
    source: str
    relation: Relation
    places: tuple[Place, ...]

    @property
    def verdict(self) -> str:
        verdicts = {place.verdict for place in self.places}
        if REFUTED in verdicts:
            return REFUTED
        return verdicts.pop() if len(verdicts) == 1 else UNDECIDED

    @property
    def symbol(self) -> str:
        return self.decisive.symbol

    @property
    def decisive(self) -> Place:
        """The place that decides: the first with the claim's verdict and the weakest evidence."""
        own = [place for place in self.places if place.verdict == self.verdict]
        if self.verdict == REFUTED:
            return min(own, key=lambda place: place.refuted)
        return max(own, key=lambda place: place.reproduced)

    def row(self) -> dict[str, Any]:
        """The columns of claims.csv."""
        place = self.decisive
        return {
            "holds": self.holds,
            "on": ", ".join(each.name for each in self.places),
            "says": self.says,
            "source": self.source,
            "published": place.published,
            "measured": place.interval.estimate,
            "low": place.interval.low,
            "high": place.interval.high,
            "verdict": self.verdict,
        }


def judge(run: LoadedRun) -> list[Judgement]:
    """The judgement on every claim of the run, in the order of the suite."""
    claims = run.facts.get("claims") or []
    judgements = [_judged(claim, run) for claim in _testable(claims, run.facts)]
    places = [place for each in judgements for place in each.places]
    p = np.array([_chance(place) for place in places])
    adjusted = iter(holm(p))
    return [
        replace(each, places=tuple(_adjusted(place, next(adjusted)) for place in each.places))
        for each in judgements
    ]


def _testable(
    claims: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """The claims about what the report does not leave out, at the places that it has."""
    left_out = facts.get("left_out") or {}
    tasks, estimators = (set(left_out.get(kind) or ()) for kind in ("tasks", "estimators"))
    for claim in claims:
        relation = parse_claim(claim["holds"], bool(facts.get("training")))
        named = {quantity.estimator for quantity in relation.quantities()}
        places = [place["task"] for place in claim["on"]]
        places += [claim["for_all"]["task"]] if "task" in (claim.get("for_all") or {}) else []
        if named & estimators or (places and tasks.issuperset(places)):
            continue
        yield {**claim, "on": [place for place in claim["on"] if place["task"] not in tasks]}


def as_frame(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """The rows of claims.csv."""
    return pd.DataFrame([each.row() for each in judgements], columns=list(COLUMNS))


def _chance(place: Place) -> float:
    """The p-value of a test; NaN where chance has no part in it."""
    return math.nan if place.exact or place.reason else min(place.reproduced, place.refuted)


def _adjusted(place: Place, p: float) -> Place:
    """With the adjusted p-value in place of the smaller one."""
    if math.isnan(p):
        return place
    if place.refuted <= place.reproduced:
        return replace(place, refuted=p)
    return replace(place, reproduced=p)


def _judged(claim: Mapping[str, Any], run: LoadedRun) -> Judgement:
    trained = bool(run.facts.get("training"))
    relation = parse_claim(claim["holds"], trained)
    says, source = (str(claim.get(key) or "") for key in ("says", "source"))
    if claim.get("for_all") is not None:
        place = _searched_place(relation, claim, run)
        return Judgement(claim["holds"], says, source, relation, (place,))
    make = _trained_places if trained else _measured_places
    places = list(make(relation, claim, run))
    if not places:
        names = ", ".join(place["task"] for place in claim["on"]) or "every task"
        places = [_unknown(names, "it was measured on none of these tasks", relation.symbol)]
    return Judgement(claim["holds"], says, source, relation, tuple(places))


def _unknown(name: str, reason: str, symbol: str) -> Place:
    return Place(name, Interval.unknown(), math.nan, symbol, reason=reason)


def _searched_place(relation: Relation, claim: Mapping[str, Any], run: LoadedRun) -> Place:
    """The counterexample of a search, or the closest that it came to one."""
    rows, name = run.searches, _all_of(claim["for_all"])
    if not rows.empty:
        asked = canonical(claim["for_all"])
        rows = rows[rows["holds"].eq(claim["holds"]) & rows["for_all"].eq(asked)]
    if rows.empty or rows.iloc[-1]["status"] != "ok":
        reason = "it was not searched" if rows.empty else str(rows.iloc[-1]["reason"])
        return _unknown(name, reason, relation.symbol)
    row = rows.iloc[-1]
    against_number = isinstance(relation.right, Number)
    value = row["left"] - (0.0 if against_number else row["right"])
    refuted = row["verdict"] == REFUTED
    return Place(
        name,
        Interval.normal(value, row["error"]),
        row["right"] if against_number else 0.0,
        relation.symbol,
        # The search has confirmed it on fresh draws, at a level of its own.
        refuted=0.0 if refuted else 1.0,
        exact=True,
        searched=int(row["searched"]),
        nearest=str(row["place"]),
    )


def _all_of(for_all: Mapping[str, Any]) -> str:
    """The problems of a search, which are the same in every run of the claim."""
    knobs = (f"{k}={v}" for k, v in for_all.items() if k not in ("task", "evaluations"))
    return ", ".join([f"all {for_all.get('task', GENERAL)}", *knobs])


def _measured_places(
    relation: Relation, claim: Mapping[str, Any], run: LoadedRun
) -> Iterator[Place]:
    frame = run.own[run.own["parameter"].eq(claim["parameter"])]
    several = frame["dtype"].nunique() > 1
    for (task, dtype), rows in frame.groupby(["task_label", "dtype"], sort=False):
        first = rows.iloc[0]
        if not _is_on(claim, first["task"], first["task_params"]):
            continue
        name = f"{task}, dtype={dtype}" if several else str(task)
        own = (rows_of(quantity, rows)["status"] for quantity in relation.quantities())
        if not claim.get("on") and any(status.eq("skipped").any() for status in own):
            continue  # an estimator does not apply to every task
        yield _tested(relation, name, partial(evaluate, rows=rows, read=measured))


def _trained_places(
    relation: Relation, claim: Mapping[str, Any], run: LoadedRun
) -> Iterator[Place]:
    points, read = run.trainings, metric
    if relation.quantities()[0].name in DESCENDED:
        points, read = run.all_descents, partial(descended, maximise=run.maximises)
    for task, rows in points.groupby("task_label", sort=False):
        first = rows.iloc[0]
        if _is_on(claim, first["task"], first["task_params"]):
            yield _tested(relation, str(task), partial(evaluate, rows=rows, read=read))


def _is_on(claim: Mapping[str, Any], task: str, params: str) -> bool:
    """Whether a claim holds on this task: on every one, or on those that it lists."""
    places = claim.get("on")
    if not places:
        return True
    knobs = tables.parse_knobs(params)
    return any(
        task == place["task"] and all(knobs.get(k) == v for k, v in place["knobs"].items())
        for place in places
    )


def _tested(relation: Relation, name: str, value_of: Callable[[Expression], Value]) -> Place:
    try:
        compared = _compared(relation, value_of)
    except Unmeasured as error:
        return _unknown(name, str(error), relation.symbol)
    reproduced, refuted = compared.p_values()
    return Place(
        name,
        compared.value.interval,
        compared.bound,
        compared.symbol,
        min(reproduced, 1.0),
        min(refuted, 1.0),
        compared.value.exact,
    )


class _Compared(NamedTuple):
    """A relation in the form `value symbol bound`, with the tolerance as a number."""

    value: Value
    symbol: str
    bound: float
    tolerance: float
    positive: bool  # the value cannot be negative

    def p_values(self) -> tuple[float, float]:
        """For the relation and against it; 0 or 1 where the value is exact."""
        at = self._at(self.bound)
        equal = self.value.exact and at == (1.0, 1.0)
        if self.symbol != "==":
            if equal:
                return (0.0, 1.0) if "=" in self.symbol else (1.0, 0.0)
            below = self.symbol in ("<=", "<")
            return (at.below, at.above) if below else (at.above, at.below)
        if equal:
            return 0.0, 1.0
        if not self.tolerance:
            return 1.0, min(at) if self.value.exact else 2 * min(at)
        lower = self._at(self.bound - self.tolerance)
        upper = self._at(self.bound + self.tolerance)
        return max(lower.above, upper.below), 2 * min(lower.below, upper.above)

    def _at(self, bound: float) -> Sides:
        """The evidence against equality with a bound; below zero no test is needed."""
        if self.positive and bound < 0 and not math.isnan(self.value.interval.estimate):
            return Sides(1.0, 0.0)
        # Where the interval ends at zero its end has no logarithm.
        return evidence(
            self.value, bound, self.positive and min(bound, self.value.interval.low) > 0
        )


def _compared(relation: Relation, value_of: Callable[[Expression], Value]) -> _Compared:
    left, symbol, right, tolerance = (
        *(relation.left, relation.symbol, relation.right),
        relation.tolerance,
    )
    if isinstance(left, Number):
        left, symbol, right = right, _MIRRORED[symbol], left
    size = tolerance.size if tolerance else 0.0
    relative = tolerance is not None and tolerance.relative
    if isinstance(right, Number):
        bound = right.value
        value = value_of(left)
        return _Compared(
            value, symbol, bound, size * abs(bound) if relative else size, _is_positive(left)
        )
    (a, x), (b, y) = _factored(left), _factored(right)
    numerator, denominator = value_of(x), value_of(y)
    # A ratio has an interval where both sides are above zero, or it is exactly zero.
    above_zero = denominator.interval.low > 0 and (numerator.exact or numerator.interval.low > 0)
    if above_zero and _is_positive(x) and _is_positive(y) and a > 0 and b > 0:
        ratio = numerator.interval / denominator.interval
        bound = b / a
        # An absolute tolerance is in the unit of the sides, of which the ratio has none.
        size *= bound if relative else 1 / (a * denominator.interval.estimate)
        return _Compared(_ratio(numerator, denominator, ratio), symbol, bound, size, True)
    left_value, right_value = value_of(left), value_of(right)
    if relative:
        size = size * abs(right_value.interval.estimate)
    return _Compared(left_value - right_value, symbol, 0.0, size, False)


def _ratio(numerator: Value, denominator: Value, interval: Interval) -> Value:
    """The rounding of a ratio is relative to it."""
    parts = [
        each.rounding / each.interval.estimate if each.interval.estimate else 0.0
        for each in (numerator, denominator)
    ]
    value = numerator.combined(denominator, interval)
    return replace(value, rounding=max(parts) * interval.estimate)


def _factored(expression: Expression) -> tuple[float, Expression]:
    """A number and the rest, whose product the expression is."""
    match expression:
        case Operation("*", Number(factor), rest) | Operation("*", rest, Number(factor)):
            inner, rest = _factored(rest)
            return factor * inner, rest
        case Operation("/", rest, Number(divisor)):
            inner, rest = _factored(rest)
            return inner / divisor, rest
    return 1.0, expression


def _is_positive(expression: Expression) -> bool:
    """Whether the expression cannot be negative, whatever the estimates."""
    match expression:
        case Number(value):
            return value >= 0
        case Quantity(name) | Median(Quantity(name)):
            return name in _POSITIVE
        case Operation(symbol, left, right) if symbol != "-":
            return _is_positive(left) and _is_positive(right)
    return False
