"""The straight-through family: the identity, ReinMax, Gumbel-Rao, ReinMax-CV and gaps.

Means and variances are exact wherever the draws can be prescribed: categories are listed, and noise
on one bit is integrated by the trapezoidal rule, whose error is far below the rounding.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Task
from gradest.categorical import conditional_gumbel, nabla, sample, softmax
from gradest.errors import KnobError
from gradest.measurement.enumerated_truth import all_codes
from gradest.randomness import Draws, drawing_from
from tests.estimators.toys import (
    BITS,
    PI,
    VALUES,
    Given,
    affine,
    applied,
    bit,
    bits,
    both,
    close,
    derivatives,
    doubles,
    estimates,
    every_draw,
    jacobian,
    logit,
    mean_and_variance,
    polynomial,
    thirds,
    truth,
)
from tests.support import EXACT, Prescribed

# Straight-through with the identity for a Jacobian


@thirds
def test_the_identity_passes_the_derivative_on(t):
    task = gradest.make_task("categorical", target=t)
    estimator = gradest.make_estimator("straight_through", jacobian="identity")
    probability, result = every_draw(estimator, task)
    assert close(result, 2 * (VALUES.unsqueeze(1) - t) * VALUES)
    mean, _ = mean_and_variance(probability, result)
    assert close(mean, 2 * (PI @ VALUES - t) * VALUES)
    assert mean.sum().abs() > 0.1  # so it sums to zero in no sense


@bits
def test_the_identity_on_one_bit(theta, t):
    estimator = gradest.make_estimator("straight_through", jacobian="identity")
    mean, variance = mean_and_variance(*every_draw(estimator, bit(theta, t)))
    assert close(mean, [0.0, 2 * (theta - t)])
    assert close(variance, [0.0, 4 * theta * (1 - theta)])


def test_the_identity_is_biased_even_on_an_affine_cost():
    weights = doubles([[0.3, -1.0, 2.0]])
    task = affine(PI.log().unsqueeze(0), weights)
    mean, variance = mean_and_variance(
        *every_draw(gradest.make_estimator("straight_through", jacobian="identity"), task)
    )
    assert close(mean, weights) and close(variance, torch.zeros(1, 3))
    assert not close(mean, truth(task), 0.1)


def test_only_known_jacobians_are_taken():
    with pytest.raises(KnobError, match="jacobian"):
        gradest.make_estimator("straight_through", jacobian="sigmoid")


# ReinMax


REINMAX_VARIANCE = {  # as printed
    (0.3, 0.45): 0.056784,
    (0.8, 0.45): 0.035344,
    (0.5, 0.499): 0.0625,
    (0.1, 0.1): 0.060516,
}


@bits
def test_reinmax_on_one_bit(theta, t):
    probability, result = every_draw(gradest.make_estimator("reinmax"), bit(theta, t))
    a = theta * (1 - theta)
    mean, variance = mean_and_variance(probability, result)
    assert close(mean, both(a * (1 - 2 * t)))
    assert close(variance, [a * ((1 - theta) * (1 - t) + theta * t) ** 2] * 2)
    assert close(variance, [REINMAX_VARIANCE[theta, t]] * 2)
    assert close(result[0], both(theta * -2 * t / 2))  # ½ θ F'(0)
    assert close(result[1], both((1 - theta) * 2 * (1 - t) / 2))  # ½ (1 − θ) F'(1)


@pytest.mark.parametrize(
    ("t", "printed"),
    [(0.45, [0.8347647, 0.0138838, 0.9780862]), (1.2, [0.6005498, 0.0017326, 0.5601666])],
)
def test_reinmax_on_three_categories(t, printed):
    task = gradest.make_task("categorical", target=t)
    mean, variance = mean_and_variance(*every_draw(gradest.make_estimator("reinmax"), task))
    assert close(mean, truth(task))
    assert close(variance, printed, 0.51e-7)  # seven decimals


def printed_surrogate(logits: Tensor, z: Tensor, temperature: float) -> Tensor:
    """As in the paper's algorithm: π₂ = 2 π₁ − ½ π₀ with π₁ = softmax(log ½(π_τ + z) held, + φ)."""
    half = ((logits / temperature).softmax(-1) + z) / 2
    again = ((half.log() - logits).detach() + logits).softmax(-1)
    return 2 * again - logits.softmax(-1) / 2


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_the_forms_of_reinmax_agree(temperature):
    task = polynomial(0, 3, categories=4)
    estimator = gradest.make_estimator("reinmax", temperature=temperature)
    _, result = every_draw(estimator, task)
    logits = task.problem().logits
    z = all_codes(logits)
    slope = derivatives(task, z)
    pi, soft = logits.softmax(-1), (logits / temperature).softmax(-1)  # [1, N, K]
    official = 2 * jacobian((soft + z) / 2) - jacobian(pi) / 2
    assert close(result, applied(official, slope))
    leaf = logits.expand(len(z), -1, -1).clone().requires_grad_()
    (autograd,) = torch.autograd.grad(printed_surrogate(leaf, z, temperature), leaf, slope)
    assert close(result, autograd)
    s = z - pi
    closed = (applied(jacobian(pi), slope) + s * (s * slope).sum(-1, keepdim=True)) / 2
    assert close(result, closed) == (temperature == 1.0)


