"""The rows of a ranking: one cell a number and its uncertainty."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from gradest.inference import BIASED_BELOW
from gradest.markdown import escape
from gradest.quantities import Quantity, count, interval, number, plus_minus, share
from gradest.report.documents.document import Table, Tagged

_HEADERS = (
    *("rank", "estimator", "verdict", "replicates", "relative bias, %", "variance", "mse"),
    *("cosine with g", "evaluations of f", "bytes", "µs per estimate", "variance × evaluations"),
)
MISSED, UNPROVEN = "‡", "†"
_TAGS = {"unbiased": "good", "biased": "bad", "inconclusive": "unsure"}


def ranking(rows: pd.DataFrame) -> Table:
    """Ranked rows as a table."""
    return Table(_HEADERS, [_cells(row) for _, row in rows.iterrows()], left=4)


def _cells(row: pd.Series) -> list[str]:
    bias = [100 * row[f"relative_bias{end}"] for end in ("", "_low", "_high")]
    micro = [1e6 * row[f"seconds{end}"] for end in ("", "_low", "_high")]
    work = [row[f"variance{end}"] * row["evaluations"] for end in ("", "_low", "_high")]
    return [
        _rank(row),
        row["label"],
        _verdict(row),
        _replicates(row),
        interval(*bias),
        interval(*(row[f"variance{end}"] for end in ("", "_low", "_high"))),
        interval(*(row[f"mse{end}"] for end in ("", "_low", "_high"))),
        plus_minus(row["cosine"], row["cosine_se"]),
        evaluations(row),
        count(np.round(row["memory"])),
        interval(*micro),
        interval(*work, ends=False),
    ]


def _rank(row: pd.Series) -> str:
    ratio = row["detectable_ratio"]
    behind = "" if np.isnan(ratio) else " (=)" if ratio == 1 else f" (×{number(ratio)})"
    return Quantity(count(row["rank"]) + behind, row["rank"])


def _verdict(row: pd.Series) -> str:
    # Enumerated, what would have been found is rounding.
    found = row["verdict"] == "biased" or row["method"] == "enumerated"
    known = not found and not np.isnan(row["detectable_bias"])
    told = f" ({share(row['detectable_bias'])})" if known else ""
    verdict = str(row["verdict"]) if isinstance(row["verdict"], str) else "n/a"
    text = verdict + told + (f" {UNPROVEN}" if unproven(row) else "")
    return Tagged(text, _TAGS.get(verdict, "unsure"))


def unproven(row: pd.Series) -> bool:
    """Whether the interval of the bias excludes 0, which the test does not bear out."""
    drawn, excluded = row["method"] != "enumerated", row["relative_bias_low"] > 0
    return bool(drawn and excluded and row["verdict"] == "inconclusive")


def _replicates(row: pd.Series) -> str:
    if row["method"] == "enumerated":
        behind = "" if np.isnan(row["outcomes"]) else f" ({count(row['outcomes'])})"
        return Quantity("exact" + behind, np.inf)
    behind = f" {MISSED}" if missed(row["precision"]) else ""
    return Quantity(count(row["replicates"]) + behind, row["replicates"])


def missed(precision: Any) -> bool:
    return isinstance(precision, str) and precision not in ("", "reached")


def evaluations(row: pd.Series) -> str:
    backward = row["gradient_evaluations"]
    behind = f" + {count(backward)}" if backward > 0 else ""
    return Quantity(count(row["evaluations"]) + behind, row["evaluations"])


def notes(rows: pd.DataFrame) -> Iterator[str]:
    """What must be said of some rows of a ranking only."""
    if rows.apply(unproven, axis=1).any():
        yield (
            f"{UNPROVEN} Inconclusive although the interval of the bias excludes 0: that has one "
            f"chance in twenty to do so without any bias, whereas the test rejects at "
            f"{100 * BIASED_BELOW:g} %, and allows for what outcomes too rare to have been drawn "
            "would add. More replicates would tell."
        )
    for note, some in rows[rows["note"].map(bool) & rows["note"].notna()].groupby("note"):
        who = "All rows" if len(some) == len(rows) else ", ".join(some["label"])
        yield f"{escape(who)}: {escape(str(note))}."
    short = rows[rows["precision"].map(missed)]
    if not short.empty:
        named = [f"{label}: {said}" for label, said in short[["label", "precision"]].to_numpy()]
        yield f"{MISSED} The precision asked for was not reached: {escape('; '.join(named))}."
    estimated = rows[rows["reference"].eq("monte_carlo")]
    if not estimated.empty:
        by = estimated["reference_by"].fillna("an unbiased estimator").iloc[0]
        yield (
            f"The exact gradient is not known here: the mean of many estimates of {escape(by)} "
            "stands for it, and its own noise is part of every interval."
        )
    some = rows[rows["nonfinite"] > 0]
    if not some.empty:
        named = ", ".join(some["label"])
        yield f"Not all estimates are finite: {escape(named)}. See [Numerics](#numerics)."
