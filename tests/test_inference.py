"""What moments say: coverage of the intervals, level and power of the tests, degenerate cases."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from scipy import stats
from torch import Tensor

from gradest.inference import (
    BIASED_BELOW,
    Interval,
    describe,
    largest_z,
    mean_interval,
    squared_bias,
    total_variance,
    verdict,
)
from gradest.moments import Moments

# The intervals are approximate: nominally at 95 %, held to at least 93 %.  A case fails where its
# count of hits would be as low in one of a thousand tests of an interval that covers in 93 %.
HELD_TO = 0.93
LEVEL = 1e-3

Draw = Callable[[int, torch.Generator], Tensor]  # (R, generator) -> [R, D]


def normal(mixing: Tensor, bias: Tensor) -> Draw:
    """Correlated normal coordinates: covariance mixing · mixingᵀ, mean bias."""

    def draw(replicates: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(replicates, len(bias), generator=generator, dtype=torch.float64)
        return noise @ mixing.T + bias

    return draw


def exponential(bias: Tensor) -> Draw:
    """Independent centred exponential coordinates: skewness 2, kurtosis 9."""

    def draw(replicates: int, generator: torch.Generator) -> Tensor:
        noise = torch.empty(replicates, len(bias), dtype=torch.float64)
        return noise.exponential_(generator=generator) - 1 + bias

    return draw


def moments_of(x: Tensor) -> Moments:
    """[R, D] in as many batches as a measurement would make."""
    batches = max(4, min(64, len(x) // 8))
    return Moments.of(x.unflatten(0, (batches, -1)))


def repeated(draw: Draw, replicates: int, repetitions: int) -> Iterator[Moments]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(repetitions):
        yield moments_of(draw(replicates, generator))


def assert_covers(hits: list[bool], name: str) -> None:
    """At least 93 %; and not by being endless, which the tests of power below see to."""
    share = sum(hits) / len(hits)
    least = stats.binom.ppf(LEVEL, len(hits), HELD_TO)
    assert stats.binom.cdf(least, len(hits), 0.85) > 0.95, "inconclusive: too few repetitions"
    assert sum(hits) >= least, f"{name}: the 95 % interval covers in {share:.1%}"


def contains(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


# Laws of unit size.  The bias is given in units of the noise √(tr Σ/R) of the mean.


def spread(coordinates: int) -> Tensor:
    """A mixing matrix: correlated, with standard deviations from 0.01 to 10."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(coordinates, coordinates, generator=generator, dtype=torch.float64)
    return mixing * torch.logspace(-2, 1, coordinates, dtype=torch.float64)


def axis(coordinates: int) -> Tensor:
    return torch.eye(coordinates, dtype=torch.float64)[0]


def principal(mixing: Tensor, number: int) -> Tensor:
    """Principal direction of the covariance: number 0 has the least variance, −1 the most."""
    return torch.linalg.eigh(mixing @ mixing.T).eigenvectors[:, number]


def diagonal(coordinates: int) -> Tensor:
    return torch.full((coordinates,), coordinates**-0.5, dtype=torch.float64)


ONE, FIFTY = (torch.eye(d, dtype=torch.float64) for d in (1, 50))
# name -> (mixing, direction of the bias); mixing None stands for exponential coordinates.
LAWS = {
    "one coordinate": (ONE, axis(1)),
    "fifty equal coordinates": (FIFTY, axis(50)),
    "one skewed coordinate": (None, axis(1)),
    "one skewed coordinate, bias down": (None, -axis(1)),
    "fifty skewed coordinates": (None, axis(50)),
    "three correlated, bias where the variance is greatest": (spread(3), principal(spread(3), -1)),
    "three correlated, bias where the variance is least": (spread(3), principal(spread(3), 0)),
    "three correlated, bias across": (spread(3), diagonal(3)),
    "fifty correlated, bias where the variance is greatest": (
        spread(50),
        principal(spread(50), -1),
    ),
    "fifty correlated, bias where the variance is least": (spread(50), principal(spread(50), 0)),
    "fifty correlated, bias across": (spread(50), diagonal(50)),
}


