"""The style of figures: one colour and marker for each estimator, one meaning for each filling."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D

from gradest.errors import UsageError
from gradest.report.frames.tables import STAND_IN
from gradest.runs import ORIGIN
from gradest.statistics import UNBIASED_WITHIN
from gradest.support import suggestion

Colour = tuple[float, float, float]

# Safe for colour-blind readers.  Its yellow and pale pink vanish on white; black takes their place.
_COLOURS = [c for i, c in enumerate(sns.color_palette("colorblind")) if i not in (6, 8)]
_COLOURS.append((0.0, 0.0, 0.0))
_MARKERS = "os^vDPX*<>"
# Any value works; with this one no two names of the built-in catalogue get the same style.
_SALT = 4629130

_GREY = (0.35, 0.35, 0.35)
FILLED, PALE, HOLLOW = 0.0, 0.6, 1.0
_PALENESS = {"unbiased": FILLED, "biased": HOLLOW, "inconclusive": PALE}
_FADED = (0.72, 0.72, 0.72)  # of points that stand in for what was not measured
GUIDE = {"color": "0.6", "linewidth": 0.8}
BEST = {"color": "0.8", "linewidth": 6, "solid_capstyle": "butt", "zorder": 1}

_RC = {
    **{"font.family": "DejaVu Sans", "font.size": 8, "text.usetex": False},
    **{"figure.titlesize": 11, "axes.titlesize": 9, "axes.labelsize": 8, "legend.fontsize": 8},
    **{"axes.titlelocation": "left", "axes.edgecolor": "0.6", "grid.color": "0.92"},
    **{"xtick.bottom": True, "ytick.left": True, "xtick.labelsize": 7, "ytick.labelsize": 7},
}


class Paper(NamedTuple):
    """What a journal asks of a figure."""

    width: float  # inches
    size: float  # of text, in points
    font: str

    @property
    def settings(self) -> dict[str, object]:
        """Settings of matplotlib; type 42 embeds fonts whole, as journals require."""
        size = dict.fromkeys(("axes.titlesize", "axes.labelsize", "legend.fontsize"), self.size)
        size |= dict.fromkeys(("font.size", "xtick.labelsize", "ytick.labelsize"), self.size)
        return {**size, "font.family": self.font, "pdf.fonttype": 42}


_PAPER: ContextVar[Paper | None] = ContextVar("paper", default=None)
_WIDTHS = (4.0, 60.0)  # cm, between which a figure can be drawn
_SIZES = (4.0, 24.0)  # points


@contextmanager
def paper(width: float = 8.5, size: float = 8.0, font: str = "DejaVu Sans") -> Iterator[None]:
    """Figures for a paper: those that are drawn inside are `width` cm wide, in text of `size` pt.

    They have no title, which a caption replaces.  Panels that are not wide enough stand below each
    other; a figure with several columns needs the width of a page, 17 cm or so.  `font` is a font
    that matplotlib finds, such as "STIXGeneral", which goes with Times.  Save them inside as well,
    so that their fonts are embedded, and without bbox_inches="tight", which changes the width.

    Raises UsageError for a width that is not between 4 and 60 cm, a size that is not between 4 and
    24 pt and an unknown font.
    """
    for name, value, (least, most) in (("width", width, _WIDTHS), ("size", size, _SIZES)):
        if not least <= value <= most:
            raise UsageError(f"paper: {name} = {value!r}; expected {least:g} to {most:g}")
    available = {each.name for each in fontManager.ttflist}
    if font not in available:
        raise UsageError(f"paper: unknown font {font!r}{suggestion(font, available)}")
    chosen = Paper(width / 2.54, size, font)
    token = _PAPER.set(chosen)
    try:
        with rc_context(chosen.settings):
            yield
    finally:
        _PAPER.reset(token)


def current_paper() -> Paper | None:
    """What the block of `paper` around this call asks for."""
    return _PAPER.get()


class Style(NamedTuple):
    """The colour and the marker of an estimator."""

    colour: Colour
    marker: str

    def face(self, paleness: float) -> Colour:
        """The colour inside a marker, from filled (0) to hollow (1)."""
        red, green, blue = (c + (1 - c) * paleness for c in self.colour)
        return red, green, blue

    def faded(self) -> "Style":
        """The same marker in grey."""
        return Style(_FADED, self.marker)

    def key(self) -> Line2D:
        return Line2D([], [], color=self.colour, marker=self.marker, linestyle="none")


def assign_styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name, the same in every figure of a run, and mostly in every run.

    It is chosen by the hash of the name.  Where two names have the same hash, the first in
    alphabetical order gets the style; the others get those that are still free afterwards.  As long
    as there are colours for all names, no two names share one.
    """
    slots = [Style(colour, marker) for marker in _MARKERS for colour in _COLOURS]
    ordered = sorted(set(names))
    # A slot stands for its colour alone, or for its colour and marker.
    kinds = len(_COLOURS) if len(ordered) <= len(_COLOURS) else len(slots)
    taken: dict[int, str] = {}
    for name in ordered:
        taken.setdefault(_slot(name, len(slots)) % kinds, name)
    chosen = {name: slots[_slot(name, len(slots))] for name in taken.values()}
    for name in ordered:
        slot = own = _slot(name, len(slots))
        while name not in chosen and slot % kinds in taken and len(taken) < kinds:
            slot = (slot + 1) % len(slots)
        taken.setdefault(slot % kinds, name)
        marker = slots[own if kinds < len(slots) else slot].marker
        chosen.setdefault(name, Style(slots[slot].colour, marker))
    return chosen


