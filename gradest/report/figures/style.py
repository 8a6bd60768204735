"""How figures look: one colour and marker for each estimator, one meaning for each filling."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.lines import Line2D

from gradest.inference import UNBIASED_WITHIN

Colour = tuple[float, float, float]

# Safe for colour-blind readers.  Its yellow and pale pink vanish on white; black takes their place.
_COLOURS = [c for i, c in enumerate(sns.color_palette("colorblind")) if i not in (6, 8)]
_COLOURS.append((0.0, 0.0, 0.0))
_MARKERS = "os^vDPX*<>"
# Any value works; with this one no two names of the built-in catalogue want the same look.
_SALT = 4629130

_GREY = (0.35, 0.35, 0.35)
_PALENESS = {"unbiased": 0.0, "biased": 1.0, "inconclusive": 0.6}
GUIDE = {"color": "0.6", "linewidth": 0.8}
BEST = {"color": "0.8", "linewidth": 6, "solid_capstyle": "butt", "zorder": 1}

_RC = {
    **{"font.family": "DejaVu Sans", "font.size": 8, "text.usetex": False},
    **{"figure.titlesize": 11, "axes.titlesize": 9, "axes.labelsize": 8, "legend.fontsize": 8},
    **{"axes.titlelocation": "left", "axes.edgecolor": "0.6", "grid.color": "0.92"},
    **{"xtick.bottom": True, "ytick.left": True, "xtick.labelsize": 7, "ytick.labelsize": 7},
}


class Look(NamedTuple):
    colour: Colour
    marker: str

    def face(self, verdict: object) -> Colour:
        """Hollow when biased, pale when inconclusive, else filled."""
        paleness = _PALENESS.get(str(verdict), 0.0)
        red, green, blue = (c + (1 - c) * paleness for c in self.colour)
        return red, green, blue

    def key(self) -> Line2D:
        return Line2D([], [], color=self.colour, marker=self.marker, linestyle="none")


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, the same in every figure and every run.

    The name's hash says which.  Where two names want the same, the first in alphabetical order
    has it; the others take what is free when every name that can has got what it wants.
    """
    slots = [Look(colour, marker) for marker in _MARKERS for colour in _COLOURS]
    taken: dict[int, str] = {}
    ordered = sorted(set(names))
    for name in ordered:
        taken.setdefault(_slot(name, len(slots)), name)
    chosen = {name: slots[slot] for slot, name in taken.items()}
    for name in ordered:
        slot = _slot(name, len(slots))
        while name not in chosen and slot in taken and len(taken) < len(slots):
            slot = (slot + 1) % len(slots)
        taken.setdefault(slot, name)
        chosen.setdefault(name, slots[slot])
    return chosen


def names(rows: pd.DataFrame, look: Mapping[str, Look]) -> dict[str, Line2D]:
    """A handle for each estimator, with the knobs whose values its labels show."""
    found = {}
    for name, settings in rows["settings"].groupby(rows["estimator"], sort=True):
        knobs = ", ".join(dict.fromkeys(k for each in settings for k in each))
        found[f"{name} ({knobs})" if knobs else str(name)] = look[str(name)].key()
    return found


def _slot(name: str, slots: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{_SALT}{name}".encode()).digest()[:8], "big") % slots


@contextmanager
def style() -> Iterator[None]:
    """What is drawn inside looks alike everywhere; the user's settings are left as they are."""
    with rc_context({**sns.axes_style("whitegrid"), **_RC}):
        yield


def verdict_keys() -> dict[str, Line2D]:
    grey = Look(_GREY, "o")
    return {
        verdict: Line2D([], [], **_point(grey), markerfacecolor=grey.face(verdict))
        for verdict in _PALENESS
    }


def bias_keys() -> dict[str, Line2D]:
    """What the margin and the arrows of a bias axis mean."""
    return {
        f"{100 * UNBIASED_WITHIN:g} % of ‖g‖": Line2D([], [], linestyle="--", **GUIDE),
        "upper limit: bias is below, at 95 %": Line2D(
            [], [], **_point(Look(_GREY, r"$\downarrow$"))
        ),
    }


def work_keys() -> dict[str, Line2D]:
    return {"equal variance × evaluations": Line2D([], [], linestyle=":", **GUIDE)}


def best_keys() -> dict[str, Line2D]:
    return {"the least mse for a budget": Line2D([], [], **BEST)}


def part_keys() -> dict[str, Line2D]:
    """What the points and the arrows of a part of the variance mean."""
    grey = Look(_GREY, "o")
    return {
        "above zero, at 95 %": Line2D([], [], **_point(grey)),
        "may be zero": Line2D([], [], **_point(grey), markerfacecolor=grey.face("inconclusive")),
        "upper limit: the part is below, at 95 %": Line2D(
            [], [], **_point(Look(_GREY, r"$\downarrow$"))
        ),
    }


def _point(look: Look) -> dict[str, object]:
    return {"color": look.colour, "marker": look.marker, "linestyle": "none", "markersize": 6}


def text(words: object, most: int = 40) -> str:
    """One line that matplotlib takes for text, not for mathematics or for a hidden label."""
    return _literal(_cut(_line(words), most))


def titles(names: Iterable[object], most: int = 40) -> list[str]:
    """Each as `text`, but different wherever the names are.

    Of those that would be cut alike what they have in common gives way to where they differ.
    """
    lines = [_line(name) for name in names]
    alike: dict[str, list[str]] = {}
    for line in dict.fromkeys(lines):
        alike.setdefault(_cut(line, most), []).append(line)
    shown = {}
    for cut, group in alike.items():
        told = [cut] if len(group) == 1 else _told_apart(group, most)
        shown.update(zip(group, told, strict=True))
    return [_literal(shown[line]) for line in lines]


def _told_apart(lines: list[str], most: int) -> list[str]:
    """Their beginning, then what follows where they begin to differ; numbered if that is alike."""
    columns = zip(*lines, strict=False)
    differ = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    start = max(lines[0].rfind(mark, 0, differ) + len(mark) for mark in (" ", "("))  # of a word
    ends = [_cut(line[start:], 2 * most // 3) for line in lines]
    told = [f"{lines[0][: most - len(end) - 1]}…{end}" for end in ends]
    if len(set(told)) == len(told):
        return told
    return [_cut(line, most - len(f" ({n})")) + f" ({n})" for n, line in enumerate(lines, 1)]


def _line(words: object) -> str:
    return " ".join(str(words).split())


def _cut(line: str, most: int) -> str:
    return line if len(line) <= most else line[: most - 1] + "…"


def _literal(line: str) -> str:
    return (" " if line.startswith("_") else "") + line.replace("$", r"\$")
