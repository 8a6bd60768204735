"""The Concrete distribution of three categories, on the simplex."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke

from gradest.concrete import concrete_log_prob
from gradest.errors import UsageError
from gradest.report.figures import canvas, style

_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
_PIXELS = 400  # to a side of a triangle
_NEAREST = 1e-3  # to an edge: of the pixels there, since a density may be infinite on it
_NORM = LogNorm(1 / 20, 20)
_MAP = "YlGnBu"
_BORDER = {"color": "0.25", "linestyle": (0, (4, 3)), "linewidth": 0.9}
_BUBBLE = 800  # points², of a category that is certain
_INK = colormaps[_MAP](0.8)

ALPHA = (2.0, 0.5, 1.0)
FEW = (0.25, 0.5, 2.5)
MANY = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)


@style.style()
def simplex(alpha: Sequence[float] = ALPHA, temperatures: Sequence[float] = FEW) -> Figure:
    """The discrete distribution at the vertices, and beside it densities of its relaxations.

    Raises UsageError unless there are three positive α and positive temperatures.
    """
    _check(alpha, temperatures)
    title = (
        "Concrete relaxations of a discrete law: as λ rises the mass leaves the vertices, "
        "and each part keeps its share"
    )
    columns = 1 + len(temperatures)
    figure, grid = canvas.panels(1, columns, (2.75, 3.0), title, _keys(), {})
    _discrete(grid[0, 0], alpha)
    for ax, temperature in zip(grid[0, 1:], temperatures, strict=True):
        _density(ax, alpha, temperature)
    _bar(figure)
    return figure


@style.style()
def simplex_panels(alpha: Sequence[float] = ALPHA, temperatures: Sequence[float] = MANY) -> Figure:
    """The same densities over many temperatures, three in a line.

    Raises UsageError unless there are three positive α and positive temperatures.
    """
    _check(alpha, temperatures)
    lines = math.ceil(len(temperatures) / 3)
    title = "Concrete densities on the simplex as the temperature rises"
    figure, grid = canvas.panels(lines, 3, (2.75, 3.0), title, _keys(), {})
    for ax in grid.flat[len(temperatures) :]:
        ax.remove()
    for ax, temperature in zip(grid.flat, temperatures, strict=False):
        _density(ax, alpha, temperature)
    _bar(figure)
    return figure


def shape(temperature: float) -> tuple[str, str]:
    """Of the density: whether its logarithm is convex, and what it is at the border.

    Where one of K coordinates vanishes as t it goes as t^(λ (K − 1) − 1), and where all but one do,
    as t^(λ − (K − 1)).  Zero at the whole border, it has its maximum inside.
    """
    if temperature < 1 / 2:
        return "log-convex", "infinite on the edges"
    if temperature == 1 / 2:
        return "log-convex, at the bound 1/(K − 1)", "finite on the edges, infinite at the vertices"
    if temperature > 2:
        return "not log-convex", "zero on the border: a mode inside"
    at = "finite" if temperature == 2 else "infinite"
    return "not log-convex", f"zero on the edges, {at} at the vertices"


def density(alpha: Sequence[float], temperature: float, points: np.ndarray) -> np.ndarray:
    """In multiples of the uniform density, at points inside the simplex: [..., 3] -> [...]."""
    logits = torch.tensor(alpha, dtype=torch.float64).log()
    log_p = concrete_log_prob(torch.from_numpy(points).log(), logits, temperature)
    return (log_p.exp() / 2).numpy()


def _check(alpha: Sequence[float], temperatures: Sequence[float]) -> None:
    if len(alpha) != 3:
        raise UsageError(f"alpha has {len(alpha)} entries; a simplex is drawn of three")
    for name, values in (("alpha", alpha), ("temperatures", temperatures)):
        for value in values:
            if not 0 < value < math.inf:
                raise UsageError(f"{name} = {tuple(values)}: {value} is not a positive number")
    if not len(temperatures):
        raise UsageError("temperatures is empty; give at least one")


def _discrete(ax: Axes, alpha: Sequence[float]) -> None:
    _frame(ax, alpha)
    ax.set_title("discrete, λ → 0")
    ax.scatter(*_CORNERS.T, s=_BUBBLE * np.array(alpha) / sum(alpha), color=_INK, zorder=3)
    _shares(ax, alpha, 0.55)
    _below(ax, f"α = ({', '.join(f'{a:g}' for a in alpha)})", "all mass at the vertices")


def _density(ax: Axes, alpha: Sequence[float], temperature: float) -> None:
    _frame(ax, alpha)
    ax.set_title(f"λ = {temperature:g}")
    _below(ax, *shape(temperature))
    across = (np.arange(_PIXELS) + 0.5) / _PIXELS
    at = np.stack(np.meshgrid(across, across * _CORNERS[2, 1]), -1)  # [up, across, 2]
    third = at[..., 1] / _CORNERS[2, 1]
    second = at[..., 0] - third / 2
    points = np.stack([1 - second - third, second, third], -1).clip(_NEAREST)
    points /= points.sum(-1, keepdims=True)
    image = ax.imshow(
        density(alpha, temperature, points),
        origin="lower",
        extent=(0, 1, 0, _CORNERS[2, 1]),
        norm=_NORM,
        cmap=_MAP,
        interpolation="bilinear",
    )
    image.set_clip_path(Polygon(_CORNERS, transform=ax.transData))
    for k in range(3):
        middle = (_CORNERS.sum(0) - _CORNERS[k]) / 2
        ax.plot(*np.stack([_CORNERS.mean(0), middle]).T, **_BORDER)
    _shares(ax, alpha, 0.45)


def _frame(ax: Axes, alpha: Sequence[float]) -> None:
    ax.set_axis_off()
    ax.set(aspect="equal", xlim=(-0.14, 1.14), ylim=(-0.36, 1.04))
    ax.add_patch(Polygon(_CORNERS, fill=False, edgecolor="0.4", linewidth=0.9, zorder=2))
    for k, (x, y) in enumerate(_CORNERS):
        above = y > 0
        at = {"ha": "center", "va": "bottom" if above else "top", "zorder": 5}
        label = f"x{'₀₁₂'[k]} = 1"
        ax.text(x, y + (0.09 if above else -0.09), label, fontsize=7.5, color="0.25", **at)


def _shares(ax: Axes, alpha: Sequence[float], out: float) -> None:
    """The probabilities, so far out from the centre to the vertices."""
    for corner, a in zip(_CORNERS, alpha, strict=True):
        at = (1 - out) * _CORNERS.mean(0) + out * corner
        note = ax.text(*at, _share(a, sum(alpha)), ha="center", va="center", fontsize=8, zorder=4)
        note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _below(ax: Axes, *lines: str) -> None:
    words = {"ha": "center", "va": "top", "fontsize": 7.5, "color": "0.25"}
    ax.text(0.5, -0.19, "\n".join(lines), in_layout=False, **words)


def _share(a: float, total: float) -> str:
    """A probability as a small fraction where it is one."""
    found = Fraction(a / total).limit_denominator(20)
    return str(found) if math.isclose(found, a / total) else f"{a / total:.3g}"


def _keys() -> Mapping[str, Artist]:
    return {
        "parts that round to one vertex, with their probability": Line2D([], [], **_BORDER),
    }


def _bar(figure: Figure) -> None:
    shades = ScalarMappable(_NORM, _MAP)
    bar = figure.colorbar(
        shades, ax=figure.axes, aspect=25, pad=0.02, shrink=0.7, extend="both", format="%g"
    )
    bar.set_ticks([0.05, 0.2, 1, 5, 20])
    bar.minorticks_off()
    bar.set_label("density, in multiples of the uniform")
