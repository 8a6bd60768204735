"""The general sections of a report: a summary of the run, and how to read the tables."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from gradest.report.documents.document import Folded, Part, Table
from gradest.report.formats import Formats
from gradest.report.frames import tables
from gradest.report.frames.ranking import LEVEL, POWER
from gradest.statistics import BIASED_BELOW, UNBIASED_WITHIN
from gradest.support import counted, listed, markup

_READING = f"""\
The gradient is that of E f(z), where z is a one-hot code: N latents with K categories each, for B \
data points, with probabilities proportional to α. A *cell* is one estimator with fixed \
hyperparameters (*knobs*) on one task; an estimator gives *estimates* ĝ of the exact gradient g, \
and *replicates* are independent estimates.

Variance is tr Cov(ĝ) of one estimate, over independent draws at fixed parameters: not over \
training steps and not over coordinates. Bias is the distance of E ĝ from the exact gradient g, \
debiased (the noise of the mean is subtracted) and relative to ‖g‖. Brackets are 95 % intervals, \
except for the time, where they are the range of the timing rounds. A verdict is *biased* if the \
family-wise test rejects "no bias" at {100 * BIASED_BELOW:g} %, *unbiased* if the upper end of \
the relative bias is below {100 * UNBIASED_WITHIN:g} %, and *inconclusive* otherwise; the number \
in parentheses is the relative bias that the test would detect with {100 * POWER:g} % power, \
where that is known. Headings name the parameter that the gradient is taken with respect to; \
figures show log α where it was measured.

Rows are ranked by mean squared error (MSE), the squared bias plus the variance of one estimate. \
A row shares the rank of the rows above it unless it differs significantly from the first row \
with that rank, at {100 * LEVEL:g} % for all pairs of a table together (Holm). The number in \
parentheses after a shared rank is the smallest ratio to that first row that the test would \
detect with {100 * POWER:g} % power; (=) is exact equality. Numbers that the dtype cannot \
distinguish from zero are written as 0.

