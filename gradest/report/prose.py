"""The parts of report.md, as Markdown."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pandas as pd

from gradest import references
from gradest.analysis import tables
from gradest.analysis.multiplicity import bias_tests
from gradest.analysis.ranking import LEVEL, POWER
from gradest.inference import BIASED_BELOW, UNBIASED_WITHIN
from gradest.markdown import code_block, count, escape, interval, number, table
from gradest.report import cells, numerics

_READING = f"""\
**How to read it.** Variance is tr Cov(ĝ) of one estimate, over independent draws at fixed \
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
_POINTS = (
    "Filled points are unbiased, hollow ones biased, pale ones inconclusive; "
    "bars are 95 % intervals"
)
_LIMITS = "an arrow hangs from an upper limit, where the bias may be zero"
_ZERO = "the grey band holds exact zeros"
_CAPTIONS = {
    "bias_against_variance": (
        "Relative bias against variance of one estimate, one panel a task",
        f"{_POINTS}; {_LIMITS}; {_ZERO}.",
    ),
    "variance_against_evaluations": (
        "Variance of one estimate against its evaluations of f, one panel a task",
        f"{_POINTS}; {_ZERO}. Along a dotted line equal work buys equal variance.",
    ),
    "mse_against_budget": (
        "Mse of the mean of m estimates, squared bias plus variance over m, against its budget",
        "The budget is m times the passes through f that one estimate takes: its evaluations and "
        "its backward passes, each counted as one evaluation, the least it can cost since it "
        "repeats every operation of f. A curve begins at one estimate; a biased method ends on "
        "its bias. What is called unbiased is drawn without; its band, the 95 % interval, keeps "
        "what bias it may have. Over grey lies the least mse that a budget buys.",
    ),
    "temperature_tradeoff": (
        "Relative bias, variance and mse of one estimate against temperature",
        f"{_POINTS}; {_LIMITS}.",
    ),
    "cost_growth": (
        "Microseconds and evaluations of f per estimate as replicates, latents and categories grow",
        "Bars span the timing rounds; the other sizes are as the title of a panel says.",
    ),
    "adaptation": (
        "Variance of one estimate in log α against the steps of adapt, one panel a task",
        "The leftmost point of a line is before any step. Bars are 95 % intervals, each of draws "
        "of its own, at the state that these steps led to. Of many settings that share a panel, "
        f"medians of the numbers and of the ends of their intervals. {_ZERO.capitalize()}.",
    ),
    "variance_by_source": (
        "Variance of one estimate by its source, draws and each nested level, one panel a task",
        "The parts of an estimator add up to its variance at random values of all levels. Bars are "
        "95 % intervals over the values of the outermost level; a pale point may be zero, its "
        "interval reaching there, and an arrow hangs from the upper limit of a part that was "
        f"estimated as zero or less. {_ZERO.capitalize()}.",
    ),
    "simplex": (
        "A discrete distribution and its Concrete relaxations at rising temperatures",
        "Left the three outcomes with their probabilities, at the corners of the simplex; then the "
        "density of the relaxed sample. Whatever the temperature, the part of the simplex that is "
        "nearest to a corner has the probability of that corner.",
    ),
    "simplex_panels": (
        "The Concrete density on the simplex over nine temperatures",
        "From almost one-hot to almost uniform; up to λ = 1/(K − 1) no mode lies inside.",
    ),
    "training_objectives": (
        "Negative ELBO of validation data against the step of training, one panel a task",
        "With hard codes, whatever was relaxed in training. Lines are means over seeds, bands "
        "their 95 % intervals; of one seed, the interval over data points. Early steps may lie "
        "above a panel; an arrow at its top is a curve that ends above.",
    ),
    "training_gap": (
        "The discrete objective less the one that is descended, against the step",
        "On the same training data. Above the grey line the relaxed objective promises more than "
        "hard codes give; below it it asks for more, as where a divergence of relaxed densities is "
        "larger than the discrete one. Bands as above.",
    ),
    "training_gradient": (
        "Variance of the gradient, and its bias against enumeration, at states of the training",
        f"In log α, of a few data points; the bias where all codes can be enumerated. {_POINTS}: "
        "hollow where that of the bias excludes zero, filled where it ends below the margin, pale "
        f"otherwise, as where the bias is unknown; {_LIMITS}.",
    ),
    "vae_temperature": (
        "Discrete objectives, and their gap to the one descended, over the temperature of training",
        "Test data with hard codes above; below, on validation data, the discrete negative ELBO "
        "less the objective descended. Points are means over seeds, bars their 95 % intervals, cut "
        "at the edge of a panel; a knob that is not set is not named. Up to the dashed 1/(n − 1) a "
        "Concrete density of n categories has no mode inside the simplex.",
    ),
    "pictures": (
        "Test data, their reconstructions and samples, a line for each estimator",
        "Reconstructions go through one hard code. Samples are means of p(x | z) at codes of the "
        "prior; where there is no prior, at other codes of the same data.",
    ),
    "landscape_binary": (
        "Norm of the bias, and variance, against the probability θ of the second category",
        "Dotted, for comparison, is ‖g‖, and ‖g‖² beside the variance. Bands are 95 % intervals, "
        "one in twenty misses; where one has no line the bias may be zero, and its top is an upper "
        f"limit. {_ZERO.capitalize()}; what is zero for every θ is named below a panel.",
    ),
    "landscape_simplex": (
        "Norm of the bias, and variance, over the probabilities of three categories",
        "A cell is a measured α, a corner the vertex where that category is certain. All triangles "
        "of a quantity share a colour scale, that of the bias with ‖g‖, the first triangle. "
        "Hatched cells are exactly zero; a dot marks a bias that may be zero, whose colour is its "
        "upper limit. Estimators are in the order of their median bias, then of their variance.",
    ),
}
_FILES_OF_TRAININGS = "Full data, unrounded: `training.parquet`, and `run.json`, what was run."
_FILES = (
    "Full data, unrounded: `measurements.parquet` and `measurements.csv` hold every row, "
    "`tables/` the rankings, `run.json` what was run."
)


