"""Landscapes: bias and variance where a task is swept over α, or over a number.

The curves are over θ for a bit, over the simplex for three categories, and over the values of any
other knob.  Figures and tables show the norm of the bias itself, not relative to ‖g‖, which may
vanish within a sweep; ‖g‖ is shown for comparison.
"""

import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon
from matplotlib.ticker import LogLocator
from scipy.spatial.distance import pdist

from gradest.report.documents.document import Part, Strong, Table
from gradest.report.documents.latex import Environment
from gradest.report.figures import canvas, selection, style
from gradest.report.figures.style import Style
from gradest.report.formats import Formats
from gradest.report.frames import tables
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.overview import best_by_range, compared
from gradest.report.frames.rankings import Ranking, Section
from gradest.report.frames.sweeps import Sweep, find_sweeps
from gradest.report.studies.study import ZEROS, Illustration, Pieces, Study
from gradest.statistics import Interval
from gradest.support import count, counted, interval, markup, number

_QUANTITIES = {"bias": "norm of the bias, ‖E ĝ − g‖", "variance": "variance tr Cov(ĝ)"}
_POWER = {"bias": 1, "variance": 2}  # of ‖g‖, for the same units

# Of the largest of a sweep.  What is smaller is rounding, also where ‖g‖ vanishes, relative to
# which rows are flushed.
_ROUNDING = 1e-12

_PLACES = 40  # of a curve where its name is tried
_COMPETITORS = 2  # without which no strip says who is ahead
_BRIGHT = 1.7  # sum of red, green and blue, from where letters are black
_BEADS = 12  # markers on a long curve
_LEGIBLE = 0.14  # of the width of a panel, for a name in the strip
_DASHES = ("-", "--", "-.")  # of one estimator at several knobs
_MARKED = 5  # every so many points of a curve have the estimator's marker
_WIDE = 90  # characters below a panel
_SPAN = 50  # times the smallest value of a knob, from which on its axis is logarithmic
_NORM = {"color": "0.45", "linestyle": (0, (1, 1.5)), "linewidth": 1.6}

_ABREAST = 3  # estimators in a line, each with a triangle for every quantity
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
_MAPS = {"bias": "viridis", "variance": "cividis"}
_ZERO = {"facecolor": "0.95", "edgecolor": "0.7", "hatch": "//////", "linewidth": 0}
_DOT = {"color": "white", "marker": "o", "markeredgecolor": "0.2", "linestyle": "none"}


_READING = (
    "One table for all settings. The bias is ‖E ĝ − g‖, not relative to ‖g‖, at the {place} where "
    "it is largest. Its interval ends at the largest lower end and the largest upper end of the "
    "settings' 95 % intervals. Rows are sorted by their median MSE."
)


_RANGES = (
    "The estimator with the lowest {by}, which it keeps as long as no other is significantly "
    "better; the next is the one that comes closest in a range.{except_for}"
)
_MOST_RANGES = 40
_LINE = 2  # numbers of a point on a line


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    for section in run.rankings.sweeps:
        yield section.label, partial(_section, section, run.formats)


def _latex(run: LoadedRun) -> Pieces[Environment]:
    for section in run.rankings.sweeps:
        for ranking in section.rankings:
            yield f"{section.label}-{ranking.parameter}", partial(_environment, section, ranking)


_BANDS = (
    "The dotted line shows ‖g‖ for comparison, and ‖g‖² next to the variance. Bands are 95 % "
    "intervals, of which one in twenty misses. Where a band has no line the bias may be zero, and "
    f"the top of the band is an upper limit. The strip above the variance names the estimator with "
    f"the lowest MSE at each value, but for those that are exact. {ZEROS.capitalize()};"
)