def law(name: str, bias: float, replicates: int) -> tuple[Draw, float, float, int]:
    """draw, ‖bias‖², tr Σ and D of a named law, whose bias is `bias` times the noise."""
    mixing, direction = LAWS[name]
    variance = float(len(direction) if mixing is None else mixing.square().sum())
    size = bias * (variance / replicates) ** 0.5
    draw = exponential(size * direction) if mixing is None else normal(mixing, size * direction)
    return draw, size**2, variance, len(direction)


def bias_hits(name: str, bias: float, replicates: int, repetitions: int) -> list[bool]:
    draw, truth, _, coordinates = law(name, bias, replicates)
    zero = torch.zeros(coordinates, dtype=torch.float64)
    return [contains(squared_bias(m, zero), truth) for m in repeated(draw, replicates, repetitions)]


def variance_hits(name: str, replicates: int, repetitions: int = 2000) -> list[bool]:
    draw, _, truth, _ = law(name, 1.0, replicates)
    return [contains(total_variance(m), truth) for m in repeated(draw, replicates, repetitions)]


@pytest.mark.parametrize("bias", [0.0, 1.0, 10.0])
def test_the_interval_of_the_squared_bias_covers_in_the_plain_case(bias):
    assert_covers(bias_hits("fifty equal coordinates", bias, 512, 400), "squared bias")


def test_the_interval_of_the_variance_covers_in_the_plain_case():
    assert_covers(variance_hits("one coordinate", 512), "variance")


@pytest.mark.slow
@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("name", LAWS)
def test_the_interval_of_the_squared_bias_covers(name, bias):
    assert_covers(bias_hits(name, bias, 512, 500), "squared bias")


@pytest.mark.slow
@pytest.mark.parametrize("replicates", [32, 64])
@pytest.mark.parametrize("name", ["one coordinate", "fifty equal coordinates"])
def test_the_intervals_cover_with_few_replicates(name, replicates):
    assert_covers(bias_hits(name, 0.0, replicates, 400), "squared bias, none there")
    assert_covers(bias_hits(name, 3.0, replicates, 400), "squared bias")
    assert_covers(variance_hits(name, replicates), "variance")


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_the_interval_of_the_variance_covers(name):
    assert_covers(variance_hits(name, 512), "variance")


def test_the_squared_bias_is_estimated_without_bias(assert_mean):
    # ‖mean − g‖² alone would be 2 with bias of the size of the noise, and 1 with none.
    for bias in (0.0, 1.0):
        draw, truth, variance, coordinates = law("three correlated, bias across", bias, 512)
        zero = torch.zeros(coordinates, dtype=torch.float64)
        found = [squared_bias(m, zero).estimate for m in repeated(draw, 512, 500)]
        noise = variance / 512
        assert_mean(torch.tensor(found).double().unsqueeze(1) / noise, truth / noise, 0.12)


def test_the_variance_is_estimated_without_bias(assert_mean):
    draw, _, truth, _ = law("three correlated, bias across", 1.0, 64)
    found = [total_variance(m).estimate for m in repeated(draw, 64, 2000)]
    assert_mean(torch.tensor(found).double().unsqueeze(1) / truth, 1.0, 0.01)


def test_the_intervals_are_not_endless():
    """Normal theory gives the half-widths ±2·√(2/R) for a variance, ±4κ^½‖bias‖ for a ‖bias‖²."""
    replicates = 4096
    draw, truth, variance, _ = law("one coordinate", 20.0, replicates)
    (m,) = repeated(draw, replicates, 1)
    bias, spread_ = squared_bias(m, torch.zeros(1, dtype=torch.float64)), total_variance(m)
    half = 4 * (variance / replicates * truth) ** 0.5
    assert bias.high - bias.low <= 1.5 * 2 * half
    assert spread_.high - spread_.low <= 1.5 * 4 * variance * (2 / replicates) ** 0.5


def test_a_lucky_mean_is_no_evidence_of_a_small_bias():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 1, generator=generator, dtype=torch.float64)
    m = moments_of(x)
    noise = float(x.var()) / 512
    near = squared_bias(m, m.pooled().mean[0] + 1e-9)
    assert near.high >= noise
    assert math.isclose(near.estimate, -noise, rel_tol=1e-6)