def test_a_tempered_reinmax_still_draws_from_the_untempered_law():
    task, source = bit(0.3, 0.45), Prescribed(index=torch.zeros(1, 1, 1, dtype=torch.long))
    estimates(gradest.make_estimator("reinmax", temperature=2.0), task, 1, source)
    assert close(source.logits.softmax(-1), [0.7, 0.3])
    with pytest.raises(KnobError, match="temperature"):
        gradest.make_estimator("reinmax", temperature=0.5)


@pytest.mark.parametrize("seed", range(3))
def test_reinmax_is_exact_for_quadratic_costs_and_not_for_cubic_ones(seed):
    estimator = gradest.make_estimator("reinmax")
    for degree, right in ((2, True), (3, False)):
        task = polynomial(seed, degree)
        mean, _ = mean_and_variance(*every_draw(estimator, task))
        assert close(mean, truth(task)) == right


def test_the_mean_of_reinmax_is_the_trapezoid_rule():
    """Σ_j π_k π_j ½ (f'(k) + f'(j)) · (e_k − e_j), in place of f(k) − f(j)."""
    task = polynomial(1, 3, latents=1)
    mean, _ = mean_and_variance(*every_draw(gradest.make_estimator("reinmax"), task))
    pi, unit = task.problem().logits[0, 0].softmax(-1), torch.eye(3, dtype=torch.float64)
    slope = derivatives(task, unit.unsqueeze(1)).squeeze(1)  # [K, K]
    for k in range(3):
        trapezoid = sum(
            pi[k] * pi[j] * (slope[k] + slope[j]) @ (unit[k] - unit[j]) / 2 for j in range(3)
        )
        assert close(mean[0, k], trapezoid)


def without_held_logarithm(logits, z, pi):
    return 2 * ((pi + z) / 2).log().softmax(-1) - pi / 2


def without_first_order_term(logits, z, pi):
    return 2 * (((pi + z) / 2).log() - logits).detach().add(logits).softmax(-1)


@pytest.mark.parametrize("mistake", [without_held_logarithm, without_first_order_term])
def test_mistakes_in_reinmax_would_show(mistake):
    task = gradest.make_task("categorical")
    logits = task.problem().logits
    z = all_codes(logits)
    leaf = logits.expand(3, -1, -1).clone().requires_grad_()
    slope = derivatives(task, z)
    (wrong,) = torch.autograd.grad(mistake(leaf, z, leaf.softmax(-1)), leaf, slope)
    _, right = every_draw(gradest.make_estimator("reinmax"), task)
    assert not close(wrong, right, 0.01)
    if mistake is without_held_logarithm:  # half of straight-through, known from the literature
        _, plain = every_draw(gradest.make_estimator("straight_through"), task)
        assert close(wrong, plain / 2)


def test_an_affine_cost_costs_reinmax_variance_and_straight_through_none():
    task = affine(PI.log().unsqueeze(0), VALUES.unsqueeze(0))
    mean, variance = mean_and_variance(*every_draw(gradest.make_estimator("reinmax"), task))
    assert close(mean, truth(task)) and variance.min() > 1e-3
    _, variance = mean_and_variance(*every_draw(gradest.make_estimator("straight_through"), task))
    assert close(variance, torch.zeros(1, 3))


