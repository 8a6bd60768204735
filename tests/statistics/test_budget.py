"""MSE at a fixed budget: crossovers of biased and unbiased methods, with intervals that cover."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gradest.report.frames.budget import crossovers, mean_of, passes


def row(label, verdict, bias_sq, variance, spread=0.0, evaluations=1, backward=0):
    """A number is v, or (v, low, high)."""
    columns = {"label": label, "verdict": verdict, "evaluations": evaluations}
    columns["gradient_evaluations"] = backward
    for name, given in (("bias_sq", bias_sq), ("variance", variance)):
        ends = given if isinstance(given, tuple) else (given, given - spread, given + spread)
        columns |= {f"{name}{e}": x for e, x in zip(("", "_low", "_high"), ends, strict=True)}
    return columns


def unbiased(variance, label="u", **columns):
    return row(label, "unbiased", (0.0, 0.0, 1e-9), variance, **columns)


def found(*rows):
    return crossovers(pd.DataFrame(rows)).set_index("label")


def test_the_mses_are_equal_at_the_budget():
    rows = pd.DataFrame([row("b", "biased", 0.5, 2.0, backward=1), unbiased(30.0, evaluations=3)])
    budget = crossovers(rows)["budget"].iloc[0]
    assert passes(rows).tolist() == [2, 3]
    assert budget == pytest.approx((30 * 3 - 2 * 2) / 0.5)
    mse = mean_of(rows, budget / passes(rows))["mse"]
    assert mse[0] == pytest.approx(mse[1])
    for factor, ahead in ((0.9, 0), (1.1, 1)):
        assert mean_of(rows, factor * budget / passes(rows))["mse"].idxmin() == ahead


def test_the_first_that_overtakes_is_named():
    late, costly = unbiased(30.0, "late"), unbiased(0.0, "costly", evaluations=64)
    biased = row("b", "biased", 0.5, 2.0)
    assert found(biased, late)["overtaken_by"]["b"] == "late"
    assert found(biased, late, costly).loc["b", "budget"] == 56
    assert found(biased, late, unbiased(0.0, "costly", evaluations=50))["budget"]["b"] == 50
    assert found(biased, row("u", "inconclusive", 0.0, 3.0)).empty
    assert found(late, costly).empty and crossovers(pd.DataFrame([late]).iloc[:0]).empty


def test_always_and_never_are_said():
    biased = row("b", "biased", 0.5, 2.0)
    table = found(biased, unbiased(1.0, evaluations=2))
    assert table.loc["b", "when"] == "always" and table.loc["b", "budget"] == 2
    close = found(row("b", "biased", 0.5, (2.0, 1.0, 3.0)), unbiased(1.9))
    assert close.loc["b", ["budget", "budget_low", "when"]].tolist() == [1, 1, ""]
    assert close.loc["b", "budget_high"] == pytest.approx(0.9 / 0.5)
    hidden = row("b", "biased", (0.5, 0.0, 1.0), 2.0)
    assert found(hidden, unbiased(30.0))["budget_high"]["b"] == math.inf
    assert found(row("b", "biased", 0.0, 2.0), unbiased(30.0))["when"]["b"] == "never"
    assert found(row("b", "biased", (-0.1, 0.0, 0.3), 2.0), unbiased(30.0))["when"]["b"] == ""


@pytest.mark.weekly
@pytest.mark.parametrize("noise", [(0.3, 0.3, 0.05), (0.0, 0.0, 0.1), (2.0, 0.1, 0.0)])
def test_the_interval_covers(noise):
    rng = np.random.default_rng(0)
    true = np.array([12.0, 2.0, 0.5])
    drawn = true + rng.normal(size=(400, 3)) * noise
    below = above = 0
    for sample in drawn:
        v_u, v_b, square = (
            (x, x - 1.96 * s, x + 1.96 * s) for x, s in zip(sample, noise, strict=True)
        )
        table = found(row("b", "biased", square, v_b), unbiased(v_u))
        below += table["budget_high"]["b"] < 20
        above += table["budget_low"]["b"] > 20
    assert stats.binomtest(below, 400, 0.025).pvalue > 1e-4
    assert stats.binomtest(above, 400, 0.025).pvalue > 1e-4


def test_the_ends_of_the_interval_are_those_that_face_each_other():
    b, u = row("b", "biased", 0.5, (2.0, 1.0, 8.0)), unbiased((30.0, 29.0, 40.0))
    exact = row("b", "biased", 0.5, 2.0), unbiased(30.0)
    ends = ["budget_low", "budget_high"]
    assert found(b, exact[1]).loc["b", ends].tolist() == pytest.approx([44, 58])
    assert found(exact[0], u).loc["b", ends].tolist() == pytest.approx([54, 76])
    steep = row("b", "biased", (0.5, 0.4, 1.0), 2.0)
    assert found(steep, exact[1]).loc["b", ends].tolist() == pytest.approx([28, 70])


def test_what_is_called_unbiased_may_have_a_bias_in_the_interval_alone():
    rows = pd.DataFrame([row("u", "unbiased", (0.1, 0.0, 0.4), (8.0, 7.0, 9.0))])
    mean = mean_of(rows, pd.Series([4.0])).iloc[0]
    assert mean["mse"] == 2 and mean["mse_low"] == 1.75
    assert mean["mse_high"] == pytest.approx(2 + math.hypot(0.4, 0.25))
    for verdict in ("biased", "inconclusive"):
        rows["verdict"] = verdict
        mean = mean_of(rows, pd.Series([4.0])).iloc[0]
        assert mean["mse"] == 2.1 and mean["mse_low"] == pytest.approx(2.1 - math.hypot(0.1, 0.25))
    exact = pd.DataFrame([row("u", "unbiased", (0.1, 0.1, 0.1), 8.0)])
    assert mean_of(exact, pd.Series([4.0]))["mse"][0] == 2.1
