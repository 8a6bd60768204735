"""What a report says in words."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from gradest.inference import BIASED_BELOW, UNBIASED_WITHIN
from gradest.markdown import code_block, escape
from gradest.quantities import interval, number
from gradest.report.documents.document import Folded, Part, Table
from gradest.report.frames import tables
from gradest.report.frames.multiplicity import bias_tests
from gradest.report.frames.ranking import LEVEL, POWER

_READING = f"""\
Variance is tr Cov(ĝ) of one estimate, over independent draws at fixed \
parameters: not over training steps and not over coordinates. Bias is the distance of E ĝ from \
the exact gradient g, debiased (the noise of the mean is taken off) and relative to ‖g‖; every \
pair in brackets is a 95 % interval, but for the time, where it is the range of the timing rounds. \
A verdict is *biased* where the family-wise test rejects at {100 * BIASED_BELOW:g} %, *unbiased* \
where the upper end of the relative bias is below {100 * UNBIASED_WITHIN:g} %, and *inconclusive* \
otherwise; in brackets behind it is the relative bias that would have been found with a \
probability of {100 * POWER:g} %, where that is known. Headings say with respect to what the \
gradient is taken; figures show log α where it was measured.

Rows are ranked by mse, the squared bias plus the variance of one estimate. A row shares the rank \
of those above it unless a test tells it apart from the first row with that rank, at \
{100 * LEVEL:g} % for all pairs of a table together (Holm). In brackets behind a shared rank is \
the smallest ratio to that first row that would have been told apart with a probability of \
{100 * POWER:g} %; (=) is exact equality. What the dtype cannot tell from zero is written as 0.