def test_a_mean_that_is_exactly_right_says_no_more_than_one_that_nearly_is():
    x = torch.randn(512, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m = moments_of(x)
    near, there = (squared_bias(m, m.pooled().mean[0] + d) for d in (1e-9, 0.0))
    assert there.high >= 0.9 * near.high and there.low == near.low == 0.0


@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e5, 3e5, 1e6, 1e8])
def test_a_bias_far_above_the_noise_is_covered_too(ratio):
    """As of a relaxation at a high temperature: hardly any variance, all bias."""
    hits = bias_hits("one coordinate", ratio, 512, 100)
    assert sum(hits) >= stats.binom.ppf(LEVEL, 100, HELD_TO)


def test_the_interval_of_a_mean_is_students():
    x = torch.tensor([1.0, 4.0, 2.0, 7.0, 3.0, 5.0, 8.0, 2.5], dtype=torch.float64)
    found = mean_interval(Moments.of(x.reshape(2, 4, 1)))
    reference = stats.ttest_1samp(x.numpy(), 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=1e-12)
    assert found.estimate == pytest.approx(x.mean().item(), rel=1e-15)
    assert found.standard_error == pytest.approx(stats.sem(x.numpy()), rel=1e-12)


# the largest z


def p_values(x: list[Tensor], exact: Tensor, peak: float) -> Tensor:
    return torch.tensor([largest_z(moments_of(m), exact, peak, 0.0)[1] for m in x])


@pytest.mark.parametrize("coordinates", [1, 50])
def test_without_bias_one_in_a_hundred_is_rejected(coordinates):
    generator = torch.Generator().manual_seed(0)
    zero, repetitions = torch.zeros(coordinates, dtype=torch.float64), 2000
    data = torch.randn(repetitions, 512, coordinates, generator=generator, dtype=torch.float64)
    # A peak of 0 switches the allowance for rare outcomes off, which would lower the level.
    rejected = int((p_values(list(data), zero, 0.0) < BIASED_BELOW).sum())
    assert stats.binom.cdf(rejected, repetitions, BIASED_BELOW) > LEVEL
    assert stats.binom.sf(rejected - 1, repetitions, BIASED_BELOW) > LEVEL


def test_one_shifted_coordinate_among_many_is_found():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 50, generator=generator, dtype=torch.float64)
    x[:, 17] += 0.15  # 9.6 standard errors
    zero = torch.zeros(50, dtype=torch.float64)
    z, p = largest_z(moments_of(x), zero, float(x.abs().max()), 0.0)
    assert z > 5 and p < 1e-4


def test_opposite_biases_do_not_cancel():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 2, generator=generator, dtype=torch.float64)
    x += torch.tensor([0.3, -0.3])
    zero = torch.zeros(2, dtype=torch.float64)
    assert largest_z(moments_of(x), zero, float(x.abs().max()), 0.0)[1] < BIASED_BELOW


