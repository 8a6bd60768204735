"""Two estimators on common draws: intervals that cover, effects that would have been found."""

import math
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from gradest import Comparison, compare, make_estimator, make_task, measure
from gradest.errors import Inapplicable, UsageError
from gradest.measurement.comparison import POWER, _ratio
from gradest.measurement.pairing import Side
from gradest.statistics import Interval, detectable_length, squared_bias, total_variance
from gradest.statistics.moments import Moments

LEVEL = 1e-4
RUNS = 60


def relaxed(temperature):
    return make_estimator("concrete", temperature=temperature)


@pytest.fixture
def task():
    return make_task("categorical")


def covered(comparisons, name, truth):
    """How many of the comparisons have the truth in this interval."""
    intervals = [getattr(each, name) for each in comparisons]
    return sum(x.low <= truth <= x.high for x in intervals)


def enough(hits):
    """No fewer than intervals at 95 % cover; pairs that share noise may cover more."""
    return hits >= stats.binom.ppf(LEVEL, RUNS, 0.95)


@pytest.mark.weekly
def test_intervals_cover_what_enumeration_says(task):
    pair = make_estimator("rloo", samples=2), make_estimator("reinforce")
    exact = compare(*pair, task)
    assert exact.method == "enumerated" and exact.replicates == 0
    drawn = [
        compare(*pair, task, replicates=2000, enumerate_draws=False, seed=s) for s in range(RUNS)
    ]
    assert {c.method for c in drawn} == {"paired"}
    assert enough(covered(drawn, "variance_ratio", exact.variance_ratio.estimate))
    assert enough(covered(drawn, "work_ratio", 2 * exact.variance_ratio.estimate))
    assert enough(RUNS - sum(c.means_differ for c in drawn))
    assert enough(covered(drawn, "bias_difference", 0.0))


@pytest.mark.weekly
def test_intervals_cover_where_pairing_helps(task):
    pair = relaxed(0.5), relaxed(0.55)
    long = compare(*pair, task, replicates=200_000, seed=1000)
    runs = [compare(*pair, task, replicates=2000, seed=s) for s in range(RUNS)]
    for name in ("variance_ratio", "apart", "bias_difference"):
        assert enough(covered(runs, name, getattr(long, name).estimate)), name
    for run in runs:
        assert run.variance_gain > 5 and run.mean_gain > 5
        assert run.variances_differ and run.means_differ
    # Against a constant no noise is shared: a bias is known less well than the difference.
    alone = compare(pair[0], make_estimator("exact"), task, replicates=2000).bias_difference
    shared = runs[0].bias_difference
    assert shared.high - shared.low < (alone.high - alone.low) / 4
    # The gain is real: runs on draws of their own differ by that much more.
    alone = [
        measure(pair[0], task, replicates=2000, seed=s).row()["variance"]
        / measure(pair[1], task, replicates=2000, seed=s + RUNS).row()["variance"]
        for s in range(RUNS)
    ]
    spread = [torch.tensor(x).log().std() for x in (alone, [c.variance_ratio[0] for c in runs])]
    assert 0.5 < float(spread[0] / spread[1]) / runs[0].variance_gain < 2


def test_estimators_that_are_the_same_are_exactly_the_same(task):
    # Their chunks differ, their names too; their draws do not.
    same = compare(relaxed(0.5), make_estimator("gumbel_softmax", temperature=0.5), task)
    assert same.variance_ratio == (1, 1, 1, 0) and same.apart == (0, 0, 0, 0)
    assert same.variance_gain == same.mean_gain == math.inf
    assert same.detectable_ratio == 1 and same.detectable_distance == 0
    assert str(same).count("no difference") == 2 and "detectable" not in str(same)


def test_what_is_enumerated_is_exact(task):
    a, b = make_estimator("rloo", samples=2), make_estimator("reinforce")
    exact = compare(a, b, task)
    ratio = measure(a, task).row()["variance"] / measure(b, task).row()["variance"]
    assert exact.variance_ratio == pytest.approx((ratio, ratio, ratio, 0))
    assert exact.work_ratio.estimate == pytest.approx(2 * ratio)
    assert exact.apart == (0, 0, 0, 0) and exact.bias_difference[:3] == (0, 0, 0)
    assert math.isnan(exact.variance_gain) and "detectable" not in str(exact)

    half = compare(relaxed(1.0), b, task)
    assert half.method == "half_enumerated" and half.variance_b.low == half.variance_b.high
    assert math.isnan(half.mean_gain) and "pairing" not in str(half)
    expected = measure(relaxed(1.0), task, replicates=100_000).row()
    assert half.apart.low < expected["bias_norm"] < half.apart.high
    assert half.bias_difference.low < expected["bias_norm"] < half.bias_difference.high

    zero = compare(make_estimator("exact"), b, task)
    assert zero.variance_ratio == (0, 0, 0, 0) and zero.detectable_ratio == 1
    assert compare(b, make_estimator("exact"), task).variance_ratio.estimate == math.inf
    both = compare(make_estimator("exact"), make_estimator("local_expectation"), task)
    assert both.variance_ratio.estimate == 1


