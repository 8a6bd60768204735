"""Sweeps of α: found in the rows, drawn with their zeros, told in one table; and their numbers."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.colors import LogNorm

from gradest.cli import main
from gradest.report.frames import tables
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.sweeps import find_sweeps, outside_sweeps
from gradest.report.studies.landscape import knob_sweep, landscape_binary, landscape_simplex
from gradest.runs.measurement_tables import measurements_frame
from tests.support import only_figures

TARGET = 0.45
THETA = (0.1, 0.25, 0.5, 0.8, 0.95)
ALPHA = [[i, j, 7 - i - j] for i in range(1, 6) for j in range(1, 7 - i)]
VIRIDIS = colormaps["viridis"]
VALUES = np.array([0.0, 1.0, 2.0])
SUITE = {
    "replicates": 2000,
    "timed": False,
    "parameters": ["log_alpha"],
    "tasks": [
        {"bernoulli": {"target": TARGET, "theta": [[theta] for theta in THETA]}},
        {"categorical": {"alpha": ALPHA, "target": TARGET}},
    ],
    "estimators": ["exact", "reinforce", "straight_through", "disarm", "concrete"],
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a run of sweeps; YAML reads JSON."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "mine.yaml").write_text(json.dumps(SUITE))
    arguments = ["--suite", str(folder / "mine.yaml"), "--out", str(folder / "run"), "--jobs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        only_figures(patch, "landscape_binary")
        assert main(arguments) == 0
    return folder / "run"


def measured(folder, task, estimator, knob):
    frame = pd.read_parquet(folder / "measurements.parquet")
    rows = frame[frame["task"].eq(task) & frame["estimator"].eq(estimator)]
    assert (rows["method"] == "enumerated").all()
    return [(json.loads(r.task_params)[knob], r.bias_norm, r.variance) for r in rows.itertuples()]


@pytest.mark.parametrize("estimator", ["exact", "reinforce", "straight_through"])
def test_along_a_bit_the_numbers_are_the_closed_forms(swept, estimator):
    # With f₁ = (1 − t)², f₀ = t² both coordinates of the gradient are ± that of log θ, in which
    # REINFORCE is f₁ (1 − θ) or −f₀ θ, and straight-through θ (1 − θ) 2 (b − t); g, the
    # difference of its mean to which is the bias, is θ (1 − θ) (f₁ − f₀).
    rows = measured(swept, "bernoulli", estimator, "theta")
    assert [theta for (theta,), _, _ in rows] == list(THETA)
    for (theta,), bias, variance in rows:
        both = theta * (1 - theta)
        score = 2 * both * ((1 - TARGET) ** 2 * (1 - theta) + TARGET**2 * theta) ** 2
        expected = {
            "exact": (0, 0),
            "reinforce": (0, score),
            "straight_through": (math.sqrt(2) * both * abs(2 * theta - 1), 8 * both**3),
        }
        assert (bias, variance) == pytest.approx(expected[estimator], abs=1e-10)


@pytest.mark.parametrize("estimator", ["exact", "reinforce", "straight_through"])
def test_over_the_simplex_the_numbers_are_the_closed_forms(swept, estimator):
    rows = measured(swept, "categorical", estimator, "alpha")
    assert len(rows) == 15
    for alpha, bias, variance in rows:
        pi = np.array(alpha) / 7
        jacobian = np.diag(pi) - np.outer(pi, pi)
        cost, mean = (VALUES - TARGET) ** 2, pi @ VALUES
        scores = cost[:, None] * (np.eye(3) - pi)  # a row an outcome
        expected = {
            "exact": (0, 0),
            "reinforce": (0, (pi @ scores**2 - (pi @ scores) ** 2).sum()),
            "straight_through": (
                np.linalg.norm(jacobian @ (2 * (mean - TARGET) * VALUES - cost)),
                4 * np.sum((jacobian @ VALUES) ** 2) * (pi @ VALUES**2 - mean**2),
            ),
        }
        assert (bias, variance) == pytest.approx(expected[estimator], abs=1e-10)


def test_the_report_of_sweeps_is_short_and_its_summary_whole(swept):
    text = (swept / "report.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[3:5] == [  # after how it was run, how to read it, and the figures
        "## bernoulli over 5 values of theta",
        "## categorical over 15 values of alpha",
    ]
    assert "](figures/landscape_binary.png)" in text
    assert (swept / "figures" / "landscape_binary.svg").exists()
    before, _, methods = text.partition("## Methods")
    assert "bias_against_variance" not in text and methods and len(before.splitlines()) < 100
    assert text.count("| skipped") == 1  # DisARM on categories, once for all their settings
    assert [path.name for path in (swept / "tables").glob("*.csv")] == ["summary.csv"]
    summary = pd.read_csv(swept / "tables" / "summary.csv")
    assert len(summary) == 5 * 5 + 15 * 4
    assert set(summary.groupby("task_params")["rank"].min()) == {1}


def test_a_table_of_a_sweep_has_the_worst_and_the_median(swept):
    text = (swept / "report.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| straight_through")]
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    # √2 · 0.8 · 0.2 · 0.6 at θ = 0.8; the median of 8 (θ (1 − θ))³ is that at 0.8, too.
    assert cells[1:] == ["biased 4, unbiased 1", "0.136", "(0.200, 0.800)", "0.0328", "0.125", "1"]


# synthetic rows


def row(estimator="rloo", bias=0.0, variance=1.0, noise=0.0, norm=0.5, **columns):
    """A measured row; `noise` is half the width of the bias's interval."""
    return {
        **{"suite": "demo", "task": "toy", "estimator": estimator, "estimator_params": "{}"},
        **{"seed": 0, "dtype": "float64", "parameter": "log_alpha", "status": "ok", "reason": ""},
        **{"batch": 1, "latents": 1, "categories": 2, "replicates": 100, "evaluations": 1},
        **{"method": "monte_carlo" if noise else "enumerated", "verdict": "unbiased"},
        **{"gradient_norm": norm, "bias_sq": bias**2, "bias_norm": bias},
        **{"bias_sq_low": max(bias - noise, 0) ** 2, "bias_sq_high": (bias + noise) ** 2},
        **{"variance": variance, "variance_low": variance, "variance_high": variance},
        **{"mse": bias**2 + variance, "relative_bias": bias / (norm or 1), **columns},
    }


