"""Perturbation methods: I-MLE and its adaptive form, SPSA, evolution strategies, differences.

Noise on one bit is cut into the pieces on which an estimate is constant, so that means and
variances are finite sums.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Estimator, Problem, Task
from gradest.measurement.enumerated_truth import exact_gradient
from gradest.randomness import Draws, drawing_from
from tests.estimators.toys import (
    BITS,
    PI,
    Given,
    affine,
    bit,
    bits,
    both,
    close,
    doubles,
    estimates,
    logit,
    mean_and_variance,
    polynomial,
    truth,
    values,
)
from tests.support import EXACT, Prescribed

# Perturbations.  On one bit a hard sample changes at known values of the logistic noise G₁ − G₀:
# between them an estimate is constant, so means and variances are finite sums.


def over_noise(estimator: Estimator, task: Task, breaks: Sequence[float], **given: Tensor):
    """Probability [R], ĝ [R, 1, 2] and value [R] of each piece between the breaks."""
    breaks = np.unique(np.asarray(breaks))
    inside = (breaks[:-1] + breaks[1:]) / 2
    noise = torch.from_numpy(np.concatenate([breaks[:1] - 1, inside, breaks[-1:] + 1]))
    cdf = np.concatenate([[0.0], stats.logistic.cdf(breaks), [1.0]])
    exponentials = torch.stack([torch.ones_like(noise), (-noise).exp()], -1).unsqueeze(1)
    rows = len(noise)
    given = {k: x.expand(rows, *x.shape) for k, x in given.items()}
    result, value = (
        ask(estimator, task, rows, Prescribed(exponentials=exponentials, **given))
        for ask in (estimates, values)
    )
    return torch.from_numpy(np.diff(cdf)), result, value


def imle_on_one_bit(step: float, theta: float, t: float) -> tuple[Tensor, Tensor]:
    switch = -logit(theta)
    breaks = [switch, *(switch + 2 * step * (b - t) for b in (0, 1))]
    estimator = gradest.make_estimator("imle", lambda_=step)
    return mean_and_variance(*over_noise(estimator, bit(theta, t), breaks)[:2])


def imle_on_an_affine_bit(name: str, theta: float, slope: float, step: float, **knobs) -> Tensor:
    task = affine(doubles([[0.0, logit(theta)]]), doubles([[0.0, slope]]))
    switch = -logit(theta)
    breaks = [switch - step * slope, switch, switch + step * slope]
    mean, _ = mean_and_variance(
        *over_noise(prepared(gradest.make_estimator(name, **knobs)), task, breaks)[:2]
    )
    return mean


def prepared(estimator: Estimator) -> Estimator:
    estimator.reset(torch.zeros(1, 1, 2, dtype=torch.float64))
    return estimator


@pytest.mark.parametrize("step", [10.0, 1.0, 0.1])
def test_imle_on_an_affine_cost_is_a_difference_quotient(step):
    theta, slope = 0.3, 0.8
    moved = 1 / (1 + math.exp(-(logit(theta) - step * slope)))
    result = imle_on_an_affine_bit("imle", theta, slope, step, lambda_=step)
    assert close(result, both((theta - moved) / step))


def test_imle_on_an_affine_cost_of_three_categories(seeded, assert_mean):
    """(π − softmax(log α − λ c))/λ; without the division it would grow with λ."""
    weights = doubles([[0.5, -1.0, 0.7]])
    task = affine(PI.log().unsqueeze(0), weights)
    for step in (0.5, 2.0):
        estimator = gradest.make_estimator("imle", lambda_=step)
        result = estimates(estimator, task, 60_000, Draws.seeded(1))
        expected = (PI - (PI.log() - step * weights[0]).softmax(-1)) / step
        assert_mean(result, expected, 0.05 * float(expected.norm()))
        entries = set((result * step).flatten().round(decimals=9).tolist())
        assert entries == {-1.0, 0.0, 1.0}


def test_the_bias_of_imle_on_an_affine_cost_is_of_the_order_of_its_step():
    theta, slope = 0.3, 0.8
    g = theta * (1 - theta) * slope
    errors = [
        abs(float(imle_on_an_affine_bit("imle", theta, slope, x, lambda_=x)[0, 1]) - g)
        for x in (0.4, 0.2, 0.1)
    ]
    for wide, narrow in itertools.pairwise(errors):
        assert wide / narrow == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(("theta", "t"), BITS[:2])
def test_imle_stays_biased_on_a_quadratic_cost_however_small_its_step(theta, t):
    """Its limit Σ_bj π_b π_j relu(d_b − d_j) (e_b − e_j) is twice the truth on one bit."""
    mean, _ = imle_on_one_bit(1e-5, theta, t)
    a = theta * (1 - theta)
    limit = a * (max(2 * (1 - t), 0) - max(2 * t, 0))
    assert close(mean, both(limit), 1e-5)
    assert limit == pytest.approx(2 * a * (1 - 2 * t))


def test_the_variance_of_imle_grows_as_its_step_shrinks():
    wide, narrow = (imle_on_one_bit(x, 0.3, 0.45)[1] for x in (1e-3, 5e-4))
    assert torch.allclose(narrow / wide, doubles(2.0), rtol=0.01)


# Adaptive I-MLE.  On one bit the sample moves by ± β ‖log α‖ whatever the derivative.


def aimle_on_one_bit(beta: float, theta: float, t: float, central: bool) -> Tensor:
    size = beta * math.hypot(math.log(theta), math.log(1 - theta))
    switch = -logit(theta)
    estimator = prepared(gradest.make_estimator("aimle", beta=beta, central=central))
    breaks = [switch - size, switch, switch + size]
    return mean_and_variance(*over_noise(estimator, bit(theta, t), breaks)[:2])[0]


def test_aimle_is_imle_with_a_step_in_proportion_to_the_logits():
    task = affine(doubles([[0.4, -1.0, 0.2]]), doubles([[0.5, -1.0, 0.7]]))
    beta = 0.8
    step = beta * float(task.logits.norm() / doubles([0.5, -1.0, 0.7]).norm())
    adaptive = prepared(gradest.make_estimator("aimle", beta=beta))
    result = estimates(adaptive, task, 200, Draws.seeded(0))
    plain = estimates(gradest.make_estimator("imle", lambda_=step), task, 200, Draws.seeded(0))
    assert close(result, plain) and result.abs().max() > 0


@pytest.mark.parametrize(("theta", "t"), BITS[:2])
def test_only_central_differences_cure_a_quadratic_cost(theta, t):
    g = theta * (1 - theta) * (1 - 2 * t)
    assert close(aimle_on_one_bit(1e-6, theta, t, central=True), both(g), 1e-5)
    assert close(aimle_on_one_bit(1e-6, theta, t, central=False), both(2 * g), 1e-5)


def test_central_differences_have_a_bias_of_second_order_on_an_affine_cost():
    theta, slope = 0.3, 0.8
    g = theta * (1 - theta) * slope
    errors = []
    for step in (0.4, 0.2, 0.1):
        beta = step * slope / abs(logit(theta))  # λ = step
        knobs = {"beta": beta, "central": True}
        result = imle_on_an_affine_bit("aimle", theta, slope, step, **knobs)
        errors.append(abs(float(result[0, 1]) - g))
    for wide, narrow in itertools.pairwise(errors):
        assert wide / narrow == pytest.approx(4, abs=0.3)


def test_the_step_of_aimle_follows_its_rule_and_seeks_one_entry_a_sample():
    task = polynomial(0, 3)
    problem = task.problem()
    estimator = gradest.make_estimator("aimle", beta=0.5, beta_step=0.01, decay=0.8)
    estimator.reset(problem.logits)
    beta, average, counts = 0.5, 1.0, []
    for step in range(300):
        # The call shows what adapt is about to see: it gets the same draws.
        seen = estimates(estimator, task, 64, Draws.seeded(step))
        counts.append(float(seen.count_nonzero()) / 64)
        with drawing_from(Draws.seeded(step)):
            estimator.adapt(problem.logits.expand(64, -1, -1), problem.f.replicated(1))
        average = 0.8 * average + 0.2 * counts[-1]
        beta += 0.01 if average < 1 else -0.01
        assert estimator._beta == pytest.approx(beta, abs=1e-12)
    assert np.mean(counts[100:]) == pytest.approx(1, abs=0.1)
    estimator.reset(problem.logits)
    assert estimator._beta == 0.5


def test_aimle_is_zero_where_it_cannot_move():
    zero = Given(torch.zeros(1, 2), lambda z: z[..., 1].sum(-1))
    flat = Given(doubles([[0.3, -0.2]]), lambda z: 0 * z.sum((-2, -1)) + 1)
    for task in (zero, flat):
        for central in (False, True):
            estimator = prepared(gradest.make_estimator("aimle", central=central))
            assert torch.equal(
                estimates(estimator, task, 9, Draws.seeded(0)), torch.zeros(9, 1, 2).double()
            )


# SPSA, evolution strategies, finite differences


def expected_cost(task: Task, shift: Tensor) -> float:
    """F(log α + shift)."""
    logits, f = task.problem()
    return float(exact_gradient(Problem(logits + shift, f)).value)


def spsa_on_one_bit(c: float, theta: float, t: float) -> tuple[Tensor, Tensor, float]:
    """Mean, variance and mean value: Δ is listed, the noise cut into pieces."""
    estimator, switch = gradest.make_estimator("spsa", c=c), -logit(theta)
    parts = []
    for uniforms in itertools.product((0.25, 0.75), repeat=2):
        given = doubles([uniforms])
        breaks = [switch - 2 * c, switch, switch + 2 * c]
        parts.append(over_noise(estimator, bit(theta, t), breaks, uniforms=given))
    probability, result, value = (torch.cat(x) for x in zip(*parts, strict=True))
    probability = probability / 4
    return *mean_and_variance(probability, result), float(probability @ value)


def evolution_strategies_on_one_bit(sigma: float, theta: float, t: float):
    """The same over ε by Gauss-Hermite."""
    estimator, switch = gradest.make_estimator("evolution_strategies", sigma=sigma), -logit(theta)
    node, weight = np.polynomial.hermite_e.hermegauss(24)
    weight = weight / weight.sum()
    parts = []
    for (x, p), (y, q) in itertools.product(zip(node, weight, strict=True), repeat=2):
        given = doubles([[x, y]])
        breaks = [switch, *(switch + sign * sigma * (x - y) for sign in (-1, 1))]
        probability, result, value = over_noise(estimator, bit(theta, t), breaks, normals=given)
        parts.append((p * q * probability, result, value))
    probability, result, value = (torch.cat(x) for x in zip(*parts, strict=True))
    return *mean_and_variance(probability, result), float(probability @ value)


def finite_difference_on_one_bit(h: float, theta: float, t: float):
    estimator, switch = gradest.make_estimator("finite_difference", h=h), -logit(theta)
    result = over_noise(estimator, bit(theta, t), [switch - h, switch, switch + h])
    return *mean_and_variance(*result[:2]), float(result[0] @ result[2])


PERTURBED = pytest.mark.parametrize(
    "law", [spsa_on_one_bit, evolution_strategies_on_one_bit, finite_difference_on_one_bit]
)


@bits
def test_finite_differences_are_quotients_of_the_expected_cost(theta, t):
    h = 0.5
    mean, _, value = finite_difference_on_one_bit(h, theta, t)
    up = expected_cost(bit(theta, t), doubles([0.0, h]))
    down = expected_cost(bit(theta, t), doubles([0.0, -h]))
    assert close(mean, both((up - down) / (2 * h)))
    assert value == pytest.approx((up + down) / 2, abs=EXACT)


@bits
def test_spsa_averages_quotients_of_the_expected_cost(theta, t):
    c, task = 0.3, bit(theta, t)
    mean, _, value = spsa_on_one_bit(c, theta, t)
    expected, average = torch.zeros(2).double(), 0.0
    for signs in itertools.product((-1.0, 1.0), repeat=2):
        delta = doubles(signs)
        up, down = (expected_cost(task, s * c * delta) for s in (1, -1))
        expected += (up - down) / (2 * c) / delta / 4
        average += (up + down) / 2 / 4
    assert close(mean, expected)
    assert value == pytest.approx(average, abs=EXACT)


@pytest.mark.parametrize(
    ("name", "kind", "mirrored"),
    [("spsa", "uniforms", lambda u: 1 - u), ("evolution_strategies", "normals", lambda x: -x)],
)
def test_a_direction_and_its_opposite_give_the_same_estimate_and_value(name, kind, mirrored):
    task, estimator = polynomial(0, 3), gradest.make_estimator(name)
    draws = Draws.seeded(0)
    direction = getattr(draws, {"uniforms": "uniform", "normals": "normal"}[kind])
    direction, noise = direction((50, 2, 3), PI), draws.exponential((50, 2, 3), PI)
    for ask in (estimates, values):
        result, opposite = (
            ask(estimator, task, 50, Prescribed(**{kind: x, "exponentials": noise}))
            for x in (direction, mirrored(direction))
        )
        assert close(result, opposite) and result.std(0).min() > 0.1


@pytest.mark.weekly
@bits
def test_evolution_strategies_smooth_the_expected_cost(theta, t):
    """The mean of the antithetic pair is that of F(log α + σ ε) ε/σ."""
    sigma, task = 0.3, bit(theta, t)
    mean, _, value = evolution_strategies_on_one_bit(sigma, theta, t)
    node, weight = np.polynomial.hermite_e.hermegauss(24)
    expected, average = torch.zeros(2).double(), 0.0
    for (x, p), (y, q) in itertools.product(
        zip(node, weight / weight.sum(), strict=True), repeat=2
    ):
        cost = expected_cost(task, sigma * doubles([x, y]))
        expected += p * q * cost * doubles([x, y]) / sigma
        average += p * q * cost
    assert close(mean, expected)
    assert value == pytest.approx(average, abs=EXACT)


@pytest.mark.slow
@PERTURBED
def test_the_bias_of_a_perturbation_falls_with_the_square_of_its_step(law):
    theta, t = 0.3, 0.45
    g = theta * (1 - theta) * (1 - 2 * t)
    errors = [abs(float(law(step, theta, t)[0][0, 1]) - g) for step in (0.2, 0.1, 0.05)]
    assert errors[0] > 1e-5
    for wide, narrow in itertools.pairwise(errors):
        assert wide / narrow == pytest.approx(4, abs=0.1)


@pytest.mark.slow
@PERTURBED
def test_common_noise_keeps_the_variance_at_the_order_of_one_over_the_step(law):
    """Independent noise would make it grow fourfold where the step is halved."""
    wide, narrow = (law(step, 0.3, 0.45)[1].sum() for step in (0.02, 0.01))
    assert narrow / wide == pytest.approx(2, abs=0.05)


def test_perturbations_of_coupled_latents_have_the_means_of_their_quotients(assert_mean):
    task, step, rows = polynomial(0, 2), 0.5, 40_000
    unit = torch.eye(6, dtype=torch.float64).unflatten(1, (2, 3))
    quotient = doubles(
        [expected_cost(task, step * e) - expected_cost(task, -step * e) for e in unit]
    )
    size = float(truth(task).norm())
    estimator = gradest.make_estimator("finite_difference", h=step)
    result = estimates(estimator, task, rows, Draws.seeded(0))
    assert_mean(result, quotient.unflatten(0, (2, 3)) / (2 * step), 0.05 * size)

    expected = torch.zeros(2, 3).double()
    for signs in itertools.product((-1.0, 1.0), repeat=6):
        delta = doubles(signs).unflatten(0, (2, 3))
        difference = expected_cost(task, step * delta) - expected_cost(task, -step * delta)
        expected += difference / (2 * step) / delta / 64
    result = estimates(gradest.make_estimator("spsa", c=step), task, rows, Draws.seeded(0))
    assert_mean(result, expected, 0.05 * size)
