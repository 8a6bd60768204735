"""What moments say: coverage of the intervals, level and power of the tests, degenerate cases."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Tensor

from gradest.statistics import (
    BIASED_BELOW,
    Arithmetic,
    Interval,
    describe,
    largest_z,
    mean_interval,
    replicates_needed,
    squared_bias,
    total_variance,
    verdict,
)
from gradest.statistics.bias import BiasDistribution
from gradest.statistics.moments import Moments
from gradest.statistics.reference_noise import Noise

# The intervals are approximate: nominally at 95 %, held to 93 % and 97 %.  A case fails where its
# count of hits would be as low, or as high, in one of a thousand tests of an interval on the bound.
HELD_TO, AT_MOST = 0.93, 0.97
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


def assert_covers(hits: list[bool], name: str, most: float = AT_MOST) -> None:
    """Neither too rarely nor, up to `most`, too often."""
    share = sum(hits) / len(hits)
    least = stats.binom.ppf(LEVEL, len(hits), HELD_TO)
    assert stats.binom.cdf(least, len(hits), 0.85) > 0.95, "inconclusive: too few repetitions"
    assert sum(hits) >= least, f"{name}: the 95 % interval covers in {share:.1%}"
    largest = stats.binom.isf(LEVEL, len(hits), most)
    assert sum(hits) <= largest, f"{name}: the 95 % interval covers in {share:.1%}"


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


@pytest.mark.weekly
@pytest.mark.parametrize("bias", [0.0, 0.1, 1.0, 3.0, 30.0])
def test_the_interval_of_the_squared_bias_covers_in_the_plain_case(bias):
    assert_covers(bias_hits("one coordinate", bias, 512, 1500), "squared bias")


@pytest.mark.weekly
def test_the_interval_of_the_variance_covers_in_the_plain_case():
    assert_covers(variance_hits("one coordinate", 512), "variance")


@pytest.mark.weekly
@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("name", LAWS)
def test_the_interval_of_the_squared_bias_covers(name, bias):
    # Where the deviation is mostly noise its direction says little of the bias's, whose variance is
    # then taken for larger than it is.
    most = 1.0 if "least" in name or "across" in name else AT_MOST
    assert_covers(bias_hits(name, bias, 512, 500), "squared bias", most)


@pytest.mark.weekly
@pytest.mark.parametrize("replicates", [32, 64])
@pytest.mark.parametrize(
    "name", ["one coordinate", "fifty equal coordinates", "one skewed coordinate"]
)
def test_the_intervals_cover_with_few_replicates(name, replicates):
    assert_covers(bias_hits(name, 0.0, replicates, 1000), "squared bias, none there", 0.98)
    assert_covers(bias_hits(name, 10.0, replicates, 1000), "squared bias", 0.98)
    assert_covers(variance_hits(name, replicates), "variance")


@pytest.mark.weekly
@pytest.mark.parametrize("name", LAWS)
def test_the_interval_of_the_variance_covers(name):
    assert_covers(variance_hits(name, 512), "variance")


@pytest.mark.weekly
def test_the_squared_bias_is_estimated_without_bias(assert_mean):
    # ‖mean − g‖² alone would be 2 with bias of the size of the noise, and 1 with none.
    for bias in (0.0, 1.0):
        draw, truth, variance, coordinates = law("three correlated, bias across", bias, 512)
        zero = torch.zeros(coordinates, dtype=torch.float64)
        result = [squared_bias(m, zero).estimate for m in repeated(draw, 512, 500)]
        noise = variance / 512
        assert_mean(torch.tensor(result).double().unsqueeze(1) / noise, truth / noise, 0.12)


@pytest.mark.weekly
def test_the_variance_is_estimated_without_bias(assert_mean):
    draw, _, truth, _ = law("three correlated, bias across", 1.0, 64)
    result = [total_variance(m).estimate for m in repeated(draw, 64, 2000)]
    assert_mean(torch.tensor(result).double().unsqueeze(1) / truth, 1.0, 0.01)


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
    near = squared_bias(m, m.pooled.mean[0] + 1e-9)
    assert near.high >= noise
    assert math.isclose(near.estimate, -noise, rel_tol=1e-6)


def test_a_mean_that_is_exactly_right_says_no_more_than_one_that_nearly_is():
    x = torch.randn(512, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m = moments_of(x)
    near, there = (squared_bias(m, m.pooled.mean[0] + d) for d in (1e-9, 0.0))
    assert there.high >= 0.9 * near.high and there.low == near.low == 0.0


@pytest.mark.weekly
@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e5, 3e5, 1e6, 1e8])
def test_a_bias_far_above_the_noise_is_covered_too(ratio):
    """As of a relaxation at a high temperature: hardly any variance, all bias."""
    hits = bias_hits("one coordinate", ratio, 512, 100)
    assert sum(hits) >= stats.binom.ppf(LEVEL, 100, HELD_TO)


def test_the_interval_of_a_mean_is_students():
    x = torch.tensor([1.0, 4.0, 2.0, 7.0, 3.0, 5.0, 8.0, 2.5], dtype=torch.float64)
    result = mean_interval(Moments.of(x.reshape(2, 4, 1)))
    reference = stats.ttest_1samp(x.numpy(), 0.0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((reference.low, reference.high), rel=1e-12)
    assert result.estimate == pytest.approx(x.mean().item(), rel=1e-15)
    assert result.standard_error == pytest.approx(stats.sem(x.numpy()), rel=1e-12)


def test_a_normal_interval_holds_an_infinite_estimate_without_a_warning():
    found = Interval.normal(0.5, 0.1)
    assert found.ends == pytest.approx((0.5, *stats.norm.interval(0.95, 0.5, 0.1)), rel=1e-12)
    assert Interval.normal(math.inf, math.inf).ends == (math.inf, -math.inf, math.inf)


# the largest z


def p_values(x: list[Tensor], exact: Tensor, peak: float) -> Tensor:
    return torch.tensor([largest_z(moments_of(m), exact, peak, 0.0)[1] for m in x])


@pytest.mark.weekly
@pytest.mark.parametrize("coordinates", [1, pytest.param(50, marks=pytest.mark.slow)])
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


@pytest.mark.weekly
@pytest.mark.parametrize("coordinates", [1, 50, 10_000])
@pytest.mark.parametrize("expected", EXPECTED)
def test_rare_outcomes_are_not_called_a_bias(expected, coordinates):
    assert rejections(expected / 10_000, 10_000, 1.0, coordinates) <= BIASED_BELOW


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
    return describe(moments_of(x), exact, weight, peak, Arithmetic(others.get("resolution", 1e-12)))


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
    assert verdict(0.5, inside, 5.0).word == "unbiased"
    assert verdict(0.5, outside, 5.0).word == "inconclusive"
    assert verdict(0.0099, inside, 5.0).word == "biased"
    assert verdict(0.0101, inside, 5.0).word == "unbiased"


def test_a_noisy_estimator_does_not_pass_when_its_mean_is_exactly_right():
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(16).unsqueeze(1)  # mean ½, R = 32
    exact = torch.tensor([0.5], dtype=torch.float64)
    assert row(x, exact)["verdict"] == "inconclusive"


def test_the_columns_agree_with_each_other():
    x, exact = gradient(4096, 1.0, 0.3)
    result = row(x, exact)
    assert result["gradient_norm"] == pytest.approx(2**0.5, rel=1e-12)
    assert result["bias_norm"] == pytest.approx(result["bias_sq"] ** 0.5, rel=1e-12)
    assert result["relative_bias"] == pytest.approx(result["bias_norm"] / 2**0.5, rel=1e-12)
    assert result["mse"] == pytest.approx(result["bias_sq"] + result["variance"], rel=1e-12)
    assert result["snr"] == pytest.approx(2 / result["variance"], rel=1e-12)
    assert result["variance"] == pytest.approx(float(x.var(0).sum()), rel=1e-12)
    deviation, noise = x.mean(0) - exact, float(x.var(0).sum()) / len(x)
    assert result["bias_sq"] == pytest.approx(float(deviation.square().sum()) - noise, rel=1e-9)


def test_a_weight_scales_bias_and_variance_but_not_z():
    x, exact = gradient(4096, 1.0, 0.3)
    weight = torch.tensor([0.1, 20.0], dtype=torch.float64)
    scaled = describe(moments_of(x), exact, weight, float(x.abs().max()), Arithmetic(0.0))
    plain = describe(
        moments_of(x * weight), exact * weight, torch.ones(2).double(), 0.0, Arithmetic(0.0)
    )
    unscaled = row(x, exact, resolution=0.0)
    for column in ("bias_sq", "bias_sq_low", "bias_sq_high", "variance", "variance_low", "snr"):
        assert scaled[column] == pytest.approx(plain[column], rel=1e-9)
    assert (scaled["max_z"], scaled["p_value"]) == (unscaled["max_z"], unscaled["p_value"])


# the pieces of the interval, each against what it has to be


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def draws(shape: tuple[int, ...], number: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(number), dtype=torch.float64)


def in_batches(x: Tensor, *sizes: int) -> Moments:
    return Moments.stacked([Moments.of(part.unsqueeze(0)) for part in x.split(sizes)])


def test_one_normal_coordinate_has_students_interval():
    """Far from zero √β is x̄ ± t σ/√R, with the degrees of freedom of all the replicates."""
    x = draws((64, 1))
    error = float(x.std()) / 8
    result = squared_bias(moments_of(x), x.mean(0) - 1000 * error)
    half = stats.t.isf(0.025, 63)
    assert result.high**0.5 / error - 1000 == pytest.approx(half, abs=5e-3)
    assert result.low**0.5 / error - 1000 == pytest.approx(-half, abs=5e-3)
    assert half > stats.norm.isf(0.025) + 0.03  # far more than is tolerated


def at(x: Tensor, errors: float) -> Interval:
    """For a truth so many standard errors below the mean of one coordinate, in variances."""
    noise = float(x.var()) / len(x)
    result = squared_bias(moments_of(x), x.mean(0) - errors * noise**0.5)
    return Interval(*(number / noise for number in result))


def test_the_unified_interval_of_one_coordinate():
    """One-sided at 5 % until the lower end is past all that luck can hide, then two-sided."""
    x = draws((4096, 1))
    assert at(x, 1.94).low == 0.0 < at(x, 1.98).low  # |x| ≥ 1.96 in 5 %
    hidden = at(x, 0.5).high
    assert hidden == pytest.approx(at(x, 1.0).high, rel=1e-6) == pytest.approx(2.96**2, rel=0.01)
    assert at(x, 4.0).low == pytest.approx((4 - 1.645) ** 2, rel=0.01)
    assert at(x, 4.7).low == pytest.approx(hidden, rel=1e-6)  # between the two there is a plateau
    assert at(x, 6.0).low == pytest.approx((6 - 1.96) ** 2, rel=0.01)
    ends = [at(x, errors / 10) for errors in range(0, 80)]
    for before, after in pairwise(ends):
        assert before.low <= after.low * (1 + 1e-9) and before.high <= after.high * (1 + 1e-9)


@pytest.mark.weekly
def test_the_standard_error_of_the_squared_bias(assert_mean):
    for bias in (0.0, 3.0):
        draw, truth, _, coordinates = law("fifty equal coordinates", bias, 512)
        zero = torch.zeros(coordinates, dtype=torch.float64)
        result = [squared_bias(m, zero) for m in repeated(draw, 512, 1000)]
        square = torch.tensor([(f.estimate - truth) ** 2 for f in result], dtype=torch.float64)
        claimed = torch.tensor([f.standard_error**2 for f in result], dtype=torch.float64)
        assert_mean(((square - claimed) / claimed.mean()).unsqueeze(1), 0.0, 0.06)


@pytest.mark.weekly
@pytest.mark.parametrize("replicates", [64, 512])
def test_the_trace_of_the_squared_covariance_has_hardly_a_bias(replicates, assert_mean):
    """Its square would be too large by tr² Σ/(J − 1): by 1.7 for fifty equal ones and 8 batches."""
    for name, within in (
        ("three correlated, bias across", 0.05),
        ("fifty equal coordinates", 0.25),
    ):
        draw = law(name, 0.0, replicates)[0]
        mixing = LAWS[name][0]
        truth = float((mixing @ mixing.T).square().sum()) / replicates**2
        result = [Noise.of(m).t2 / truth for m in repeated(draw, replicates, 300)]
        mean = sum(result) / len(result)
        assert abs(mean - 1) <= within, (name, mean)


def test_the_trace_of_the_squared_covariance_of_two_parts():
    a, b = (draws((4096, 1), n) * torch.tensor([1.0, -2.0, 2.0]) for n in (1, 2))
    both = Noise.of(moments_of(a), moments_of(b))
    covariance = (torch.cov(a.T) + torch.cov(b.T)) / 4096
    assert both.t1 == pytest.approx(float(covariance.trace()), rel=1e-9)
    # The two parts have their one direction in common.
    assert both.t2 == pytest.approx(both.t1**2, rel=1e-9)
    direction = diagonal(3)
    along = float(direction @ covariance @ direction)
    assert both.along(direction) == pytest.approx(along, rel=1e-9)


def test_variances_come_from_all_replicates_and_correlations_from_batches():
    x = draws((64, 2)) * torch.tensor([1.0, 5.0], dtype=torch.float64)
    noise = Noise.of(moments_of(x))
    for coordinate in range(2):
        assert noise.along(axis(2).roll(coordinate)) == pytest.approx(
            float(x[:, coordinate].var()) / 64, rel=1e-12
        )
    opposed = Noise.of(moments_of(torch.cat([x[:, :1], -x[:, :1]], 1)))
    assert opposed.along(torch.ones(2, dtype=torch.float64)) < 1e-12 * opposed.t1
    assert opposed.t2 == pytest.approx(opposed.t1**2, rel=1e-9)


def test_batches_whose_means_are_all_alike_still_have_noise():
    x = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(32).unsqueeze(1)
    noise = Noise.of(moments_of(x))
    assert noise.along(axis(1)) == pytest.approx(noise.t1, rel=1e-14) and noise.t1 > 0  # two sums


def test_unequal_batches_count_by_their_size():
    x = draws((600, 2))
    noise = Noise.of(in_batches(x, 100, 50, 250, 200))
    scatter = noise.scatters[0]
    means = torch.stack([part.mean(0) for part in x.split((100, 50, 250, 200))])
    centred = (means - x.mean(0)) * torch.tensor([100.0, 50, 250, 200]).sqrt().unsqueeze(1)
    assert torch.nn.functional.cosine_similarity(scatter, centred, 0).min() > 1 - 1e-12


def test_the_trace_of_the_squared_covariance_is_at_least_that_of_the_diagonal():
    means = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    m = Moments(torch.full((4,), 8.0).double(), means, torch.ones(4, 2).double())
    noise = Noise.of(m)  # without any correlation, where one would be expected by chance
    assert noise.t2 == pytest.approx(float(noise.variance.square().sum()), rel=1e-12)


def freedom(x: Tensor, direction: Tensor) -> float:
    """Of the levels, for a deviation of so many standard deviations of all replicates."""
    return BiasDistribution.of(
        Noise.of(moments_of(x)), direction * float(x.var(0).sum()) ** 0.5
    ).freedom


def test_the_degrees_of_freedom_are_those_of_what_is_uncertain():
    """Of 32 replicates in four batches."""
    x = draws((32, 50))
    assert freedom(x, axis(50)) == pytest.approx(31, rel=1e-3)
    assert freedom(x, 1e-3 * diagonal(50)) == pytest.approx(31, rel=1e-3)
    assert 3 <= freedom(x, diagonal(50)) < 3.5
    alike = x[:, :1].expand(-1, 50)
    assert freedom(alike, diagonal(50)) == pytest.approx(31, rel=1e-3)


def test_how_much_rests_on_correlations():
    x = draws((512, 50))
    noise = Noise.of(moments_of(x))
    assert noise.correlated_share(axis(50)) == 0.0
    assert noise.correlated_share(diagonal(50)) > 0.9
    alike = Noise.of(moments_of(x[:, :1].expand(-1, 50)))
    assert alike.correlated_share(diagonal(50)) < 1e-9


@pytest.mark.weekly
def test_few_batches_widen_an_interval_that_rests_on_correlations():
    bias = 10 * (50 / 32) ** 0.5 * diagonal(50)
    zero = torch.zeros(50, dtype=torch.float64)
    hits = [
        contains(squared_bias(m, zero), float(bias.square().sum()))
        for m in repeated(normal(FIFTY, bias), 32, 1500)
    ]
    assert_covers(hits, "squared bias across", 0.98)


@pytest.mark.weekly
def test_luck_that_hides_the_noise_is_allowed_for():
    """Noise in one coordinate of three cancels the bias there: κ seems small, and is not."""
    mixing = torch.diag(torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64))
    size = 3 * (float(mixing.square().sum()) / 512) ** 0.5
    zero = torch.zeros(3, dtype=torch.float64)
    draw = normal(mixing, size * diagonal(3))
    hits = [contains(squared_bias(m, zero), size**2) for m in repeated(draw, 512, 600)]
    assert_covers(hits, "squared bias across", 1.0)


# the variance


@pytest.mark.weekly
@pytest.mark.parametrize(
    ("name", "replicates"),
    [
        ("one skewed coordinate", 32),
        ("one coordinate", 64),
        pytest.param("one skewed coordinate", 64, marks=pytest.mark.slow),
        pytest.param("one skewed coordinate", 512, marks=pytest.mark.slow),
        pytest.param("one coordinate", 32, marks=pytest.mark.slow),
    ],
)
def test_the_interval_of_the_variance_covers_with_skewed_and_few_replicates(name, replicates):
    assert_covers(variance_hits(name, replicates, 3000), "variance")


def test_the_interval_of_a_variance_whose_squares_are_all_alike():
    """The variance of a fair coin is known to 1/R, and to first order without error."""
    draw = torch.Generator().manual_seed(0)
    hits = []
    for _ in range(500):
        x = (torch.rand(512, 1, generator=draw, dtype=torch.float64) < 0.5).double()
        result = total_variance(moments_of(x))
        hits.append(contains(result, 0.25))
        assert result.high / result.low < 1.06
    assert_covers(hits, "variance", 1.0)


def test_the_standard_error_of_the_variance_of_a_known_law(assert_mean):
    """Of R normal numbers it is √(2/(R − 1)), however many a batch has."""
    draw = law("one coordinate", 0.0, 512)[0]
    result = [total_variance(m) for m in repeated(draw, 512, 500)]
    square = torch.tensor([[f.standard_error**2 * 511 / 2] for f in result], dtype=torch.float64)
    assert_mean(square, 1.0, 0.02)


def test_the_variance_of_one_that_is_exact():
    """A total count of one: m2 is the variance, and nothing is left to chance."""
    mean = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    m2 = torch.tensor([[2.0, 0.5]], dtype=torch.float64)
    exact = Moments(torch.ones(1, dtype=torch.float64), mean, m2)
    weight = torch.tensor([2.0, 1.0], dtype=torch.float64)
    result = describe(exact, mean[0], weight, 100.0, Arithmetic(1e-12))
    assert result["variance"] == result["variance_low"] == result["variance_high"] == 8.5
    assert result["bias_sq"] == result["bias_sq_low"] == result["bias_sq_high"] == 0.0
    assert result["verdict"] == "unbiased" and result["mse"] == 8.5
    assert result["snr"] == pytest.approx(13 / 8.5)
    assert result["variance_precision"] == result["bias_precision"] == 0.0
    assert result["detectable_bias"] < 1e-5  # of single precision, for want of noise
    off = describe(exact, mean[0] * (1 + 1e-5), weight, 100.0, Arithmetic(1e-12))
    assert off["verdict"] == "biased" and off["p_value"] == 0.0
    rounded = describe(exact, mean[0] * (1 + 1e-14), weight, 100.0, Arithmetic(1e-12))
    assert rounded["verdict"] == "unbiased"


def test_rounding_around_a_gradient_of_zero_is_no_bias():
    mean = torch.tensor([[1e-17, 0.0]], dtype=torch.float64)
    m2 = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    exact = Moments(torch.ones(1, dtype=torch.float64), mean, m2)
    zero = torch.zeros(2, dtype=torch.float64)
    assert describe(exact, zero, zero + 1, 1.0, Arithmetic(1e-12))["verdict"] == "unbiased"


# the joint test


def verdicts(draw: Draw, exact: Tensor, replicates: int, repetitions: int) -> list[dict]:
    one = torch.ones_like(exact)
    return [
        describe(m, exact, one, 5.0, Arithmetic(1e-12))
        for m in repeated(draw, replicates, repetitions)
    ]


def share(rows: list[dict], name: str = "biased") -> float:
    return sum(row["verdict"] == name for row in rows) / len(rows)


@pytest.mark.weekly
@pytest.mark.parametrize(
    "mixing",
    [
        pytest.param(ONE, id="one"),
        pytest.param(torch.eye(20).double(), id="twenty"),
        pytest.param(spread(3), id="correlated"),
    ],
)
def test_the_level_of_the_joint_test(mixing):
    exact = torch.ones(len(mixing), dtype=torch.float64)
    repetitions = 800
    rows = verdicts(normal(mixing, exact), exact, 512, repetitions)
    result = round(share(rows) * repetitions)
    assert result <= stats.binom.isf(LEVEL, repetitions, BIASED_BELOW)
    if len(mixing) == 1:  # nor is it far below
        small = sum(row["p_value"] < 0.2 for row in rows)
        assert small >= stats.binom.ppf(LEVEL, repetitions, 0.15)


REPLICATES = 2**18


def plenty(shift: Tensor, generator: torch.Generator) -> dict:
    """A row of so many normal replicates, off by `shift` in units of a coordinate's noise."""
    size = (64, len(shift))
    mean = torch.randn(size, generator=generator, dtype=torch.float64) * (64 / REPLICATES) ** 0.5
    exact = torch.ones(len(shift), dtype=torch.float64)
    count = torch.full((64,), REPLICATES / 64, dtype=torch.float64)
    m2 = torch.full(size, REPLICATES / 64, dtype=torch.float64)
    mean = mean + exact + shift / REPLICATES**0.5
    return describe(Moments(count, mean, m2), exact, exact, 5.0, Arithmetic(1e-12))