*exact* in place of a number of replicates means that all outcomes of the draws, whose number \
follows in parentheses, were enumerated, so that the numbers have no sampling error. \
*Cosine with g* is the mean cosine of the angle between one estimate and g. *Evaluations of f* \
are those of one estimate; the number after a plus counts the evaluations that also have a \
backward pass. *Memory* is the peak of one estimate."""
_MOST_UNMEASURED = 200  # rows of the table of missing measurements
_NAMED = 3  # tasks in a row of it
_PROTOCOL = ("replicates", "precision", "dtype")
_FILES_OF_TRAININGS = "`run.json` describes the run."
_FILES = (
    "All data, unrounded: `measurements.parquet` and `measurements.csv` hold every row,{tables} "
    "and `run.json` describes the run."
)


def about(
    frame: pd.DataFrame, run: Mapping[str, Any], points: pd.DataFrame, descents: pd.DataFrame
) -> Iterator[Part]:
    """Title, summary of the run and instructions for reading.

    `points` are those of trainings of models, and `descents` those of descents of other tasks.
    """
    yield f"# {markup.escape(run.get('suite') or 'A run')}"
    yield markup.escape(run.get("description") or "")
    yield "\n".join(
        [
            *([] if frame.empty else [f"- cells: {_cells(frame)}"]),
            *([] if points.empty else [f"- training runs: {_trainings(points)}"]),
            *([] if descents.empty else [f"- descents: {_trainings(descents)}"]),
            *(f"- {markup.escape(note)}" for note in _notes(run)),
            *_unlisted(run.get("unlisted") or ()),
        ]
    )
    yield Folded("How this was run", tuple(_reproduction(frame, run)), level=2)
    if not frame.empty:
        yield Folded("How to read the tables", (_READING,), level=2)


def _reproduction(frame: pd.DataFrame, run: Mapping[str, Any]) -> Iterator[str]:
    """The facts needed to run it again: the command, and the versions and settings."""
    if command := run.get("command"):
        words = ["python", *command] if str(command[0]).endswith(".py") else command
        yield markup.code_block(shlex.join(map(str, words)))
    facts = {
        "training": in_a_line(run.get("training")),
        "seeds": in_a_line(run.get("seeds")),
        **{k: "" if frame.empty else in_a_line(run.get(k)) for k in _PROTOCOL},
        "nested levels, outermost first": in_a_line(run.get("nested")),
        "versions": in_a_line(run.get("versions")),
        "commit": in_a_line(run.get("commit")),
        "merged from": "; ".join(map(_source, run.get("sources") or ())),
        "plugins (first digits of SHA-256)": in_a_line(run.get("plugins")),
        "machine": in_a_line(run.get("machine")),
        "measured (without tables and figures)": _time(run.get("started"), run.get("finished")),
        "knobs with a single value": _constant(frame),
    }
    yield "\n".join(f"- {name}: {markup.escape(text)}" for name, text in facts.items() if text)


def _notes(run: Mapping[str, Any]) -> Iterator[str]:
    """Remarks on a merged run."""
    if pooled := run.get("pooled"):
        yield str(pooled)
    yield from run.get("notes") or ()


def _unlisted(labels: Sequence[str]) -> Iterator[str]:
    """Cells that a former version of the suite had."""
    if labels:
        yield (
            "- recorded, but not in the suite any more, and therefore not in this report: "
            f"{markup.escape(listed(labels))}"
        )


def _source(source: Mapping[str, Any]) -> str:
    """A run that was merged into this one."""
    facts = (f"commit {source.get('commit')}", str((source.get("machine") or {}).get("platform")))
    return f"{source['folder']} ({source.get('recorded')} cells, {', '.join(facts)})"


def files(frame: pd.DataFrame, formats: Formats) -> str:
    """The files that hold the numbers of the report."""
    tables = " `tables/` holds the rankings," if formats.tables else ""
    return _FILES_OF_TRAININGS if frame.empty else _FILES.format(tables=tables)


def unmeasured(frame: pd.DataFrame) -> Iterator[Part]:
    """Failed and skipped cells with their reasons; of many, the tasks of a reason share a row."""
    rows = frame[frame["status"] != "ok"].sort_values("status", kind="stable")
    rows = rows.drop_duplicates(["status", "task_label", "label", "reason"])
    if rows.empty:
        return
    columns = ["status", "task_label", "label", "reason"]
    rows = rows[columns].fillna("").astype(str)
    if len(rows) > _MOST_UNMEASURED:
        groups = rows.groupby(["status", "label", "reason"], sort=False)["task_label"]
        rows = groups.agg(lambda tasks: listed(list(tasks), _NAMED)).reset_index()[columns]
    yield "## Missing measurements"
    shown = rows.head(_MOST_UNMEASURED).to_numpy().tolist()
    yield Table(("status", "task", "estimator", "reason"), shown, left=4)
    if (more := len(rows) - len(shown)) > 0:
        yield f"{counted(more, 'more row')} of this kind: see `status` in `measurements.csv`."


def in_a_line(value: Any) -> str:
    """A value of run.json as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {tables.plain_text(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in value)
    return "" if value is None else str(value)


def _cells(frame: pd.DataFrame) -> str:
    """How many cells there are; each has a row for every parameter of its task."""
    cell = ["task", "task_params", "estimator", "estimator_params", "seed", "dtype", "replicates"]
    return _counted(frame.drop_duplicates(cell), "measured")


def _trainings(points: pd.DataFrame) -> str:
    return _counted(points.drop_duplicates(["key", "seed"]), "done")


def _counted(rows: pd.DataFrame, done: str) -> str:
    counts = rows["status"].value_counts()
    names = {"ok": done, "skipped": "skipped", "failed": "failed"}
    return ", ".join(f"{counts.get(status, 0):,} {name}" for status, name in names.items())


def _constant(frame: pd.DataFrame) -> str:
    """Knobs that the labels leave out, with their values and their estimators."""
    owners: dict[str, dict[str, None]] = defaultdict(dict)
    rows = frame.drop_duplicates(["estimator", "estimator_params"])
    for name, params, shown in rows[["estimator", "estimator_params", "settings"]].to_numpy():
        for knob, value in tables.parse_knobs(params).items():
            if knob not in shown:
                owners[f"{knob} = {tables.plain_text(value)}"][str(name)] = None
    return "; ".join(f"{knob} ({', '.join(names)})" for knob, names in sorted(owners.items()))


def _time(started: Any, finished: Any) -> str:
    try:
        begin, end = (datetime.fromisoformat(str(moment)) for moment in (started, finished))
        minutes, seconds = divmod(round((end - begin).total_seconds()), 60)
        return (
            f"{begin:%Y-%m-%d %H:%M:%S %Z} to {end:%Y-%m-%d %H:%M:%S %Z}, {minutes} min {seconds} s"
        )
    except (ValueError, TypeError):
        return f"started {started}, not finished" if started else ""
