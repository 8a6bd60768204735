"""The elements of figures: panels, axes that have a place for zero, points and labels."""

import io
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWN, CARETLEFT, CARETRIGHT, CARETUP
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from gradest.report.figures.style import FILLED, Style, current_paper, text

_SHARPNESS = 150  # dots per inch
_LARGEST = 2**15  # dots to a side; matplotlib refuses twice as many
_NARROWEST = 7.6  # inches, for a title
_LEGEND_LINE = 0.19
_CHARACTER = 0.068
_TICKS = 7  # at most, on an axis with chosen ticks
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_LIMITED = ("bias", "part")  # columns of which rows say whether they are upper limits
_INSIDE = -1  # no marker
_FAR = 1e10  # times the median of an axis: what is further away is off the axis
_BEYOND = 1e6  # times the points, as far as the ends of intervals may stretch an axis
_OWN = 4.5  # points from the centre of a marker that labels keep clear of

Part = tuple[Axes, pd.DataFrame, str, str]  # axes, the rows drawn in them, and the columns x and y


class Drawing(Figure):
    """A figure that a notebook shows, also without pyplot."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png", dpi="figure")
        return image.getvalue()


def panels(
    rows: int,
    columns: int,
    size: tuple[float, float],
    title: str,
    keys: Mapping[str, Artist],
    names: Mapping[str, Artist],
) -> tuple[Figure, np.ndarray]:
    """A figure of panels of `size` inches, with `keys` under its title and `names` below it.

    For a paper it has the width of that, panels of the same shape and no title.
    """
    paper = current_paper()
    if paper:
        width, title, scale = paper.width, "", paper.size / 8
        size = paper.width / columns, paper.width / columns * size[1] / size[0]
    else:
        width, scale = max(columns * size[0], _NARROWEST), 1.0
    longest = max((len(text(name, 60)) for name in names), default=1)
    across = max(1, int(width / (0.5 + _CHARACTER * longest)))
    above = max(len(keys), 1)
    if paper:
        across, above = (_legend_columns(each, width, scale) for each in (names, keys))
    lines = math.ceil(len(names) / across) + (math.ceil(len(keys) / above) if paper else 0)
    height = rows * size[1] + (0.3 if paper else 0.8) + scale * _LEGEND_LINE * lines
    sharpness = min(_SHARPNESS, _LARGEST / max(width, height))
    figure = Drawing((width, height), dpi=sharpness, layout="constrained")
    FigureCanvasAgg(figure)
    _legend(figure, "upper", keys, above, title)
    _legend(figure, "lower", names, across)
    return figure, figure.subplots(rows, columns, squeeze=False)


def across(columns: int, width: float) -> int:
    """How many panels of `width` inches stand side by side, of at most `columns`: for a paper, as
    many as stay half as wide.
    """
    paper = current_paper()
    return max(1, min(columns, int(2 * paper.width / width))) if paper else columns


def _legend_columns(entries: Mapping[str, Artist], width: float, scale: float) -> int:
    """As many columns, filled one after the other, as fit into `width` inches.

    An entry takes a handle, the space around it and its letters, of 0.055 inches at 8 points.
    """
    lengths = [len(text(name, 60)) for name in entries]
    for columns in range(len(lengths), 1, -1):
        longest = [max(part) for part in np.array_split(lengths, columns)]
        if sum(scale * (0.47 + 0.055 * length) for length in longest) <= width:
            return columns
    return 1


def _legend(
    figure: Figure, side: str, handles: Mapping[str, Artist], columns: int, title: str = ""
) -> None:
    if not handles and not title:
        return
    legend = figure.legend(
        list(handles.values()),
        [text(words, 60) for words in handles],
        loc=f"outside {side} left",
        ncols=columns,
        columnspacing=1.4,
        frameon=False,
        alignment="left",
    )
    if title:
        legend.set_title(title, {"size": 11})


def logarithmic(
    ax: Axes, name: str, points: pd.Series, ends: Sequence[pd.Series] = (), plain: bool = False
) -> None:
    """Make axis `name` ("x" or "y") logarithmic, with a shaded band for zeros if there are any.

    `points` are visible and so are the positive ones of `ends`, but for those that are absurdly far
    away from most: an axis which held these would show nothing else.  `plain` writes 100 for 10².
    """
    low, high = limits(points, ends)
    room = 1.3 * max(high / low, 2.0) ** 0.08
    axis = getattr(ax, f"{name}axis")
    if points.eq(0).any():
        _with_zero(ax, name, low, high * room, plain)
    else:
        getattr(ax, f"set_{name}scale")("log")
        getattr(ax, f"set_{name}lim")(low / room, high * room)
        if high < 1e3 * low:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_formatter(NullFormatter())
    if points.empty:
        ax.text(0.5, 0.5, "unknown", transform=ax.transAxes, ha="center", color="0.4")
    if plain:
        axis.set_major_formatter(FuncFormatter(_plain))


def limits(points: pd.Series, ends: Sequence[pd.Series]) -> tuple[float, float]:
    """The limits of positive points and of their ends, without absurdly large or small ones."""
    positive = points.astype(float)
    positive = positive[np.isfinite(positive) & positive.gt(0)]
    if positive.empty:
        visible = np.concatenate([np.ones(0), *map(_positive, ends)])
        return (visible.min(), visible.max()) if len(visible) else (1.0, 1.0)
    middle = 10 ** float(np.log10(positive).median())
    near = positive[positive.between(middle / _FAR, middle * _FAR)]
    if near.empty:
        return middle, middle
    far = positive.index.difference(near.index)  # whose ends do not count
    further = np.concatenate([near, *(_positive(end.drop(far, errors="ignore")) for end in ends)])
    return max(further.min(), near.min() / _BEYOND), min(further.max(), near.max() * _BEYOND)


def _positive(values: pd.Series) -> np.ndarray:
    numbers = values.to_numpy(dtype=float)
    return numbers[np.isfinite(numbers) & (numbers > 0)]


def _plain(value: float, _: int | None) -> str:
    return f"{value:,.6g}"


def _with_zero(ax: Axes, name: str, low: float, high: float, fine: bool) -> None:
    """A logarithmic axis from `low` to `high` that is linear below, down to a band around zero."""
    unit = low / 1.6
    getattr(ax, f"set_{name}scale")("symlog", linthresh=unit, linscale=0.6)
    getattr(ax, f"set_{name}lim")(-0.5 * unit, high)
    band = ax.axvspan if name == "x" else ax.axhspan
    band(-0.5 * unit, 0.5 * unit, color="0.95", zorder=0)
    powers = range(math.floor(math.log10(unit)), math.floor(math.log10(high)) + 1)
    between = [k * 10.0**power for power in powers for k in (1, 2, 5)]
    between = [tick for tick in between if unit < tick <= high]
    decades = [10.0**power for power in powers if 10.0**power > unit]
    axis = getattr(ax, f"{name}axis")
    narrow = len(decades) < 2  # one decade next to zero would leave the axis without a scale
    if narrow and not fine:
        axis.set_major_formatter(FuncFormatter(_plain))
    ticks = between if narrow or (fine and len(between) <= _TICKS) else decades
    axis.set_major_locator(FixedLocator([0.0, *ticks[:: max(1, math.ceil(len(ticks) / _TICKS))]]))
    axis.set_minor_locator(NullLocator())


def ticks_at(ax: Axes, values: pd.Series) -> None:
    """Ticks of the x axis at the values themselves, where they are few."""
    ticks = sorted(set(values))
    if len(ticks) <= _TICKS:
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())


def points(
    ax: Axes,
    rows: pd.DataFrame,
    style: Style,
    x: str,
    y: str,
    by: str | None = None,
    fill: str | None = None,
) -> None:
    """One point per row at columns x and y, with bars to x_low, x_high, y_low and y_high.

    Joined in the order of the column `by`; hollow by the column `fill`, from 0 (filled, also
    without that column) to 1; with an arrow where y is `bias` or `part` and the row is a `limit`.
    """
    if by is not None:
        rows = rows.sort_values(by)
    rows, off = _onto(ax, rows, x, y)
    if by is not None:
        ax.plot(rows[x], rows[y], color=style.colour, linewidth=0.9, alpha=0.6)
    bars = {f"{name}err": _bars(rows, column) for name, column in (("x", x), ("y", y))}
    ax.errorbar(rows[x], rows[y], fmt="none", ecolor=style.colour, elinewidth=0.9, **bars)
    paleness = [FILLED] * len(rows) if fill is None else rows[fill]
    for at_x, at_y, pale, side in zip(rows[x], rows[y], paleness, off, strict=True):
        mark = {"color": style.colour, "markerfacecolor": style.face(pale)}
        mark |= {"marker": style.marker if side == _INSIDE else side, "linestyle": "none"}
        ax.plot(at_x, at_y, markeredgewidth=1.1, zorder=3, clip_on=False, **mark)
    if y in _LIMITED:
        arrow = {"arrowstyle": "<-", "color": style.colour, "shrinkA": 0, "shrinkB": 3}
        for at in rows.loc[rows["limit"], [x, y]].itertuples(index=False):
            ax.annotate("", at, (0, -15), textcoords="offset points", arrowprops=arrow)


def _onto(ax: Axes, rows: pd.DataFrame, x: str, y: str) -> tuple[pd.DataFrame, list[int]]:
    """The rows with points outside the axes moved to the frame, and an arrowhead for each."""
    everything = -np.inf, np.inf  # on an axis whose limits are not set yet
    left, right = everything if ax.get_autoscalex_on() else ax.get_xlim()
    bottom, top = everything if ax.get_autoscaley_on() else ax.get_ylim()
    off = np.select(
        [rows[y] > top, rows[y] < bottom, rows[x] > right, rows[x] < left],
        [CARETUP, CARETDOWN, CARETRIGHT, CARETLEFT],
        _INSIDE,
    )
    if (off == _INSIDE).all():
        return rows, off.tolist()
    ends = {f"{name}{e}" for name in (x, y) for e in ("_low", "_high")} & set(rows)
    kept = {c: rows[c].mask(pd.Series(off != _INSIDE, rows.index)) for c in ends}  # no bars there
    return (
        rows.assign(**kept, **{x: rows[x].clip(left, right), y: rows[y].clip(bottom, top)}),
        off.tolist(),
    )


def banded(ax: Axes, rows: pd.DataFrame, style: Style, x: str, y: str) -> None:
    """A line through the rows in a band from y_low to y_high, with a marker where it begins.

    Strong where the rows are `best`, else faint.
    """
    ax.fill_between(
        rows[x], rows[f"{y}_low"], rows[f"{y}_high"], color=style.colour, alpha=0.12, linewidth=0
    )
    ax.plot(rows[x], rows[y], color=style.colour, linewidth=0.9, alpha=0.6)
    ax.plot(rows[x], rows[y].where(rows["best"]), color=style.colour, linewidth=1.8, zorder=3)
    first = rows.iloc[0]
    mark = {"color": style.colour, "markerfacecolor": style.face(first["paleness"])}
    ax.plot(first[x], first[y], style.marker, markeredgewidth=1.1, zorder=4, **mark)


def _bars(rows: pd.DataFrame, column: str) -> np.ndarray | None:
    if f"{column}_low" not in rows:
        return None
    ends = [rows[column] - rows[f"{column}_low"], rows[f"{column}_high"] - rows[column]]
    return np.nan_to_num(np.clip(ends, 0, None))


def lay_out(figure: Figure) -> None:
    """Fix the places of the panels, so that labels can be fitted into them."""
    if figure.get_layout_engine() is None:  # they are fixed
        return
    figure.draw_without_rendering()
    # Not "none", which leaves an engine without effect, for which savefig draws every file twice.
    with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)


def label_curves(figure: Figure, parts: Iterable[Part], styles: Mapping[str, Style]) -> None:
    """Every curve's name at its last point, or elsewhere on it."""
    lay_out(figure)
    for ax, rows, x, y in parts:
        labels = Labels(ax, rows, x, y)
        for (name, tag), curve in rows.groupby(["estimator", "tag"], sort=False):
            curve = curve.sort_values(x, ascending=False)
            labels.write(f"{name} {tag}".strip(), curve, styles[str(name)])


