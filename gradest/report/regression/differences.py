"""Two runs or more against the first of them: better, worse, or without significant difference.

Every test of a report is in one family, by Holm; the intervals are at 95 % each, one by one.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradest.errors import UsageError
from gradest.measurement import LOG_ALPHA, Measurement
from gradest.report.claims.judgement import NOT_REFUTED, REFUTED, REPRODUCED
from gradest.report.claims.judgement import UNDECIDED as UNSETTLED
from gradest.report.frames import curves, ranking, tables
from gradest.report.frames.loading import maximises
from gradest.report.regression.pairs import (
    DIFFERENCE,
    RATIO,
    Change,
    Pair,
    pooled,
    sign,
    undetectable,
)
from gradest.report.regression.runs import Key, Records, Run, repeats
from gradest.runs import Record
from gradest.statistics import SINGLE, Interval, holm
from gradest.support import described

# The rate at which a report of runs without any change finds one.  Less than the
# usual 5 %: where every commit is compared that would be a false alarm a month, which is ignored
# from the second one on.  Halving it again costs hardly any power among a hundred tests.
LEVEL = 0.01

BETTER, WORSE, CHANGED = "better", "worse", "changed"
SAME, UNDECIDED = "same", "no significant difference"
UNJUDGED = ""  # of quantities that are shown and never judged

MEASUREMENT, TRAINING, DESCENT = "measurement", "training", "descent"
PROPERTY, CLAIM = "property", "claim"

COLUMNS = (
    *("run", "kind", "task", "task_params", "estimator", "estimator_params", "dtype", "setting"),
    *("parameter", "base_seeds", "other_seeds", "quantity"),
    *("base", "base_low", "base_high", "other", "other_low", "other_high"),
    *("scale", "change", "low", "high", "gradient_norm"),
    *("p_value", "p_holm", "detectable", "judgement"),
    *("base_status", "other_status", "reason", "label", "task_label"),
)
CELL = ["run", "task_label", "label", "base_seeds", "other_seeds"]  # has several quantities

_RANK = {REFUTED: 0, UNSETTLED: 1, NOT_REFUTED: 1, REPRODUCED: 2}  # of verdicts on claims
_JUDGED = ("variance", "bias", CLAIM)  # of which worse is a regression
_OK, _ABSENT, _ODD = "ok", "absent", "not finite"
_LOST = ("failed", _ODD)
_NAMED = ["task", "task_params", "estimator", "estimator_params"]
_UNKNOWN = Interval.unknown()
_REPEATED = "not tested: the same seeds, versions and processor give the same numbers"
# Kind -> split and metric that are compared at the end of its curves.
_CURVES = {TRAINING: ("test", "negative_bound"), DESCENT: (curves.ALONE, "value")}


class _Row(NamedTuple):
    """A row of the frame, before all tests are counted."""

    run: str
    key: Key
    seeds: tuple[str, str]
    change: Change
    gradient_norm: float = math.nan
    judgement: str | None = None  # where no test decides
    status: tuple[str, str] = (_OK, _OK)


def differences(runs: Sequence[Run], repeated: bool = False) -> pd.DataFrame:
    """A row for every quantity of every cell, of each run against the first; columns `COLUMNS`.

    Quantities are variance, mean, bias, evaluations, gradient_evaluations and seconds of a
    measurement, also gradient where the exact one changed; negative_bound of a training; value
    of a descent; a property's own; the verdict on a claim; and status of a cell that is not
    measured in both.  With `repeated`, a cell that both runs measured in the same way (`repeats`)
    is not tested: numbers that differ by more than rounding have changed.
    Raises UsageError for a journal of another version that this one cannot read.
    """
    base, *others = runs
    rows = [row for other in others for row in _between(base, other)]
    if repeated:
        rows = [_untested(row, base, others[0]) for row in rows]
    frame = pd.DataFrame([_columns(row) for row in rows], columns=list(COLUMNS))
    frame = frame.assign(p_holm=holm(frame["p_value"].to_numpy(dtype=float)))
    tests = int(frame["p_value"].notna().sum())
    judged = [_judgement(row, p_holm) for row, p_holm in zip(rows, frame["p_holm"], strict=True)]
    level = LEVEL / max(tests, 1)  # the strictest of Holm's
    detectable = [
        row.change.detectable(level) if judgement == UNDECIDED else math.nan
        for row, judgement in zip(rows, judged, strict=True)
    ]
    return _labelled(frame.assign(judgement=judged, detectable=np.asarray(detectable, dtype=float)))


def regressions(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a variance, a bias or a claim that is worse, and of a cell that is lost."""
    lost = frame["quantity"].eq("status") & frame["other_status"].isin(_LOST)
    return frame[frame["judgement"].eq(WORSE) & (frame["quantity"].isin(_JUDGED) | lost)]


