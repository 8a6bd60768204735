"""The report of what changed between runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradest.analysis import runs, tables
from gradest.analysis.differences import (
    BETTER,
    CHANGED,
    LEVEL,
    MEASUREMENT,
    PROPERTY,
    SAME,
    TRAINING,
    UNTOLD,
    WORSE,
    differences,
    parameters,
    regressions,
)
from gradest.analysis.ranking import POWER
from gradest.analysis.runs import Run
from gradest.errors import UsageError
from gradest.files import write_frame, write_text
from gradest.markdown import escape
from gradest.plots.comparison import NAMED, comparison
from gradest.quantities import Quantity, count, interval, number
from gradest.report import document, figures
from gradest.report.document import Part, Picture, Strong, Table
from gradest.report.prose import listed

_FIGURE = "comparison"
_TABLES = ("differences.csv", "differences.parquet")
_LONGEST = 60  # rows of a table of what is not told apart, or of times
_JUDGED = (WORSE, BETTER, CHANGED, UNTOLD, SAME)
_FACTS = (
    *("suite", "command", "started", "commit", "versions", "machine", "seeds", "replicates"),
    *("precision", "dtype", "training"),
)
_OWN = ("command", "started")  # of every run, and no difference
_NAMES = {
    "variance": "variance",
    "mean": "mean of the estimates",
    "bias": "norm of the bias",
    "gradient": "exact gradient",
    "evaluations": "evaluations of f",
    "gradient_evaluations": "backward passes",
    "negative_bound": "test −log p(x)",
    "property": "property",
    "status": "status",
}
_READING = f"""\
**How to read it.** Brackets are 95 % intervals, each by itself. What is called *worse*, *better* \
or *changed* is so by a test at {100 * LEVEL:g} % for all tests of this report together (Holm): \
had nothing changed, a report in {1 / LEVEL:g} would say that something did. Variances are \
compared by their ratio, means of estimates by one test of all coordinates of log α; that the norm \
of the bias is better or worse is said only where the mean has changed. A mean that has changed \
while its distance to the truth may be the same is *changed*. *The same* is equality up to \
rounding; what is enumerated, and evaluations of f, are compared without chance. *Cannot tell \
apart* is no proof of equality: beside it is the smallest change that would have been found with \
a probability of {100 * POWER:g} %."""
_SHARED = (
    "Of a cell that both runs measured with the same seed those seeds alone are compared. Their "
    "draws may be the same ones: the noise that they share cancels in a difference, but not in its "
    "interval, which is then too wide."
)
_APART = (
    "Where no seed is shared the runs are independent repetitions, and all their seeds are taken "
    "together, as more batches of the same measurement."
)
_TIMES = (
    "Medians of the timing rounds, and their range, over the seeds compared. They are not judged{}."
)
_PICTURE = (
    "Left the ratio of the variances, right the change of the norm of the bias in percent of ‖g‖, "
    "{parameter}, with 95 % intervals, the strongest evidence first; an open point is the same up "
    "to rounding. Colour is significance for all tests together; *changed* is a mean that moved "
    "without a norm that did.{rest}"
)


def write_comparison(folders: Sequence[Path], out: Path) -> tuple[Path, pd.DataFrame]:
    """Compare the runs in the folders with the first: comparison.md, differences.* and figures.

    Returns the path of comparison.md and the frame of `gradest.analysis.differences`.  The runs
    are left as they are.  Raises UsageError for folders that are no runs, for the same one twice,
    and for an `out` that holds a run.
    """
    found = runs.read(folders)
    if (out / "run.json").exists() or (out / "journal.jsonl").exists():
        raise UsageError(f"{out}: holds a run; name another folder for the comparison with --out")
    frame = differences(found)
    for name in _TABLES:
        write_frame(out / name, frame)
    drawn = comparison(frame)
    if drawn:
        figures.save({_FIGURE: drawn}, out / "figures")
    else:
        for suffix in figures.SUFFIXES:
            (out / "figures" / f"{_FIGURE}{suffix}").unlink(missing_ok=True)
    path = out / "comparison.md"
    write_text(path, document.markdown(list(_parts(found, frame, drawn is not None))))
    return path, frame


def told(rows: pd.DataFrame, several: bool) -> list[str]:
    """A line of plain text for each row, as for a terminal; of `several` runs which one it is."""
    return [" ".join(_told(row, several).split()) for row in rows.to_dict("records")]


def _told(row: Mapping[str, Any], several: bool) -> str:
    where = f"{row['label']} on {row['task_label']}"
    where = f"{where} in {row['run']}" if several else where
    what = _quantity(row)
    if row["quantity"] == "status":
        return f"{row['judgement']}: {where}: {row['other_status']}: {row['reason']}"
    sure = "exact" if math.isnan(row["p_holm"]) else f"p = {row['p_holm']:.2g}"
    return f"{row['judgement']}: {what} of {where}: {_change(row)}, {sure}"


def _parts(found: Sequence[Run], frame: pd.DataFrame, drawn: bool) -> Iterator[Part]:
    """The document, in the order in which it is read."""
    base, *others = found
    names = " and ".join(escape(run.name) for run in others)
    yield f"# {names} against {escape(base.name)}"
    yield _summary(frame)
    yield _counts(frame)
    yield _READING
    yield f"{_SHARED} {_APART}"
    yield "## The runs"
    yield _facts(found)
    for judgement in (WORSE, BETTER, CHANGED):
        yield from _judged(frame, judgement)
    if drawn:
        yield "## Figure"
        yield _picture(frame)
    yield from _untold(frame)
    yield from _trainings(frame)
    yield from _properties(frame)
    yield from _times(found, frame)
    yield from _missing(frame)
    yield ("Every quantity of every cell, unrounded: `differences.csv` and `differences.parquet`")


def _summary(frame: pd.DataFrame) -> str:
    found = frame["judgement"].value_counts()
    tests = int(frame["p_value"].notna().sum())
    said = [f"{found[word]:,} {word}" for word in (WORSE, BETTER, CHANGED) if word in found]
    verdict = f"**{', '.join(said)}**" if said else "**Nothing is told apart from the baseline**"
    lost = len(regressions(frame))
    more = (
        f" {lost:,} of them {'is a regression' if lost == 1 else 'are regressions'}: a variance or "
        "a bias that is worse, or a cell that no longer gives finite numbers."
        if lost
        else ""
    )
    return f"{verdict}, by {tests:,} tests at {100 * LEVEL:g} % for all of them together.{more}"


def _counts(frame: pd.DataFrame) -> Part:
    rows = []
    for quantity, name in _NAMES.items():
        part = frame.loc[frame["quantity"].eq(quantity), "judgement"].value_counts()
        if not part.empty:
            rows.append([name, *(count(part.get(word, 0)) for word in _JUDGED)])
    return Table(("quantity", *_JUDGED), rows, left=1)


def _facts(found: Sequence[Run]) -> Table:
    """What run.json says of each, and in bold where they differ."""
    flat = [_flat(run.facts) for run in found]
    rows = []
    for name in dict.fromkeys(name for facts in flat for name in facts):
        said = [facts.get(name, "") for facts in flat]
        differ = len(set(said)) > 1 and name not in _OWN
        rows.append([name, *(Strong(text) if differ and text else text for text in said)])
    named = [f"{run.name}{' (baseline)' if n == 0 else ''}" for n, run in enumerate(found)]
    return Table(("", *named), rows, left=1 + len(found))


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _FACTS:
        value = facts.get(name)
        if name in ("versions", "machine") and isinstance(value, Mapping):
            found |= {str(key): str(each) for key, each in value.items()}
        elif name == "command" and isinstance(value, Sequence):
            found[name] = " ".join(map(str, value))
        elif value is not None:
            found[name] = listed(value)
    return found


def _judged(frame: pd.DataFrame, judgement: str) -> Iterator[Part]:
    rows = frame[frame["judgement"].eq(judgement) & frame["kind"].ne(PROPERTY)]
    if rows.empty:
        return
    yield f"## {judgement.capitalize()}"
    lines = [
        [
            *_where(row, frame),
            _quantity(row),
            *_sides(row),
            _change(row),
            _p(row),
            row["reason"],
        ]
        for row in rows.to_dict("records")
    ]
    headers = (*_headers(frame), "quantity", "baseline", "other", "change", "p (Holm)", "note")
    yield Table(headers, lines, left=len(_headers(frame)) + 1)


def _headers(frame: pd.DataFrame) -> list[str]:
    return [*(["run"] if frame["run"].nunique() > 1 else []), "task", "estimator"]


def _where(row: Mapping[str, Any], frame: pd.DataFrame) -> list[str]:
    run = [row["run"]] if frame["run"].nunique() > 1 else []
    return [*run, row["task_label"], row["label"]]


def _quantity(row: Mapping[str, Any]) -> str:
    name = _NAMES.get(row["quantity"], row["quantity"])
    inside = tables.SYMBOLS.get(row["parameter"], row["parameter"])
    return f"{name} in {inside}" if inside else name


def _sides(row: Mapping[str, Any]) -> list[str]:
    if row["quantity"] == "status":
        return [row["base_status"], row["other_status"]]
    return [
        interval(*(row[f"{side}{end}"] for end in ("", "_low", "_high")))
        for side in ("base", "other")
    ]


def _change(row: Mapping[str, Any]) -> str:
    """`×1.10 [1.08, 1.12]`, or a difference, in percent of ‖g‖ where that is known."""
    if row["quantity"] == "status" or math.isnan(row["change"]):
        return ""
    ends = np.array([row["change"], row["low"], row["high"]])
    if row["scale"] == "ratio":
        return Quantity(f"×{interval(*ends)}", abs(math.log(max(ends[0], 1e-300))))
    if row["gradient_norm"] > 0:
        said = interval(*(100 * ends / row["gradient_norm"]))
        return Quantity(f"{said} % of ‖g‖", said.order)
    return interval(*ends)


def _p(row: Mapping[str, Any]) -> str:
    return Quantity("exact", 0.0) if math.isnan(row["p_holm"]) else number(row["p_holm"])


def _picture(frame: pd.DataFrame) -> Picture:
    first = parameters(frame)[0]
    variances = frame[frame["quantity"].eq("variance") & frame["parameter"].eq(first)]
    beyond = len(variances) - NAMED
    rest = f" The {beyond:,} lines below those with a name have the least." if beyond > 0 else ""
    symbol = escape(tables.SYMBOLS.get(first, first))
    return Picture(
        _FIGURE,
        "Variance and bias of every cell against the baseline",
        _PICTURE.format(parameter=f"with respect to {symbol}", rest=rest),
    )


def _untold(frame: pd.DataFrame) -> Iterator[Part]:
    """A line a cell, in the first parameter: the others are in the file."""
    rows = frame[frame["judgement"].eq(UNTOLD) & frame["kind"].eq(MEASUREMENT)]
    rows = rows[rows["quantity"].isin(["variance", "mean"])]
    if rows.empty:
        return
    first = parameters(frame)[0]
    rows = rows[rows["parameter"].eq(first) | rows["quantity"].eq("mean")]
    cell = ["run", "task_label", "label", "base_seeds", "other_seeds"]
    groups = [part.set_index("quantity") for _, part in rows.groupby(cell, sort=False)]
    groups.sort(key=lambda part: part["p_value"].fillna(1.0).min())
    symbol = escape(tables.SYMBOLS.get(first, first))
    yield "## Cannot be told apart"
    yield (
        f"Variances in {symbol}, means in log α; a dash is what was told apart, or is the same. "
        "Behind each is the smallest change that would have been found."
    )
    lines = [
        [
            *_where(part.iloc[0], frame),
            *_pair(part, "variance", lambda row: f"×{number(row['detectable'])}"),
            *_pair(part, "mean", lambda row: _change(row | _only(row["detectable"]))),
            next((reason for reason in part["reason"] if reason), ""),
        ]
        for part in groups[:_LONGEST]
    ]
    headers = (*_headers(frame), "ratio of variances", "found from", "means apart", "found from")
    yield Table((*headers, "note"), lines, left=len(_headers(frame)))
    if len(groups) > _LONGEST:
        yield f"{len(groups) - _LONGEST:,} more cells are in the file."


def _only(value: float) -> dict[str, float]:
    return dict.fromkeys(("change", "low", "high"), value)


def _pair(part: pd.DataFrame, quantity: str, found: Any) -> list[str]:
    if quantity not in part.index:
        return ["—", "—"]
    row = part.loc[quantity].to_dict() | {"quantity": quantity}
    return [_change(row), "not tested" if math.isnan(row["detectable"]) else found(row)]


def _trainings(frame: pd.DataFrame) -> Iterator[Part]:
    rows = frame[frame["kind"].eq(TRAINING) & frame["quantity"].ne("status")]
    if rows.empty:
        return
    yield "## Trainings"
    yield (
        "The bound of the test data at the end, nats for a data point, lower is better, at the "
        "learning rate that each run found best. Intervals are over seeds; of one seed alone they "
        "are over data points and say nothing of other trainings, so that nothing is tested."
    )
    lines = [
        [
            *_where(row, frame),
            row["setting"].partition("=")[2],
            *_sides(row),
            _change(row),
            number(row["detectable"]),
            row["judgement"],
        ]
        for row in rows.to_dict("records")
    ]
    headers = ("learning rate", "baseline", "other", "difference", "found from", "judgement")
    yield Table((*_headers(frame), *headers), lines, left=len(_headers(frame)))


def _properties(frame: pd.DataFrame) -> Iterator[Part]:
    rows = frame[frame["kind"].eq(PROPERTY)]
    if rows.empty:
        return
    yield "## Properties"
    moved = rows[rows["judgement"].ne(SAME)]
    yield (
        f"{len(rows) - len(moved):,} rows hold in both runs or in neither; "
        f"{len(moved):,} hold in one of them alone."
    )
    if not moved.empty:
        lines = [
            [*_where(row, frame), *_sides(row), row["base_status"], row["other_status"]]
            for row in moved.to_dict("records")
        ]
        *run, _, _ = _headers(frame)
        headers = ("property", "quantity", "baseline", "other", "in the baseline", "then")
        yield Table((*run, *headers), lines, left=2 + len(run))


def _times(found: Sequence[Run], frame: pd.DataFrame) -> Iterator[Part]:
    rows = frame[frame["quantity"].eq("seconds")]
    if rows.empty:
        return
    machines = {listed(run.facts.get("machine")) for run in found}
    yield "## Time"
    yield _TIMES.format(": the machines differ" if len(machines) > 1 else "")
    order = np.log(rows["change"].astype(float)).abs().sort_values(ascending=False).index
    lines = [
        [
            *_where(row, frame),
            *(
                interval(*(1e6 * row[f"{side}{end}"] for end in ("", "_low", "_high")))
                for side in ("base", "other")
            ),
            _change(row),
        ]
        for row in rows.loc[order].head(_LONGEST).to_dict("records")
    ]
    headers = ("baseline, µs per estimate", "other", "ratio")
    yield Table((*_headers(frame), *headers), lines, left=len(_headers(frame)))
    if len(rows) > _LONGEST:
        yield f"{len(rows) - _LONGEST:,} more, nearer to one, are in the file."


def _missing(frame: pd.DataFrame) -> Iterator[Part]:
    rows = frame[frame["quantity"].eq("status")]
    if rows.empty:
        return
    yield "## Not in both"
    order = rows["judgement"].map([*_JUDGED].index)
    rows = rows.loc[order.sort_values(kind="stable").index]
    lines = [
        [
            *_where(row, frame),
            row["base_seeds"] or row["other_seeds"],
            row["base_status"],
            row["other_status"],
            row["reason"],
        ]
        for row in rows.to_dict("records")
    ]
    headers = (*_headers(frame), "seeds", "baseline", "other", "reason")
    yield Table(headers, lines, left=len(headers))
