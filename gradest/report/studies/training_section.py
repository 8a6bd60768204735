"""The section of a report on what becomes of models that are trained with each estimator."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from gradest.markdown import escape
from gradest.quantities import count, interval, number
from gradest.report.documents.document import Part, Table
from gradest.report.frames import tables
from gradest.report.frames.curves import final

_HEADERS = (
    *("rank", "estimator", "learning rate", "seeds", "test −log p(x)", "test −ELBO"),
    *("steps", "seconds of training"),
)
_READING = (
    "Costs in nats for a data point, lower is better, with hard codes whatever the estimator "
    "relaxed in training. *−log p(x)*, by which rows are ranked, is its bound −log 1/m Σ p(x, zᵢ)/"
    "q(zᵢ | x) with m = {samples} codes, of the test data. "
    "Brackets are 95 % intervals: over seeds, at this test set, where there are several; of one "
    "seed over test data, at this training. A row shares the rank of those above it unless a test "
    "tells it apart from the first row with that rank, at 5 % for all pairs of a table (Holm)."
)
_CHOSEN = (
    " Of several learning rates the one is shown whose negative ELBO of the validation data was "
    "lowest at the end."
)


def section(points: pd.DataFrame, settings: Mapping[str, Any]) -> Iterator[Part]:
    """One table a task, and what was not trained; `settings` are those of the trainings."""
    if points.empty:
        return
    yield "## Training"
    samples = settings.get("evaluation", {}).get("test_samples", "m")
    yield _READING.format(samples=samples) + (_CHOSEN if points["rates"].gt(1).any() else "")
    falling = settings.get("anneal") or {}
    if falling:
        yield "Labels show where an annealed knob begins: " + ", ".join(map(escape, falling)) + "."
    for task, rows in final(points[points["status"] == "ok"]):
        yield f"### {escape(str(task))}"
        knobs = points.loc[points["task_label"].eq(task), "task_params"].iloc[0]
        yield escape(", ".join(f"{k} = {tables.plain(v)}" for k, v in tables.knobs(knobs).items()))
        yield ranking(rows)
    lost = points[points["status"] != "ok"]
    if not lost.empty:
        yield "### Not trained"
        yield "\n".join(map(_lost, lost.to_dict("records")))
    yield "All points of all curves, unrounded: `training.parquet` and `training.csv`"


def ranking(rows: pd.DataFrame) -> Table:
    """Ranked trainings of one task, as `gradest.report.frames.curves.final` has them."""
    return Table(_HEADERS, [_line(row) for row in rows.to_dict("records")], left=2)


def _lost(row: dict) -> str:
    which = f"seed {row['seed']}"
    if row["rates"] > 1:
        which += f", learning rate {number(row['learning_rate'])}"
    named = f"{escape(row['label'])} on {escape(row['task_label'])}"
    return f"- {named}, {which}: {row['status']}: {escape(row['reason'])}"


def _line(row: dict) -> list[str]:
    ends = ("value", "low", "high")
    return [
        "" if pd.isna(row["rank"]) else count(row["rank"]),
        row["label"],
        number(row["learning_rate"]),
        count(row["seeds"]),
        *(interval(*(row[f"{end}_{metric}"] for end in ends)) for metric in ("bound", "elbo")),
        count(row["step"]),
        number(row["seconds"]),
    ]
