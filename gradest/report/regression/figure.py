"""The figure of a comparison: ratios of variances and changes in bias, a line for each cell."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from gradest.report.figures import canvas, style
from gradest.report.regression.differences import (
    BETTER,
    CELL,
    CHANGED,
    MEASUREMENT,
    SAME,
    UNDECIDED,
    WORSE,
    parameters,
)

NAMED = 40  # lines with a name; the others follow, closer together

_LINE = 0.17  # inches
_REST = 25  # lines, at most, of which those without a name take the place
_WIDTHS = (4.6, 3.2)  # of the panels, the first with names
_LEAST = 1.05  # a ratio that an axis shows to both sides at least
_WIDE = 30.0  # percent of ‖g‖, from which on only powers of ten are marked
_LINEAR = 1.0  # percent of ‖g‖, up to which the axis of the bias is linear
_PALETTE = sns.color_palette("colorblind")
_COLOURS = {WORSE: _PALETTE[3], BETTER: _PALETTE[2], CHANGED: _PALETTE[4]}
_MARKERS = {WORSE: ">", BETTER: "<", CHANGED: "D", SAME: "o", UNDECIDED: "o"}
_GREY = "0.6"


@style.theme()
def draw_comparison(frame: pd.DataFrame) -> Figure | None:
    """Variances and biases in the first parameter; the strongest evidence comes first.

    `frame` is that of `differences`.  None where no variance was compared.
    """
    lines = _lines(frame)
    if lines.empty:
        return None
    named = lines.head(NAMED)
    places = _places(len(lines))
    height = _LINE * (places[-1] + 2) + 0.5
    title = "Variance and bias against the baseline"
    judgements = set(lines[["judgement", "judgement_bias"]].to_numpy().flat)
    keys = {word: _key(word) for word in _MARKERS if word in judgements}
    figure, grid = canvas.panels(1, 2, (sum(_WIDTHS) / 2, height), title, keys, {})
    left, right = grid[0]
    _ratios(left, lines, places)
    _biases(right, lines, places)
    left.set_yticks(places[: len(named)], style.titles(named["name"], 60))
    right.set_yticks(places[: len(named)], [])
    right.tick_params(left=False)
    for ax in (left, right):
        ax.set_ylim(places[-1] + 1, -1)
        ax.grid(visible=False, axis="x")
    return figure


def _lines(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a cell: its variance, its bias in percent of ‖g‖, and whether its mean changed."""
    frame = frame[frame["kind"].eq(MEASUREMENT)]
    at = parameters(frame)[:1]
    rows = {
        quantity: frame[frame["quantity"].eq(quantity)].set_index(CELL)
        for quantity in ("variance", "bias", "mean")
    }
    for quantity in ("variance", "bias"):
        rows[quantity] = rows[quantity][rows[quantity]["parameter"].isin(at)]
    lines = rows["variance"].join(rows["bias"].add_suffix("_bias"))
    lines = lines.join(rows["mean"][["judgement", "p_value"]].add_suffix("_mean"))
    decided = lines["judgement_bias"].isin([BETTER, WORSE])
    moved = lines["judgement_mean"].eq(CHANGED) & ~decided
    lines["judgement_bias"] = lines["judgement_bias"].mask(moved, CHANGED)
    norm = lines["gradient_norm"].where(lines["gradient_norm"] > 0)
    for end in ("change", "low", "high"):
        lines[f"{end}_bias"] = 100 * lines[f"{end}_bias"] / norm
    # A certain change has no p-value, and comes first.
    certain = lines[["judgement", "judgement_bias"]].isin([*_COLOURS]).any(axis=1)
    evidence = lines[["p_value", "p_value_mean"]].min(axis=1).fillna(1.0).mask(certain, -1.0)
    size = np.log(lines["change"].clip(1e-300, 1e300)).abs()
    lines = lines.reset_index().assign(evidence=evidence.to_numpy(), size=size.to_numpy())
    several = lines["run"].nunique() > 1
    lines["name"] = lines["label"] + " · " + lines["task_label"]
    lines["name"] = lines["run"] + ": " + lines["name"] if several else lines["name"]
    return lines.sort_values(
        ["evidence", "size"], ascending=[True, False], kind="stable", ignore_index=True
    )