class Labels:
    """Text next to the points (x, y) of rows, in an axes that is laid out, where there is room.

    A label never covers a point, an arrow, another label or the frame: rather than that it is
    left out, since it only repeats the legend.  It covers a line where nothing else is free.
    """

    def __init__(self, ax: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
        self._ax, self._x, self._y = ax, x, y
        self._unit = ax.figure.dpi / 72
        self._renderer = ax.figure.canvas.get_renderer()
        self._frame = ax.get_window_extent(self._renderer).extents
        centres = ax.transData.transform(rows[[x, y]].to_numpy())
        arrows = centres[rows["limit"]] if y in _LIMITED else centres[:0]
        self._taken = np.vstack(
            [self._around(centres, -_OWN, -_OWN, _OWN), self._around(arrows, -2, -16, 2)]
        )
        self._lines = self._around(_drawn(ax), -1, -1, 1)

    def write(self, words: str, rows: pd.DataFrame, style: Style) -> bool:
        """Write `words` next to the first of `rows` that has room; whether there is any."""
        places = rows[[self._x, self._y]].to_numpy()
        colour = tuple(0.75 * c for c in style.colour)
        paper = current_paper()
        points = paper.size if paper else 6.5
        note = self._ax.annotate(
            text(words), places[0], color=colour, fontsize=points, va="bottom", zorder=4
        )
        note.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
        extent = note.get_window_extent(self._renderer)
        offsets = list(_offsets(*(extent.size / self._unit)))
        for obstacles in (np.vstack([self._taken, self._lines]), self._taken):
            for place, offset in itertools.product(places, offsets):
                corner = self._ax.transData.transform(place) + np.array(offset) * self._unit
                box = np.concatenate([corner, corner + extent.size])
                if _within(box, self._frame) and not _overlap(box, obstacles):
                    note.xy = tuple(place)
                    note.set(anncoords="offset points", position=offset)
                    self._taken = np.vstack([self._taken, box])
                    return True
        note.remove()
        return False

    def _around(self, centres: np.ndarray, left: float, down: float, up: float) -> np.ndarray:
        """Boxes [points, 4] in pixels, for margins in points; as wide to both sides."""
        return np.hstack(
            [
                centres + np.array([left, down]) * self._unit,
                centres + np.array([-left, up]) * self._unit,
            ]
        )


def _drawn(ax: Axes) -> np.ndarray:
    """Pixels [pixels, 2] on the lines and the error bars of an axes."""
    paths = [line.get_xydata().reshape(-1, 2) for line in ax.lines if line.get_linestyle() == "-"]
    for bars in ax.collections:
        if isinstance(bars, LineCollection):
            paths += [segment for segment in bars.get_segments() if len(segment)]
    pieces = [np.empty((0, 2))]
    for path in paths:
        corners = ax.transData.transform(path)
        corners = corners[np.isfinite(corners).all(axis=1)]
        for start, end in itertools.pairwise(corners):
            steps = np.linspace(0, 1, 2 + int(np.abs(end - start).max() / 3))
            pieces.append(start + steps[:, None] * (end - start))
    return np.vstack(pieces)


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Lower left corners of a box next to a point, in points, the most readable first."""
    for gap in (_OWN + 1, 2 * _OWN):
        for across, up in _DIRECTIONS:
            yield _corner(across, gap, width), _corner(up, gap, height)


def _corner(direction: int, gap: float, extent: float) -> float:
    return direction * gap - extent * (1 - direction) / 2


def _within(box: np.ndarray, frame: np.ndarray) -> bool:
    return bool((box[:2] > frame[:2]).all() and (box[2:] < frame[2:]).all())


def _overlap(box: np.ndarray, others: np.ndarray) -> bool:
    return bool(((box[:2] < others[:, 2:]) & (others[:, :2] < box[2:])).all(axis=1).any())