def test_there_is_no_order_between_reinmax_and_straight_through():
    def result(name: str, task: Task) -> tuple[float, float]:
        mean, variance = mean_and_variance(*every_draw(gradest.make_estimator(name), task))
        return float((mean - truth(task)).norm()), float(variance.sum())

    # Variance: ReinMax has none on one bit where (1 − θ)(1 − t) + θ t = 0.
    assert (
        result("reinmax", bit(0.3, 1.75))[1] < 1e-20 < result("straight_through", bit(0.3, 1.75))[1]
    )
    assert result("reinmax", bit(0.3, 0.45))[1] > result("straight_through", bit(0.3, 0.45))[1]
    # Bias: a cubic cost can favour either.
    biases = [
        [
            result(
                name, Given(PI.log().unsqueeze(0), lambda z, t=t: (z[..., 0, :] @ VALUES - t) ** 3)
            )[0]
            for name in ("reinmax", "straight_through")
        ]
        for t in (0.4, 1.5)
    ]
    assert {reinmax < plain for reinmax, plain in biases} == {True, False}, biases


# Gumbel-Rao.  On one bit, given b, the noise is the ratio of two exponentials, whose logarithm is
# logistic: E_b = 1 and E_other = eˢ.


def logistic_nodes(step: float = 0.25) -> tuple[Tensor, Tensor]:
    s = torch.arange(-40, 40 + step / 2, step, dtype=torch.float64)
    return s, torch.from_numpy(stats.logistic.pdf(s.numpy())) * step


def given_b(estimator: Estimator, task: Task, b: int, noises: int) -> tuple[Tensor, Tensor]:
    """Probability [R] and ĝ [R, 1, 2] over so many independent conditional noises, given b."""
    s, weight = logistic_nodes(0.25 if noises == 1 else 0.5)
    s = torch.cartesian_prod(*[s] * noises).reshape(-1, noises)  # [R, M]
    weight = torch.cartesian_prod(*[weight] * noises).reshape(-1, noises).prod(1)
    exponentials = torch.ones(*s.shape, 1, 2, dtype=torch.float64)
    exponentials[..., 0, 1 - b] = s.exp()
    index = torch.full((len(s), 1, 1), b)
    source = Prescribed(index=index, exponentials=exponentials)
    return weight, estimates(estimator, task, len(s), source)


def moments(parts: list[tuple[float, Tensor, Tensor]], power: int) -> Tensor:
    return sum(p * torch.einsum("r,rnk->nk", w, x**power) for p, w, x in parts)


def st_gumbel_softmax_parts(temperature: float, theta: float, t: float):
    """The same of st_gumbel_softmax, whose b and y share noise: either side of the switch."""
    estimator = gradest.make_estimator("st_gumbel_softmax", temperature=temperature)
    node, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(400))
    switch = -logit(theta)
    for low, high in ((switch - 40, switch), (switch, switch + 40)):
        noise = (high - low) / 2 * node + (high + low) / 2
        density = torch.from_numpy(stats.logistic.pdf(noise.numpy())) * weight * (high - low) / 2
        exponentials = torch.stack([torch.ones_like(noise), (-noise).exp()], -1).unsqueeze(1)
        source = Prescribed(exponentials=exponentials)
        yield 1.0, density, estimates(estimator, bit(theta, t), len(noise), source)


def gumbel_rao_parts(samples: int, temperature: float, theta: float, t: float):
    estimator = gradest.make_estimator("gumbel_rao", samples=samples, temperature=temperature)
    return [
        (p, *given_b(estimator, bit(theta, t), b, samples))
        for b, p in enumerate((1 - theta, theta))
    ]


@pytest.mark.parametrize("temperature", [0.3, 1.0])
@pytest.mark.parametrize(("theta", "t"), BITS[:2])
def test_gumbel_rao_with_one_sample_is_straight_through_gumbel_softmax_in_law(
    theta, t, temperature
):
    one = gumbel_rao_parts(1, temperature, theta, t)
    other = list(st_gumbel_softmax_parts(temperature, theta, t))
    for power in (1, 2, 3, 4):
        # Gauss-Legendre on either side of the switch is good to 10⁻⁹.
        assert close(moments(one, power), moments(other, power), 1e-9)


def test_gumbel_rao_keeps_the_mean_and_divides_the_conditional_variance():
    """Var(GR_M) = Var(E[ĝ | b]) + E Var(ĝ | b)/M."""
    theta, t, temperature = 0.3, 0.45, 0.5
    one, two = (gumbel_rao_parts(m, temperature, theta, t) for m in (1, 2))
    assert close(moments(one, 1), moments(two, 1))
    limit = sum(p * torch.einsum("r,rnk->nk", w, x).square() for p, w, x in one)
    within = moments(one, 2) - limit
    assert within.min() > 1e-3
    assert close(moments(two, 2) - limit, within / 2)