def parameters(frame: pd.DataFrame) -> list[str]:
    """The parameters in which variances were compared; log α is first."""
    names = frame.loc[frame["quantity"].eq("variance"), "parameter"].unique()
    return sorted(names, key=lambda parameter: parameter != LOG_ALPHA)


def _judgement(row: _Row, p_holm: float) -> str:
    if row.judgement is not None:
        return row.judgement
    if row.change.same:
        return SAME
    if not math.isnan(row.change.p_value) and p_holm >= LEVEL:
        return UNDECIDED
    return {-1: BETTER, 0: CHANGED, 1: WORSE}[row.change.direction]


def _between(base: Run, other: Run) -> Iterator[_Row]:
    for key in dict.fromkeys([*base.cells, *other.cells]):
        records = base.cells.get(key, {}), other.cells.get(key, {})
        yield from _statuses(other.name, key, *records)
        if key.kind == MEASUREMENT:
            yield from _compare_cell(other.name, key, *records, _parameters(base, other))
    for kind in _CURVES:
        yield from _ends(kind, base, other)
    yield from _properties(base, other)
    yield from _claims(base, other)


def _untested(row: _Row, base: Run, other: Run) -> _Row:
    """The row without its test where equal code would have given equal numbers."""
    change, kind = row.change, row.key.kind
    tested = row.judgement in (None, UNDECIDED) and change.quantity != "status"
    if kind not in (MEASUREMENT, *_CURVES) or not tested or change.same:
        return row
    # The rate in the setting of a training or a descent is the best one of several cells.
    named = [key for key in base.cells if key in other.cells and key[:5] == row.key[:5]]
    cells = [row.key] if kind == MEASUREMENT else named
    if math.isnan(change.change.estimate) or not repeats(base, other, cells):
        return row
    return row._replace(
        change=change._replace(p_value=math.nan, reason=change.reason or _REPEATED), judgement=None
    )


def _compare_cell(
    run: str, key: Key, base: Records, other: Records, parameters: Sequence[str]
) -> list[_Row]:
    """As `_cell`; a cell whose numbers break a test is reported as one, and costs no other."""
    try:
        return list(_cell(run, key, base, other, parameters))
    except UsageError:
        raise
    except Exception as error:
        reason = f"cannot be compared: {described(error)}"
        change = Change("status", "", *[_UNKNOWN] * 2, "", _UNKNOWN, False, reason=reason)
        seeds = _seeds(base), _seeds(other)
        return [_Row(run, key, seeds, change, judgement=UNDECIDED)]


def _parameters(base: Run, other: Run) -> list[str]:
    return [p for p in base.facts["parameters"] if p in other.facts["parameters"]]


def _cell(
    run: str, key: Key, base: Records, other: Records, parameters: Sequence[str]
) -> Iterator[_Row]:
    """Seeds that both runs share are compared alone; without any, all seeds of both are."""
    shared = [seed for seed in base if seed in other]
    kept = [{s: r for s, r in records.items() if _status(r) == _OK} for records in (base, other)]
    if shared:
        both = [seed for seed in shared if all(seed in records for records in kept)]
        kept = [{seed: records[seed] for seed in both} for records in kept]
    if all(kept):
        yield from _measured(run, key, *kept, parameters, bool(shared))


