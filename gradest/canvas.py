"""What the figures are drawn with: panels, axes that have a place for zero, points, labels."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gradest.looks import Look, text

Place = tuple[float, float]  # in data coordinates

_LEGEND_LINE = 0.19  # inches
_CHARACTER = 0.068
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_OWN = 4.5  # points from the centre of a marker that labels keep clear of


def panels(
    rows: int,
    columns: int,
    size: tuple[float, float],
    title: str,
    keys: Mapping[str, Artist],
    names: Mapping[str, Artist],
) -> tuple[Figure, np.ndarray]:
    """A figure of panels of `size` inches: under its title what signs mean, below it names."""
    width = max(columns * size[0], 6.5)
    longest = max((len(text(name, 60)) for name in names), default=1)
    across = max(1, int(width / (0.5 + _CHARACTER * longest)))
    height = rows * size[1] + 0.8 + _LEGEND_LINE * math.ceil(len(names) / across)
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    _legend(figure, "upper", keys, max(len(keys), 1), title)
    _legend(figure, "lower", names, across)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _legend(
    figure: Figure, side: str, handles: Mapping[str, Artist], columns: int, title: str = ""
) -> None:
    figure.legend(
        *(list(handles.values()), [text(words, 60) for words in handles]),
        **{"loc": f"outside {side} left", "ncols": columns, "frameon": False},
        **{"title": title, "title_fontsize": 11, "alignment": "left", "columnspacing": 1.4},
    )


def logarithmic(
    ax: Axes, name: str, points: pd.Series, ends: Sequence[pd.Series] = (), plain: bool = False
) -> None:
    """Make axis `name` ("x" or "y") logarithmic, with a shaded band for zeros if there are any.

    All `points` and the positive ones of `ends` are visible; `plain` writes 100 for 10².
    """
    values = pd.concat([points, *ends]).to_numpy()
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    room = 1.3 * max(high / low, 2.0) ** 0.08
    axis, limits = getattr(ax, f"{name}axis"), getattr(ax, f"set_{name}lim")
    if points.eq(0).any():
        unit = low / 1.6
        getattr(ax, f"set_{name}scale")("symlog", linthresh=unit, linscale=0.6)
        limits(-0.5 * unit, high * room)
        band = ax.axvspan if name == "x" else ax.axhspan
        band(-0.5 * unit, 0.5 * unit, color="0.95", zorder=0)
        decades = range(math.ceil(math.log10(0.9 * low)), math.floor(math.log10(high * room)) + 1)
        every = max(1, math.ceil(len(decades) / 6))
        axis.set_major_locator(FixedLocator([0.0, *(10.0**k for k in decades[::every])]))
        axis.set_minor_locator(NullLocator())
    else:
        getattr(ax, f"set_{name}scale")("log")
        limits(low / room, high * room)
    if plain:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.6g}"))


def ticks_at(ax: Axes, values: pd.Series, most: int = 7) -> None:
    """Ticks of the x axis at the values themselves, where they are few."""
    found = sorted(set(values))
    if len(found) <= most:
        ax.xaxis.set_major_locator(FixedLocator(found))
        ax.xaxis.set_minor_locator(NullLocator())


def points(ax: Axes, rows: pd.DataFrame, look: Look, x: str, y: str, by: str | None = None) -> None:
    """A point a row at columns x and y, with bars to x_low, x_high, y_low and y_high.

    Filled by verdict; an arrow where y is `bias` and the row says `limit`; joined in the order of
    `by`.
    """
    if by is not None:
        rows = rows.sort_values(by)
        ax.plot(rows[x], rows[y], color=look.colour, linewidth=0.9, alpha=0.6)
    bars = {f"{name}err": _bars(rows, column) for name, column in (("x", x), ("y", y))}
    ax.errorbar(rows[x], rows[y], fmt="none", ecolor=look.colour, elinewidth=0.9, **bars)
    for at_x, at_y, verdict in zip(rows[x], rows[y], rows["verdict"], strict=True):
        ax.plot(
            *(at_x, at_y, look.marker),
            **{"markersize": 6, "markeredgewidth": 1.1, "zorder": 3, "clip_on": False},
            **{"markeredgecolor": look.colour, "markerfacecolor": look.face(verdict)},
        )
    if y == "bias":
        arrow = {"arrowstyle": "<-", "color": look.colour, "shrinkA": 0, "shrinkB": 3}
        for at in rows.loc[rows["limit"], [x, y]].itertuples(index=False):
            ax.annotate("", at, (0, -15), textcoords="offset points", arrowprops=arrow)


def _bars(rows: pd.DataFrame, column: str) -> np.ndarray | None:
    if f"{column}_low" not in rows:
        return None
    ends = [rows[column] - rows[f"{column}_low"], rows[f"{column}_high"] - rows[column]]
    return np.nan_to_num(np.clip(ends, 0, None))


class Labels:
    """Text beside points of an axes that is laid out, wherever there is room.

    A label that would cover one of the `marks` [points, 2], another label or the frame is left
    out: it only repeats the legend.
    """

    def __init__(self, ax: Axes, marks: np.ndarray) -> None:
        self._ax = ax
        self._unit = ax.figure.dpi / 72
        self._renderer = ax.figure.canvas.get_renderer()
        self._frame = ax.get_window_extent(self._renderer).extents
        centres = ax.transData.transform(marks)
        self._taken = np.hstack([centres - _OWN * self._unit, centres + _OWN * self._unit])

    def write(self, words: str, places: Sequence[Place], look: Look) -> Place | None:
        """Write `words` beside the first of `places` that has room, and say which that is."""
        colour = tuple(0.75 * c for c in look.colour)
        note = self._ax.annotate(
            text(words), places[0], color=colour, fontsize=6.5, va="bottom", zorder=4
        )
        note.set_in_layout(False)
        extent = note.get_window_extent(self._renderer)
        for place, offset in _offsets(
            places, extent.width / self._unit, extent.height / self._unit
        ):
            corner = self._ax.transData.transform(place) + np.array(offset) * self._unit
            box = np.concatenate([corner, corner + extent.size])
            if _within(box, self._frame) and not _overlap(box, self._taken).any():
                note.xy = place
                note.set(anncoords="offset points", position=offset)
                self._taken = np.vstack([self._taken, box])
                return place
        note.remove()
        return None


def _offsets(
    places: Sequence[Place], width: float, height: float
) -> Iterator[tuple[Place, tuple[float, float]]]:
    """Places with lower left corners beside them, in points, the most readable first."""
    for gap in (_OWN + 1, 2 * _OWN):
        for place in places:
            for across, up in _DIRECTIONS:
                yield place, (_corner(across, gap, width), _corner(up, gap, height))


def _corner(direction: int, gap: float, extent: float) -> float:
    return direction * gap - extent * (1 - direction) / 2


def _within(box: np.ndarray, frame: np.ndarray) -> bool:
    return bool((box[:2] > frame[:2]).all() and (box[2:] < frame[2:]).all())


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    return ((box[:2] < others[:, 2:]) & (others[:, :2] < box[2:])).all(axis=1)
