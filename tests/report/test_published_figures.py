"""`measure` finds the known figures of two toys: every one lies inside its interval.

The figures are closed forms, printed to their last digit.  The intervals are at a level at which
all of them together miss once in 10⁴ seeds, and they have to be narrow: a measurement that could
not tell two rows of the tables apart fails as inconclusive.
"""

import pytest
import torch
from scipy import stats

import gradest
from gradest.statistics import total_variance

# Two tables of about 70 and 130 figures; intervals by t over 64 batches.
FIGURES = 200
K = float(stats.t.isf(1e-4 / (2 * FIGURES), 63))
NARROW = 0.02  # the standard error of a variance, so that one that is off by 11 % shows
REPLICATES = 40_000
ZERO = 1e-12  # what rounding leaves of a variance that is zero

# One bit, f(b) = (b − t)²; g and the variances are those of the logit of θ.
ONE_BIT = {
    # (θ, t): (g, {estimator: (mean, variance)}); a mean of None is g
    (0.3, 0.45): (0.021, 0.015593813, 0.000336, 0.000609, 0.000339, 0.000294, -0.063, 0.037044,
                  0.056784),
    (0.8, 0.45): (0.016, 0.007921, 0.000576, 0.000544, 0.00039733333, 0.000384, 0.112, 0.016384,
                  0.035344),
    (0.5, 0.499): (0.0005, 0.015625125, 0.0, 2.5e-7, 8.3333333e-8, 0.0, 0.0005, 0.0625, 0.0625),
    (0.1, 0.1): (0.072, 0.047961, 0.036864, 0.023616, 0.020842667, 0.020736, 0.0, 0.002916,
                 0.060516),
}  # fmt: skip
NO_NOISE = ("local_expectation", "measure_valued", "bitflip", "optimal_baseline")


def bit_cases():
    for (theta, t), row in ONE_BIT.items():
        g, reinforce, mean_baseline, rloo, arm, disarm, st_mean, st, reinmax = row
        f_bar = theta * (1 - t) ** 2 + (1 - theta) * t**2
        for name, knobs, mean, variance in (
            ("reinforce", {}, g, reinforce),
            ("reinforce", {"baseline": f_bar}, g, mean_baseline),
            ("rloo", {"samples": 2}, g, rloo),
            ("arm", {}, g, arm),
            ("disarm", {}, g, disarm),
            ("straight_through", {}, st_mean, st),
            ("reinmax", {}, g, reinmax),
            *((name, {}, g, 0.0) for name in NO_NOISE),
        ):
            label = "-".join([name, *knobs, str(theta), str(t)])
            yield pytest.param(theta, t, name, knobs, mean, variance, id=label)


@pytest.mark.parametrize(("theta", "t", "name", "knobs", "mean", "variance"), list(bit_cases()))
def test_one_bit(theta, t, name, knobs, mean, variance):
    task = gradest.make_task("bernoulli", theta=(theta,), target=t)
    found = gradest.measure(gradest.make_estimator(name, **knobs), task, replicates=REPLICATES)
    assert_mean(found, [-mean, mean])
    assert_variances(found, [variance, variance], 0.5e-8)


# Three categories, α = (2, ½, 1), f_k = (k − t)²: variances of the coordinates and their sum.
TARGETS = (0.45, 1.2)
GRADIENT = ((-0.3673469, -0.0775510, 0.4448980), (0.2448980, -0.1387755, -0.1061224))
COSTS = ((0.2025, 0.3025, 2.4025), (1.44, 0.04, 0.64))
PI = (4 / 7, 1 / 7, 2 / 7)
THREE = {
    ("reinforce", ""): ((0.4121248, 0.0377242, 0.6464461, 1.09629512),
                        (0.1959504, 0.0074796, 0.1451928, 0.34862274)),
    ("reinforce", "baseline"): ((0.1483882, 0.0438734, 0.1782341, 0.37049563),
                                (0.0161933, 0.0827322, 0.0284215, 0.12734694)),
    ("optimal_baseline", "scalar"): ((0.1403415, 0.0934944, 0.0749688, 0.30880466),
                                     (0.0183923, 0.0325198, 0.0199917, 0.07090379)),
    ("optimal_baseline", "coordinate"): ((0.1371429, 0.0188144, 0.0000933, 0.15605053),
                                         (0.0111953, 0.0024879, 0.0182857, 0.03196890)),
    ("self_critical", ""): ((0.3170679, 0.0232570, 0.5077218, 0.84804665),
                            (0.0911620, 0.1901874, 0.1048896, 0.38623907)),
    ("rloo", ""): ((0.2605664, 0.0843940, 0.2871678, 0.63212828),
                   (0.0722699, 0.0680883, 0.0483299, 0.18868805)),
    ("unordered_set", ""): ((0.0769513, 0.0643489, 0.0838575, 0.22515770),
                            (0.0137276, 0.0321805, 0.0224513, 0.06835940)),
    ("sum_and_sample", ""): ((0.0587755, 0.0148166, 0.1326125, 0.20620459),
                             (0.0047980, 0.0006451, 0.0089616, 0.01440466)),
    ("measure_valued", ""): ((0.0587755, 0.0161266, 0.0000666, 0.07496876),
                             (0.0047980, 0.0021324, 0.0130612, 0.01999167)),
    ("arsm", ""): ((0.1130708, 0.1185914, 0.0776070, 0.30926924),
                   (0.0291790, 0.0296440, 0.0209553, 0.07977828)),
    ("straight_through", ""): ((0.5167915, 0.0051679, 0.4186011, 0.94056048),) * 2,
    ("reinmax", ""): ((0.8347647, 0.0138838, 0.9780862, 1.82673469),
                      (0.6005498, 0.0017326, 0.5601666, 1.16244898)),
}  # fmt: skip
ST_MEAN = ((-0.2157434, 0.0215743, 0.1941691), (0.3965015, -0.0396501, -0.3568513))


@pytest.mark.parametrize("which", [0, 1], ids=[f"t = {t}" for t in TARGETS])
@pytest.mark.parametrize(("name", "kind"), THREE)
def test_three_categories(name, kind, which):
    mean_cost = sum(p * f for p, f in zip(PI, COSTS[which], strict=True))
    knobs = {"baseline": mean_cost} if kind == "baseline" else {"kind": kind} if kind else {}
    task = gradest.make_task("categorical", target=TARGETS[which])
    found = gradest.measure(gradest.make_estimator(name, **knobs), task, replicates=REPLICATES)
    *variances, trace = THREE[name, kind][which]
    assert_mean(found, (ST_MEAN if name == "straight_through" else GRADIENT)[which])
    assert_variances(found, variances, 0.6e-7)
    assert_inside(total_variance(found.gradient), trace, 0.6e-8)


def assert_mean(found, expected):
    """Within k standard errors, and half a unit of the last printed digit."""
    expected = torch.tensor(expected, dtype=torch.float64)
    gap = (found.mean.flatten() - expected).abs()
    assert (gap <= K * found.standard_error.flatten() + 0.6e-7).all(), (found.mean, expected)


def assert_variances(found, expected, printed):
    for coordinate, variance in enumerate(expected):
        assert_inside(total_variance(found.gradient.column(coordinate)), variance, printed)


def assert_inside(interval, expected, printed):
    if expected == 0:
        assert interval.estimate <= ZERO
        return
    assert interval.standard_error <= NARROW * interval.estimate, "inconclusive"
    assert abs(interval.estimate - expected) <= K * interval.standard_error + printed
