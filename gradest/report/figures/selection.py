"""What of a run's rows each figure shows."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradest.errors import UsageError
from gradest.report.frames import budget, sweeps, tables

SIZES = {"replicates": "R", "latents": "N", "categories": "K"}
_CURVE = 3  # temperatures that make a curve
_STEPS = 160  # of a budget's axis
_LONGEST = 1e4  # times what an axis has anyway, so that a late crossover does not squeeze all else
_ENDS = ("", "_low", "_high")
_NUMBERS = (
    *(f"{c}{e}" for c in ("bias_sq", "relative_bias", "variance", "mse", "seconds") for e in _ENDS),
    *("gradient_norm", "work_variance", "evaluations", "gradient_evaluations"),
)
# A bias that is called unbiased, and of which no more can be left than this, relative, is zero: it
# has its place in the band about zero, whatever rounding made of it.
_ZERO = 1e-9
_CELL = ["estimator", "estimator_params", "seed", "dtype"]


def selected(frame: pd.DataFrame, swept: bool = False) -> tuple[pd.DataFrame, str]:
    """The measured rows of one parameter, log α where it was measured, and its symbol.

    Of several dtypes the finest alone, which the symbol then names: in coarser ones bias is
    rounding, and what is equal would lie on top of each other.  Sweeps of α, which have figures of
    their own, are left out unless they are asked for, `swept`.
    Adds `tag`, the values of the knobs that vary.

    Raises UsageError for rows of several runs, which would lie on top of each other.
    """
    if "run" in frame and frame["run"].nunique() > 1:
        raise UsageError(
            "a figure shows one run: frame[frame['run'] == RUN], with RUN one of "
            + ", ".join(map(repr, frame["run"].unique()))
        )
    frame = tables.annotate(frame)
    parameter = next(iter(tables.parameters(frame)), "log_alpha")
    frame = frame if swept else sweeps.apart(frame)
    rows = _drawable(tables.measured(frame, parameter))
    rows = rows.assign(tag=[_tag(settings) for settings in rows["settings"]])
    symbol = tables.SYMBOLS.get(parameter, parameter)
    if (dtypes := rows["dtype"]).nunique() > 1:
        finest = min(dtypes.unique(), key=tables.resolution)
        return rows[dtypes == finest], f"{symbol} in {finest}"
    return rows, symbol


def _drawable(rows: pd.DataFrame) -> pd.DataFrame:
    """Without numbers that no axis can hold: what is not finite, absurd or impossibly negative."""
    numbers = tables.usable(rows[list(_NUMBERS)])
    numbers = numbers.where(numbers.ge(0) | numbers.columns.str.startswith("bias_sq"))
    return rows.assign(**numbers)


def most_replicates(rows: pd.DataFrame) -> pd.DataFrame:
    """Of a cell measured with several numbers of replicates, the most precise row."""
    exact = rows["method"].eq("enumerated")
    rows = rows.assign(exact=exact).sort_values(["exact", "replicates"], kind="stable")
    return (
        rows.drop_duplicates(["task", "task_params", *_CELL], keep="last")
        .sort_index()
        .drop(columns="exact")
    )


def with_bias(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds bias in percent, and `limit`: where it may be zero its upper end stands for it."""
    zero = rows["verdict"].eq("unbiased") & rows["relative_bias_high"].le(_ZERO)
    ends = {f"bias{end}": (100 * rows[f"relative_bias{end}"]).mask(zero, 0.0) for end in _ENDS}
    rows = rows.assign(**ends, limit=ends["bias_low"].eq(0) & ends["bias_high"].gt(0))
    upper = {c: rows[c].mask(rows["limit"], rows["bias_high"]) for c in ("bias", "bias_low")}
    return rows.assign(**upper)


def temperatures(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows on curves of at least three temperatures.

    Adds `temperature`, `curve`, and settings and tag without the temperature.
    """
    knobs = [tables.knobs(params) for params in rows["estimator_params"]]
    found = [_positive(each.pop("temperature", None)) for each in knobs]
    rest = [{k: v for k, v in s.items() if k != "temperature"} for s in rows["settings"]]
    rows = rows.assign(
        temperature=pd.Series(found, rows.index, dtype=float),
        curve=[json.dumps(each, sort_keys=True) for each in knobs],
        settings=pd.Series(rest, rows.index, dtype=object),
        tag=[_tag(each) for each in rest],
    )
    rows = rows[rows["temperature"].notna()]
    keys = ["task", "task_params", "estimator", "curve", "seed", "dtype"]
    values = rows.groupby(keys, dropna=False)["temperature"].transform("nunique")
    return rows[values >= _CURVE]


class Slice(NamedTuple):
    """The rows of one task in which one size varies and the others do not."""

    title: str
    size: str
    rows: pd.DataFrame


def slices(rows: pd.DataFrame) -> Iterator[Slice]:
    """A slice for every task and every size that varies.

    The other sizes are held where this one has most values, the largest of such places.  A row
    whose replicates nobody chose, enumerated or planned, stands for every number.  Adds `curve`.
    """
    fixed = rows["method"].ne("enumerated") & rows["precision"].fillna("").eq("")
    sampled = rows["replicates"].where(fixed)
    rows = rows.assign(replicates=sampled, curve=rows["estimator_params"].fillna(""))
    for task, part in rows.groupby("task", sort=False):
        for size in SIZES:
            others = [s for s in SIZES if s != size and part[s].notna().any()]
            found = part.groupby(others)[size].nunique().reset_index()
            if not found[size].max() >= 2:
                continue
            at = found.sort_values([size, *others]).iloc[-1][others]
            near = (part[others].eq(at) | part[others].isna()).all(axis=1)
            fixed = ", ".join(f"{SIZES[s]} = {at[s]:,g}" for s in others)
            shown = part[near & part[size].notna()]
            shown = shown.drop_duplicates(["task_params", *_CELL, size], keep="last")
            yield Slice(f"{task} at {fixed}", size, shown)


def budgets(rows: pd.DataFrame) -> pd.DataFrame:
    """The mse that each row of a section reaches as the budget grows: a row each budget.

    From one estimate on, as far as ten times what the last change of the best takes, and a
    hundred times what one estimate of the dearest does.  Adds `curve`, `budget`, the ends of the
    mse, and `best`: whether no other row has less.
    """
    rows = rows.assign(passes=budget.passes(rows), curve=range(len(rows)))
    changes = budget.crossovers(rows)["budget"].replace(np.inf, np.nan)
    least, most = rows["passes"].min(), 100 * rows["passes"].max()
    last = min(10 * changes.max(), _LONGEST * most) if changes.notna().any() else most
    grid = np.geomspace(least, max(most, last), _STEPS)
    grid = pd.DataFrame({"budget": np.union1d(grid, rows["passes"])})
    drawn = rows.drop(columns=["mse", "mse_low", "mse_high"]).merge(grid, how="cross")
    drawn = drawn[drawn["budget"] >= drawn["passes"]]
    drawn = drawn.join(budget.mean_of(drawn, drawn["budget"] / drawn["passes"]))
    return drawn.assign(best=drawn["mse"].eq(drawn.groupby("budget")["mse"].transform("min")))


def _tag(settings: Mapping[str, Any]) -> str:
    return ", ".join(map(tables.plain, settings.values()))


def _positive(value: Any) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real and value > 0 else math.nan
