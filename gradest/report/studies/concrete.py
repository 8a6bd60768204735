"""The Concrete distribution: its properties, and its density on the simplex."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
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

from gradest.checks.properties import LEVEL, PROPERTIES, ROWS
from gradest.concrete import concrete_log_prob
from gradest.errors import UsageError
from gradest.report.documents.document import Part, Strong, Table
from gradest.report.figures import canvas, style
from gradest.report.frames.loading import LoadedRun
from gradest.report.studies.study import Illustration, Pieces, Study
from gradest.support import interval, markup

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


_HEADERS = ("settings", "quantity", "value", "expected", "holds", "how")
_READING = (
    "Brackets are simultaneous intervals: if every property is true, at least one of them misses "
    "in {missed:g} % of seeds. The intervals of quadrature and automatic differentiation are not "
    "random: they bound the error. A property is undecided where its interval contains the "
    "expected value but is too wide to exclude a relevant error."
)
_SIZES = ("draws",)  # knobs of the method, which settings leave out


def _draw(draw: Callable[[], Figure], run: LoadedRun) -> Figure | None:
    """The figures show no rows of a run: they illustrate the properties that it tests."""
    return None if run.properties.empty else draw()


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    yield "properties", lambda: section(run.properties)


STUDY = Study(
    illustrations=(
        Illustration(
            "simplex",
            lambda run: _draw(simplex, run),
            "A discrete distribution and its Concrete relaxations at increasing temperatures",
            "The left panel shows the three outcomes with their probabilities at the corners of "
            "the simplex; the others show the density of the relaxed sample. At every temperature, "
            "the region of the simplex that is nearest to a corner has the probability of that "
            "corner.",
        ),
        Illustration(
            "simplex_panels",
            lambda run: _draw(simplex_panels, run),
            "The Concrete density on the simplex at nine temperatures",
            "The samples are almost one-hot at the lowest temperature and almost uniform at the "
            "highest; for λ up to 1/(K − 1) the density has no mode inside the simplex.",
        ),
    ),
    sections=_sections,
)


@style.theme()
def simplex(alpha: Sequence[float] = ALPHA, temperatures: Sequence[float] = FEW) -> Figure:
    """The discrete distribution at the vertices, and densities of its relaxations.

    Raises UsageError unless there are three positive α and positive temperatures.
    """
    _check(alpha, temperatures)
    title = (
        "Concrete relaxations of a discrete distribution: as λ increases the mass leaves the "
        "vertices, and each region keeps its probability"
    )
    columns = 1 + len(temperatures)
    figure, grid = canvas.panels(1, columns, (2.75, 3.0), title, _keys(), {})
    _discrete(grid[0, 0], alpha)
    for ax, temperature in zip(grid[0, 1:], temperatures, strict=True):
        _density(ax, alpha, temperature)
    _bar(figure)
    return figure


@style.theme()
def simplex_panels(alpha: Sequence[float] = ALPHA, temperatures: Sequence[float] = MANY) -> Figure:
    """The same densities at many temperatures, three in a row.

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
    """Whether the logarithm of the density is convex, and the value of the density at the border.

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


def log_convex_limit(categories: int) -> float:
    """The temperature 1/(K − 1), up to which a Concrete density of K categories is log-convex.

    It has no mode inside the simplex there.
    """
    return 1 / (categories - 1)


def density(alpha: Sequence[float], temperature: float, points: np.ndarray) -> np.ndarray:
    """The density relative to the uniform one, at points inside the simplex: [..., 3] -> [...]."""
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
        raise UsageError("temperatures is empty; expected at least one")


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
    """Writes the probabilities, `out` of the way from the centre to the vertices."""
    for corner, a in zip(_CORNERS, alpha, strict=True):
        at = (1 - out) * _CORNERS.mean(0) + out * corner
        note = ax.text(*at, _share(a, sum(alpha)), ha="center", va="center", fontsize=8, zorder=4)
        note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _below(ax: Axes, *lines: str) -> None:
    words = {"ha": "center", "va": "top", "fontsize": 7.5, "color": "0.25"}
    ax.text(0.5, -0.19, "\n".join(lines), in_layout=False, **words)


def _share(a: float, total: float) -> str:
    """A probability as a small fraction where it is one."""
    fraction = Fraction(a / total).limit_denominator(20)
    return str(fraction) if math.isclose(fraction, a / total) else f"{a / total:.3g}"


def _keys() -> Mapping[str, Artist]:
    return {
        "regions nearest to a vertex, with their probability": Line2D([], [], **_BORDER),
    }


def _bar(figure: Figure) -> None:
    shades = ScalarMappable(_NORM, _MAP)
    bar = figure.colorbar(
        shades, ax=figure.axes, aspect=25, pad=0.02, shrink=0.7, extend="both", format="%g"
    )
    bar.set_ticks([0.05, 0.2, 1, 5, 20])
    bar.minorticks_off()
    bar.set_label("density, relative to the uniform density")


def section(rows: pd.DataFrame) -> Iterator[Part]:
    """A table for every property; the rows are records of `Row`, with the settings as JSON text."""
    if rows.empty:
        return
    yield "## Properties"
    result, details = verdict(rows)
    yield f"**{result}**: {markup.escape(details)}."
    yield _READING.format(missed=100 * LEVEL * max(1.0, len(rows) / ROWS))
    for name, part in rows.groupby("property", sort=False):
        yield f"### {markup.escape(name)}"
        if name in PROPERTIES:
            yield markup.escape(_claim(PROPERTIES[str(name)]))
        yield Table(_HEADERS, [_property_line(row) for row in part.itertuples(index=False)], left=2)
    yield "Unrounded: `properties.parquet`"


def verdict(rows: pd.DataFrame) -> tuple[str, str]:
    """Whether every property holds, and how many rows were tested or do not hold; plain text."""
    failed = rows[~rows["holds"].astype(bool)]
    kinds = rows["property"].nunique()
    if failed.empty:
        return "Every property holds", f"{len(rows):,} rows of {kinds} properties"
    counts = failed["property"].value_counts(sort=False)
    named = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"{len(failed):,} of {len(rows):,} rows do not hold", named


def _claim(property_class: type) -> str:
    return (property_class.__doc__ or "").split("\n\n")[0]


def _property_line(row: tuple) -> list[str]:
    knobs = json.loads(row.settings)
    settings = ", ".join(f"{knob} {value}" for knob, value in knobs.items() if knob not in _SIZES)
    return [
        settings,
        row.quantity,
        interval(row.value, row.low, row.high),
        f"{row.relation} {row.expected:.6g}",
        "yes" if row.holds else Strong("no") if _contradicted(row) else "undecided",
        row.how,
    ]


def _contradicted(row: tuple) -> bool:
    """Whether the interval excludes the expected value, rather than being too wide to decide."""
    above, below = row.low > row.expected, row.high < row.expected
    return {"=": above or below, "≥": below, "≤": above, "<": row.low >= row.expected}[row.relation]