@pytest.mark.weekly
def test_the_joint_test_sees_a_little_everywhere():
    """In each of fifty coordinates, far below what the largest |z| would notice."""
    generator = seeded()
    rows = [plenty(0.8 * torch.ones(50).double(), generator) for _ in range(100)]
    assert share(rows) > 0.8
    assert sum(row["max_z"] > 3.9 for row in rows) < 30


@pytest.mark.weekly
def test_the_joint_test_sees_one_coordinate_of_fifty():
    generator = seeded()
    assert share([plenty(6 * axis(50), generator) for _ in range(100)]) > 0.8


@pytest.mark.weekly
@pytest.mark.parametrize("coordinates", [1, 4])
def test_a_detectable_bias_is_found(coordinates):
    """With 80 % in a coordinate of its own; any direction has more."""
    exact = torch.ones(coordinates, dtype=torch.float64)
    replicates = 4096
    (row,) = verdicts(normal(torch.eye(coordinates).double(), exact), exact, replicates, 1)
    size = row["detectable_bias"] * float(exact.norm())
    each = size / coordinates**0.5
    alternating = (-1.0) ** torch.arange(coordinates, dtype=torch.float64)
    draw = normal(torch.eye(coordinates).double(), exact + each * alternating)
    result = share(verdicts(draw, exact, replicates, 400))
    assert result >= 0.72  # 0.8, less four standard errors
    if coordinates == 1:
        assert result <= 0.88
    half = normal(torch.eye(coordinates).double(), exact + each * axis(coordinates) / 2)
    assert share(verdicts(half, exact, replicates, 200)) < 0.3


