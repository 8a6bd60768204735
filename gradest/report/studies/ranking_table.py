"""The table of a ranking: a number and its uncertainty in each cell, for documents and papers.

In a paper, bold follows the ranking, which rests on tests of differences, and stands in the column
that rows are ranked by: the first rank except for exact zeros, and only where another row differs
from it significantly.  Other columns have no such tests, so that no number in them is called best.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradest.report.documents.document import Strong, Table, Tagged
from gradest.report.documents.latex import Environment
from gradest.report.frames import tables
from gradest.report.frames.ranking import LEVEL
from gradest.report.frames.rankings import Ranking, Section
from gradest.report.studies.numerics import ranked_dtypes
from gradest.report.studies.study import BEST
from gradest.statistics import BIASED_BELOW, UNBIASED_WITHIN, Interval
from gradest.support import Parts, Quantity, count, interval, markup, number, share

_HEADERS = (
    *("rank", "estimator", "verdict", "replicates", "relative bias, %", "variance", "MSE"),
    *(
        "cosine with g",
        "evaluations of f",
        "memory, bytes",
        "µs per estimate",
        "variance × evaluations",
    ),
)
_RESCALING = ("best scale", "bias after rescaling, %")  # after the relative bias
_MISSED, _UNPROVEN = "‡", "†"
_TAGS = {"unbiased": "good", "biased": "bad", "inconclusive": "unsure"}
_MARKS = {"unbiased": "•", "inconclusive": "⊙", "biased": "∘"}
_VERDICTS = {
    "unbiased": f"unbiased (within {100 * UNBIASED_WITHIN:g} %)",
    "inconclusive": "inconclusive",
    "biased": "biased",
}
_F = "\N{MATHEMATICAL ITALIC SMALL F}"
_PAPER_HEADERS = {
    "bias": "relative\nbias, %",
    "variance": "variance",
    "mse": "MSE",
    "evaluations": f"evals\nof {_F}",
    "work": "variance\n× evals",
}
_EVALS_NOTE = f"Evals are the evaluations of {_F} per estimate."
_PAPER_NOTE = (
    "Small numbers are the distances to the ends of the 95 % interval; < marks an upper limit "
    "where the bias may be zero; enumerated numbers are exact."
)


def ranking_table(rows: pd.DataFrame) -> Table:
    """Ranked rows as a table; what a rescaling changes is in it where some row is biased."""
    rescaled = (rows["verdict"].eq("biased") & rows["best_scale"].notna()).any()
    headers, lines = list(_HEADERS), [_line(row) for _, row in rows.iterrows()]
    if rescaled:
        place = headers.index("relative bias, %") + 1
        headers[place:place] = _RESCALING
        for line, (_, row) in zip(lines, rows.iterrows(), strict=True):
            residual = Interval.of(row, "relative_bias_rescaled") * 100
            line[place:place] = [
                interval(*Interval.of(row, "best_scale").ends),
                interval(*residual.ends),
            ]
    return Table(headers, lines, left=4)


def ranking_notes(rows: pd.DataFrame) -> Iterator[str]:
    """Remarks that concern only some rows of a ranking."""
    yield from _origins(rows)
    if rows.apply(_is_unproven, axis=1).any():
        yield (
            f"{_UNPROVEN} Inconclusive although the interval of the bias excludes 0: without any "
            "bias this happens in one of twenty intervals, whereas the test has a level of "
            f"{100 * BIASED_BELOW:g} % and allows for outcomes that are too rare to have been "
            "drawn. More replicates would decide."
        )
    for note, part in rows[rows["note"].map(bool) & rows["note"].notna()].groupby("note"):
        labels = "All rows" if len(part) == len(rows) else ", ".join(part["label"])
        yield f"{markup.escape(labels)}: {markup.escape(str(note))}."
    short = rows[rows["precision"].map(_is_missed)]
    if not short.empty:
        named = [f"{label}: {text}" for label, text in short[["label", "precision"]].to_numpy()]
        listed = markup.escape("; ".join(named))
        yield f"{_MISSED} The requested precision was not reached: {listed}."
    estimated = rows[rows["reference"].eq("monte_carlo")]
    if not estimated.empty:
        by = estimated["reference_by"].fillna("an unbiased estimator").iloc[0]
        yield (
            "The exact gradient is unknown; it is replaced by the mean of many estimates of "
            f"{markup.escape(by)}, whose noise is part of every interval."
        )
    nonfinite = rows[rows["nonfinite"] > 0]
    if not nonfinite.empty:
        named = ", ".join(nonfinite["label"])
        yield f"Some estimates are not finite: {markup.escape(named)}. See [Numerics](#numerics)."


def _origins(rows: pd.DataFrame) -> Iterator[str]:
    """Where rows are from that were not measured in this run."""
    for name in rows["origin"].dropna().unique():
        yield f"{tables.STAND_IN} Not measured in this run: the row of {markup.escape(name)}."


PAPER_COLUMNS = tuple(_PAPER_HEADERS)


def ranking_environment(
    section: Section, ranking: Ranking, shown: Sequence[str] = PAPER_COLUMNS
) -> Environment:
    """The table for papers: for each ranked dtype the exact zeros, then the other rows.

    It has those of PAPER_COLUMNS that are `shown`, and that are known.
    """
    rows = ranking.rows[ranking.rows["dtype"].isin(ranked_dtypes(ranking.rows))]
    rows = rows.assign(name=_short_labels(rows))
    by = tables.ranking_column(rows)
    known = [c for c in _PAPER_HEADERS if by == "mse" or c not in ("bias", "mse")]
    columns = [c for c in known if c in shown]
    blocks = [
        block
        for _, part in rows.groupby("dtype", sort=False)
        for block in (part[part[by].eq(0)], part[~part[by].eq(0)])
        if len(block)
    ]
    headers = ["", "estimator", *(_PAPER_HEADERS[c] for c in columns)]
    symbol = tables.SYMBOLS.get(ranking.parameter, ranking.parameter)
    return Environment(
        f"Gradient estimators on {section.label}, sorted by the {tables.RANKED_BY[by]} of one "
        f"estimate of the gradient in {symbol}.",
        " ".join(_paper_notes(rows, columns, by, any(_are_best(block).any() for block in blocks))),
        [
            Table(
                headers,
                [
                    _paper_line(row, columns, by if best else "")
                    for (_, row), best in zip(block.iterrows(), _are_best(block), strict=True)
                ],
                left=2,
            )
            for block in blocks
        ],
    )


def _line(row: pd.Series) -> list[str]:
    return [
        _rank(row),
        row["label"],
        _verdict(row),
        _replicates(row),
        interval(*(Interval.of(row, "relative_bias") * 100).ends),
        interval(*Interval.of(row, "variance").ends),
        interval(*Interval.of(row, "mse").ends),
        interval(*Interval.normal(row["cosine"], row["cosine_se"]).ends),
        _evaluations(row),
        count(np.round(row["memory"])),
        interval(*(Interval.of(row, "seconds") * 1e6).ends),
        _work(row),
    ]


def _rank(row: pd.Series) -> Quantity:
    ratio = row["detectable_ratio"]
    after = "" if np.isnan(ratio) else " (=)" if ratio == 1 else f" (×{number(ratio)})"
    return count(row["rank"]).surrounded(after=after)


def _verdict(row: pd.Series) -> str:
    # Of an enumerated bias, the detectable one is rounding.
    decided = row["verdict"] == "biased" or row["method"] == "enumerated"
    shown = not decided and not np.isnan(row["detectable_bias"])
    detectable = f" ({share(row['detectable_bias'])})" if shown else ""
    verdict = str(row["verdict"]) if isinstance(row["verdict"], str) else "n/a"
    text = verdict + detectable + (f" {_UNPROVEN}" if _is_unproven(row) else "")
    return Tagged(text, _TAGS.get(verdict, "unsure"))


def _is_unproven(row: pd.Series) -> bool:
    """Whether the interval of the bias excludes 0 while the test does not reject."""
    drawn, excluded = row["method"] != "enumerated", row["relative_bias_low"] > 0
    return bool(drawn and excluded and row["verdict"] == "inconclusive")


def _replicates(row: pd.Series) -> Quantity:
    if row["method"] == "enumerated":
        after = "" if np.isnan(row["outcomes"]) else f" ({count(row['outcomes'])})"
        return Quantity(f"exact{after}", Parts(np.inf))
    return count(row["replicates"]).surrounded(
        after=f" {_MISSED}" if _is_missed(row["precision"]) else ""
    )


def _is_missed(precision: Any) -> bool:
    return isinstance(precision, str) and precision not in ("", "reached")


def _evaluations(row: pd.Series) -> Quantity:
    backward = row["gradient_evaluations"]
    after = f" + {count(backward)}" if backward > 0 else ""
    return count(row["evaluations"]).surrounded(after=after)


def _work(row: pd.Series) -> Quantity:
    return interval(*(Interval.of(row, "variance") * row["evaluations"]).ends, ends=False)


def _short_labels(rows: pd.DataFrame) -> list[str]:
    """Labels without the knobs that all rows of an estimator share, which the notes name."""
    shared = {name: _shared_knobs(part) for name, part in rows.groupby("estimator")}
    return [
        tables.label(name, {k: v for k, v in settings.items() if k not in shared[name]})
        if label == tables.label(name, settings)
        else label
        for name, label, settings in rows[["estimator", "label", "settings"]].itertuples(
            index=False
        )
    ]


def _shared_knobs(rows: pd.DataFrame) -> dict[str, Any]:
    first, *others = rows["settings"]
    return {k: v for k, v in first.items() if all(k in each and each[k] == v for each in others)}


def _are_best(rows: pd.DataFrame) -> pd.Series:
    """The rows of a block that share its first rank, if another row differs from them."""
    first = rows["rank"].min()
    return rows["rank"].eq(first) & rows["rank"].gt(first).any()


def _paper_line(row: pd.Series, columns: Sequence[str], best: str) -> list[str]:
    marks = _MARKS.get(row["verdict"], "")
    marks += _UNPROVEN if _is_unproven(row) else ""
    marks += _MISSED if _is_missed(row["precision"]) else ""
    numbers = {
        "bias": _bias(row),
        "variance": interval(*Interval.of(row, "variance").ends),
        "mse": interval(*Interval.of(row, "mse").ends),
        "evaluations": _evaluations(row),
        "work": _work(row),
    }
    if best:
        numbers[best] = numbers[best].in_bold()
    name = Strong(row["name"]) if best else row["name"]
    return [marks, name, *(numbers[c] for c in columns)]


def _bias(row: pd.Series) -> Quantity:
    """In percent; an upper limit where it may be zero."""
    bias, low, high = (Interval.of(row, "relative_bias") * 100).ends
    if low == 0 < high:
        return number(high).surrounded("< ").sorted_by(bias)
    return interval(bias, low, high)


def _paper_notes(rows: pd.DataFrame, columns: Sequence[str], by: str, best: bool) -> Iterator[str]:
    """How to read the table; remarks on some rows and columns only where they occur."""
    used = [v for v in _MARKS if rows["verdict"].eq(v).any()]
    yield f"{', '.join(f'{_MARKS[v]} {_VERDICTS[v]}' for v in used)}."
    if {"evaluations", "work"} & set(columns):
        yield _EVALS_NOTE
    yield _PAPER_NOTE
    yield from _origins(rows)
    if best:
        yield BEST.format(by=tables.RANKED_BY[by], level=100 * LEVEL)
    short = rows[rows["name"].ne(rows["label"])]
    fixed = [tables.label(name, _shared_knobs(part)) for name, part in short.groupby("estimator")]
    if fixed:
        yield f"Knobs with one value: {'; '.join(fixed)}."
    if "evaluations" in columns and rows["gradient_evaluations"].gt(0).any():
        yield "The number after a plus counts the evaluations with a backward pass."
    if rows.apply(_is_unproven, axis=1).any():
        yield (
            f"{_UNPROVEN} the interval of the bias excludes 0, the test at "
            f"{100 * BIASED_BELOW:g} % does not reject."
        )
    if rows["precision"].map(_is_missed).any():
        yield f"{_MISSED} the requested precision was not reached."
    if rows["reference"].eq("monte_carlo").any():
        yield "The true gradient is estimated; its noise is part of the intervals."