def _measured(
    run: str, key: Key, base: Records, other: Records, parameters: Sequence[str], shared: bool
) -> Iterator[_Row]:
    """An adaptive estimator is compared seed by seed: each leads it to a state of its own."""
    adaptive = any(
        record["measurement"].get("adapt_steps") for record in (*base.values(), *other.values())
    )
    if not adaptive:
        yield from _compared(run, key, base, other, parameters)
    elif shared:
        for seed in base:
            parts = {seed: base[seed]}, {seed: other[seed]}
            yield from _compared(run, key, *parts, parameters)
    else:
        firsts = [dict([next(iter(records.items()))]) for records in (base, other)]
        why = "not tested: adaptation depends on the seed, and the runs share no seed"
        for row in _compared(run, key, *firsts, parameters):
            unsure = row.change.quantity in ("variance", "mean", "bias") and not row.change.same
            change = row.change._replace(p_value=math.nan, detectable=undetectable, reason=why)
            yield row._replace(change=change, judgement=UNDECIDED) if unsure else row


def _compared(
    run: str, key: Key, base: Records, other: Records, parameters: Sequence[str]
) -> Iterator[_Row]:
    sides = [_measurement(list(records.values())) for records in (base, other)]
    seeds = _seeds(base), _seeds(other)
    pair = Pair(*sides, parameters)
    for change in pair.changes():
        yield _Row(run, key, seeds, change, pair.norm(change.parameter))
    clocks = [_seconds(records) for records in (base, other)]
    if all(clocks):
        a, b = (Interval(statistics.median(c), min(c), max(c)) for c in clocks)
        ratio = Interval(b.estimate / a.estimate, b.low / a.high, b.high / a.low)
        change = Change("seconds", "", a, b, RATIO, ratio, False)
        yield _Row(run, key, seeds, change, judgement=UNJUDGED)


def _measurement(records: Sequence[Record]) -> Measurement:
    """Raises UsageError for a record of another version that this one cannot read."""
    try:
        return pooled([Measurement.from_json(record["measurement"]) for record in records])
    except (KeyError, TypeError) as error:
        cell = records[0]["cell"]
        raise UsageError(
            f"{cell['estimator']} on {cell['task']}: the journal of another version, which this "
            f"one cannot read ({type(error).__name__}: {error}); measure it again"
        ) from error


def _seconds(records: Records) -> list[float]:
    return [x for record in records.values() for x in record.get("samples") or ()]


def _seeds(records: Records) -> str:
    return ", ".join(map(str, sorted(records)))


def _statuses(run: str, key: Key, base: Records, other: Records) -> Iterator[_Row]:
    """The statuses of a cell that is not ok in both runs; seed by seed where any is shared."""
    if any(seed in other for seed in base):
        parts = [
            [{s: r for s, r in records.items() if s == seed} for records in (base, other)]
            for seed in dict.fromkeys([*base, *other])
        ]
    else:
        parts = [[base, other]]
    for a, b in parts:
        (before, why), (after, reason) = _worst(a), _worst(b)
        if before == after == _OK:
            continue
        differ = why and reason not in ("", why)
        reasons = [f"baseline: {why}", reason] if differ else [why or reason]
        text = "; ".join(reasons)
        change = Change("status", "", *[_UNKNOWN] * 2, "", _UNKNOWN, False, reason=text)
        statuses, seeds = (before, after), (_seeds(a), _seeds(b))
        judgement = _judge_statuses(*statuses)
        yield _Row(run, key, seeds, change, judgement=judgement, status=statuses)


def _worst(records: Records) -> tuple[str, str]:
    """Status and reason of the worst seed; absent where there is none."""
    statuses = [(_status(record), str(record["reason"] or "")) for record in records.values()]
    order = [*_LOST, "skipped", _OK]
    return min(statuses, key=lambda each: order.index(each[0]), default=(_ABSENT, ""))