def test_a_projection_of_rare_outcomes_is_no_evidence():
    """What was never drawn leaves no spread along the gradient either."""
    seen = draws((512, 4)) * 1e-6
    exact = torch.full(
        (4,), 0.01, dtype=torch.float64
    )  # an outcome (1, 1, 1, 1) of probability 1 %
    assert row(seen, exact, peak=1.0)["p_value"] > BIASED_BELOW
    assert row(seen, exact, peak=0.0)["p_value"] < BIASED_BELOW


def test_the_largest_z_by_hand():
    x = draws((100, 2))
    m = Moments.of(x.unsqueeze(0))
    exact = x.mean(0) - torch.tensor([0.3, 0.1], dtype=torch.float64)
    z, p = largest_z(m, exact, 0.0, 0.0)
    student = 0.3 / (float(x[:, 0].var()) / 100) ** 0.5
    assert z == pytest.approx(student, rel=1e-12)
    assert p == pytest.approx(1 - (1 - 2 * stats.t.sf(student, 99)) ** 2, rel=1e-6)
    unit, variance = 4.0 / 100, float(x[:, 0].var()) / 100
    events, missing = variance / unit**2, 0.3 / unit
    z, p = largest_z(m, exact, 4.0, 0.0)
    poisson = 2 * stats.gamma.sf(events + missing, events + 1)
    assert z == pytest.approx(0.3 / (variance + unit * 0.3) ** 0.5, rel=1e-12)
    assert p == pytest.approx(1 - (1 - poisson) ** 2, rel=1e-6)