def _places(lines: int) -> np.ndarray:
    rest = max(lines - NAMED, 0)
    step = min(0.5, _REST / rest) if rest else 0.0
    return np.concatenate([np.arange(min(lines, NAMED)), NAMED + step * np.arange(rest)])


def _ratios(ax: Axes, lines: pd.DataFrame, places: np.ndarray) -> None:
    ends = lines[["change", "low", "high"]].head(NAMED).to_numpy(dtype=float)
    ends = ends[np.isfinite(ends) & (ends > 0)]
    far = 1.1 * max([_LEAST, *ends, *(1 / ends)])
    ax.set_xscale("log")
    ax.set_xlim(1 / far, far)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if far > 2 else FixedLocator(_near(far)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"×{ratio:.4g}"))
    _draw(ax, lines, places, "", 1.0)
    ax.set(xlabel="variance, other / baseline")


def _near(far: float) -> list[float]:
    """Round ratios to both sides of one, of which the farthest are just seen."""
    steps = [step for step in (0.5, 0.2, 0.1, 0.05, 0.02) if 1 / (1 - step) <= far]
    return [1 + part * step for step in steps[:1] for part in (-1, -0.5, 0, 0.5, 1)] or [1.0]


def _biases(ax: Axes, lines: pd.DataFrame, places: np.ndarray) -> None:
    ends = lines[["change_bias", "low_bias", "high_bias"]].head(NAMED).to_numpy(dtype=float)
    ends = np.abs(ends[np.isfinite(ends)])
    far = 1.2 * max([_LINEAR, *ends])
    ax.set_xscale("symlog", linthresh=_LINEAR, linscale=0.7)
    ax.set_xlim(-far, far)
    steps = (1, 3) if far <= _WIDE else (1,)
    powers = 10.0 ** np.arange(np.floor(np.log10(far)) + 1)
    ticks = [step * power for power in powers for step in steps if step * power <= far]
    ax.xaxis.set_major_locator(FixedLocator([0, *ticks, *(-tick for tick in ticks)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda change, _: f"{change:+,.4g}" if change else "0")
    )
    _draw(ax, lines, places, "_bias", 0.0)
    ax.set(xlabel="change of ‖bias‖, % of ‖g‖")


def _draw(ax: Axes, lines: pd.DataFrame, places: np.ndarray, suffix: str, still: float) -> None:
    """Points with bars, which are cut at the frame; points beyond the frame stand on it."""
    ax.axvline(still, zorder=0, **style.GUIDE)
    lines = lines.assign(place=places)[lines[f"change{suffix}"].notna()]
    edges = ax.get_xlim()
    value, low, high = (
        lines[f"{end}{suffix}"].astype(float).fillna(lines[f"change{suffix}"]).clip(*edges)
        for end in ("change", "low", "high")
    )
    for word, place in lines.groupby(f"judgement{suffix}", sort=False)["place"]:
        at, mark = place.index, _mark(str(word))
        bars = {"color": mark["color"], "linewidth": 0.9, "clip_on": False}
        ax.hlines(place, low[at], high[at], **bars)
        ax.plot(value[at], place, **mark, zorder=3, clip_on=False)


def _mark(word: str) -> dict[str, object]:
    colour = _COLOURS.get(word, _GREY)
    face = "white" if word == SAME else colour
    return {
        **{"marker": _MARKERS[word], "markersize": 5 if word in _COLOURS else 3.5},
        **{"color": colour, "markerfacecolor": face, "linestyle": "none"},
    }


def _key(word: str) -> Line2D:
    return Line2D([], [], **_mark(word))