def _status(record: Record) -> str:
    if record["status"] == "ok" and record["of"] == MEASUREMENT:
        return _ODD if record["measurement"].get("nonfinite") else _OK
    return record["status"]


def _judge_statuses(before: str, after: str) -> str:
    if before == after:
        return SAME
    if _ABSENT in (before, after):
        return UNDECIDED
    if before == _OK and after in _LOST:
        return WORSE
    return BETTER if before in _LOST and after == _OK else CHANGED


def _ends(kind: str, base: Run, other: Run) -> Iterator[_Row]:
    """Trainings by the bound of the test data, descents by E f, at the best learning rates."""
    groups = [dict(iter(_final(kind, run).groupby(_NAMED))) for run in (base, other)]
    falls = kind == TRAINING or not maximises(base.facts)
    for named in groups[0]:
        if named not in groups[1]:
            continue
        parts = [group[named] for group in groups]
        shared = set(parts[0]["seed"]) & set(parts[1]["seed"])
        if shared:
            parts = [part[part["seed"].isin(shared)] for part in parts]
        rates = [f"{rate:g}" for part in parts for rate in part["learning_rate"].unique()]
        setting = f"learning_rate={', then '.join(dict.fromkeys(rates))}"
        key = Key(kind, *named, "", setting)
        seeds = tuple(", ".join(map(str, sorted(part["seed"]))) for part in parts)
        row = _trained(other.name, key, seeds, *(_over_seeds(kind, part) for part in parts))
        turned = row.change._replace(direction=row.change.direction * (1 if falls else -1))
        yield row._replace(change=turned)


def _final(kind: str, run: Run) -> pd.DataFrame:
    """What is compared, at the end of each curve."""
    points = run.points if kind == TRAINING else run.descents
    if points.empty:
        return pd.DataFrame(columns=[*_NAMED, "seed"])
    split, metric = _CURVES[kind]
    points = points[points["split"].eq(split) & points["metric"].eq(metric)]
    return points[points["step"].eq(points.groupby("key")["step"].transform("max"))]


def _over_seeds(kind: str, part: pd.DataFrame) -> tuple[Interval, int]:
    last = curves.average_over_seeds(part, *_CURVES[kind]).iloc[0]
    ends = (float(last[end]) for end in ("value", "low", "high"))
    return Interval(*ends), int(last["seeds"])


def _trained(
    run: str,
    key: Key,
    seeds: tuple[str, str],
    base: tuple[Interval, int],
    other: tuple[Interval, int],
) -> _Row:
    """The interval of a single seed is over data points, and does not cover other trainings."""
    (a, m), (b, n) = base, other
    change = b - a
    difference = change.estimate
    _, quantity = _CURVES[key.kind]
    # Trainings compute in single precision; descents repeat to the last digit.
    rounding = SINGLE * abs(a.estimate) if key.kind == TRAINING else 0.0
    same = abs(difference) <= rounding
    change = Change(quantity, "", a, b, DIFFERENCE, change, same, direction=sign(difference))
    if change.same:
        return _Row(run, key, seeds, change)
    if min(m, n) == 1:
        why = "not tested: one seed does not cover other runs"
        return _Row(run, key, seeds, change._replace(reason=why), judgement=UNDECIDED)
    error, freedom = ranking.combined_error(
        *((a.high - a.estimate) / ranking.quantile(m - 1), m - 1),
        *((b.high - b.estimate) / ranking.quantile(n - 1), n - 1),
    )
    p = float(ranking.p_value(difference, error, freedom))

    def detectable(level: float) -> float:
        return ranking.detectable_difference(float(error), float(freedom), level)

    return _Row(run, key, seeds, change._replace(p_value=p, detectable=detectable))