def test_gumbel_rao_agrees_with_straight_through_gumbel_softmax_on_coupled_latents():
    task = polynomial(0, 3)
    result = {
        name: gradest.measure(
            gradest.make_estimator(name, temperature=0.7), task, replicates=60_000, seed=3
        )
        for name in ("gumbel_rao", "st_gumbel_softmax")
    }
    a, b = result.values()
    z = (a.mean - b.mean) / (a.standard_error.square() + b.standard_error.square()).sqrt()
    assert z.abs().max() < 4.5
    assert (a.standard_error + b.standard_error).max() < 0.05 * a.mean.norm(), "inconclusive"
    assert float(a.variance.sum()) < float(b.variance.sum())


def test_gumbel_rao_becomes_reinmax_as_it_cools():
    """Draw by draw, with an error of order τ."""
    theta, t = 0.3, 0.45
    _, reinmax = every_draw(gradest.make_estimator("reinmax"), bit(theta, t))
    errors = []
    for temperature in (0.1, 0.05, 0.025):
        parts = gumbel_rao_parts(1, temperature, theta, t)
        means = torch.stack([torch.einsum("r,rnk->nk", w, x) for _, w, x in parts])
        errors.append(float((means - reinmax).abs().max()))
    assert errors[0] > 1e-3
    for warm, cool in itertools.pairwise(errors):
        assert warm / cool == pytest.approx(2, abs=0.2)


def test_differentiating_the_conditional_noise_would_be_another_estimator():
    kind = type(gradest.make_estimator("gumbel_rao"))

    class Differentiating(kind):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            b = sample(logits)
            z = conditional_gumbel(logits.unsqueeze(1), b.unsqueeze(1))
            return f(b + nabla(softmax(z / self.temperature).mean(1)))

    theta, t = 0.8, 0.45
    estimator = Differentiating(samples=1, temperature=0.5)
    parts = [(p, *given_b(estimator, bit(theta, t), b, 1)) for b, p in enumerate((0.2, 0.8))]
    wrong, right = moments(parts, 1), moments(gumbel_rao_parts(1, 0.5, theta, t), 1)
    assert not close(wrong, right, 0.01), (wrong, right)


# ReinMax-CV


def conditional_moments(theta: float, t: float, b: int, temperature: float) -> tuple[float, float]:
    """Mean and variance of J_GS f'(b) at category 1, from x₁ − x₀ = λ + logistic, of the sign of b.

    λ are the log odds of ½(π + b).
    """
    odds = math.log((theta + b) / (1 - theta + 1 - b))
    side = (-odds, 40.0) if b else (-40.0, -odds)
    mass = theta + b if b else 1 - theta + 1 - b

    def moment(power: int) -> float:
        def integrand(noise: float) -> float:
            y = 1 / (1 + math.exp(-(odds + noise) / temperature))
            slope = 2 * (b - t) * y * (1 - y) / temperature
            return slope**power * stats.logistic.pdf(noise)

        return integrate.quad(integrand, *side, epsabs=1e-13, limit=200)[0] / (mass / 2)

    return moment(1), moment(2) - moment(1) ** 2


@pytest.mark.parametrize(("eta", "temperature"), [(1.0, 0.7), (-0.6, 0.4)])
def test_the_control_variate_of_reinmax_keeps_the_mean_and_adds_variance(eta, temperature):
    """Given b the mean is ReinMax's; the variance grows by η² (1 + 1/M) Var(J_GS f' | b)."""
    theta, t = 0.3, 0.45
    task = bit(theta, t)
    estimator = gradest.make_estimator("reinmax_cv", eta=eta, temperature=temperature, samples=1)
    _, reinmax = every_draw(gradest.make_estimator("reinmax"), task)
    for b in (0, 1):
        mean, variance = mean_and_variance(*given_b(estimator, task, b, 2))
        assert close(mean, reinmax[b])
        _, noise = conditional_moments(theta, t, b, temperature)
        assert noise > 1e-3 and close(variance, [2 * eta**2 * noise] * 2, 1e-9)


