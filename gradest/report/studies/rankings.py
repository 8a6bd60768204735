"""Rankings: estimators on each task by bias, variance and time, and by MSE at a fixed budget."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from gradest.measurement import LOG_ALPHA
from gradest.report.documents.document import Part, Table
from gradest.report.documents.latex import Environment
from gradest.report.documents.prose import in_a_line
from gradest.report.figures import general
from gradest.report.figures.matrix import matrix
from gradest.report.formats import Formats
from gradest.report.frames import tables
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.overview import compared, overview, standings
from gradest.report.frames.rankings import CROSSOVERS, OVERVIEW, SUMMARY, Section
from gradest.report.studies.numerics import ranked_dtypes
from gradest.report.studies.ranking_table import (
    ranking_environment,
    ranking_notes,
    ranking_table,
)
from gradest.report.studies.study import (
    LIMITS,
    MARGIN,
    POINTS,
    ZEROS,
    Illustration,
    Pieces,
    Study,
)
from gradest.statistics import BIASED_BELOW, Interval
from gradest.support import count, counted, interval, listed, markup, number

_LONGEST = 40  # rows of the table of crossovers
_MOST_ROWS = 1_000  # of all rankings, up to which each is shown
_MOST_TASKS = 2_000  # in the table of the best estimators
_TIES = 3  # estimators that share a rank, by name


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    yield "multiple tests", lambda: [_multiplicity(run.own)]
    tasks = run.rankings.tasks
    if len(tasks) > tables.FEW_TASKS:
        yield "all tasks", lambda: _overview(tasks, run.formats)
    if sum(len(ranking.rows) for each in tasks for ranking in each.rankings) <= _MOST_ROWS:
        for section in tasks:
            yield section.label, partial(_section, section, run.formats)
    yield "budgets", lambda: _crossovers(run.rankings.crossovers, run.formats)


def _latex(run: LoadedRun) -> Pieces[Environment]:
    tasks = run.rankings.tasks
    if len(tasks) > tables.FEW_TASKS:
        yield OVERVIEW, partial(_environment, tasks)
        return
    for section in tasks:
        for ranking in section.rankings:
            yield ranking.name, partial(ranking_environment, section, ranking)


def _of_measurements(
    draw: Callable[[pd.DataFrame], Figure | None], title: str, caption: str
) -> Illustration:
    """A public figure, with the file name that is its function's name."""
    return Illustration(draw.__name__, lambda run: draw(run.single), title, caption)


_MEDIANS = (
    "Of more than twelve tasks, one panel shows the medians: bars then span nine tasks in ten, and "
    "variances are relative to the median of the estimators on the same task."
)

STUDY = Study(
    illustrations=(
        _of_measurements(
            general.bias_of_direction,
            "Bias that remains at the best step size, against variance × evaluations at that step "
            "size",
            "E ĝ is compared with the closest multiple of g. If it is parallel to g, a learning "
            "rate corrects its length, and no bias remains. Otherwise the angle remains: a bias "
            "of 10 % is a cosine of 0.995, 30 % one of 0.954, 60 % one of 0.8, and *downhill* "
            f"marks a negative cosine. {POINTS}; {LIMITS}; {ZEROS}. {_MEDIANS}",
        ),
        _of_measurements(
            matrix,
            "Relative bias, and variance × evaluations, of every estimator on every task",
            "Above the line: estimators that are found biased on no task, sorted by mean rank of "
            "variance × evaluations. Below: the others, sorted by mean rank of bias. "
            f"{POINTS.partition('.')[0]}. A number after < is an upper limit where the bias may be "
            "zero. Hatched: exactly zero, up to rounding; grey: skipped or failed; ·: not run. The "
            "tables contain the intervals. Where tasks with their settings are more than 24, all "
            "settings of a task share a column, which has their medians.",
        ),
        _of_measurements(
            general.bias_against_variance,
            "Relative bias against variance of one estimate, one panel per task",
            f"{POINTS}; {LIMITS}; {MARGIN}; {ZEROS}. "
            f"A panel shows the estimators that apply to its task. {_MEDIANS}",
        ),
        _of_measurements(
            general.variance_against_evaluations,
            "Variance of one estimate against its evaluations of f, one panel per task",
            f"{POINTS}; {ZEROS}. Along a dotted line variance × evaluations is constant, so that "
            "means of estimates have equal variance if they take equally many evaluations. "
            f"{_MEDIANS}",
        ),
        _of_measurements(
            general.mse_against_budget,
            "Mean squared error (MSE) of the mean of m estimates against its budget",
            "The MSE is the squared bias plus the variance divided by m. The budget is m times "
            "the passes through f of one estimate: its evaluations and its backward passes. A "
            "backward pass counts as one evaluation, a lower bound on its cost because it repeats "
            "every operation of f. A curve begins at one estimate; the MSE of a biased estimator "
            "approaches its squared bias. For estimators with the verdict *unbiased* the curve "
            "assumes zero bias, while its band, the 95 % interval, includes the bias that they may "
            "have. The thick grey line marks the lowest MSE at each budget; "
            f"{ZEROS}. The figure is drawn of at most twelve tasks.",
        ),
        _of_measurements(
            general.temperature_tradeoff,
            "Relative bias, variance and MSE of one estimate against temperature",
            f"{POINTS}; {LIMITS}; {MARGIN}; {ZEROS}.",
        ),
        _of_measurements(
            general.cost_growth,
            "Microseconds and evaluations of f per estimate against replicates, latents and "
            "categories",
            "Bars show the range of the timing rounds; the title of a panel gives the sizes that "
            "are constant.",
        ),
    ),
    sections=_sections,
    latex=_latex,
)


