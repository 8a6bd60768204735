"""A measurement as an HTML table, for notebooks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradest.measurement.parameters import SYMBOLS
from gradest.statistics import BIASED_BELOW, UNBIASED_WITHIN, Interval
from gradest.support import count, interval, markup, share

_HEADERS = ("gradient in", "verdict", "relative bias, %", "variance", "MSE", "cosine with g")
_VERDICTS = {
    "biased": f"biased at a level of {100 * BIASED_BELOW:g} %",
    "unbiased": f"unbiased, within {100 * UNBIASED_WITHIN:g} %",
}


def measurement_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each of the rows of one measurement, which differ in the parameter.

    Numbers below the size of rounding errors are shown as zero.
    """
    first = rows[0]
    caption = f"{title}: {_protocol(first)}" if title else _protocol(first)
    if first["nonfinite"]:
        caption += f"; {share(first['nonfinite'])} of the estimates are NaN or infinite"
        return markup.html_table((), [], 0, caption)
    return markup.html_table(_HEADERS, [_cells(row) for row in rows], 2, caption)


def _protocol(row: Mapping[str, Any]) -> str:
    outcomes, replicates = row["outcomes"], row["replicates"]
    protocol = f"{replicates:,} replicates"
    if outcomes is not None:
        protocol = f"exact, {outcomes:,} outcome{'s' if outcomes > 1 else ''}"
    evaluations = count(row["evaluations"])
    if row["gradient_evaluations"]:
        evaluations += f" + {count(row['gradient_evaluations'])} backward"
    return f"{protocol}; evaluations of f per estimate: {evaluations}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    scale = row["scale"]
    least = row["rounding"] ** 2
    bias, variance = (
        Interval.of(row, name).map(lambda end: _zero_if_rounding(end, least))
        for name in ("bias_sq", "variance")
    )
    bias = bias.clipped(0.0)
    relative = bias.map(lambda end: 100 * end**0.5 / scale if scale else math.nan)
    return [
        SYMBOLS.get(row["parameter"], row["parameter"]),
        _verdict(row),
        interval(*relative.ends),
        interval(*variance.ends),
        interval(*(bias + variance).clipped(0.0).ends),
        interval(*Interval.normal(row["cosine"], row["cosine_se"]).ends),
    ]


def _zero_if_rounding(square: float, least: float) -> float:
    return 0.0 if square <= least else square


def _verdict(row: Mapping[str, Any]) -> str:
    verdict = row["verdict"]
    if verdict in _VERDICTS:
        chance = row["outcomes"] is None or row["reference"] == "monte_carlo"
        return _VERDICTS[verdict] if chance else verdict
    if row["note"]:
        return f"{verdict}: {row['note']}"
    return f"{verdict}: smallest detectable bias {share(row['detectable_bias'])}"