def settings(knobs, **columns):
    return [row(task_params=json.dumps(each, sort_keys=True), **columns) for each in knobs]


def line(values=THETA, **columns):
    return settings([{"p": [value]} for value in values], **columns)


def annotated(rows):
    return tables.annotate(measurements_frame(rows))


def result(rows):
    return find_sweeps(annotated(rows))


def test_a_sweep_of_a_bit_reads_the_probability_or_two_weights():
    (sweep,) = result(line())
    assert (sweep.label, sweep.knob, sweep.size) == ("toy over 5 values of p", "p", 2)
    assert np.array(sweep.rows["point"].tolist()) == pytest.approx(
        np.array([(1 - t, t) for t in THETA])
    )
    (sweep,) = result(settings([{"w": [1, n]} for n in range(1, 6)]))
    assert np.array(sweep.rows["point"].tolist()) == pytest.approx(
        np.array([(1 / (1 + n), n / (1 + n)) for n in range(1, 6)])
    )


@pytest.mark.parametrize(
    "rows",
    [
        line(THETA[:4]),
        line((*THETA[:4], THETA[0])),
        line(range(2, 9)),
        line((*THETA[:4], 0)),
        line((*THETA[:4], True)),
        line(latents=2),
        line(batch=3),
        line(categories=3),
        line(categories=4),
        line(status="failed"),
        settings([{"p": theta} for theta in THETA]),
        settings([{"p": [theta, theta, theta]} for theta in THETA]),
        settings([{"w": [1, n]} for n in (1, 1, 1, 1, 1)]),
        settings([{"w": [True, n]} for n in range(1, 6)]),
        settings([{"p": [theta], "cost": theta} for theta in THETA]),
        settings([{"w": each} for each in ALPHA[:14]], categories=3),
        settings([{"w": [n, n, n]} for n in np.linspace(0.1, 3, 20)], categories=3),
    ],
)
def test_what_is_no_sweep(rows):
    assert result(rows) == []
    frame = tables.annotate(measurements_frame(rows))
    assert len(outside_sweeps(frame)) == len(rows)
    assert landscape_binary(frame) is None and landscape_simplex(frame) is None


MANY = [n / 10 for n in range(1, 14)]


def test_more_values_of_a_number_than_there_are_panels_are_a_sweep():
    sizes = {"latents": 4, "batch": 3, "categories": 5}
    assert result(settings([{"target": t} for t in MANY[:12]], **sizes)) == []
    assert result(settings([{"flag": bool(n % 2), "name": str(n)} for n in range(20)])) == []
    (sweep,) = result(settings([{"target": t} for t in MANY], **sizes))
    assert (sweep.label, sweep.size) == ("toy over 13 values of target", 1)
    assert sweep.rows["point"].tolist() == [(t,) for t in MANY]