def test_the_joint_p_value_and_the_detectable_bias_by_hand():
    x, weight = draws((512, 2)), torch.tensor([1.0, 3.0], dtype=torch.float64)
    m, exact = moments_of(x), torch.tensor([0.12, -0.12], dtype=torch.float64)
    result = describe(m, exact, weight, 0.0, Arithmetic(0.0))
    along = abs(float((x.mean(0) - exact) @ exact)) / Noise.of(m).along(exact) ** 0.5
    p = min(largest_z(m, exact, 0.0, 0.0)[1], 2 * stats.t.sf(along, 63))
    assert result["p_value"] == pytest.approx(2 * p, rel=1e-9)
    assert 2 * stats.t.sf(along, 63) < largest_z(m, exact, 0.0, 0.0)[1]  # it is the projection's
    each = 1 - (1 - BIASED_BELOW / 2) ** 0.5
    factor = stats.t.isf(each / 2, 511) + stats.norm.isf(0.2)
    noise = float((x.std(0) * weight).norm()) / 512**0.5
    length = float((exact * weight).norm())
    assert result["detectable_bias"] == pytest.approx(factor * noise / length, rel=1e-9)


def test_a_negative_estimate_of_the_bias_takes_nothing_off_the_error():
    x, _ = gradient(512, 1.0)
    result = row(x, x.mean(0))
    assert result["bias_sq"] < 0 and result["mse"] == result["variance"]