def _properties(base: Run, other: Run) -> Iterator[_Row]:
    """Whether they hold; their values have intervals that are simultaneous ones already."""
    if base.properties.empty or other.properties.empty:
        return
    first, second = (_properties_of(run) for run in (base, other))
    both = first.add_suffix("_a").join(second.add_suffix("_b"), how="inner")
    for (name, settings, quantity), row in both.iterrows():
        a, b = (
            Interval(*(row[f"{end}_{side}"] for end in ("value", "low", "high"))) for side in "ab"
        )
        held, holds = bool(row["holds_a"]), bool(row["holds_b"])
        judgement = SAME if held == holds else BETTER if holds else WORSE
        change = Change(PROPERTY, "", a, b, "", _UNKNOWN, held == holds)
        status = tuple("holds" if each else "does not hold" for each in (held, holds))
        key = Key(PROPERTY, name, settings, quantity, "{}", "", "")
        yield _Row(other.name, key, ("", ""), change, judgement=judgement, status=status)


def _claims(base: Run, other: Run) -> Iterator[_Row]:
    """Their verdicts, which have multiple tests behind them already."""
    if base.claims.empty or other.claims.empty:
        return
    named = ["holds", "on"]
    first, second = (run.claims.drop_duplicates(named).set_index(named) for run in (base, other))
    both = first.add_suffix("_a").join(second.add_suffix("_b"), how="inner")
    for (holds, places), row in both.iterrows():
        a, b = (
            Interval(*(row[f"{end}_{side}"] for end in ("measured", "low", "high")))
            for side in "ab"
        )
        verdicts = row["verdict_a"], row["verdict_b"]
        steps = [_RANK[verdict] for verdict in verdicts]
        direction = sign(steps[0] - steps[1])
        judgement = {-1: BETTER, 0: SAME, 1: WORSE}[direction]
        if direction and {UNSETTLED, NOT_REFUTED} & set(verdicts):
            judgement = CHANGED
        change = Change(CLAIM, "", a, b, "", _UNKNOWN, direction == 0)
        key = Key(CLAIM, str(places), "{}", holds, "{}", "", "")
        yield _Row(other.name, key, ("", ""), change, judgement=judgement, status=verdicts)


def _properties_of(run: Run) -> pd.DataFrame:
    """One row a quantity: of several seeds the first that does not hold, or else the first."""
    rows = run.properties.sort_values("holds", kind="stable")
    named = ["property", "settings", "quantity"]
    first = rows.drop_duplicates(named).sort_index().set_index(named)
    return first[["value", "low", "high", "holds"]]


def _columns(row: _Row) -> dict[str, Any]:
    change, key = row.change, row.key
    return {
        "run": row.run,
        **key._asdict(),
        "parameter": change.parameter,
        **dict(zip(("base_seeds", "other_seeds"), row.seeds, strict=True)),
        "quantity": change.quantity,
        **change.base.columns("base"),
        **change.other.columns("other"),
        "scale": change.scale,
        **dict(zip(("change", "low", "high"), change.change.ends, strict=True)),
        "gradient_norm": row.gradient_norm,
        "p_value": math.nan if change.same else change.p_value,  # equal numbers need no test
        **dict(zip(("base_status", "other_status"), row.status, strict=True)),
        "reason": change.reason,
    }


def _labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with labels, which hold the settings that vary between cells."""
    several = frame["dtype"].replace("", np.nan).nunique() > 1
    cell = ["run", *Key._fields]
    compared = frame[frame["quantity"].eq("variance")]
    by_seed = compared.groupby([*cell, "parameter"])["base_seeds"].transform("nunique").gt(1)
    adaptive = set(compared.loc[by_seed, "estimator"])
    extra = [
        {k: v for k, v in _varied(row, several, row["estimator"] in adaptive).items() if v}
        for row in frame.to_dict("records")
    ]
    return tables.add_labels(frame.drop(columns=["label", "task_label"]), extra)[list(COLUMNS)]


def _varied(row: Mapping[str, Any], dtypes: bool, seeds: bool) -> dict[str, str]:
    name, _, value = row["setting"].partition("=")
    return {
        "dtype": row["dtype"] if dtypes else "",
        name: value,
        "seed": row["base_seeds"] if seeds else "",
    }