def test_reinmax_cv_without_its_control_variate_is_reinmax():
    task = polynomial(0, 3)
    codes = all_codes(task.problem().logits)
    source = Prescribed(
        index=codes.argmax(-1).unsqueeze(1),
        exponentials=torch.rand(len(codes), 5, 2, 3, dtype=torch.float64) + 0.1,
    )
    estimator = gradest.make_estimator("reinmax_cv", eta=0.0, samples=4)
    result = estimates(estimator, task, len(codes), source)
    assert close(result, every_draw(gradest.make_estimator("reinmax"), task)[1])


def test_reinmax_cv_is_exact_for_quadratic_costs():
    task = polynomial(0, 2)
    estimator = gradest.make_estimator("reinmax_cv", samples=3, eta=1.5)
    result = gradest.measure(estimator, task, replicates=60_000, seed=0)
    assert result.standard_error.max() < 0.03 * result.exact.norm(), "inconclusive"
    assert ((result.mean - result.exact) / result.standard_error).abs().max() < 4.5


# Gapped straight-through


@pytest.mark.parametrize("gap", [1.0, 0.3, "adaptive"])
def test_gapped_straight_through_is_the_published_formula(gap):
    task, temperature = polynomial(0, 3, categories=4), 0.6
    estimator = gradest.make_estimator("gapped_straight_through", gap=gap, temperature=temperature)
    _, result = every_draw(estimator, task)
    logits = task.problem().logits  # [1, N, K]
    z = all_codes(logits)
    pi = (logits.softmax(-1) * z).sum(-1, keepdim=True)  # of the category drawn
    size = -torch.log1p(-pi) / pi if gap == "adaptive" else gap
    top = logits.amax(-1, keepdim=True)
    lift = (top - (logits * z).sum(-1, keepdim=True)) * z  # the published m₁
    lowering = (logits + size - top).relu() * (1 - z)  # and m₂
    moved = logits + lift - lowering
    lead = moved.masked_fill(z == 0, torch.inf).amin(-1) - moved.masked_fill(
        z > 0, -torch.inf
    ).amax(-1)
    assert (lead >= torch.as_tensor(size, dtype=torch.float64).squeeze(-1) - EXACT).all()
    y = (moved / temperature).softmax(-1)
    assert close(result, applied(jacobian(y), derivatives(task, z)) / temperature)


def test_the_adaptive_gap_is_the_mean_lead_of_gumbel_max(seeded, assert_mean):
    """−log(1 − π_z)/π_z = E[max − runner-up of log α + G | argmax = z]."""
    logits = PI.log().expand(60_000, 1, 3)
    for category in range(3):
        b = torch.eye(3, dtype=torch.float64)[category].expand_as(logits)
        largest = conditional_gumbel(logits, b).topk(2, -1).values.squeeze(1)
        expected = float(-torch.log1p(-PI[category]) / PI[category])
        assert_mean(largest[:, :1] - largest[:, 1:], expected, 0.02 * expected)


def test_the_adaptive_gap_survives_certainty():
    for dtype, size in ((torch.float64, 700.0), (torch.float32, 80.0)):
        logits = torch.tensor([[[-size, size, size - 50]]], dtype=dtype).requires_grad_()
        estimator = gradest.make_estimator("gapped_straight_through", gap="adaptive")
        with drawing_from(Draws.seeded(0)):
            objective = estimator(logits, Cost(lambda z: (z[..., 1].sum(-1) - 0.45).square()))
        assert torch.autograd.grad(objective.sum(), logits)[0].isfinite().all()


# Decoupled straight-through


def test_decoupled_straight_through_draws_at_one_temperature_and_differentiates_at_another():
    task = polynomial(0, 3)
    logits = task.problem().logits
    codes = all_codes(logits)
    source = Prescribed(index=codes.argmax(-1).unsqueeze(1))
    estimator = gradest.make_estimator(
        "decoupled_straight_through", temperature_forward=0.3, temperature_backward=2.0
    )
    result = estimates(estimator, task, len(codes), source)
    assert close(source.logits.softmax(-1), (logits / 0.3).softmax(-1).expand_as(codes))
    soft = (logits / 2.0).softmax(-1)
    assert close(result, applied(jacobian(soft), derivatives(task, codes)) / 2.0)


def test_decoupled_straight_through_at_temperature_one_is_straight_through():
    task = polynomial(0, 3)
    decoupled = gradest.make_estimator("decoupled_straight_through", temperature_backward=1.0)
    result = estimates(decoupled, task, 20, Draws.seeded(0))
    plain = estimates(gradest.make_estimator("straight_through"), task, 20, Draws.seeded(0))
    assert torch.equal(result, plain)
