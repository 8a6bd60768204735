"""What a budget buys: the mse of a mean of estimates, and where one method overtakes another.

The mean of m independent estimates has the mse b² + v/m, b = ‖bias‖, and costs m c passes through
f.  So a biased method, cheap in noise, is ahead while budgets are small, and an unbiased one
overtakes it for good at

    b² + v_b c_b/B = v_u c_u/B,    B = (v_u c_u − v_b c_b)/b²

A pass is an evaluation of f, or a backward pass through one.  A backward pass repeats every
operation of f at least once, and at most a few times (Baur & Strassen, "The complexity of partial
derivatives", 1983); it is counted as one.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from gradest.report.frames import tables

_ENDS = ("", "_low", "_high")
COLUMNS = (
    *("label", "overtaken_by", "passes", "passes_of_rival", "budget", "budget_low", "budget_high"),
    "when",
)


class _Parts(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def passes(rows: pd.DataFrame) -> pd.Series:
    """Through f, forward and backward, for one estimate."""
    return rows["evaluations"] + rows["gradient_evaluations"].fillna(0)


def mean_of(rows: pd.DataFrame, estimates: pd.Series) -> pd.DataFrame:
    """mse, mse_low and mse_high of the mean of so many estimates, for each of annotated rows.

    What is called unbiased has none in the mse, rather than the noise of its mean; the interval
    keeps what it may have.
    """
    taken = rows["verdict"].ne("unbiased") | rows["bias_sq_low"].eq(rows["bias_sq_high"])
    found = rows["bias_sq"].where(taken, 0.0).clip(lower=0)
    variance = {end: rows[f"variance{end}"] / estimates for end in _ENDS}
    below = np.hypot(
        found - rows["bias_sq_low"].clip(lower=0, upper=found), variance[""] - variance["_low"]
    )
    above = np.hypot((rows["bias_sq_high"] - found).clip(lower=0), variance["_high"] - variance[""])
    mse = found + variance[""]
    return pd.DataFrame({"mse": mse, "mse_low": mse - below, "mse_high": mse + above})


def crossovers(rows: pd.DataFrame) -> pd.DataFrame:
    """Where each biased row of a section is first overtaken by an unbiased one, in passes.

    No budget is smaller than what one estimate of the rival costs.  `when` says `always` where
    the rival is better as soon as it can be paid for, also at the upper end of the interval, and
    `never` where it is so at no budget.  The interval is that of the pair, by the facing ends of
    the intervals of its parts.
    """
    rows = rows.assign(passes=passes(rows))
    parts = [f"{column}{end}" for column in ("bias_sq", "variance") for end in _ENDS]
    known = tables.usable(rows[["passes", *parts]]).notna().all(axis=1)
    rows = rows[rows["passes"].gt(0) & known & rows["variance"].ge(0)]
    rivals = rows[rows["verdict"] == "unbiased"]
    found = []
    for biased in rows[rows["verdict"] == "biased"].to_dict("records"):
        pairs = [_pair(biased, rival) for rival in rivals.to_dict("records")]
        if pairs:
            found.append(min(pairs, key=lambda pair: (pair["budget"], pair["budget_low"])))
    return pd.DataFrame(found, columns=list(COLUMNS))


def _pair(biased: dict, rival: dict) -> dict[str, object]:
    least = rival["passes"]
    work = _difference(_work(rival), _work(biased))
    square = _Parts(*(max(biased[f"bias_sq{end}"], 0.0) for end in _ENDS))
    budget = _Parts(*(max(end, least) for end in _ratio(work, square)))
    when = "never" if np.isinf(budget.low) else "always" if budget.high <= least else ""
    return {
        "label": biased["label"],
        "overtaken_by": rival["label"],
        "passes": biased["passes"],
        "passes_of_rival": least,
        **{f"budget{end}": part for end, part in zip(_ENDS, budget, strict=True)},
        "when": when,
    }


def _work(row: dict) -> _Parts:
    return _Parts(*(row[f"variance{end}"] * row["passes"] for end in _ENDS))


def _difference(a: _Parts, b: _Parts) -> _Parts:
    """a − b of independent estimates: distances to facing ends add in quadrature (MOVER)."""
    value = a.value - b.value
    low = value - np.hypot(a.value - a.low, b.high - b.value)
    return _Parts(value, low, value + np.hypot(a.high - a.value, b.value - b.low))


def _ratio(n: _Parts, d: _Parts) -> _Parts:
    """n/d ≥ 0 of independent estimates, d ≥ 0, by inverting the interval of n − B d (MOVER-R).

    Donner & Zou, "Closed-form confidence intervals for functions of the normal mean and standard
    deviation", 2012.
    """
    value = n.value / d.value if d.value > 0 else np.inf
    low = _root(n, d, -1, n.value - n.low, d.high - d.value)
    high = _root(n, d, 1, n.high - n.value, d.value - d.low)
    return _Parts(max(value, 0.0) if n.value > 0 else 0.0, low, high)


def _root(n: _Parts, d: _Parts, sign: int, across: float, along: float) -> float:
    """The B ≥ 0 where n − B d ± √(across² + (B along)²) is zero, with this sign.

    It falls with B; 0 where it is not positive at 0, infinite where it stays positive.
    """
    if n.value + sign * across <= 0:
        return 0.0
    # (d² − along²) B² − 2 n d B + (n² − across²) = 0
    square, constant = d.value**2 - along**2, n.value**2 - across**2
    root = max((n.value * d.value) ** 2 - square * constant, 0.0) ** 0.5
    half = n.value * d.value + root
    top, bottom = (half, square) if sign > 0 else (constant, half)  # the other root cancels
    return top / bottom if bottom > 0 else np.inf