class Table(NamedTuple):
    """The ranking of a section for one parameter, and its file in tables/."""

    parameter: str
    rows: pd.DataFrame
    file: str


class Section(NamedTuple):
    """A task with its params: all its rows, and the rankings of those that were measured."""

    label: str
    rows: pd.DataFrame
    tables: list[Table]


def controls(failures: Sequence[str], expected: Mapping[str, Sequence[str]]) -> str:
    """One line, or nothing where there are no controls."""
    if failures:
        said = escape(" ".join(failures))
        return f"**CONTROLS FAILED, do not trust this run until it is known why:** {said}"
    kinds = sorted(expected.items(), reverse=True)
    named = [f"{', '.join(map(escape, names))} {kind}" for kind, names in kinds if names]
    return f"Controls came out as they should: {' and '.join(named)}." if named else ""


def left_out(names: Sequence[str]) -> str:
    """Controls that this run was told to leave out; nothing where there are none."""
    return f"Controls that this run left out: {', '.join(map(escape, names))}." if names else ""


def about(frame: pd.DataFrame, run: Mapping[str, Any], points: pd.DataFrame) -> Iterator[str]:
    """Title, what was run, how to read it; `points` are those of trainings."""
    yield f"# {escape(run.get('suite') or 'A run')}"
    yield escape(run.get("description") or "")
    if command := run.get("command"):
        words = ["python", *command] if str(command[0]).endswith(".py") else command
        yield code_block(shlex.join(map(str, words)))
    facts = {
        "cells": "" if frame.empty else _cells(frame),
        "trainings": "" if points.empty else _counted(points.drop_duplicates("key"), "done"),
        "training": _listed(run.get("training")),
        "seeds": _listed(run.get("seeds")),
        **{k: "" if frame.empty else _listed(run.get(k)) for k in _PROTOCOL},
        "nested levels, outermost first": _listed(run.get("nested")),
        "versions": _listed(run.get("versions")),
        "commit": _listed(run.get("commit")),
        "machine": _listed(run.get("machine")),
        "time": _time(run.get("started"), run.get("finished")),
        "knobs with one value throughout": _constant(frame),
    }
    yield "\n".join(f"- {name}: {escape(said)}" for name, said in facts.items() if said)
    if not frame.empty:
        yield _READING


def section(of: Section) -> str:
    """What the task is, then a ranking for each parameter."""
    parts = [f"## {escape(of.label)}", _task(of.rows)]
    if not of.tables:
        parts.append("Nothing was measured here.")
    for parameter, ranked, file in of.tables:
        parts.append(f"### Gradient in {escape(tables.SYMBOLS.get(parameter, parameter))}")
        if tables.ranking_column(ranked) == "variance":
            parts.append(
                "The exact gradient is not known: nor are bias and mse, every verdict is "
                "inconclusive, and the ranking is by variance."
            )
        parts += _rankings(ranked)
        parts.append(f"Unrounded: [{escape(file)}](tables/{file})")
    return "\n\n".join(parts)