# a truth that is itself estimated


@pytest.mark.weekly
@pytest.mark.parametrize("bias", [0.0, 10.0])
def test_the_noise_of_a_reference_is_counted(bias):
    """An estimate of the truth with a quarter of the replicates: most of the noise is its own."""
    size = bias * (3 / 512 + 3 / 128) ** 0.5
    generator = seeded()
    rows = []
    for _ in range(800):
        x = torch.randn(512, 3, generator=generator, dtype=torch.float64) + size * axis(3) + 1
        y = torch.randn(128, 3, generator=generator, dtype=torch.float64) + 1
        m, reference = moments_of(x), moments_of(y)
        one = torch.ones(3, dtype=torch.float64)
        rows.append(describe(m, y.mean(0), one, 4.0, Arithmetic(1e-12), reference))
    hits = [r["bias_sq_low"] <= size**2 <= r["bias_sq_high"] for r in rows]
    assert_covers(hits, "squared bias")
    if not bias:
        assert sum(r["verdict"] == "biased" for r in rows) <= stats.binom.isf(
            LEVEL, len(rows), BIASED_BELOW
        )
        alone = describe(m, y.mean(0), one, 4.0, Arithmetic(1e-12))
        assert rows[-1]["detectable_bias"] > 1.8 * alone["detectable_bias"]