def test_on_a_grid_every_setting_is_on_a_curve_over_the_same_knob():
    grid = [{"a": a, "b": b} for b, a in itertools.product(range(14), MANY)]
    found = result(settings(grid))
    assert [(sweep.knob, len(sweep.rows)) for sweep in found] == [("a", 13)] * 14


def test_a_knob_has_curves_and_names_what_is_zero_throughout():
    knobs = [{"target": t} for t in (0.0, *MANY)]
    rows = settings(knobs, variance=2.0, bias=0.1)
    rows += settings(knobs, estimator="exact", variance=0.0)
    figure = knob_sweep(annotated(rows))
    _, variance = figure.axes
    assert variance.get_xlabel() == "target\nzero for every target: exact"
    (curve,) = [each for each in variance.lines if each.get_linestyle() == "-"]
    assert curve.get_xdata().tolist() == [0.0, *MANY] and set(curve.get_ydata()) == {2.0}
    assert variance.get_xscale() == "linear" and variance.get_xlim()[1] > 1.3
    wide = settings([{"size": 2.0**n} for n in range(13)])
    assert knob_sweep(annotated(wide)).axes[0].get_xscale() == "log"
    assert landscape_binary(annotated(rows)) is None


def test_each_value_of_another_knob_has_a_sweep_of_its_own():
    knobs = [{"p": [t], "cost": c, "same": 1} for c, t in itertools.product((1, 2), THETA)]
    rows = [*settings(knobs), row(task="other", task_params="{}")]
    assert [sweep.label for sweep in result(rows)] == [
        "toy (cost=1) over 5 values of p",
        "toy (cost=2) over 5 values of p",
    ]
    frame = tables.annotate(measurements_frame(rows))
    assert outside_sweeps(frame)["task"].tolist() == ["other"]
    nothing = pd.DataFrame()
    run = LoadedRun({}, frame, nothing, nothing, nothing, nothing, {}, nothing)
    assert run.grouped["task_label"].nunique() == 3


def test_rows_that_were_not_measured_belong_to_their_sweep():
    frame = measurements_frame([*line(), *line(estimator="arm", status="skipped")])
    frame = tables.annotate(frame)
    (sweep,) = find_sweeps(frame)
    assert len(sweep.rows) == 10
    assert landscape_binary(frame) is not None


def drawn(rows):
    """label of the y axis -> axes."""
    figure = landscape_binary(annotated(rows))
    figure.draw_without_rendering()
    return {ax.get_ylabel().split()[0]: ax for ax in figure.axes}


def curve_of(ax):
    """The only curve that is drawn, apart from that of ‖g‖, which has no markers."""
    (curve,) = [each for each in ax.lines if each.get_marker() not in ("None", None, "")]
    return curve


def test_a_zero_on_a_curve_is_a_marked_point_in_the_band():
    dips = [
        each for t in THETA for each in line([t], estimator="dips", bias=abs(t - 0.5), variance=t)
    ]
    panels = drawn([*dips, *line(estimator="never", variance=0.0)])
    ax = panels["norm"]
    curve = curve_of(ax)
    assert np.asarray(curve.get_ydata()).tolist() == pytest.approx([abs(t - 0.5) for t in THETA])
    assert 2 in curve.get_markevery()
    low, high = ax.get_ylim()
    assert low < 0 < high and ax.get_yscale() == "symlog"
    assert "zero for every θ: never" in ax.get_xlabel().replace("\n", " ")
    assert "never" in panels["variance"].get_xlabel() and "dips" not in ax.get_xlabel()
    assert any("dips" in each.get_text() for each in ax.texts)


def test_without_a_zero_there_is_no_band():
    ax = drawn(line(bias=0.1))["norm"]
    assert ax.get_yscale() == "log" and "zero" not in ax.get_xlabel()


def test_what_may_be_zero_has_a_band_but_no_line():
    message = line(THETA[:3], estimator="noisy", bias=0.3, noise=0.1)
    untold = line(THETA[3:], estimator="noisy", bias=0.02, noise=0.1)
    ax = drawn([*message, *untold])["norm"]
    heights = np.asarray(np.ma.filled(curve_of(ax).get_ydata(), np.nan), float)
    assert heights[:3].tolist() == pytest.approx([0.3] * 3) and np.isnan(heights[3:]).all()
    (band,) = ax.collections
    top = {x: y for x, y in band.get_paths()[0].vertices.tolist() if y > 0.05}
    assert top[THETA[-1]] == pytest.approx(0.12) and ax.get_yscale() == "log"