def legend_entries(rows: pd.DataFrame, styles: Mapping[str, Style]) -> dict[str, Line2D]:
    """A handle for each estimator, with the knobs whose values its labels show."""
    entries = {}
    for name, settings in rows["settings"].groupby(rows["estimator"], sort=True):
        knobs = ", ".join(dict.fromkeys(k for each in settings for k in each))
        entries[f"{name} ({knobs})" if knobs else str(name)] = styles[str(name)].key()
    return entries


def paleness(verdicts: pd.Series) -> pd.Series:
    """How pale points with these verdicts are: biased ones are hollow, unbiased ones filled."""
    return verdicts.map(lambda verdict: _PALENESS.get(str(verdict), FILLED)).astype(float)


def _slot(name: str, slots: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{_SALT}{name}".encode()).digest()[:8], "big") % slots


@contextmanager
def theme() -> Iterator[None]:
    """The same settings for everything that is drawn inside; the user's settings are restored."""
    own = _PAPER.get()
    with rc_context({**sns.axes_style("whitegrid"), **_RC, **(own.settings if own else {})}):
        yield


def verdict_keys() -> dict[str, Line2D]:
    grey = Style(_GREY, "o")
    return {
        verdict: Line2D([], [], **_point(grey), markerfacecolor=grey.face(paleness))
        for verdict, paleness in _PALENESS.items()
    }


def stand_in_keys(rows: pd.DataFrame) -> dict[str, Line2D]:
    """The legend for rows of another run, if there are any."""
    names = rows[ORIGIN].dropna().unique()
    return {f"{STAND_IN} {name}, not measured here": Style(_FADED, "o").key() for name in names}


def bias_keys() -> dict[str, Line2D]:
    """The legend for the margin and the arrows of a bias axis."""
    margin = Line2D([], [], linestyle="--", **GUIDE)
    return {f"{100 * UNBIASED_WITHIN:g} % of ‖g‖": margin} | limit_keys()


def limit_keys() -> dict[str, Line2D]:
    arrow = Line2D([], [], **_point(Style(_GREY, r"$\downarrow$")))
    return {"upper limit of the bias (95 %)": arrow}


def work_keys() -> dict[str, Line2D]:
    return {"equal variance × evaluations": Line2D([], [], linestyle=":", **GUIDE)}


def best_keys() -> dict[str, Line2D]:
    return {"lowest MSE at a budget": Line2D([], [], **BEST)}


def part_keys() -> dict[str, Line2D]:
    """The legend for the points and the arrows of a part of the variance."""
    grey = Style(_GREY, "o")
    return {
        "above zero, 95 %": Line2D([], [], **_point(grey)),
        "may be zero": Line2D([], [], **_point(grey), markerfacecolor=grey.face(PALE)),
        "upper limit, 95 %": Line2D([], [], **_point(Style(_GREY, r"$\downarrow$"))),
    }


def _point(style: Style) -> dict[str, object]:
    return {"color": style.colour, "marker": style.marker, "linestyle": "none", "markersize": 6}


def text(words: object, most: int = 40) -> str:
    """One line that matplotlib takes for text, not for mathematics or for a hidden label."""
    return _literal(_cut(_line(words), most))


def titles(names: Iterable[object], most: int = 40) -> list[str]:
    """The `text` of each name; different names have different titles.

    Where cutting would make them equal, the common part is shortened instead of the differences.
    """
    lines = [_line(name) for name in names]
    alike: dict[str, list[str]] = {}
    for line in dict.fromkeys(lines):
        alike.setdefault(_cut(line, most), []).append(line)
    shown = {}
    for cut, group in alike.items():
        unlike = [cut] if len(group) == 1 else _distinguished(group, most)
        shown.update(zip(group, unlike, strict=True))
    return [_literal(shown[line]) for line in lines]


def _distinguished(lines: list[str], most: int) -> list[str]:
    """Their common beginning, then the part that differs; numbered where that is cut alike."""
    columns = zip(*lines, strict=False)
    differ = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    start = max(lines[0].rfind(mark, 0, differ) + len(mark) for mark in (" ", "("))  # of a word
    ends = [_cut(line[start:], 2 * most // 3) for line in lines]
    shortened = [f"{lines[0][: most - len(end) - 1]}…{end}" for end in ends]
    if len(set(shortened)) == len(shortened):
        return shortened
    return [_cut(line, most - len(f" ({n})")) + f" ({n})" for n, line in enumerate(lines, 1)]


def _line(words: object) -> str:
    return " ".join(str(words).split())


def _cut(line: str, most: int) -> str:
    return line if len(line) <= most else line[: most - 1] + "…"


def _literal(line: str) -> str:
    return (" " if line.startswith("_") else "") + line.replace("$", r"\$")
