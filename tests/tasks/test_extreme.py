"""Numerics at the edge: what is zero, not finite or adrift, and how a run tells of it."""

import pandas as pd
import pytest
import torch

import gradest
from gradest.checks.problems import SeveralSamples
from gradest.errors import KnobError, NonFiniteGradient
from gradest.measurement.enumerated_truth import exact_gradient
from tests.support import EXACT, run_suite


def extreme(**knobs) -> gradest.Task:
    return gradest.make_task("extreme", **knobs)


# the task


def test_logits_spread_evenly_and_the_first_are_masked():
    logits = extreme(spread=6.0, categories=4, latents=2).problem().logits
    assert logits.tolist() == [[[-6.0, -2.0, 2.0, 6.0]] * 2]
    masked = extreme(spread=6.0, categories=4, masked=2).problem().logits
    assert masked[0, 1].tolist() == [-torch.inf, -torch.inf, 2.0, 6.0]


def test_the_cost_is_the_parabola_of_the_mean_value():
    f = extreme(categories=3).problem().f
    z = torch.eye(3, dtype=torch.float64)[torch.tensor([[[0, 0], [1, 2], [2, 2]]])]
    assert torch.allclose(f(z), torch.tensor([[0.45, 0.3, 0.55]], dtype=torch.float64).square())
    inside = torch.full((1, 1, 2, 3), 1 / 3, dtype=torch.float64)
    assert float(f(inside)) == pytest.approx(0.05**2)


def test_a_constant_cost_has_no_gradient_and_a_nan_cost_is_nan_where_it_should():
    z = torch.eye(3, dtype=torch.float64)[torch.tensor([[[0, 2], [1, 1], [2, 0]]])]
    assert torch.equal(extreme(cost="constant").problem().f(z), torch.ones(1, 3).double())
    result = extreme(cost="nan").problem().f(z)
    assert result.isnan().tolist() == [[False, False, True]]
    truth = exact_gradient(extreme(cost="constant").problem())
    assert truth.gradient.abs().max() < EXACT and float(truth.value) == pytest.approx(1)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"masked": 2}, "masked = 2; expected at most 1, which leaves two of 3"),
        ({"masked": -1}, "masked = -1"),
        ({"spread": -1.0}, "spread = -1"),
        ({"cost": "cubic"}, "cost = 'cubic'"),
    ],
)
def test_knobs_that_make_no_task_are_refused(knobs, message):
    with pytest.raises(KnobError, match=message):
        extreme(**knobs)


# measurements


def test_a_constant_cost_leaves_leave_one_out_nothing_but_zeros():
    for choice in (True, False):
        result = gradest.measure(
            gradest.make_estimator("rloo"),
            extreme(cost="constant"),
            replicates=64,
            enumerate_draws=choice,
        )
        row = result.row()
        assert row["zero"] == pytest.approx(1, abs=1e-12)
        assert (row["nonfinite"], row["overflow"]) == (0.0, 0.0)
        assert row["variance"] == row["cosine"] == 0
    # REINFORCE pays for the constant: no estimate of it is zero.
    row = gradest.measure(gradest.make_estimator("reinforce"), extreme(cost="constant")).row()
    assert row["zero"] == 0 and row["variance"] > 0.1


@pytest.mark.parametrize("enumerate_draws", [None, False])
def test_a_nan_cost_is_not_finite_in_the_share_of_draws_that_meet_it(enumerate_draws):
    task = extreme(cost="nan")
    share = float(task.problem().logits.softmax(-1)[0, 0, -1])
    error = (share * (1 - share) / 4000) ** 0.5
    noise = EXACT if enumerate_draws is None else 4.5 * error
    result = gradest.measure(
        gradest.make_estimator("reinforce"),
        task,
        replicates=4000,
        enumerate_draws=enumerate_draws,
        tolerant=True,
    )
    row = result.row()
    assert row["nonfinite"] == pytest.approx(share, abs=noise)
    assert row["overflow"] == 0
    assert row["verdict"] == "inconclusive"
    assert row["reference"] is None  # it is not finite either
    assert "bias_sq" not in row and "variance" not in row
    both = gradest.measure(gradest.make_estimator("rloo"), task, tolerant=True).row()
    assert both["nonfinite"] == pytest.approx(1 - (1 - share) ** 2, abs=EXACT)