def _multiplicity(frame: pd.DataFrame) -> str:
    """The number of tests of bias, and how many still reject when all are taken together."""
    tests = tables.bias_tests(frame)
    if tests.empty:
        return ""
    rejections = (tests[["p_value", "p_holm"]] < BIASED_BELOW).sum()
    return (
        f"**Multiple tests.** The run made {counted(len(tests), 'test')} of bias at a level of "
        f"{100 * BIASED_BELOW:g} %, one for each cell whose bias is not exact (α and log α share a "
        "test). If no estimator had a bias, the expected number of rejections would be at most "
        f"{BIASED_BELOW * len(tests):g}; the number of rejections is {rejections['p_value']:,}, "
        f"and {rejections['p_holm']:,} after Holm's correction over the whole run (`p_holm` in "
        "`tables/`)."
    )


def _overview(sections: Sequence[Section], formats: Formats) -> Iterator[Part]:
    """Each estimator over all tasks, then the best estimator of each task."""
    rows = compared(sections)
    if rows.empty:
        return
    parameter = _first_parameter(sections)
    symbol = markup.escape(_symbol(parameter))
    yield f"## All {len(sections):,} tasks"
    yield _OVERVIEW.format(symbol=symbol)
    yield _standings_table(rows, parameter)
    if alone := sorted(set(rows.loc[rows["alone"], "label"])):
        yield f"Zero on every task, and not compared: {markup.escape(', '.join(alone))}."
    found = overview(rows)
    found = found[found["parameter"].eq(parameter)]
    yield f"### Best estimator of each task: gradient in {symbol}"
    if len(found) > _MOST_TASKS:
        yield f"The first {_MOST_TASKS:,} of {len(found):,} rankings."
    yield _best_of_tasks(found.head(_MOST_TASKS))
    yield formats.link(OVERVIEW, "Unrounded, and for every parameter: ")
    yield formats.link(SUMMARY, "All rankings, one below the other, unrounded: ")


def _best_of_tasks(found: pd.DataFrame) -> Table:
    names = (
        ("task", "dtype", "best", "equally good")
        if found["dtype"].nunique() > 1
        else (*("task", "best", "equally good"),)
    )
    columns = {"task": "task_label", "equally good": "tied"}
    lines = []
    for row in found.to_dict("records"):
        row["tied"] = listed(row["tied"].split("; "), _TIES)
        texts = [str(row[columns.get(name, name)]) for name in names]
        value = interval(row["value"], row["low"], row["high"])
        lines.append([*texts, value, row["second"], number(row["ratio"])])
    by = " or ".join(tables.RANKED_BY[by] for by in found["ranked_by"].unique())
    return Table([*names, by, "next", "next / best"], lines, left=len(names))


_OVERVIEW = (
    "Gradient in {symbol}. *Best on* counts the tasks on which no other estimator is significantly "
    "better. Ratios are those of the MSE (of the variance where the exact gradient is unknown) to "
    "the lowest one of the same task. Rows are sorted by their median rank."
)
_STANDINGS = (
    *("estimator", "tasks", "best on", "median rank", "median ratio", "largest ratio"),
    *tables.VERDICTS,
)


def _standings_table(rows: pd.DataFrame, parameter: str) -> Table:
    """`rows` are compared."""
    lines = [
        [
            row["label"],
            *(count(row[c]) for c in ("tasks", "best", "median_rank")),
            *(number(row[c]) for c in ("median_ratio", "largest_ratio")),
            *(count(row[c]) for c in tables.VERDICTS),
        ]
        for row in standings(rows, parameter).to_dict("records")
    ]
    return Table(_STANDINGS, lines, left=1)