*exact* instead of a number of replicates: all the outcomes of the draws, as many as the brackets \
say, were enumerated, and nothing is left to chance. *Evaluations of f* are those of one estimate; \
behind a plus is through how many of them a backward pass goes as well. *Bytes* are what one \
estimate holds at its peak."""
_PROTOCOL = ("replicates", "precision", "dtype")
_LONGEST = 40  # rows of the table of budgets
_FILES_OF_TRAININGS = "Full data, unrounded: `training.parquet`, and `run.json`, what was run."
_FILES = (
    "Full data, unrounded: `measurements.parquet` and `measurements.csv` hold every row, "
    "`tables/` the rankings, `run.json` what was run."
)


def about(frame: pd.DataFrame, run: Mapping[str, Any], points: pd.DataFrame) -> Iterator[Part]:
    """Title, what was run, how to read it; `points` are those of trainings."""
    yield f"# {escape(run.get('suite') or 'A run')}"
    yield escape(run.get("description") or "")
    yield "\n".join(
        [
            *([] if frame.empty else [f"- cells: {_cells(frame)}"]),
            *([] if points.empty else [f"- trainings: {_trainings(points)}"]),
        ]
    )
    yield Folded("How this was run", tuple(_made(frame, run)), level=2)
    if not frame.empty:
        yield Folded("How to read it", (_READING,), level=2)


def _made(frame: pd.DataFrame, run: Mapping[str, Any]) -> Iterator[str]:
    """What it takes to run it again: the command, and with what it ran."""
    if command := run.get("command"):
        words = ["python", *command] if str(command[0]).endswith(".py") else command
        yield code_block(shlex.join(map(str, words)))
    facts = {
        "training": listed(run.get("training")),
        "seeds": listed(run.get("seeds")),
        **{k: "" if frame.empty else listed(run.get(k)) for k in _PROTOCOL},
        "nested levels, outermost first": listed(run.get("nested")),
        "versions": listed(run.get("versions")),
        "commit": listed(run.get("commit")),
        "plugins, by the start of their SHA-256": listed(run.get("plugins")),
        "machine": listed(run.get("machine")),
        "time": _time(run.get("started"), run.get("finished")),
        "knobs with one value throughout": _constant(frame),
    }
    yield "\n".join(f"- {name}: {escape(said)}" for name, said in facts.items() if said)


def files(frame: pd.DataFrame) -> str:
    """Where the numbers behind the report are."""
    return _FILES_OF_TRAININGS if frame.empty else _FILES


def multiplicity(frame: pd.DataFrame) -> str:
    """How many tests of bias there were, and what is left of them all together."""
    tests = bias_tests(frame)
    if tests.empty:
        return ""
    found, expected = tests["p_value"] < BIASED_BELOW, BIASED_BELOW * len(tests)
    return (
        f"**Many tests.** The run made {len(tests):,} random tests of bias at "
        f"{100 * BIASED_BELOW:g} %, one for each cell that was not enumerated (α and log α share "
        f"theirs). Were all those estimators unbiased, at most {number(expected)} false alarms "
        f"would be expected; {found.sum():,} of the tests reject, and "
        f"{(tests['p_holm'] < BIASED_BELOW).sum():,} of them still do so for the whole run "
        "together (Holm; `p_holm` in `tables/`)."
    )


def budgets(found: pd.DataFrame, file: str) -> Iterator[Part]:
    """Where biased methods are overtaken, of the parameter that comes first."""
    if found.empty:
        return
    found = found[found["parameter"] == found["parameter"].iloc[0]]
    yield "## What a budget buys"
    yield (
        "The mean of m estimates has the mse bias² + variance/m, so that any bias is overtaken by "
        "an unbiased method at some budget B* = (v_u c_u − v_b c_b)/bias²: here by the first of "
        "those called unbiased, in passes through f (evaluations and backward passes). *always*: "
        "as soon as one estimate of it can be paid for, which B* is then; *never*: at no budget. "
        f"Gradient in {escape(tables.SYMBOLS.get(found['parameter'].iloc[0], 'parameters'))}."
    )
    rows = [
        [
            *(str(row[c]) for c in ("task_label", "label", "overtaken_by")),
            interval(*(row[f"budget{end}"] for end in ("", "_low", "_high"))),
            row["when"],
        ]
        for _, row in found.head(_LONGEST).iterrows()
    ]
    yield Table(("task", "biased", "overtaken by", "B*", ""), rows, left=3)
    more = f"; {len(found) - _LONGEST} more rows are there" if len(found) > _LONGEST else ""
    yield f"Unrounded, and for every parameter: [{file}](tables/{file}){more}"


def unmeasured(frame: pd.DataFrame) -> Iterator[Part]:
    """Failed and skipped cells with their reasons."""
    rows = frame[frame["status"] != "ok"].sort_values("status", kind="stable")
    rows = rows.drop_duplicates(["status", "task_label", "label", "reason"])
    if not rows.empty:
        columns = ["status", "task_label", "label", "reason"]
        said = [list(map(str, row)) for row in rows[columns].fillna("").to_numpy()]
        yield "## Not measured"
        yield Table(("status", "task", "estimator", "reason"), said, left=4)


def listed(value: Any) -> str:
    """What run.json says of something, in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {tables.plain(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in value)
    return "" if value is None else str(value)


def _cells(frame: pd.DataFrame) -> str:
    """How many; each has a row for every parameter that its task has."""
    cell = ["task", "task_params", "estimator", "estimator_params", "seed", "dtype", "replicates"]
    return _counted(frame.drop_duplicates(cell), "measured")


def _trainings(points: pd.DataFrame) -> str:
    return _counted(points.drop_duplicates("key"), "done")


def _counted(rows: pd.DataFrame, done: str) -> str:
    found = rows["status"].value_counts()
    names = {"ok": done, "skipped": "skipped", "failed": "failed"}
    return ", ".join(f"{found.get(status, 0):,} {name}" for status, name in names.items())


def _constant(frame: pd.DataFrame) -> str:
    """Knobs that the labels leave out, with their values and whose they are."""
    owners: dict[str, dict[str, None]] = defaultdict(dict)
    rows = frame.drop_duplicates(["estimator", "estimator_params"])
    for name, params, shown in rows[["estimator", "estimator_params", "settings"]].to_numpy():
        for knob, value in tables.knobs(params).items():
            if knob not in shown:
                owners[f"{knob} = {tables.plain(value)}"][str(name)] = None
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