STUDY = Study(
    illustrations=(
        Illustration(
            "landscape_binary",
            lambda run: landscape_binary(run.single),
            "Norm of the bias, and variance, against the probability θ of the second category",
            f"{_BANDS} estimators whose values are zero for every θ are named below a panel.",
        ),
        Illustration(
            "knob_sweep",
            lambda run: knob_sweep(run.single),
            "Norm of the bias, and variance, against the value of a knob",
            f"Each row of panels is one knob of one task. {_BANDS} estimators whose values are "
            "zero throughout are named below a panel.",
        ),
        Illustration(
            "landscape_simplex",
            lambda run: landscape_simplex(run.single),
            "Norm of the bias, and variance, over the probabilities of three categories",
            "A cell is a measured α; at a corner one category is certain. All triangles of one "
            "quantity share a colour scale; that of the bias also holds for ‖g‖, the first "
            "triangle. Hatched cells are exactly zero. A dot marks a bias that may be zero, whose "
            "colour shows its upper limit. Estimators are sorted by their median bias, then by "
            "their median variance.",
        ),
    ),
    sections=_sections,
    latex=_latex,
)


@style.theme()
def landscape_binary(frame: pd.DataFrame) -> Figure | None:
    """Bias and variance of each estimator against the probability θ of the second category."""
    return _lines_against(frame, 2)


@style.theme()
def knob_sweep(frame: pd.DataFrame) -> Figure | None:
    """Bias and variance of each estimator against a number that is a knob of the task."""
    return _lines_against(frame, 1)