def _environment(sections: Sequence[Section]) -> Environment:
    parameter = _first_parameter(sections)
    table = _standings_table(compared(sections), parameter)
    headers = [name.replace(" ", "\n", 1) for name in table.headers]
    return Environment(
        f"Gradient estimators over {len(sections):,} tasks.",
        _OVERVIEW.format(symbol=_symbol(parameter)).replace("*", ""),
        [replace(table, headers=headers)],
    )


def _first_parameter(sections: Sequence[Section]) -> str:
    """The first parameter of any ranking; log α is first."""
    names = {ranking.parameter for each in sections for ranking in each.rankings}
    return min(names, key=lambda p: (p != LOG_ALPHA, p), default=LOG_ALPHA)


def _symbol(parameter: str) -> str:
    return tables.SYMBOLS.get(parameter, parameter)


def _section(section: Section, formats: Formats) -> Iterator[Part]:
    """A description of the task, then a ranking for each parameter."""
    yield f"## {markup.escape(section.label)}"
    yield _task(section.rows)
    if not section.rankings:
        yield "Nothing was measured here."
    for parameter, ranked, name in section.rankings:
        yield f"### Gradient in {markup.escape(_symbol(parameter))}"
        if tables.ranking_column(ranked) == "variance":
            yield (
                "The exact gradient is unknown, and so are bias and MSE: every verdict is "
                "inconclusive, and the ranking is by variance."
            )
        yield from _tables(ranked)
        yield formats.link(name, "Unrounded: ")


def _tables(rows: pd.DataFrame) -> Iterator[Part]:
    """A table for each dtype that resolves differences between estimators."""
    dtypes = list(rows["dtype"].unique())
    ranked = ranked_dtypes(rows)
    for dtype in ranked:
        if len(dtypes) > 1:
            yield f"In {markup.escape(dtype)}:"
        part = rows[rows["dtype"] == dtype]
        yield ranking_table(part)
        yield from ranking_notes(part)
    if coarse := [d for d in dtypes if d not in ranked]:
        named = " and ".join(map(markup.escape, coarse))
        yield f"Rankings in {named} would only rank rounding errors; they are only in the file."


def _task(rows: pd.DataFrame) -> str:
    facts = [in_a_line(tables.parse_knobs(rows["task_params"].iloc[0]))]
    measured = tables.measured_rows(rows)
    if not measured.empty:
        sizes = {"B": "batch", "N": "latents", "K": "categories"}
        facts.append(", ".join(f"{s} = {count(measured[c].iloc[0])}" for s, c in sizes.items()))
    for parameter in tables.parameters(rows):
        norms = tables.measured_rows(rows, parameter)["gradient_norm"].dropna()
        if not norms.empty:
            symbol = tables.SYMBOLS.get(parameter, parameter)
            facts.append(f"‖g‖ = {number(norms.iloc[0])} in {symbol}")
    return markup.escape("; ".join(filter(None, facts)))


def _crossovers(crossovers: pd.DataFrame, formats: Formats) -> Iterator[Part]:
    """The budgets at which biased estimators are overtaken, in the first parameter."""
    if crossovers.empty:
        return
    first = crossovers[crossovers["parameter"] == crossovers["parameter"].iloc[0]]
    symbol = tables.SYMBOLS.get(first["parameter"].iloc[0], "parameters")
    yield "## MSE at a fixed budget"
    yield (
        "The mean of m estimates has the MSE bias² + variance/m. An unbiased estimator (variance "
        "v_u, passes c_u) therefore overtakes a biased one (v_b, c_b) at the budget "
        "B* = (v_u c_u − v_b c_b)/bias², counted in passes through f, forward and backward. The "
        "table names the estimator with the verdict *unbiased* that is the first to do so. "
        "*always*: it is better at every budget that affords one of its estimates, and B* is the "
        "cost of that estimate; *never*: it is better at no budget. "
        f"Gradient in {markup.escape(symbol)}."
    )
    rows = [
        [
            *(str(row[c]) for c in ("task_label", "label", "overtaken_by")),
            interval(*Interval.of(row, "budget").ends),
            row["when"],
        ]
        for _, row in first.head(_LONGEST).iterrows()
    ]
    yield Table(("task", "biased", "overtaken by", "B*", "when"), rows, left=3)
    more = f"; {len(first) - _LONGEST} more rows are there" if len(first) > _LONGEST else ""
    if link := formats.link(CROSSOVERS, "Unrounded, and for every parameter: "):
        yield link + more