def test_a_reference_also_stands_beside_an_exact_measurement():
    y = draws((512, 2)) + 1
    exact = Moments(torch.ones(1).double(), torch.ones(1, 2).double(), torch.ones(1, 2).double())
    result = describe(
        exact, y.mean(0), torch.ones(2).double(), 4.0, Arithmetic(1e-12), moments_of(y)
    )
    assert result["bias_sq_low"] == 0.0 < result["bias_sq_high"] and result["variance"] == 2.0
    assert result["verdict"] == "inconclusive"


# tightness, and replicates for it


def test_precisions_are_the_distances_to_the_far_ends():
    result = row(*gradient(4096, 1.0, 0.3))
    assert result["variance_precision"] == pytest.approx(
        result["variance_high"] / result["variance"] - 1
    )
    above = result["bias_sq_high"] ** 0.5 - result["bias_norm"]
    below = result["bias_norm"] - result["bias_sq_low"] ** 0.5
    assert result["bias_precision"] == pytest.approx(max(above, below) / result["gradient_norm"])
    large = row(*gradient(4096, 1.0, 3.0))  # a bias above the gradient: relative to the bias
    above = large["bias_sq_high"] ** 0.5 - large["bias_norm"]
    below = large["bias_norm"] - large["bias_sq_low"] ** 0.5
    assert large["bias_precision"] == pytest.approx(max(above, below) / large["bias_norm"])


