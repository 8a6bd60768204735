"""Verdicts at the edges: rounding, gradients of zero, α that is zero, and unseen outcomes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gradest import Cost, Estimator, Precision, Problem, Task, make_estimator, make_task, measure
from gradest.categorical import log_prob, nabla, sample
from gradest.statistics import UNBIASED_WITHIN, Arithmetic, Interval, describe, verdict
from gradest.statistics.moments import Moments

LOGITS = [[[0.3, -0.8, 0.5], [1.0, 0.2, -0.4]]]
WEIGHTS = [[1.0, -0.5, 0.3], [0.2, 0.9, -1.1]]


def good(z: Tensor) -> Tensor:
    s = (z.new_tensor(WEIGHTS) * z).sum((-2, -1))
    return 2 + s + s * s / 2


class Asked(Task):
    """Any cost, at any logits."""

    def __init__(self, cost: Callable[[Tensor], Tensor], logits: list = LOGITS) -> None:
        self.name = "asked"
        self._cost, self._logits = cost, torch.tensor(logits, dtype=torch.float64)

    def problem(self, batch: object = None) -> Problem:
        return Problem(self._logits, Cost(self._cost))


@dataclass(eq=False)
class Single(Estimator):
    """Leave-one-out whose arithmetic is that of float32."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        narrow, z = logits.float(), sample(logits, 2)
        cost = f(z).float()
        score = nabla(log_prob(narrow.unsqueeze(1), z.float()))
        return (cost + (cost - cost.flip(1)) * score).mean(1).double()


@dataclass(eq=False)
class Off(Estimator):
    """REINFORCE, `more` added to each coordinate of the gradient, or `scale` times too long."""

    more: float = 0.0
    scale: float = 1.0

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        added = self.more * nabla(logits).sum((-2, -1))
        return cost + self.scale * cost * nabla(log_prob(logits, z)) + added


COSTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": good,
    "+ 1000": lambda z: good(z) + 1000,
    "a ripple on 5000": lambda z: 5000 + 0.001 * good(z),
    "1e8 times": lambda z: 1e8 * good(z),
    "1e-8 times": lambda z: 1e-8 * good(z),
    "minus E f": lambda z: good(z) - 2.5,
    "constant": lambda z: 3 + 0 * good(z),
    "zero": lambda z: 0 * good(z),
}
EXACT = ("exact", "reinforce", "rloo", "local_expectation", "measure_valued", "unordered_set")


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", EXACT)
def test_rounding_is_no_bias(name, cost):
    measured = measure(make_estimator(name), Asked(COSTS[cost]))
    for parameter in ("log_alpha", "alpha"):
        row = measured.row(parameter)
        assert row["verdict"] == "unbiased", row
        assert row["relative_bias"] < 1e-8
        assert not math.isinf(row["detectable_bias"])


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("extreme", {"cost": "constant"}),
        ("extreme", {"spread": 12.0}),
        ("extreme", {"spread": 18.0}),
        ("bernoulli", {"target": 0.5}),
        ("bernoulli", {"target": 0.499}),
        ("bernoulli", {"target": 0.4999999}),
        ("bernoulli", {"target": 0.5 - 1e-14}),
    ],
)
def test_rounding_is_no_bias_near_a_gradient_of_zero(name, knobs):
    for estimator in ("exact", "reinforce", "rloo"):
        row = measure(make_estimator(estimator), make_task(name, **knobs)).row()
        assert row["verdict"] != "biased", row
        assert row["relative_bias"] < UNBIASED_WITHIN


def test_a_real_bias_is_found_beside_large_costs():
    for cost in COSTS.values():
        row = measure(Off(scale=1.0001), Asked(cost)).row()
        expected = "unbiased" if row["gradient_norm"] == 0 else "biased"
        assert row["verdict"] == expected
        if expected == "biased":
            assert row["relative_bias"] == pytest.approx(1e-4, rel=1e-3)


def test_single_precision_and_small_constants_are_unbiased_up_to_rounding_with_their_figure():
    single = measure(Single(), Asked(good)).row()
    assert single["verdict"] == "unbiased" and 1e-9 < single["relative_bias"] < 1e-6
    figure = f"{100 * single['relative_bias']:.2g} %"
    assert single["note"] == f"unbiased up to rounding: the relative bias is {figure}"
    guarded = measure(Off(more=1e-12), Asked(good)).row()
    assert guarded["verdict"] == "unbiased" and "up to rounding" in guarded["note"]
    assert measure(make_estimator("rloo"), Asked(good)).row()["note"] == ""
    # What float32 leaves of a large cost is known from the estimates, which are float32 numbers.
    assert measure(Single(), Asked(COSTS["+ 1000"])).row()["verdict"] == "unbiased"
    coarse = measure(Single(), Asked(COSTS["a ripple on 5000"])).row()
    assert coarse["verdict"] == "inconclusive" and "rounding" in coarse["note"]


def test_a_bias_at_a_gradient_of_zero_is_relative_to_the_length_of_an_estimate():
    row = measure(Off(more=0.5), Asked(COSTS["constant"])).row()
    assert row["gradient_norm"] == 0 and row["verdict"] == "biased"
    length = (row["bias_sq"] + row["variance"]) ** 0.5
    assert row["scale"] == pytest.approx(length, rel=1e-9)
    assert row["relative_bias"] == pytest.approx(row["bias_norm"] / length, rel=1e-9)