def test_rounding_is_zero_also_where_the_gradient_vanishes():
    flat = line(estimator="right", norm=0.0, bias=1e-17, variance=1e-34)
    panels = drawn([*flat, *line(estimator="wrong", norm=0.0, bias=0.1, variance=1e-16)])
    for ax in panels.values():
        assert "zero for every θ: right" in ax.get_xlabel()
        assert [each.get_text() for each in ax.texts] == ["wrong"]
        assert 0 < ax.get_ylim()[1] < 10


def triangles(rows):
    """label below it -> the collections of each triangle, in order."""
    figure = landscape_simplex(annotated(rows))
    figure.draw_without_rendering()
    output = {}
    for ax in figure.axes:
        words = [each.get_text() for each in ax.texts]
        if words:
            assert words[:3] == ["0", "1", "2"]
            output.setdefault(words[3], []).append(ax)
    return output


def test_a_triangle_has_a_cell_a_point_and_tells_zeros_and_limits():
    knobs = [{"w": each} for each in ALPHA]
    rows = [
        *settings(knobs[:4], estimator="mixed", categories=3, variance=0.5),
        *settings(knobs[4:], estimator="mixed", categories=3, bias=0.05, variance=0.5),
        *settings(knobs, estimator="vague", categories=3, bias=0.01, noise=0.1, variance=0.3),
        *settings(knobs, estimator="better", categories=3, variance=0.1),
    ]
    output = triangles(rows)
    assert {word: len(axes) for word, axes in output.items()} == {
        "‖g‖": 1,
        "bias": 3,
        "variance": 3,
    }
    titles = [ax.get_title(loc="left") for ax in output["bias"]]
    assert titles == ["better", "vague", "mixed"]  # a bias that may be zero is none; then variance
    cells = [[len(each.get_paths()) for each in ax.collections] for ax in output["bias"]]
    assert cells == [[0, 15], [15, 0], [11, 4]]
    assert [each.get_hatch() is not None for each in output["bias"][0].collections] == [False, True]
    dots = [sum(len(each.get_xdata()) for each in ax.lines) for ax in output["bias"]]
    assert dots == [0, 15, 0]
    assert all(len(ax.lines) == 0 for ax in output["variance"])
    # One scale, from the least bias, 0.05, to ‖g‖; what may be zero has the colour of 0.01 + 0.1.
    for ax, value in zip((*output["bias"][1:], *output["‖g‖"]), (0.11, 0.05, 0.5), strict=True):
        (colour,) = np.unique(ax.collections[0].get_facecolor(), axis=0)
        assert colour == pytest.approx(VIRIDIS(LogNorm(0.05, 0.5)(value)))


def test_every_sweep_has_triangles_of_its_own():
    knobs = [{"w": each, "cost": cost} for cost in (1, 2) for each in ALPHA]
    names = ("a", "b", "c", "d")
    rows = [each for name in names for each in settings(knobs, estimator=name, categories=3)]
    figure = landscape_simplex(annotated(rows))
    titles = [title for ax in figure.axes if (title := ax.get_title(loc="left"))]
    over = "over 15 values of w"
    assert titles == [f"toy (cost=1) {over}", *names, f"toy (cost=2) {over}", *names]


def test_the_cells_of_a_triangle_touch_and_lie_at_their_probabilities():
    (ax,) = triangles(settings([{"w": each} for each in ALPHA], categories=3))["‖g‖"]
    polygons = [path.vertices[:6] for path in ax.collections[0].get_paths()]
    centres = np.array([each.mean(0) for each in polygons])
    assert centres[ALPHA.index([1, 1, 5])] == pytest.approx([3.5 / 7, math.sqrt(0.75) * 5 / 7])
    assert centres[ALPHA.index([5, 1, 1])] == pytest.approx([1.5 / 7, math.sqrt(0.75) / 7])
    corners = np.concatenate(polygons).round(6)
    assert len(np.unique(corners, axis=0)) < 0.6 * len(corners)  # neighbours share theirs


def test_a_point_without_a_number_takes_no_sweep_away():
    alphas = [[a, b, 7 - a - b] for a in range(1, 6) for b in range(1, 7 - a)]
    rows = settings([{"alpha": alpha} for alpha in alphas], bias=0.1, categories=3)
    rows[3] |= dict.fromkeys(("bias_sq", "bias_sq_low", "bias_sq_high", "variance"), math.inf)
    figure = landscape_simplex(annotated(rows))
    figure.draw_without_rendering()