def _rankings(rows: pd.DataFrame) -> Iterator[str]:
    """One for each dtype, where its rounding leaves something to rank."""
    dtypes = list(rows["dtype"].unique())
    fine = [d for d in dtypes if numerics.resolved(d)] or dtypes
    for dtype in fine:
        if len(dtypes) > 1:
            yield f"In {escape(dtype)}:"
        part = rows[rows["dtype"] == dtype]
        yield cells.ranking(part)
        yield from cells.notes(part)
    if coarse := [d for d in dtypes if d not in fine]:
        named = " and ".join(map(escape, coarse))
        yield f"Rankings in {named}, which would be of rounding, are in the file alone."


def files(frame: pd.DataFrame) -> str:
    """Where the numbers behind the report are."""
    return _FILES_OF_TRAININGS if frame.empty else _FILES


def figures(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield "## Figures"
    for name in names:
        alt, caption = _CAPTIONS[name]
        yield f"![{alt}](figures/{name}.png)"
        yield f"{alt}. {caption} ([SVG](figures/{name}.svg))"


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


def budgets(found: pd.DataFrame, file: str) -> Iterator[str]:
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
            *(escape(row[c]) for c in ("task_label", "label", "overtaken_by")),
            interval(*(row[f"budget{end}"] for end in ("", "_low", "_high"))),
            row["when"],
        ]
        for _, row in found.head(_LONGEST).iterrows()
    ]
    yield table(("task", "biased", "overtaken by", "B*", ""), rows, left=3)
    more = f"; {len(found) - _LONGEST} more rows are there" if len(found) > _LONGEST else ""
    yield f"Unrounded, and for every parameter: [{file}](tables/{file}){more}"


def unmeasured(frame: pd.DataFrame) -> Iterator[str]:
    """Failed and skipped cells with their reasons."""
    rows = frame[frame["status"] != "ok"].sort_values("status", kind="stable")
    rows = rows.drop_duplicates(["status", "task_label", "label", "reason"])
    if not rows.empty:
        columns = ["status", "task_label", "label", "reason"]
        said = [[escape(x) for x in row] for row in rows[columns].fillna("").to_numpy()]
        yield "## Not measured"
        yield table(("status", "task", "estimator", "reason"), said, left=4)


def cited(citations: Mapping[str, str], file: str) -> Iterator[str]:
    """What each estimator cites; those that cite the same share a line."""
    if citations:
        names: dict[str, list[str]] = defaultdict(list)
        for name, text in citations.items():
            names[text].append(escape(name))
        yield "## References"
        yield f"As BibTeX: [{file}]({file})"
        yield "\n".join(f"- {', '.join(n)}: {references.markdown(t)}" for t, n in names.items())


def _task(rows: pd.DataFrame) -> str:
    said = [_listed(tables.knobs(rows["task_params"].iloc[0]))]
    found = tables.measured(rows)
    if not found.empty:
        sizes = {"B": "batch", "N": "latents", "K": "categories"}
        said.append(", ".join(f"{s} = {count(found[c].iloc[0])}" for s, c in sizes.items()))
    for parameter in tables.parameters(rows):
        norms = tables.measured(rows, parameter)["gradient_norm"].dropna()
        if not norms.empty:
            symbol = tables.SYMBOLS.get(parameter, parameter)
            said.append(f"‖g‖ = {number(norms.iloc[0])} in {symbol}")
    return escape("; ".join(filter(None, said)))


def _cells(frame: pd.DataFrame) -> str:
    """How many; each has a row for every parameter that its task has."""
    cell = ["task", "task_params", "estimator", "estimator_params", "seed", "dtype", "replicates"]
    return _counted(frame.drop_duplicates(cell), "measured")


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


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {tables.plain(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in value)
    return "" if value is None else str(value)


def _time(started: Any, finished: Any) -> str:
    try:
        begin, end = (datetime.fromisoformat(str(moment)) for moment in (started, finished))
        minutes, seconds = divmod(round((end - begin).total_seconds()), 60)
        return (
            f"{begin:%Y-%m-%d %H:%M:%S %Z} to {end:%Y-%m-%d %H:%M:%S %Z}, {minutes} min {seconds} s"
        )
    except (ValueError, TypeError):
        return f"started {started}, not finished" if started else ""