@pytest.mark.parametrize("name", ["rloo", "concrete", "straight_through"])
@pytest.mark.parametrize("logit", [-math.inf, -1e8, -400.0, -800.0])
def test_a_derivative_that_does_not_exist_is_inconclusive_with_its_reason(name, logit):
    measured = measure(make_estimator(name), Asked(curved, [[[0.0, logit, 1.0]]]), replicates=512)
    row = measured.row("alpha")
    assert row["verdict"] == "inconclusive"
    assert math.isnan(row["variance"]) and math.isnan(row["relative_bias"])
    assert "does not exist" in row["note"] or "too large for float64" in row["note"]
    beside = measured.row("log_alpha")
    assert math.isfinite(beside["variance"]) and beside["note"] == ""


def curved(z: Tensor) -> Tensor:
    return (z[..., 0, 0] + 2 * z[..., 0, 1] - 0.3).square()


@pytest.mark.parametrize(("scale", "note"), [(1e200, "too large"), (1e-200, "too small")])
def test_gradients_whose_squares_float64_cannot_hold_are_inconclusive(scale, note):
    task = Asked(lambda z: scale * curved(z), [[[0.3, -0.8, 0.5]]])
    row = measure(make_estimator("exact"), task).row()
    assert row["verdict"] == "inconclusive" and f"are {note} for float64" in row["note"]


def test_large_weights_overflow_nothing_that_can_be_told():
    measured = measure(make_estimator("concrete"), Asked(curved, [[[-300.0, 0.0, 1.0]]]))
    alpha, log_alpha = measured.row("alpha"), measured.row("log_alpha")
    assert alpha["verdict"] == log_alpha["verdict"] == "biased"
    assert alpha["variance"] > 0 and math.isfinite(alpha["variance_high"])


def test_the_scale_of_the_weights_moves_the_columns_and_no_verdict():
    draws = torch.Generator().manual_seed(0)
    moments = Moments.of(torch.randn(8, 64, 3, generator=draws, dtype=torch.float64) + 1)
    exact = torch.tensor([1.0, 1.0, 1.2], dtype=torch.float64)
    rows = [
        describe(moments, exact, torch.full((3,), c, dtype=torch.float64), 4.0, Arithmetic(1e-12))
        for c in (1.0, 2.0**300, 2.0**-300)
    ]
    for row, unit in zip(rows, (1.0, 2.0**300, 2.0**-300), strict=True):
        for same in ("verdict", "relative_bias", "max_z", "p_value", "detectable_bias", "snr"):
            assert row[same] == rows[0][same]
        assert row["variance_high"] == rows[0]["variance_high"] * unit**2
        assert row["bias_norm"] == rows[0]["bias_norm"] * unit


@pytest.mark.weekly
@pytest.mark.parametrize("name", ["gumbel_rao", "straight_through", "gapped_straight_through"])
@pytest.mark.parametrize("seed", range(3))
def test_a_precision_that_is_reached_decides_on_a_bias_beyond_the_margin(name, seed):
    asked = Precision(variance=0.05, bias=0.02)
    task = make_task("quadratic")
    row = measure(
        make_estimator(name), task, precision=asked, seed=seed, enumerate_draws=False
    ).row()
    assert row["precision"] == "reached"
    assert row["bias_sq_low"] ** 0.5 > UNBIASED_WITHIN * row["gradient_norm"]
    assert row["verdict"] == "biased"


def test_an_interval_that_excludes_what_the_test_does_not_says_so():
    row = measure(
        make_estimator("straight_through"),
        make_task("quadratic"),
        replicates=979,
        enumerate_draws=False,
    ).row()
    assert row["verdict"] == "inconclusive"
    assert row["note"].startswith("the interval of the bias excludes 0, but rare outcomes")
    number = int(row["note"].split("about ")[1].split(" ")[0].replace(",", ""))
    more = measure(
        make_estimator("straight_through"),
        make_task("quadratic"),
        replicates=2 * number,
        enumerate_draws=False,
    ).row()
    assert more["verdict"] == "biased"


def test_verdicts_by_hand():
    exact = Interval.exactly(0.5**2)
    assert verdict(1.0, exact, 100.0) == ("unbiased", _told(0.5), False)
    assert verdict(1.0, exact, 100.0, 1.0, 1.0) == ("unbiased", "", False)
    assert verdict(1.0, exact, 1.0, 2.0).word == "inconclusive"
    assert "may be up to 2e+02 %" in verdict(1.0, exact, 1.0, 2.0).note
    assert verdict(1.0, Interval(0.2, 0.1, 0.3, 0.1), 1.0).undecided
    assert not verdict(1.0, Interval(0.2, 0.0, 0.3, 0.1), 1.0).undecided
    assert verdict(0.005, Interval(0.2, 0.1, 0.3, 0.1), 1.0) == ("biased", "", False)


def _told(share: float) -> str:
    return f"unbiased up to rounding: the relative bias is {share:g} %"