def test_perfectly_correlated_coordinates_are_no_problem():
    """Rows of a softmax gradient sum to zero: Σ is singular."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 1, generator=generator, dtype=torch.float64) @ torch.tensor(
        [[1.0, -1.0]], dtype=torch.float64
    )
    z, p = largest_z(moments_of(x), torch.zeros(2, dtype=torch.float64), 1.0, 0.0)
    assert math.isfinite(z) and 0.01 < p <= 1


def rejections(p: float, replicates: int, allowance: float, coordinates: int = 1) -> float:
    """Exact chance that one of D independent Bernoulli(p) coordinates is called biased."""
    exact = torch.zeros(coordinates, dtype=torch.float64)
    exact[0] = p
    rejected = 0.0
    most = int(replicates * p + 20 * (replicates * p + 1) ** 0.5)
    for hits in range(most + 1):
        mean, m2 = torch.zeros(1, coordinates).double(), torch.zeros(1, coordinates).double()
        mean[0, 0], m2[0, 0] = hits / replicates, hits * (1 - hits / replicates)
        m = Moments(torch.tensor([float(replicates)], dtype=torch.float64), mean, m2)
        if largest_z(m, exact, allowance, 0.0)[1] < BIASED_BELOW:
            rejected += float(stats.binom.pmf(hits, replicates, p))
    return 1 - (1 - rejected) ** coordinates


EXPECTED = [0.01, 0.1, 0.5, 1, 2, 4, 6, 8, 10, 12, 15, 20, 50]  # R · p


@pytest.mark.parametrize("coordinates", [1, 50])
@pytest.mark.parametrize("expected", EXPECTED)
def test_rare_outcomes_are_not_called_a_bias(expected, coordinates):
    # Skewness that the allowance leaves raises the level of many equally rare coordinates a little.
    level = BIASED_BELOW if coordinates == 1 or expected <= 15 else 1.5 * BIASED_BELOW
    assert rejections(expected / 10_000, 10_000, 1.0, coordinates) <= level


def test_an_empirical_standard_error_alone_would_call_rare_outcomes_a_bias():
    # Never drawn, a category leaves no spread at all; drawn once, too little.
    for expected in (0.01, 0.1, 0.5, 1, 2, 4):
        assert rejections(expected / 10_000, 10_000, 0.0) > BIASED_BELOW
    assert rejections(0.01 / 10_000, 10_000, 0.0) > 0.98


def test_what_the_arithmetic_cannot_resolve_is_no_evidence():
    x = torch.tensor([3.0, -1.0], dtype=torch.float64).expand(1, 1, 2)
    once = Moments.of(x)
    off = x[0, 0] * (1 + 1e-13)
    assert largest_z(once, off, 3.0, 1e-12) == (0.0, pytest.approx(1.0))
    assert largest_z(once, off, 3.0, 1e-14)[0] == math.inf
    # The resolution is relative to the largest coordinate: cancellation left the others no better.
    small = x[0, 0] + torch.tensor([0.0, 2e-12], dtype=torch.float64)
    assert largest_z(once, small, 3.0, 1e-12)[0] == 0.0


# verdicts


def row(x: Tensor, exact: Tensor, **others: float) -> dict:
    weight = torch.ones(x.shape[1], dtype=torch.float64)
    peak = others.get("peak", float(x.abs().max()))
    return describe(moments_of(x), exact, weight, peak, others.get("resolution", 1e-12))


def gradient(replicates: int, scale: float, bias: float = 0.0) -> tuple[Tensor, Tensor]:
    """Replicates [R, 2] and the true gradient (1, −1)."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(replicates, 2, generator=generator, dtype=torch.float64) * scale
    exact = torch.tensor([1.0, -1.0], dtype=torch.float64)
    return x + exact * (1 + bias), exact


@pytest.mark.parametrize(
    ("scale", "bias", "expected"),
    [
        (0.1, 0.0, "unbiased"),
        (0.1, 0.1, "biased"),
        (10.0, 0.0, "inconclusive"),  # a noisy estimator does not pass by being noisy
        (10.0, 0.1, "inconclusive"),
        (0.01, 0.01, "biased"),  # within 2 %, but certainly there
    ],
)
def test_verdicts(scale, bias, expected):
    assert row(*gradient(4096, scale, bias))["verdict"] == expected


def test_a_verdict_needs_the_upper_end_within_two_percent():
    inside, outside = (Interval(0.0, 0.0, (r * 5.0) ** 2, 0.0) for r in (0.0199, 0.0201))
    assert verdict(0.5, inside, 5.0) == "unbiased"
    assert verdict(0.5, outside, 5.0) == "inconclusive"
    assert verdict(0.0099, inside, 5.0) == "biased"
    assert verdict(0.0101, inside, 5.0) == "unbiased"


def test_a_noisy_estimator_does_not_pass_when_its_mean_is_exactly_right():
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(16).unsqueeze(1)  # mean ½, R = 32
    exact = torch.tensor([0.5], dtype=torch.float64)
    assert row(x, exact)["verdict"] == "inconclusive"