def _lines_against(frame: pd.DataFrame, size: int) -> Figure | None:
    """A row of panels for each sweep whose points are so long, against their last number."""
    drawn, symbol = _select(frame, size)
    if not drawn:
        return None
    styles = style.assign_styles(frame["estimator"].astype(str))
    templates = _templates(drawn, styles)
    title = f"Bias and variance of one estimate of the gradient in {symbol}: lower is better"
    figure, grid = canvas.panels(len(drawn), 2, (5.0, 4.4), title, _line_keys(), templates)
    parts = []
    titles = style.titles((sweep.label for sweep in drawn), 60)
    for axes, name, sweep in zip(grid, titles, drawn, strict=True):
        axes[0].set_title(name)
        rows = sweep.rows.assign(place=[point[-1] for point in sweep.rows["point"]])
        for ax, column in zip(axes, _QUANTITIES, strict=True):
            curves, zero = _panel(ax, rows, column, templates)
            _place_axis(ax, sweep, rows["place"], zero)
            if curves:
                parts.append((ax, column, curves))
        _strip(axes[-1], rows, styles)
    canvas.lay_out(figure)
    for ax, column, curves in parts:
        labels = canvas.Labels(ax, pd.concat(curves), "place", column)
        for curve in curves:
            first = curve.iloc[0]
            places = curve[:: -max(1, len(curve) // _PLACES)]
            labels.write(first["short"], places, styles[str(first["estimator"])])
    return figure


@style.theme()
def landscape_simplex(frame: pd.DataFrame) -> Figure | None:
    """Bias and variance of each estimator over the probabilities of three categories."""
    drawn, symbol = _select(frame, 3)
    if not drawn:
        return None
    settings = [_ordered(sweep.rows) for sweep in drawn]
    lines = [_lines(each) for each in settings]
    title = f"Bias and variance of one estimate of the gradient in {symbol} over the simplex"
    columns = _ABREAST * len(_QUANTITIES)
    figure, grid = canvas.panels(sum(lines), columns, (2.0, 1.9), title, _cell_keys(), {})
    norms = {column: _scale(drawn, column) for column in _QUANTITIES}
    for ax in grid.flat:
        ax.set_axis_off()
    titles = style.titles((sweep.label for sweep in drawn), 60)
    blocks = zip(titles, drawn, settings, itertools.accumulate(lines), strict=True)
    for title, sweep, each, below in blocks:
        block = grid[below - _lines(each) : below]
        first, *pairs = block.reshape(-1, len(_QUANTITIES))
        first[0].set_title(title)
        points = sweep.rows.drop_duplicates("point")
        cell = _hexagon(_places(points))
        reference = points.assign(bias=points["gradient_norm"], limit=False)
        _triangle(first[0], reference, cell, "bias", norms["bias"], "‖g‖")
        names = style.titles(rows["name"].iloc[0] for rows in each)
        for name, rows, axes in zip(names, each, pairs, strict=False):
            axes[0].set_title(name)
            for ax, column in zip(axes, _QUANTITIES, strict=True):
                _triangle(ax, rows, cell, column, norms[column], column)
    for column, norm in reversed(norms.items()):  # the first is the outermost
        ticks = {"ticks": LogLocator(subs=(1, 2, 5)), "format": "%g"}
        shades = ScalarMappable(norm, _MAPS[column])
        bar = figure.colorbar(shades, ax=grid, aspect=50, pad=0.02, **ticks)
        bar.minorticks_off()
        bar.set_label(_QUANTITIES[column] + (", and ‖g‖" if column == "bias" else ""))
    return figure


def _select(frame: pd.DataFrame, size: int) -> tuple[list[Sweep], str]:
    """The sweeps of that size as they are drawn, and the symbol of the parameter."""
    rows, symbol = selection.select_rows(frame, swept=True)
    rows = _named(selection.most_replicates(rows))
    kept = [sweep for sweep in find_sweeps(rows) if sweep.size == size]
    # Rows without numbers count as points of a sweep, and are left out afterwards.
    sweeps = [(sweep, _shown(sweep.rows[_have_numbers(sweep.rows)])) for sweep in kept]
    drawn = [sweep._replace(rows=shown) for sweep, shown in sweeps if shown["point"].nunique() > 1]
    return drawn, symbol


def _have_numbers(rows: pd.DataFrame) -> pd.Series:
    return rows["bias_sq_high"].notna() & rows["variance"].notna()


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `name` and `short`: the label and the knobs' values, where an estimator has several."""
    alone = rows.groupby("estimator")["label"].transform("nunique") == 1
    short = rows["estimator"].str.cat(rows["tag"].astype("str"), " ")
    return rows.assign(
        name=rows["label"].mask(alone, rows["estimator"]),
        short=short.mask(alone, rows["estimator"]),
    )


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds the bias, and `limit`: where it may be zero its upper end stands for it.

    What is rounding becomes zero.
    """
    rows = rows.assign(**Interval.of(rows, "bias_sq").root().columns("bias"))
    largest = rows[["bias", "gradient_norm"]].max().max()
    floors = {column: (_ROUNDING * largest) ** power for column, power in _POWER.items()}
    for column, floor in floors.items():
        ends = Interval.of(rows, column).map(lambda end, floor=floor: end.mask(end <= floor, 0.0))
        rows = rows.assign(**ends.columns(column))
    limit = rows["bias_low"].eq(0) & rows["bias_high"].gt(0)
    return rows.assign(limit=limit, bias=rows["bias"].mask(limit, rows["bias_high"]))


def _templates(drawn: Iterable[Sweep], styles: Mapping[str, Style]) -> dict[str, Line2D]:
    """A line for each name: the colour and marker of its estimator, dashed for further knobs."""
    rows = pd.concat([sweep.rows for sweep in drawn]).drop_duplicates("name")
    templates = {}
    for estimator, names in rows.groupby("estimator")["name"]:
        for name, dashes in zip(names, itertools.cycle(_DASHES), strict=False):
            templates[name] = styles[str(estimator)].key()
            templates[name].set(linestyle=dashes, markersize=4)
    return templates


def _panel(
    ax: Axes, rows: pd.DataFrame, column: str, templates: Mapping[str, Line2D]
) -> tuple[list[pd.DataFrame], list[str]]:
    """Draw the curves of a column and return them, and the names of those that are all zero."""
    norm = rows.groupby("place")["gradient_norm"].first() ** _POWER[column]
    canvas.logarithmic(ax, "y", rows[column], [rows[f"{column}_high"], norm])
    ax.plot(norm.index, norm, zorder=1, **_NORM)
    curves = []
    zero = rows[column].eq(0).groupby(rows["name"]).transform("all")
    for name, curve in rows[~zero].sort_values("place").groupby("name"):
        _draw(ax, curve, column, templates[str(name)])
        curves.append(curve)
    ax.set_ylabel(_QUANTITIES[column])
    return curves, sorted(set(rows.loc[zero, "short"]))


def _place_axis(ax: Axes, sweep: Sweep, places: pd.Series, zero: Sequence[str]) -> None:
    """The x axis, with room for names to the right; the estimators that are zero stand below."""
    low, high = places.min(), places.max()
    symbol = name = style.text(sweep.knob)
    if sweep.size > 1:
        symbol, name = "θ", "θ, the probability of the second category"
        ax.set(xlim=(0, 1.3), xticks=np.linspace(0, 1, 6))
    elif 0 < low < high / _SPAN:
        ax.set(xscale="log", xlim=(low, high * (high / low) ** 0.3))
    else:
        ax.set_xlim(low, high + 0.3 * (high - low))
    below = [name]
    if zero:
        names = ", ".join(map(style.text, zero))
        below += textwrap.wrap(f"zero for every {symbol}: {names}", _WIDE)
    ax.set_xlabel("\n".join(below))


def _strip(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Style]) -> None:
    """A strip above a panel: the estimator with the lowest MSE at every place, and its name.

    Those whose MSE is zero throughout are left out, since they are the best everywhere.
    """
    rows = rows[rows["mse"].notna() & ~rows["mse"].eq(0).groupby(rows["name"]).transform("all")]
    if rows["name"].nunique() < _COMPETITORS:
        return
    best = rows.sort_values(["place", "mse"], kind="stable").drop_duplicates("place")
    strip = ax.inset_axes((0, 1.01, 1, 0.055))
    strip.set(xscale=ax.get_xscale(), xlim=ax.get_xlim(), ylim=(0, 1), yticks=[])
    strip.tick_params(bottom=False, labelbottom=False, which="both")
    strip.grid(visible=False)
    strip.spines[:].set_visible(False)
    to_axes = strip.transData + strip.transAxes.inverted()
    places = best["place"].to_numpy(dtype=float)
    between = np.sqrt(places[1:] * places[:-1]) if strip.get_xscale() == "log" else None
    middle = (places[1:] + places[:-1]) / 2 if between is None else between
    edges = np.concatenate([places[:1], middle, places[-1:]])
    number = best["name"].ne(best["name"].shift()).cumsum().to_numpy()
    for run in range(1, number[-1] + 1):
        (at,) = (number == run).nonzero()
        first, left, right = best.iloc[at[0]], edges[at[0]], edges[at[-1] + 1]
        colour = styles[str(first["estimator"])].colour
        strip.barh(0.5, right - left, left=left, height=1.0, color=colour, linewidth=0)
        start, end = (to_axes.transform((x, 0.5))[0] for x in (left, right))
        if end - start > _LEGIBLE:
            words = style.text(first["short"], int((end - start) / _LEGIBLE * 9))
            ink = "white" if sum(colour) < _BRIGHT else "black"
            spot = {"transform": strip.transAxes, "ha": "center", "va": "center"}
            strip.text((start + end) / 2, 0.45, words, color=ink, fontsize=6.5, **spot)
    strip.text(
        1, 0.45, "lowest MSE", transform=strip.transAxes, ha="right", va="center", fontsize=7
    )


def _draw(ax: Axes, curve: pd.DataFrame, column: str, template: Line2D) -> None:
    """A curve in the band of its intervals; an upper limit has the band alone."""
    ends = curve[f"{column}_low"], curve[f"{column}_high"]
    ax.fill_between(curve["place"], *ends, color=template.get_color(), alpha=0.15, linewidth=0)
    value = curve[column].mask(curve["limit"] & (column == "bias"))
    places, every = np.arange(len(curve)), max(_MARKED, math.ceil(len(curve) / _BEADS))
    # Of a long curve the zeros are marked where they begin and end.
    zero = curve[column].eq(0).to_numpy()
    inside = zero & np.append(zero[1:], False) & np.insert(zero[:-1], 0, False)
    marked = places[(places % every == 0) | (zero & ~(inside & (every > _MARKED)))]
    line = Line2D(curve["place"], value)
    line.update_from(template)
    line.set(linewidth=1.2, markevery=marked.tolist())
    ax.add_line(line)


def _line_keys() -> dict[str, Artist]:
    band = Patch(color="0.35", alpha=0.15)
    return {
        "‖g‖, or ‖g‖² next to the variance": Line2D([], [], **_NORM),
        "95 % interval; without a line the bias may be zero": band,
    }


def _lines(settings: list[pd.DataFrame]) -> int:
    """The number of rows of triangles, for the settings and, in the first place, ‖g‖."""
    return math.ceil((1 + len(settings)) / _ABREAST)


def _ordered(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each setting, sorted by their bias, then by their variance."""
    settings = [part for _, part in rows.groupby("name")]
    biases = [part["bias"].mask(part["limit"], 0.0).median() for part in settings]
    keys = [(b, part["variance"].median()) for b, part in zip(biases, settings, strict=True)]
    return [settings[n] for n in sorted(range(len(settings)), key=keys.__getitem__)]


def _scale(drawn: Iterable[Sweep], column: str) -> LogNorm:
    """The scale of a quantity in all triangles; that of the bias includes ‖g‖."""
    columns = [column, "gradient_norm"] if column == "bias" else [column]
    values = np.concatenate([sweep.rows[columns].to_numpy().ravel() for sweep in drawn])
    low, high = canvas.limits(pd.Series(values), [])
    return LogNorm(low, max(high, 1.1 * low))


def _triangle(
    ax: Axes, rows: pd.DataFrame, cell: np.ndarray, column: str, norm: LogNorm, below: str
) -> None:
    """A cell for every measured point and nothing in between, so that a zero stays one."""
    ax.set(aspect="equal", xlim=(-0.08, 1.08), ylim=(-0.18, 0.95))
    ax.add_patch(Polygon(_CORNERS, fill=False, edgecolor="0.6", linewidth=0.8))
    for corner, at, side in zip("012", _CORNERS, ("right", "left", "center"), strict=True):
        up = "bottom" if side == "center" else "top"
        ax.text(*at, corner, ha=side, va=up, fontsize=6.5, color="0.35")
    ax.text(0.5, -0.06, below, ha="center", va="top", fontsize=7.5)
    centres, zero = _places(rows), rows[column].eq(0).to_numpy()
    cells = centres[:, None] + cell
    colours = colormaps[_MAPS[column]](norm(rows[column].to_numpy()))
    ax.add_collection(PolyCollection(cells[~zero], facecolors=colours[~zero], edgecolors="none"))
    ax.add_collection(PolyCollection(cells[zero], **_ZERO))
    if column == "bias":
        ax.plot(*centres[rows["limit"].to_numpy()].T, markersize=2.5, **_DOT)


def _places(rows: pd.DataFrame) -> np.ndarray:
    """Where in the triangle the rows are: [rows, 2]."""
    return np.array(rows["point"].tolist()) @ _CORNERS


def _hexagon(centres: np.ndarray) -> np.ndarray:
    """The corners [6, 2] of a cell about a point: those of a lattice touch, none overlap."""
    angles = np.deg2rad(np.arange(30, 390, 60))
    radius = pdist(centres).min() / math.sqrt(3)
    return radius * np.stack([np.cos(angles), np.sin(angles)], -1)


def _cell_keys() -> dict[str, Artist]:
    return {
        "exactly zero": Patch(**_ZERO),
        "may be zero; the colour shows its 95 % upper limit": Line2D([], [], **_DOT),
        "corner: category 0 is certain": Line2D(
            [], [], marker="$0$", color="0.35", linestyle="none"
        ),
    }


def _section(section: Section, formats: Formats) -> Iterator[Part]:
    """A table for each parameter, with a row for each estimator."""
    norms = tables.measured_rows(section.rows).groupby("parameter")["gradient_norm"]
    yield f"## {markup.escape(section.label)}"
    yield _reading(section.rows)
    for parameter, rows, name in section.rankings:
        symbol = tables.SYMBOLS.get(parameter, parameter)
        low, high = (number(end) for end in (norms.min()[parameter], norms.max()[parameter]))
        yield f"### Gradient in {markup.escape(symbol)}"
        yield f"‖g‖ is between {low} and {high}."
        yield from _best(section, parameter)
        yield _table(rows)
        yield formats.link(name, "Unrounded, with a row for each setting: ")


def _best(section: Section, parameter: str) -> Iterator[Part]:
    """The best estimator along a line, in ranges of its values."""
    rows = compared([section._replace(rankings=_of(section, parameter))])
    if rows.empty or len(rows["point"].iloc[0]) > _LINE:
        return
    finest = min(rows["dtype"].unique(), key=tables.resolution)
    rows = rows[rows["dtype"].eq(finest)]
    ranges = best_by_range(rows.assign(point=[point[-1] for point in rows["point"]]))
    if ranges.empty:
        return
    symbol = "θ" if len(rows["point"].iloc[0]) > 1 else "value"
    by = tables.RANKED_BY[rows["ranked_by"].iloc[0]]
    alone = markup.escape(", ".join(sorted(set(rows.loc[rows["alone"], "label"]))))
    except_for = f" Zero throughout, and not compared: {alone}." if alone else ""
    yield _RANGES.format(by=by, except_for=except_for)
    lines = [
        [
            number(row["first"]).surrounded(after=f" to {number(row['last'])}"),
            Strong(row["best"]),
            row["second"],
            count(row["settings"]),
            number(row["value"]),
            number(row["ratio"]),
        ]
        for row in ranges.head(_MOST_RANGES).to_dict("records")
    ]
    headers = (symbol, "best", "next", "settings", f"median {by}", "next / best")
    yield Table(headers, lines, left=3)
    if (more := len(ranges) - _MOST_RANGES) > 0:
        yield f"{counted(more, 'more range')}, in which noise decides or several are close."


def _of(section: Section, parameter: str) -> list[Ranking]:
    return [each for each in section.rankings if each.parameter == parameter]


def _table(rows: pd.DataFrame) -> Table:
    """A row for each estimator, sorted by its median mse."""
    settings = sorted((p for _, p in rows.groupby("label")), key=lambda p: p["mse"].median())
    place = "at π" if len(rows["point"].iloc[0]) > 1 else "at"
    headers = ("estimator", "verdicts", "largest bias", place, "median variance")
    headers = (*headers, "largest variance", "evaluations of f")
    return Table(headers, [_line(part) for part in settings], left=2)


def _reading(rows: pd.DataFrame) -> str:
    place = "probabilities π" if len(rows["point"].iloc[0]) > 1 else "value"
    return _READING.format(place=place)


def _line(rows: pd.DataFrame) -> list[str]:
    """One estimator at all settings."""
    verdicts = rows["verdict"].value_counts()
    ends = [rows[f"bias_sq_{end}"].max() for end in ("low", "high")]
    worst = rows["bias_norm"].max()
    at = rows.loc[rows["bias_norm"].eq(worst), "point"]
    return [
        str(rows["label"].iloc[0]),
        ", ".join(f"{verdict} {n}" for verdict, n in verdicts.items()),
        interval(worst, *(max(end, 0.0) ** 0.5 for end in ends)),
        _point(at.iloc[0]) if worst > 0 else "",
        number(rows["variance"].median()),
        number(rows["variance"].max()),
        count(rows["evaluations"].median()),
    ]


def _point(point: Sequence[float]) -> str:
    inside = ", ".join(map(number, point))
    return f"({inside})" if len(point) > 1 else inside


def _environment(section: Section, ranking: Ranking) -> Environment:
    symbol = tables.SYMBOLS.get(ranking.parameter, ranking.parameter)
    caption = f"Gradient estimators on {section.label}: gradient in {symbol}."
    table = _table(ranking.rows)
    table = replace(table, headers=[name.replace(" ", "\n", 1) for name in table.headers])
    return Environment(caption, _reading(ranking.rows), [table])
