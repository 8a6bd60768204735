"""The figure that separates a bias of the step size from one of direction."""

import numpy as np
import pytest

from gradest import plots
from gradest.report.figures import selection
from gradest.report.frames import tables
from gradest.runs.measurement_tables import measurements_frame
from tests.report.rows import row


def scaled(name, c, residual, spread=0.0, **columns):
    ends = {"best_scale_low": c - spread, "best_scale_high": c + spread}
    ends |= {"relative_bias_rescaled_low": max(residual - spread, 0.0)}
    ends |= {"relative_bias_rescaled_high": residual + spread}
    rescaled = {"best_scale": c, "relative_bias_rescaled": residual, **ends}
    return row(name, verdict="biased", bias_sq=0.1, **rescaled, **columns)


UNBIASED = row("rloo") | {
    **{"best_scale": 1.0, "best_scale_low": 1.0, "best_scale_high": 1.0},
    **{"relative_bias_rescaled": 0.0, "relative_bias_rescaled_low": 0.0},
    "relative_bias_rescaled_high": 0.0,
}
STEP, TURNED = scaled("step", 0.5, 0.0, evaluations=3), scaled("turned", 2.0, 0.3, evaluations=3)
AWAY = scaled("away", -0.1, 0.9)


def frame(*rows):
    return tables.annotate(measurements_frame(list(rows)))


def selected(*rows):
    return selection.rescaled(selection.select_rows(frame(*rows))[0]).set_index("estimator")


def test_it_is_drawn_where_some_biases_are_of_the_step_size_and_others_are_not():
    assert plots.bias_of_direction(frame(UNBIASED, STEP)) is None
    assert plots.bias_of_direction(frame(UNBIASED, TURNED)) is None
    elsewhere = TURNED | {"task": "another"}
    assert plots.bias_of_direction(frame(STEP, elsewhere)) is None
    assert plots.bias_of_direction(frame()) is None
    figure = plots.bias_of_direction(frame(UNBIASED, STEP, TURNED))
    assert len(figure.axes) == 1 and "no bias" not in figure.axes[0].get_title()


def test_estimates_are_compared_at_their_best_scale_and_by_evaluation():
    rows = selected(UNBIASED, STEP, TURNED)
    assert rows.loc["step", "variance"] == pytest.approx(1.0 * 3 / 0.25)
    assert rows.loc["turned", "variance_high"] == pytest.approx(1.05 * 3 / 4)
    assert rows.loc["turned", "bias"] == pytest.approx(30.0)
    assert rows.loc["step", "bias"] == rows.loc["rloo", "bias"] == 0.0


def test_a_mean_that_points_away_is_marked():
    rows = selected(STEP, TURNED, AWAY)
    assert "downhill" in rows.loc["away", "tag"]
    assert "downhill" not in rows.loc["turned", "tag"]
    unsure = scaled("away", -0.1, 0.9, spread=0.2)
    rows = selected(STEP, TURNED, unsure)
    assert "downhill" not in rows.loc["away", "tag"]


@pytest.mark.parametrize("c", [np.nan, np.inf, 0.0])
def test_odd_scales_take_no_panel_away(c):
    odd = scaled("odd", c, 0.2)
    figure = plots.bias_of_direction(frame(UNBIASED, STEP, TURNED, odd))
    figure.draw_without_rendering()
    assert len(figure.axes) == 1
