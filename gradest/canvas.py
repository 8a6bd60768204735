"""The language of the figures: one look for each estimator, axes with a place for zero, labels."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# Safe for colour-blind readers; its yellow and pale pink vanish on white, black takes their place.
_COLOURS = [c for i, c in enumerate(sns.color_palette("colorblind")) if i not in (6, 8)]
_COLOURS.append((0.0, 0.0, 0.0))
_MARKERS = "os^vDPX*<>"
# Any value works; with this one the built-in catalogue has no collision, so that no name has to
# give way to another.
_SALT = 4629130

_RC = {
    **{"font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8},
    **{"figure.titlesize": 11, "legend.fontsize": 8, "text.usetex": False},
    **{"xtick.bottom": True, "ytick.left": True, "xtick.labelsize": 7, "ytick.labelsize": 7},
    **{"grid.color": "0.92", "axes.edgecolor": "0.6", "axes.titlelocation": "left"},
}
_LINE = 0.19  # inches of a legend's line
_KEY = {"marker": "o", "linestyle": "none", "color": "0.35", "markersize": 6}


class Style(NamedTuple):
    colour: tuple[float, float, float]
    marker: str

    def face(self, verdict: object) -> tuple[float, float, float]:
        """Filled when unbiased, hollow when biased, pale when inconclusive."""
        paleness = {"unbiased": 0.0, "biased": 1.0}.get(str(verdict), 0.6)
        return tuple(c + (1 - c) * paleness for c in self.colour)


def styles(names: Iterable[str]) -> dict[str, Style]:
    """One colour and marker for each name, the same in every figure and every run.

    The name's hash says which.  Where two names want the same, the first in alphabetical order
    has it and the other takes the next free one, after all that get what they want.
    """
    slots = [Style(to_rgb(c), m) for m in _MARKERS for c in _COLOURS]
    taken: dict[int, str] = {}
    displaced = []
    for name in sorted(set(names)):
        if taken.setdefault(_slot(name, len(slots)), name) != name:
            displaced.append(name)
    chosen = {name: slots[slot] for slot, name in taken.items()}
    for name in displaced:
        slot = _slot(name, len(slots))
        while slot in taken and len(taken) < len(slots):
            slot = (slot + 1) % len(slots)
        taken.setdefault(slot, name)
        chosen[name] = slots[slot]
    return chosen


def _slot(name: str, slots: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{_SALT}{name}".encode()).digest()[:8], "big") % slots


@contextmanager
def look() -> Iterator[None]:
    with rc_context({**sns.axes_style("whitegrid"), **_RC}):
        yield


def panels(
    rows: int, columns: int, size: tuple[float, float], legend: dict[str, Any], title: str
) -> tuple[Figure, np.ndarray]:
    """A figure with so many panels of `size` inches, its title and a legend below them.

    `legend` maps text to a handle.
    """
    width = max(columns * size[0], 6.5)
    longest = max((len(text) for text in legend), default=1)
    across = max(1, int(width / (0.55 + 0.075 * longest)))
    height = rows * size[1] + 0.9 + _LINE * math.ceil(len(legend) / across)
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left")
    handles, texts = list(legend.values()), [shown(text, 60) for text in legend]
    figure.legend(handles, texts, loc="outside lower left", ncols=across, frameon=False)
    return figure, figure.subplots(rows, columns, squeeze=False)


def verdict_key() -> dict[str, Line2D]:
    grey = Style(to_rgb("0.35"), "o")
    return {
        f"{verdict}": Line2D([], [], markerfacecolor=grey.face(verdict), **_KEY)
        for verdict in ("unbiased", "biased", "inconclusive")
    }


def limit_key() -> dict[str, Line2D]:
    key = {**_KEY, "marker": r"$\downarrow$", "markersize": 8}
    return {"bias below this, at 95 %": Line2D([], [], **key)}


def shown(text: str, most: int = 40) -> str:
    """One line that matplotlib takes for text, not for mathematics or a hidden label."""
    line = " ".join(text.split())
    line = line if len(line) <= most else line[: most - 1] + "…"
    return line.replace("$", r"\$") if not line.startswith("_") else " " + line.replace("$", r"\$")


def logarithmic(ax: Axes, name: str, values: Sequence[float], plain: bool = False) -> None:
    """Make axis `name` ("x" or "y") logarithmic, with a shaded band for zeros if there are any.

    `values` are all that must be visible; `plain` writes 100 instead of 10².
    """
    found = np.asarray(values, dtype=float)
    positive = found[np.isfinite(found) & (found > 0)]
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    room = 1.25 * max(high / low, 2.0) ** 0.08
    axis, set_limits = getattr(ax, f"{name}axis"), getattr(ax, f"set_{name}lim")
    if (found == 0).any():
        start = math.floor(math.log10(low / 1.5))
        threshold = 10.0**start
        getattr(ax, f"set_{name}scale")("symlog", linthresh=threshold, linscale=0.6)
        set_limits(-0.5 * threshold, high * room)
        band = ax.axvspan if name == "x" else ax.axhspan
        band(-0.5 * threshold, 0.5 * threshold, color="0.95", zorder=0)
        decades = range(start, math.floor(math.log10(high * room)) + 1)
        ticks = [10.0**k for k in decades[:: max(1, math.ceil(len(decades) / 6))]]
        axis.set_major_locator(FixedLocator([0.0, *ticks]))
        axis.set_minor_locator(NullLocator())
    else:
        getattr(ax, f"set_{name}scale")("log")
        set_limits(low / room, high * room)
    if plain:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    ax.grid(visible=False, which="minor")


def arrow_down(ax: Axes, x: float, y: float, colour: Any) -> None:
    """Marks (x, y) as an upper limit."""
    arrow = {"arrowstyle": "<-", "color": colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 2}
    ax.annotate("", (x, y), (0, -15), textcoords="offset points", arrowprops=arrow)


def label_points(ax: Axes, points: Sequence[tuple[float, float, str, Any]], own: int) -> None:
    """Write the text of every (x, y, text, colour) beside its point, where there is room.

    A label that would cover a point, another label or the frame is left out: the legend has it.
    `own` is the half-width in points of what is drawn at each point.
    """
    figure = ax.figure
    figure.draw_without_rendering()
    renderer, unit = figure.canvas.get_renderer(), figure.dpi / 72
    frame = ax.get_window_extent(renderer).extents
    centres = ax.transData.transform([(x, y) for x, y, _, _ in points])
    taken = [np.array([x - own * unit, y - own * unit, x + own * unit, y + own * unit])
             for x, y in centres]
    for (x, y), (_, _, text, colour), at in zip(centres, points, points, strict=True):
        note = ax.annotate(
            shown(text), at[:2], textcoords="offset points", color=_dark(colour), fontsize=6.5,
            xytext=(0, 0),
        )
        note.set_in_layout(False)
        box = note.get_window_extent(renderer)
        for dx, dy in _offsets(box.width / unit, box.height / unit, own + 1):
            place = np.array([x + dx * unit, y + dy * unit] * 2)
            place[2:] += box.width, box.height
            inside = (place[:2] > frame[:2]).all() and (place[2:] < frame[2:]).all()
            if inside and not any(_overlap(place, other) for other in taken):
                note.set_position((dx, dy))
                taken.append(place)
                break
        else:
            note.remove()


def _offsets(width: float, height: float, gap: float) -> Iterator[tuple[float, float]]:
    """Lower left corners around a point, the most readable first."""
    for ring in (gap, 2.2 * gap):
        middle = -height / 2
        yield from ((ring, middle), (-ring - width, middle))
        yield from ((-width / 2, ring), (-width / 2, -ring - height))
        yield from ((ring, ring / 2), (ring, -ring / 2 - height))
        yield from ((-ring - width, ring / 2), (-ring - width, -ring / 2 - height))


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a[:2] < b[2:]).all() and (b[:2] < a[2:]).all())


def _dark(colour: Any) -> tuple[float, ...]:
    return tuple(0.7 * c for c in to_rgb(colour))