@pytest.mark.weekly
@pytest.mark.parametrize("pilot", [64, 512])
@pytest.mark.parametrize(
    ("draw", "variance", "bias"),
    [
        (normal(torch.eye(2).double(), torch.ones(2).double()), 0.1, None),
        (normal(torch.eye(2).double(), torch.ones(2).double()), None, 0.1),
        (normal(torch.eye(2).double(), torch.tensor([1.3, 1.0]).double()), None, 0.1),
        (exponential(torch.ones(2).double()), 0.15, 0.1),
    ],
    ids=["variance", "no bias", "bias", "skewed"],
)
def test_a_pilot_plans_a_measurement_that_is_as_tight_as_asked(draw, variance, bias, pilot):
    exact = one = torch.ones(2, dtype=torch.float64)
    generator = seeded()
    hits, numbers = [], []
    for _ in range(100):
        seen = moments_of(draw(pilot, generator))
        number = replicates_needed(seen, exact, one, 4.0, variance, bias)
        numbers.append(number)
        number = -(-number // 64) * 64  # in batches that are equal
        fresh = Moments.of(draw(number, generator).unflatten(0, (min(64, number // 8), -1)))
        result = describe(fresh, exact, one, 4.0, Arithmetic(1e-12))
        hits.append(
            (variance is None or result["variance_precision"] <= variance)
            and (bias is None or result["bias_precision"] <= bias)
        )
    assert sum(hits) >= stats.binom.ppf(LEVEL, len(hits), 0.95)
    # Not by far too many: a tenth of them would not do.
    tenth = -(-sorted(numbers)[0] // 640) * 64
    short = [
        describe(
            Moments.of(draw(max(tenth, 64), generator).unflatten(0, (-1, 8))),
            exact,
            one,
            4.0,
            Arithmetic(1e-12),
        )
        for _ in range(20)
    ]
    assert not all(
        (variance is None or result["variance_precision"] <= variance)
        and (bias is None or result["bias_precision"] <= bias)
        for result in short
    )


def test_planned_replicates_by_hand():
    """All ends move as 1/√R, and the squared spread is taken times a quantile of its F law."""
    x = draws((512, 2)) + 1
    pilot, one = moments_of(x), torch.ones(2, dtype=torch.float64)
    margin = stats.f.ppf(0.975, 63, 63)
    variance = total_variance(pilot)
    u = stats.t.isf(0.025, 63) * variance.standard_error / variance.estimate
    wanted = (1 + 2 * math.log(1.02)) ** 0.5 - 1
    number = replicates_needed(pilot, one, one, 4.0, variance=0.02)
    assert number == pytest.approx(512 * margin * (u / wanted) ** 2, rel=0.01)
    bias = squared_bias(pilot, x.mean(0))  # nothing could be seen: the upper end alone
    number = replicates_needed(pilot, x.mean(0), one, 4.0, bias=0.01)
    wanted = 0.01 * float(x.mean(0).norm())
    assert number == pytest.approx(512 * margin * bias.high / wanted**2, rel=0.3)


def test_replicates_for_a_bias_that_may_be_none():
    """Its lower end counts, where an interval is the widest."""
    x = draws((512, 1)) + 1
    pilot, one = moments_of(x), torch.ones(1, dtype=torch.float64)
    error = float(x.std()) / 512**0.5
    numbers = [
        replicates_needed(pilot, x.mean(0) - k * error, one, 4.0, bias=0.01) for k in (0.0, 1.9)
    ]
    assert numbers[1] == pytest.approx(numbers[0], rel=0.3)
    assert replicates_needed(pilot, x.mean(0) - 5 * error, one, 4.0, bias=0.01) < 0.85 * numbers[0]


def test_replicates_show_enough_of_the_largest_outcomes():
    seen = moments_of((torch.rand(10_240, 1, generator=seeded()) < 0.001).double())
    one = torch.ones(1, dtype=torch.float64)
    assert replicates_needed(seen, one, one, 1.0, variance=10.0) >= 10_000
    assert replicates_needed(seen, one, one, 0.0, variance=10.0) < 10_000


def test_what_is_exact_needs_no_replicates():
    exact = Moments(torch.ones(1).double(), torch.ones(1, 2).double(), torch.ones(1, 2).double())
    assert replicates_needed(exact, torch.ones(2), torch.ones(2), 1.0, 0.1, 0.1) == 1


def test_estimates_without_noise_need_few_replicates():
    """As of an antithetic estimator whose draws cannot be enumerated."""
    constant = moments_of(torch.ones(512, 2).double())
    one = torch.ones(2, dtype=torch.float64)
    assert replicates_needed(constant, one, one, 4.0, variance=0.01, bias=0.01) <= 16


def test_targets_that_no_number_reaches_are_told():
    x, y = draws((512, 2), 1) + 1, draws((512, 2), 2) + 1
    one = torch.ones(2, dtype=torch.float64)
    assert (
        replicates_needed(moments_of(x), y.mean(0), one, 4.0, bias=1e-3, reference=moments_of(y))
        == 2**50
    )


# degenerate cases


def constant(value: list[float], replicates: int) -> Tensor:
    return torch.tensor(value, dtype=torch.float64).expand(replicates, len(value))


def test_no_variance_and_no_bias():
    result = row(constant([1.0, -1.0], 64), torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert result["verdict"] == "unbiased" and result["p_value"] == pytest.approx(1.0)
    assert result["bias_sq"] == result["bias_sq_high"] == result["variance_high"] == 0.0
    assert result["snr"] == math.inf


def test_no_variance_and_a_certain_bias():
    exact = torch.tensor([1.1, -1.1], dtype=torch.float64)
    result = row(constant([1.0, -1.0], 64), exact, peak=0.0)
    assert result["verdict"] == "biased" and result["p_value"] == 0.0
    assert result["bias_sq_low"] == result["bias_sq_high"] == pytest.approx(0.02)


def test_a_gradient_of_zero_estimated_as_zero():
    zero = torch.zeros(2, dtype=torch.float64)
    result = row(constant([0.0, 0.0], 64), zero)
    assert result["verdict"] == "unbiased"
    assert result["relative_bias"] == result["snr"] == result["max_z"] == 0.0


def test_noise_around_a_gradient_of_zero_is_inconclusive():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 2, generator=generator, dtype=torch.float64)
    result = row(x, torch.zeros(2, dtype=torch.float64))
    assert result["verdict"] == "inconclusive" and result["snr"] == 0.0
    assert result["relative_bias"] in (0.0, math.inf)


def test_one_replicate_is_taken_at_its_word():
    once = Moments.of(torch.tensor([[[1.0, -1.0]]], dtype=torch.float64))
    for exact, expected in (([1.0, -1.0], "unbiased"), ([1.1, -1.1], "biased")):
        exact = torch.tensor(exact, dtype=torch.float64)
        result = describe(once, exact, torch.ones(2).double(), 1.0, Arithmetic(1e-12))
        assert result["verdict"] == expected
        assert result["variance"] == result["variance_low"] == result["variance_high"] == 0.0
    assert mean_interval(once.column(0)) == Interval(1.0, 1.0, 1.0, 0.0)


def test_without_the_truth_only_the_variance_is_said():
    x, _ = gradient(512, 1.0)
    result = row(x, None)
    assert result["verdict"] == "inconclusive"
    assert all(math.isnan(result[c]) for c in ("bias_sq", "p_value", "gradient_norm", "mse", "snr"))
    assert result["variance"] == pytest.approx(float(x.var(0).sum()), rel=1e-12)
    assert set(result) == set(row(*gradient(512, 1.0)))