def test_swapping_the_two_inverts_the_ratio(task):
    pair = relaxed(0.3), make_estimator("straight_through")
    ab = compare(*pair, task, enumerate_draws=False)
    ba = compare(*reversed(pair), task, enumerate_draws=False)
    assert ba.variance_ratio.low == pytest.approx(1 / ab.variance_ratio.high)
    assert ba.bias_difference.low == pytest.approx(-ab.bias_difference.high)
    assert ba.apart == pytest.approx(ab.apart, nan_ok=True)


@pytest.mark.weekly
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.0, 1.0, 1.0), (3.0, 1.0, 0.1)])
def test_the_detectable_distance_is_found_with_its_power(scales):
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor(scales, dtype=torch.float64)

    def moments():
        noise = torch.randn(64, 16, len(scales), generator=generator, dtype=torch.float64)
        return noise * scale

    size = median([detectable_length(Moments.of(moments()), POWER) for _ in range(50)])
    shift = torch.zeros(len(scales)).double()
    shift[0] = size  # the noisiest coordinate
    origin = torch.zeros_like(shift)
    hits = sum(squared_bias(Moments.of(moments() + shift), origin).low > 0 for _ in range(400))
    assert abs(hits / 400 - POWER) < 0.08


def test_the_detectable_ratio_is_found_with_its_power():
    generator = torch.Generator().manual_seed(0)

    def found(scale):
        sides, variances = [], []
        for size in (scale, 1.0):
            noise = torch.randn(64, 16, 2, generator=generator, dtype=torch.float64)
            moments = Moments.of(size * noise)
            logs = Side.log_variances(SimpleNamespace(exact=None, moments=moments))
            sides.append(SimpleNamespace(log_variances=lambda logs=logs: logs))
            variances.append(total_variance(moments))
        return _ratio(sides, variances)

    detectable = median([found(1.0)[1] for _ in range(50)])
    assert 1.1 < detectable < 1.3
    ratios = [found(detectable**0.5)[0] for _ in range(400)]
    hits = sum(not r.low <= 1 <= r.high for r in ratios)
    assert abs(hits / 400 - POWER) < 0.08


def test_without_a_truth_only_differences_are_known(task, monkeypatch):
    monkeypatch.setattr("gradest.measurement.enumerated_truth.LIMIT", 1)
    found = compare(relaxed(1.0), make_estimator("reinforce"), task)
    assert math.isnan(found.gradient_norm) and math.isnan(found.bias_difference.estimate)
    assert found.means_differ and "‖g‖" not in str(found)


def test_adaptive_estimators_are_adapted_and_nothing_leaks(task):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    pair = make_estimator("reinforce_ema"), make_estimator("reinforce")
    first, again = (compare(*pair, task, enumerate_draws=False, replicates=2000) for _ in range(2))
    assert first.row() == again.row() and first.variance_ratio.high < 1
    assert torch.equal(torch.get_rng_state(), before)
    other = compare(*pair, task, enumerate_draws=False, replicates=2000, seed=1)
    assert other.variance_ratio != first.variance_ratio


def test_an_estimator_adapts_as_where_it_is_measured_alone(task):
    pair = make_estimator("reinforce_ema"), make_estimator("reinforce")
    found = compare(*pair, task, seed=3)
    alone = measure(make_estimator("reinforce_ema"), task, seed=3)
    assert found.method == "enumerated" and alone.adapt_steps > 0
    # Up to the order of summation.
    assert found.variance_a.estimate == pytest.approx(alone.row()["variance"], rel=1e-12)
    assert found.variance_a.estimate != compare(*pair, task, seed=4).variance_a.estimate


def test_a_row_is_plain_and_names_every_interval(task):
    found = compare(relaxed(0.5), relaxed(0.6), task, replicates=1000)
    row = found.row()
    assert all(isinstance(value, str | int | float) for value in row.values())
    for name, value in vars(found).items():
        if isinstance(value, Interval):
            assert (row[f"{name}_low"], row[name], row[f"{name}_high"]) == (
                value.low,
                value.estimate,
                value.high,
            )
    text = str(found)
    assert isinstance(found, Comparison) and "concrete (temperature=0.5) against" in text
    assert "% of ‖g‖" in text and "1,000 replicates" in text


def test_what_cannot_be_compared_is_refused(task):
    rloo = make_estimator("rloo")
    with pytest.raises(UsageError, match="expected an Estimator, got 'rloo'"):
        compare("rloo", rloo, task)
    with pytest.raises(UsageError, match="expected a Task, got"):
        compare(rloo, rloo, rloo)
    with pytest.raises(UsageError, match="expected at least 64"):
        compare(rloo, rloo, task, replicates=63)
    with pytest.raises(UsageError, match="concrete on categorical: the draws cannot be enum"):
        compare(rloo, relaxed(0.5), task, enumerate_draws=True)
    with pytest.raises(Inapplicable):
        compare(make_estimator("disarm"), rloo, task)