def test_a_nan_cost_ends_the_measurement_unless_it_is_tolerated():
    with pytest.raises(NonFiniteGradient, match=r"extreme: the cost is nan at the code \[2, 0\]"):
        gradest.measure(gradest.make_estimator("reinforce"), extreme(cost="nan"))
    with pytest.raises(NonFiniteGradient, match=r"extreme: the cost is nan at the code \[2, 0\]"):
        gradest.measure(
            gradest.make_estimator("reinforce"), extreme(cost="nan"), enumerate_draws=False
        )


def measured(name: str, **knobs) -> gradest.Measurement:
    estimator = gradest.make_estimator(name)
    steps = min(estimator.adapt_steps, 2)
    task = extreme(**knobs)
    task = SeveralSamples(task, estimator.objective) if estimator.objective else task
    return gradest.measure(estimator, task, replicates=64, adapt_steps=steps, tolerant=True)


APPLICABLE = sorted(n for n, e in gradest.all_estimators().items() if e.categories in (None, 3))


@pytest.mark.parametrize("name", APPLICABLE)
def test_the_catalogue_stays_finite_at_probabilities_of_e_to_the_minus_100(name):
    result = measured(name, spread=50.0)
    assert result.nonfinite == 0, f"{result.nonfinite:.0%} of the estimates are not finite"


@pytest.mark.parametrize("name", APPLICABLE)
def test_the_catalogue_stays_finite_and_right_at_masked_logits(name):
    result = measured(name, masked=1)
    assert result.nonfinite == 0, f"{result.nonfinite:.0%} of the estimates are not finite"
    assert result.row()["reference"] == "exact"
    assert not result.mean[..., 0].any() and not result.exact[..., 0].any()
    if gradest.all_estimators()[name].unbiased and result.method == "enumerated":
        assert torch.allclose(result.mean, result.exact, rtol=0, atol=EXACT)


# runs


SUITE = """\
replicates: 64
timed: false
parameters: [log_alpha]
dtype: [float64, float16]
nonfinite: count
adapt_steps: 1
tasks:
  - extreme: {cost: [constant, nan]}
  - extreme: {spread: 50.0}
estimators: [rloo, reinforce]
"""


@pytest.fixture
def ran(tmp_path):
    def ran(text: str = SUITE) -> pd.DataFrame:
        folder = run_suite(tmp_path, text)
        return pd.read_parquet(folder / "measurements.parquet")

    return ran


def test_a_run_that_counts_tells_shares_and_drift_for_each_dtype(ran):
    rows = ran()
    assert len(rows) == 3 * 2 * 2 and (rows.status == "ok").all()
    assert set(rows.dtype) == {"float64", "float16"}
    cost = rows.task_params.str.extract(r'"cost": "(\w+)"')[0]
    constant, nan = rows[cost == "constant"], rows[cost == "nan"]
    assert constant[constant.estimator == "rloo"].zero.tolist() == pytest.approx([1, 1], abs=1e-12)
    assert (constant.nonfinite == 0).all()
    share = 0.665240955774822  # e¹/(e⁻¹ + 1 + e¹)
    for name, expected in (("reinforce", share), ("rloo", 1 - (1 - share) ** 2)):
        result = nan[nan.estimator == name].nonfinite
        assert result.tolist() == pytest.approx([expected] * 2, abs=1e-3)
    assert nan.variance.isna().all() and (nan.verdict == "inconclusive").all()
    double, half = (rows[rows.dtype == d] for d in ("float64", "float16"))
    assert (double.drift == 0).all()
    at = half[(half.estimator == "reinforce") & (cost[half.index] == "constant")]
    assert at.drift.between(1e-5, 1e-1).all() and at.drift_se.gt(0).all()
    assert half[cost[half.index] == "nan"].drift.isna().all()


def test_a_run_that_fails_names_the_cells_and_why(ran):
    rows = ran(SUITE.replace("nonfinite: count\n", ""))
    cost = rows.task_params.str.extract(r'"cost": "(\w+)"')[0]
    assert (rows[cost == "nan"].status == "failed").all()
    assert (rows[cost != "nan"].status == "ok").all()
    reasons = rows[cost == "nan"].reason
    assert reasons.eq("NonFiniteGradient: extreme: the cost is nan at the code [2, 0]").all()
    assert rows[cost == "nan"].nonfinite.isna().all()
