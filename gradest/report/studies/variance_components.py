"""Variance components: the contributions of draws and of each nested level to the variance.

The settings of nested levels, such as minibatches and seeds, also share one section of rankings.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradest.report.documents.document import Part, Table
from gradest.report.documents.latex import Environment
from gradest.report.figures import canvas, style
from gradest.report.formats import Formats
from gradest.report.frames import tables
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.nested_factors import Family
from gradest.report.frames.rankings import Ranking, Section
from gradest.report.studies.study import ZEROS, Illustration, Pieces, Study
from gradest.statistics import DRAWS, Interval, columns_of
from gradest.support import Parts, Quantity, count, interval, markup, number

_WIDTH = 0.7  # of the points of one source, where sources are 1 apart
_HEADERS = (
    *("estimator", "verdicts", "relative bias, %", "variance", "smallest variance"),
    *("largest variance", "evaluations of f"),
)
_SETTINGS = (
    "Numbers are medians over the settings, with medians of the ends of their 95 % intervals, "
    "which cover the draws alone; the last variances are the smallest and the largest of any "
    "setting. Rows are sorted by their median {by}."
)
_READING = (
    "The variance of one estimate at a random value of every nested level is the sum of these "
    "parts: the variance over draws at fixed parameters, and the variance of the mean gradient as "
    "one level after the other changes, from the innermost to the outermost. **These 95 % "
    "intervals are over {over}**: they cover what other values of {level} would give. The "
    "intervals of all other tables are within one cell and cover the draws alone. The estimates "
    "of the parts are unbiased, so that the estimate of a part that is zero is often negative. A "
    "share is relative to the sum of the positive estimates and has no interval."
)


def _draw(run: LoadedRun) -> Figure | None:
    return variance_by_source(run.components, run.estimators, run.levels)


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    for family, section in zip(run.families, run.rankings.families, strict=False):
        yield section.label, partial(_settings_section, family, section, run.formats)
    yield "variance by source", lambda: section_of_components(run.components, run.levels)


def _latex(run: LoadedRun) -> Pieces[Environment]:
    for section in run.rankings.families:
        for ranking in section.rankings:
            yield f"{section.label}-{ranking.parameter}", partial(_environment, section, ranking)


STUDY = Study(
    illustrations=(
        Illustration(
            "variance_by_source",
            _draw,
            "Variance of one estimate by its source, draws and each nested level, one panel per "
            "task",
            "The parts of an estimator add up to its variance at random values of all levels. "
            "Bars are 95 % intervals over the values of the outermost level. The interval of a "
            "pale point contains zero; an arrow marks the upper limit of a part whose estimate is "
            f"zero or negative. {ZEROS.capitalize()}.",
        ),
    ),
    sections=_sections,
    latex=_latex,
)


@style.theme()
def variance_by_source(
    rows: pd.DataFrame, estimators: Iterable[str], nested: Sequence[str]
) -> Figure | None:
    """The parts of every estimator's variance, a panel for each task and parameter.

    `rows` are labelled components and `nested` the levels, outermost first.  None without rows.
    """
    rows = rows[np.isfinite(rows["variance"].astype(float))]
    if rows.empty:
        return None
    sections = list(rows.groupby(["task_label", "parameter"], sort=False))
    styles, columns = style.assign_styles(estimators), min(len(sections), 2)
    lines = math.ceil(len(sections) / columns)
    over, values = rows[["over", "values"]].iloc[0]
    title = f"Variance by source; intervals are over {int(values)} values of {over}"
    keys, names = style.part_keys(), style.legend_entries(rows, styles)
    figure, grid = canvas.panels(lines, columns, (6.6, 4.4), title, keys, names)
    parts = []
    for ax in grid.flat[len(sections) :]:
        ax.remove()
    titles = style.titles((f"{task}, gradient in {_symbol(p)}" for (task, p), _ in sections), 60)
    for ax, name, (_, section) in zip(grid.flat, titles, sections, strict=False):
        ax.set_title(name)
        sources = _ordered(section, nested)
        drawn = _placed(section, sources)
        canvas.logarithmic(ax, "y", drawn["part"], [drawn["part_low"], drawn["part_high"]])
        for estimator, points in drawn.groupby("estimator", sort=False):
            canvas.points(ax, points, styles[str(estimator)], "place", "part", fill="paleness")
        ax.set_xlim(-0.6, len(sources) - 0.4)
        ax.set_xticks(range(len(sources)), [style.text(s) for s in sources])
        ax.grid(visible=False, axis="x")
        for border in range(1, len(sources)):
            ax.axvline(border - 0.5, zorder=0, color="0.85", linewidth=0.8)
        ax.set(ylabel="variance of one estimate")
        parts.append((ax, drawn, "place", "part"))
    canvas.label_curves(figure, parts, styles)
    return figure


def _symbol(parameter: object) -> str:
    return tables.SYMBOLS.get(str(parameter), str(parameter))


def _ordered(rows: pd.DataFrame, nested: Sequence[str]) -> list[str]:
    """The sources of rows: draws first, then the levels from the innermost to the outermost."""
    sources = [str(source) for source in rows["source"].unique()]
    order = [DRAWS, *reversed(nested)]
    return [s for s in order if s in sources] + [s for s in sources if s not in order]


def _placed(rows: pd.DataFrame, sources: Sequence[str]) -> pd.DataFrame:
    """Adds the place of each point, `part` with its ends, `limit` and `paleness`.

    A part that was estimated as zero or less is an upper limit, the upper end of its interval; a
    part whose interval contains zero is pale.
    """
    labels = list(rows["label"].unique())
    value, low, high = (end.astype(float) for end in Interval.of(rows, "variance").ends)
    limit = value.le(0) & high.gt(0)
    part = value.mask(limit, high).clip(lower=0)
    across = rows["label"].map(labels.index).astype(float) + 0.5 - len(labels) / 2
    return rows.assign(
        place=rows["source"].map(list(sources).index) + _WIDTH * across / len(labels),
        limit=limit,
        part=part,
        part_low=low.clip(lower=0).mask(limit, part),
        part_high=high.clip(lower=0),
        paleness=np.where(low.gt(0) | high.le(0), 0.0, style.PALE),
    )


def section_of_components(rows: pd.DataFrame, nested: Sequence[str]) -> Iterator[Part]:
    """A table for each family of settings and each parameter, with a row for each estimator."""
    if rows.empty:
        return
    yield "## Variance by source"
    over = rows[["over", "values"]].drop_duplicates().to_numpy()
    counted = " or ".join(f"{int(values):,} values of {level}" for level, values in over)
    level = " or ".join(dict.fromkeys(str(level) for level, _ in over))
    yield _READING.format(over=markup.escape(counted), level=markup.escape(level))
    for (label, parameter), part in rows.groupby(["task_label", "parameter"], sort=False):
        yield f"### {markup.escape(label)}: gradient in {markup.escape(_symbol(parameter))}"
        sources = _ordered(part, nested)
        headers = ["estimator", *(header for source in sources for header in (source, "share"))]
        lines = [_components(each, sources) for _, each in part.groupby("label", sort=False)]
        yield Table(headers, lines, left=1)
    yield "Unrounded: `sources.parquet`"


def _components(rows: pd.DataFrame, sources: Sequence[str]) -> list[str]:
    by_source = rows.drop_duplicates("source").set_index("source")
    total = by_source["variance"].clip(lower=0).sum()
    line = [str(rows["label"].iloc[0])]
    for source in sources:
        if source not in by_source.index:
            line += ["n/a", ""]
        else:
            row = by_source.loc[source]
            line.append(interval(*Interval.of(row, "variance").ends))
            line.append(_share(max(row["variance"], 0.0), total))
    return line


def _share(part: float, total: float) -> str:
    """In whole percent, since its uncertainty is unknown."""
    if not total > 0 or pd.isna(part):
        return "n/a"
    percent = 100 * part / total
    text = f"{percent:.0f} %"
    if 0 < percent < 0.5 or 99.5 < percent < 100:
        text = "< 1 %" if percent < 50 else "> 99 %"
    return Quantity(text, Parts(percent, 0, after=" %"))


def _settings_section(family: Family, section: Section, formats: Formats) -> Iterator[Part]:
    """The settings of a family, and a table for each parameter with a row for each estimator."""
    values = "; ".join(
        f"{level} = {', '.join(map(tables.plain_text, each))}"
        for level, each in family.values.items()
    )
    yield f"## {markup.escape(section.label)}"
    settings = f"all {family.settings} settings of the nested levels"
    yield f"One section for {settings}: {markup.escape(values)}."
    if not section.rankings:
        yield "Nothing was measured here."
    for parameter, rows, name in section.rankings:
        yield f"### Gradient in {markup.escape(_symbol(parameter))}"
        yield _SETTINGS.format(by=tables.RANKED_BY[tables.ranking_column(rows)])
        yield _settings_table(rows)
        yield formats.link(name, "Unrounded, with a row for each setting: ")


def _settings_table(rows: pd.DataFrame) -> Table:
    """A row for each estimator, sorted by the median of the column of the ranking."""
    by = tables.ranking_column(rows)
    settings = sorted((p for _, p in rows.groupby("label")), key=lambda p: p[by].median())
    return Table(_HEADERS, [_settings_line(part) for part in settings], left=2)


def _settings_line(rows: pd.DataFrame) -> list[str]:
    """One estimator at all settings."""
    verdicts = rows["verdict"].value_counts()
    bias, variance = (
        Interval.of(rows[columns_of(name)].median(), name) for name in ("relative_bias", "variance")
    )
    return [
        str(rows["label"].iloc[0]),
        ", ".join(f"{verdict} {n}" for verdict, n in verdicts.items()),
        interval(*(bias * 100).ends),
        interval(*variance.ends),
        number(rows["variance"].min()),
        number(rows["variance"].max()),
        count(rows["evaluations"].median()),
    ]


def _environment(section: Section, ranking: Ranking) -> Environment:
    table = _settings_table(ranking.rows)
    table = replace(table, headers=[name.replace(" ", "\n", 1) for name in table.headers])
    caption = f"Gradient estimators on {section.label}: gradient in {_symbol(ranking.parameter)}."
    notes = _SETTINGS.format(by=tables.RANKED_BY[tables.ranking_column(ranking.rows)])
    return Environment(caption, notes, [table])