def test_the_columns_agree_with_each_other():
    x, exact = gradient(4096, 1.0, 0.3)
    found = row(x, exact)
    assert found["gradient_norm"] == pytest.approx(2**0.5, rel=1e-12)
    assert found["bias_norm"] == pytest.approx(found["bias_sq"] ** 0.5, rel=1e-12)
    assert found["relative_bias"] == pytest.approx(found["bias_norm"] / 2**0.5, rel=1e-12)
    assert found["mse"] == pytest.approx(found["bias_sq"] + found["variance"], rel=1e-12)
    assert found["snr"] == pytest.approx(2 / found["variance"], rel=1e-12)
    assert found["variance"] == pytest.approx(float(x.var(0).sum()), rel=1e-12)
    deviation, noise = x.mean(0) - exact, float(x.var(0).sum()) / len(x)
    assert found["bias_sq"] == pytest.approx(float(deviation.square().sum()) - noise, rel=1e-9)


def test_a_weight_scales_bias_and_variance_but_not_z():
    x, exact = gradient(4096, 1.0, 0.3)
    weight = torch.tensor([0.1, 20.0], dtype=torch.float64)
    scaled = describe(moments_of(x), exact, weight, float(x.abs().max()), 0.0)
    plain = describe(moments_of(x * weight), exact * weight, torch.ones(2).double(), 0.0, 0.0)
    unscaled = row(x, exact, resolution=0.0)
    for column in ("bias_sq", "bias_sq_low", "bias_sq_high", "variance", "variance_low", "snr"):
        assert scaled[column] == pytest.approx(plain[column], rel=1e-9)
    assert (scaled["max_z"], scaled["p_value"]) == (unscaled["max_z"], unscaled["p_value"])


# degenerate cases


def constant(value: list[float], replicates: int) -> Tensor:
    return torch.tensor(value, dtype=torch.float64).expand(replicates, len(value))


def test_no_variance_and_no_bias():
    found = row(constant([1.0, -1.0], 64), torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert found["verdict"] == "unbiased" and found["p_value"] == pytest.approx(1.0)
    assert found["bias_sq"] == found["bias_sq_high"] == found["variance_high"] == 0.0
    assert found["snr"] == math.inf


def test_no_variance_and_a_certain_bias():
    exact = torch.tensor([1.1, -1.1], dtype=torch.float64)
    found = row(constant([1.0, -1.0], 64), exact, peak=0.0)
    assert found["verdict"] == "biased" and found["p_value"] == 0.0
    assert found["bias_sq_low"] == found["bias_sq_high"] == pytest.approx(0.02)


def test_a_gradient_of_zero_estimated_as_zero():
    zero = torch.zeros(2, dtype=torch.float64)
    found = row(constant([0.0, 0.0], 64), zero)
    assert found["verdict"] == "unbiased"
    assert found["relative_bias"] == found["snr"] == found["max_z"] == 0.0


def test_noise_around_a_gradient_of_zero_is_inconclusive():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 2, generator=generator, dtype=torch.float64)
    found = row(x, torch.zeros(2, dtype=torch.float64))
    assert found["verdict"] == "inconclusive" and found["snr"] == 0.0
    assert found["relative_bias"] in (0.0, math.inf)


def test_one_replicate_is_taken_at_its_word():
    once = Moments.of(torch.tensor([[[1.0, -1.0]]], dtype=torch.float64))
    for exact, expected in (([1.0, -1.0], "unbiased"), ([1.1, -1.1], "biased")):
        exact = torch.tensor(exact, dtype=torch.float64)
        found = describe(once, exact, torch.ones(2).double(), 1.0, 1e-12)
        assert found["verdict"] == expected
        assert found["variance"] == found["variance_low"] == found["variance_high"] == 0.0
    assert mean_interval(once.column(0)) == Interval(1.0, 1.0, 1.0, 0.0)


def test_without_the_truth_only_the_variance_is_said():
    x, _ = gradient(512, 1.0)
    found = row(x, None)
    assert found["verdict"] == "inconclusive"
    assert all(math.isnan(found[c]) for c in ("bias_sq", "p_value", "gradient_norm", "mse", "snr"))
    assert found["variance"] == pytest.approx(float(x.var(0).sum()), rel=1e-12)
    assert set(found) == set(row(*gradient(512, 1.0)))
