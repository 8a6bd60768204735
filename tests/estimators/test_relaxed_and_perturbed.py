"""Relaxations, the straight-through family, perturbation methods and the unordered set.

Means and variances are exact wherever the draws can be prescribed: categories and sets are listed,
noise on one bit is cut into the pieces on which an estimate is constant, or integrated by the
trapezoidal rule, whose error on these analytic integrands is far below the rounding.
"""

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import conditional_gumbel, log_prob, nabla, sample, softmax
from gradest.errors import KnobError
from gradest.measurement.enumerated_moments import exact_moments
from gradest.measurement.enumerated_truth import all_codes, exact_gradient
from gradest.measurement.replicator import Replicator
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT, Prescribed

BITS = [(0.3, 0.45), (0.8, 0.45), (0.5, 0.499), (0.1, 0.1)]  # θ and t of the published figures

bits = pytest.mark.parametrize(("theta", "t"), BITS)
thirds = pytest.mark.parametrize("t", [0.45, 1.2])
PI = torch.tensor([4, 1, 2], dtype=torch.float64) / 7  # α = (2, ½, 1)
VALUES = torch.arange(3, dtype=torch.float64)


class Given(Task):
    """One data point with these logits [N, K] and this cost."""

    def __init__(self, logits: Tensor, cost: Callable[[Tensor], Tensor]) -> None:
        self.logits, self.cost = logits, cost

    def problem(self, batch: Any = None) -> Problem:
        return Problem(self.logits.unsqueeze(0), Cost(self.cost))


def doubles(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def bit(theta: float, t: float) -> Task:
    return gradest.make_task("bernoulli", theta=(theta,), target=t)


def affine(logits: Tensor, weights: Tensor) -> Task:
    return Given(logits, lambda z: (z * weights.to(z)).sum((-2, -1)))


def logit(theta: float) -> float:
    return math.log(theta / (1 - theta))


def estimates(estimator: Estimator, task: Task, rows: int, source: Draws) -> Tensor:
    """ĝ of that many rows on a task with one data point: [R, N, K]."""
    problem = task.problem()
    logits = problem.logits.expand(rows, -1, -1).clone().requires_grad_()
    with drawing_from(source):
        objective = estimator(logits, problem.f.replicated(1))
    (gradient,) = torch.autograd.grad(objective.sum(), logits)
    return gradient


def values(estimator: Estimator, task: Task, rows: int, source: Draws) -> Tensor:
    problem = task.problem()
    with drawing_from(source):
        return estimator(problem.logits.expand(rows, -1, -1), problem.f.replicated(1)).detach()


def every_draw(estimator: Estimator, task: Task) -> tuple[Tensor, Tensor]:
    """Probability [R] and ĝ [R, N, K] of each of the K^N outcomes, in the order of `all_codes`."""
    logits = task.problem().logits
    codes = all_codes(logits)  # [R, N, K]
    index = codes.argmax(-1).unsqueeze(1)  # [R, 1, N]
    found = estimates(estimator, task, len(codes), Prescribed(index=index))
    return log_prob(logits, codes).exp(), found


def mean_and_variance(probability: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinate by coordinate: [R, N, K] -> [N, K] each."""
    mean = torch.einsum("r,rnk->nk", probability, x)
    return mean, torch.einsum("r,rnk->nk", probability, (x - mean).square())


def truth(task: Task) -> Tensor:
    return exact_gradient(task.problem()).gradient[0]  # [N, K]


def derivatives(task: Task, z: Tensor) -> Tensor:
    """f'(z), for z [R, N, K]."""
    z = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(task.problem().f(z.unsqueeze(0)).sum(), z)
    return slope


def jacobian(p: Tensor) -> Tensor:
    """J(p) = diag(p) − ppᵀ: [..., K] -> [..., K, K]."""
    return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)


def applied(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def close(actual: Tensor, expected: Any, tolerance: float = EXACT) -> bool:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return torch.allclose(actual.squeeze(), expected.squeeze(), rtol=0, atol=tolerance)


def both(x: float) -> list[float]:
    """With two categories the coordinates are ∓ that of the one logit, so a trace doubles."""
    return [-x, x]


def polynomial(seed: int, degree: int, latents: int = 2, categories: int = 3) -> Task:
    """Coupled, and of this degree within a latent."""
    draws = torch.Generator().manual_seed(seed)
    w = torch.randn(2, latents, categories, generator=draws).double()
    logits = torch.randn(latents, categories, generator=draws).double()

    def cost(z: Tensor) -> Tensor:
        u, v = ((z * x.to(z)).sum((-2, -1)) for x in w)
        return 1 + u * v + v + (v**3 if degree == 3 else 0)

    return Given(logits, cost)


# Gumbel-softmax


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_gumbel_softmax_without_a_prior_is_concrete_draw_by_draw(temperature):
    task = gradest.make_task("quadratic", latents=3, categories=4)
    found, other = (
        estimates(gradest.make_estimator(name, temperature=temperature), task, 20, Draws.seeded(0))
        for name in ("gumbel_softmax", "concrete")
    )
    assert torch.equal(found, other) and found.abs().max() > 0.1


# Invertible Gaussian reparameterisation.  On one bit κ = μ + σ ε with μ = log α₀ − log α₁.


def normal_nodes() -> tuple[Tensor, Tensor]:
    """ε and its probability: the trapezoidal rule over ± 9, where a normal density ends."""
    epsilon = torch.arange(-9, 9, 1 / 256, dtype=torch.float64)
    return epsilon, (-epsilon.square() / 2).exp() / math.sqrt(2 * math.pi) / 256


def igr_mean(task: Task, **knobs: float) -> Tensor:
    epsilon, weight = normal_nodes()
    estimator = gradest.make_estimator("invertible_gaussian", **knobs)
    source = Prescribed(normals=epsilon[:, None, None])
    return torch.einsum("r,rnk->nk", weight, estimates(estimator, task, len(epsilon), source))


@bits
def test_igr_estimates_the_gradient_of_its_own_relaxed_objective(theta, t):
    temperature, sigma, delta = 0.4, 1.3, 0.6
    epsilon, weight = normal_nodes()
    mu = torch.tensor(-logit(theta), dtype=torch.float64, requires_grad=True)
    kappa = mu + sigma * epsilon
    y = 1 / (1 + (kappa / temperature).exp() / delta)  # of category 1, the last
    (expected,) = torch.autograd.grad((weight * (y - t).square()).sum(), mu)
    found = igr_mean(bit(theta, t), temperature=temperature, sigma=sigma, delta=delta)
    assert close(found, [expected, -expected])


def test_igr_inverts():
    """κ = τ (log y_k − log y_K + log δ) gives back the noise."""
    logits = doubles([[0.3, -1.0, 0.8], [1.0, 0.2, -0.5]])
    epsilon = torch.randn(7, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    seen = []
    task = Given(logits, lambda z: (seen.append(z.detach()), z.sum((-2, -1)))[1])
    estimator = gradest.make_estimator("invertible_gaussian", temperature=0.7, sigma=0.9, delta=2.0)
    values(estimator, task, 7, Prescribed(normals=epsilon))
    (y,) = seen
    kappa = 0.7 * (y[..., :-1].log() - y[..., -1:].log() + math.log(2.0))
    logits = logits.double()
    assert close(kappa.squeeze(0), logits[:, :-1] - logits[:, -1:] + 0.9 * epsilon)


def test_igr_rounds_to_nearly_the_law_of_a_bit():
    """P(y₀ > ½) = Φ(μ/1.7), and that is σ(μ) to within 0.01."""
    mu = np.linspace(-12, 12, 2001)
    assert np.abs(stats.norm.cdf(mu / 1.7) - 1 / (1 + np.exp(-mu))).max() < 0.01
    theta, seen = 0.3, []
    task = bit(theta, 0.45)
    watched = Given(
        task.problem().logits[0], lambda z: (seen.append(z.detach()), task.problem().f.fn(z))[1]
    )
    switch = logit(theta) / 1.7  # y₀ > ½ from here on
    normals = torch.tensor([switch - 1e-9, switch + 1e-9], dtype=torch.float64)[:, None, None]
    values(gradest.make_estimator("invertible_gaussian"), watched, 2, Prescribed(normals=normals))
    assert (seen[0][0, :, 0, 0] > 0.5).tolist() == [False, True]


def test_igr_tends_to_the_gradient_of_the_rounded_law_as_it_cools():
    theta, t, sigma = 0.3, 0.45, 1.7
    mu = -logit(theta)
    # d/dμ of P(1) f(1) + P(0) f(0), with P(0) = Φ(μ/σ)
    limit = stats.norm.pdf(mu / sigma) / sigma * (t**2 - (1 - t) ** 2)
    errors = [
        abs(float(igr_mean(bit(theta, t), temperature=x, sigma=sigma)[0, 0]) - limit)
        for x in (0.2, 0.1, 0.05)
    ]
    assert errors[0] > 1e-4
    for warm, cool in itertools.pairwise(errors):
        assert warm / cool > 1.8  # of order τ at least


# Straight-through with the identity for a Jacobian


@thirds
def test_the_identity_passes_the_derivative_on(t):
    task = gradest.make_task("categorical", target=t)
    estimator = gradest.make_estimator("straight_through", jacobian="identity")
    probability, found = every_draw(estimator, task)
    assert close(found, 2 * (VALUES.unsqueeze(1) - t) * VALUES)
    mean, _ = mean_and_variance(probability, found)
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
    probability, found = every_draw(gradest.make_estimator("reinmax"), bit(theta, t))
    a = theta * (1 - theta)
    mean, variance = mean_and_variance(probability, found)
    assert close(mean, both(a * (1 - 2 * t)))
    assert close(variance, [a * ((1 - theta) * (1 - t) + theta * t) ** 2] * 2)
    assert close(variance, [REINMAX_VARIANCE[theta, t]] * 2)
    assert close(found[0], both(theta * -2 * t / 2))  # ½ θ F'(0)
    assert close(found[1], both((1 - theta) * 2 * (1 - t) / 2))  # ½ (1 − θ) F'(1)


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
    _, found = every_draw(estimator, task)
    logits = task.problem().logits
    z = all_codes(logits)
    slope = derivatives(task, z)
    pi, soft = logits.softmax(-1), (logits / temperature).softmax(-1)  # [1, N, K]
    official = 2 * jacobian((soft + z) / 2) - jacobian(pi) / 2
    assert close(found, applied(official, slope))
    leaf = logits.expand(len(z), -1, -1).clone().requires_grad_()
    (autograd,) = torch.autograd.grad(printed_surrogate(leaf, z, temperature), leaf, slope)
    assert close(found, autograd)
    s = z - pi
    closed = (applied(jacobian(pi), slope) + s * (s * slope).sum(-1, keepdim=True)) / 2
    assert close(found, closed) == (temperature == 1.0)


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
    def found(name: str, task: Task) -> tuple[float, float]:
        mean, variance = mean_and_variance(*every_draw(gradest.make_estimator(name), task))
        return float((mean - truth(task)).norm()), float(variance.sum())

    # Variance: ReinMax has none on one bit where (1 − θ)(1 − t) + θ t = 0.
    assert (
        found("reinmax", bit(0.3, 1.75))[1] < 1e-20 < found("straight_through", bit(0.3, 1.75))[1]
    )
    assert found("reinmax", bit(0.3, 0.45))[1] > found("straight_through", bit(0.3, 0.45))[1]
    # Bias: a cubic cost can favour either.
    biases = [
        [
            found(
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
    found = {
        name: gradest.measure(
            gradest.make_estimator(name, temperature=0.7), task, replicates=60_000, seed=3
        )
        for name in ("gumbel_rao", "st_gumbel_softmax")
    }
    a, b = found.values()
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
    found = estimates(estimator, task, len(codes), source)
    assert close(found, every_draw(gradest.make_estimator("reinmax"), task)[1])


def test_reinmax_cv_is_exact_for_quadratic_costs():
    task = polynomial(0, 2)
    estimator = gradest.make_estimator("reinmax_cv", samples=3, eta=1.5)
    found = gradest.measure(estimator, task, replicates=60_000, seed=0)
    assert found.standard_error.max() < 0.03 * found.exact.norm(), "inconclusive"
    assert ((found.mean - found.exact) / found.standard_error).abs().max() < 4.5


# Gapped straight-through


@pytest.mark.parametrize("gap", [1.0, 0.3, "adaptive"])
def test_gapped_straight_through_is_the_published_formula(gap):
    task, temperature = polynomial(0, 3, categories=4), 0.6
    estimator = gradest.make_estimator("gapped_straight_through", gap=gap, temperature=temperature)
    _, found = every_draw(estimator, task)
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
    assert close(found, applied(jacobian(y), derivatives(task, z)) / temperature)


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
    found = estimates(estimator, task, len(codes), source)
    assert close(source.logits.softmax(-1), (logits / 0.3).softmax(-1).expand_as(codes))
    soft = (logits / 2.0).softmax(-1)
    assert close(found, applied(jacobian(soft), derivatives(task, codes)) / 2.0)


def test_decoupled_straight_through_at_temperature_one_is_straight_through():
    task = polynomial(0, 3)
    decoupled = gradest.make_estimator("decoupled_straight_through", temperature_backward=1.0)
    found = estimates(decoupled, task, 20, Draws.seeded(0))
    plain = estimates(gradest.make_estimator("straight_through"), task, 20, Draws.seeded(0))
    assert torch.equal(found, plain)


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
    found, value = (
        ask(estimator, task, rows, Prescribed(exponentials=exponentials, **given))
        for ask in (estimates, values)
    )
    return torch.from_numpy(np.diff(cdf)), found, value


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
    estimator.reset(torch.zeros(1, 1, 2))
    return estimator


@pytest.mark.parametrize("step", [10.0, 1.0, 0.1])
def test_imle_on_an_affine_cost_is_a_difference_quotient(step):
    theta, slope = 0.3, 0.8
    moved = 1 / (1 + math.exp(-(logit(theta) - step * slope)))
    found = imle_on_an_affine_bit("imle", theta, slope, step, lambda_=step)
    assert close(found, both((theta - moved) / step))


def test_imle_on_an_affine_cost_of_three_categories(seeded, assert_mean):
    """(π − softmax(log α − λ c))/λ; without the division it would grow with λ."""
    weights = doubles([[0.5, -1.0, 0.7]])
    task = affine(PI.log().unsqueeze(0), weights)
    for step in (0.5, 2.0):
        estimator = gradest.make_estimator("imle", lambda_=step)
        found = estimates(estimator, task, 60_000, Draws.seeded(1))
        expected = (PI - (PI.log() - step * weights[0]).softmax(-1)) / step
        assert_mean(found, expected, 0.05 * float(expected.norm()))
        entries = set((found * step).flatten().round(decimals=9).tolist())
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
    found = estimates(adaptive, task, 200, Draws.seeded(0))
    plain = estimates(gradest.make_estimator("imle", lambda_=step), task, 200, Draws.seeded(0))
    assert close(found, plain) and found.abs().max() > 0


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
        found = imle_on_an_affine_bit("aimle", theta, slope, step, **knobs)
        errors.append(abs(float(found[0, 1]) - g))
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
    probability, found, value = (torch.cat(x) for x in zip(*parts, strict=True))
    probability = probability / 4
    return *mean_and_variance(probability, found), float(probability @ value)


def evolution_strategies_on_one_bit(sigma: float, theta: float, t: float):
    """The same over ε by Gauss-Hermite."""
    estimator, switch = gradest.make_estimator("evolution_strategies", sigma=sigma), -logit(theta)
    node, weight = np.polynomial.hermite_e.hermegauss(24)
    weight = weight / weight.sum()
    parts = []
    for (x, p), (y, q) in itertools.product(zip(node, weight, strict=True), repeat=2):
        given = doubles([[x, y]])
        breaks = [switch, *(switch + sign * sigma * (x - y) for sign in (-1, 1))]
        probability, found, value = over_noise(estimator, bit(theta, t), breaks, normals=given)
        parts.append((p * q * probability, found, value))
    probability, found, value = (torch.cat(x) for x in zip(*parts, strict=True))
    return *mean_and_variance(probability, found), float(probability @ value)


def finite_difference_on_one_bit(h: float, theta: float, t: float):
    estimator, switch = gradest.make_estimator("finite_difference", h=h), -logit(theta)
    found = over_noise(estimator, bit(theta, t), [switch - h, switch, switch + h])
    return *mean_and_variance(*found[:2]), float(found[0] @ found[2])


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
        found, opposite = (
            ask(estimator, task, 50, Prescribed(**{kind: x, "exponentials": noise}))
            for x in (direction, mirrored(direction))
        )
        assert close(found, opposite) and found.std(0).min() > 0.1


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


@PERTURBED
def test_the_bias_of_a_perturbation_falls_with_the_square_of_its_step(law):
    theta, t = 0.3, 0.45
    g = theta * (1 - theta) * (1 - 2 * t)
    errors = [abs(float(law(step, theta, t)[0][0, 1]) - g) for step in (0.2, 0.1, 0.05)]
    assert errors[0] > 1e-5
    for wide, narrow in itertools.pairwise(errors):
        assert wide / narrow == pytest.approx(4, abs=0.1)


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
    found = estimates(estimator, task, rows, Draws.seeded(0))
    assert_mean(found, quotient.unflatten(0, (2, 3)) / (2 * step), 0.05 * size)

    expected = torch.zeros(2, 3).double()
    for signs in itertools.product((-1.0, 1.0), repeat=6):
        delta = doubles(signs).unflatten(0, (2, 3))
        difference = expected_cost(task, step * delta) - expected_cost(task, -step * delta)
        expected += difference / (2 * step) / delta / 64
    found = estimates(gradest.make_estimator("spsa", c=step), task, rows, Draws.seeded(0))
    assert_mean(found, expected, 0.05 * size)


# The unordered set


def draw_probability(p: Tensor, order: Sequence[int]) -> float:
    """Of drawing these outcomes in this order without replacement."""
    probability, left = 1.0, 1.0
    for s in order:
        probability, left = probability * float(p[s]) / left, left - float(p[s])
    return probability


def every_set(monkeypatch, task: Task, k: int, **knobs: Any) -> tuple[Tensor, Tensor, list]:
    """Probability [R] and ĝ [R, N, K] of each set of k outcomes, and the sets."""
    estimator = gradest.make_estimator("unordered_set", samples=k, **knobs)
    module = sys.modules[type(estimator).__module__]
    logits = task.problem().logits
    codes = all_codes(logits)
    p = log_prob(logits, codes).exp()
    sets = list(itertools.combinations(range(len(p)), k))
    probability = doubles(
        [sum(draw_probability(p, order) for order in itertools.permutations(s)) for s in sets]
    )
    index = torch.tensor(sets)  # [R, S]
    rest = (1 - p[index].sum(1)).clamp(min=0).log()
    drawn = codes[index], p[index].log(), rest
    with monkeypatch.context() as patch:
        patch.setattr(module, "without_replacement", lambda logits, samples: drawn)
        found = estimates(estimator, task, len(sets), Prescribed())
    return probability, found, sets


def table(seed: int, categories: int = 4) -> Task:
    """One categorical with any costs whatever."""
    draws = torch.Generator().manual_seed(seed)
    cost = torch.randn(categories, generator=draws).double()
    logits = torch.randn(1, categories, generator=draws).double()
    return Given(logits, lambda z: z.squeeze(-2) @ cost.to(z))


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    "task", [table(0), polynomial(0, 3, categories=2), polynomial(1, 3)], ids=["one", "bits", "two"]
)
def test_the_unordered_set_is_unbiased(monkeypatch, task, k, baseline):
    probability, found, _ = every_set(monkeypatch, task, k, baseline=baseline)
    assert close(probability.sum(), 1.0)
    assert close(mean_and_variance(probability, found)[0], truth(task))


def test_an_unordered_set_of_one_is_reinforce(monkeypatch):
    task = table(0)
    probability, found, _ = every_set(monkeypatch, task, 1)
    expected, reinforce = every_draw(gradest.make_estimator("reinforce"), task)
    assert close(probability, expected) and close(found, reinforce)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("task", [table(0), polynomial(0, 3, categories=2)], ids=["one", "bits"])
def test_an_unordered_set_of_all_is_exact(task, baseline):
    for samples in (4, 9):  # all four outcomes, and more than there are
        estimator = gradest.make_estimator("unordered_set", samples=samples, baseline=baseline)
        found = estimates(estimator, task, 10, Draws.seeded(0))
        assert close(found, truth(task).expand_as(found))
        value = values(estimator, task, 10, Draws.seeded(0))
        assert close(value, exact_gradient(task.problem()).value.expand(10))


def test_an_unordered_pair_has_a_closed_form(monkeypatch):
    """ĝ = (f_a − f_b)(e_a − e_b)/(1/(1 − p_a) + 1/(1 − p_b))."""
    task = table(0)
    _, found, sets = every_set(monkeypatch, task, 2)
    unit = torch.eye(4, dtype=torch.float64)
    f, p = task.problem().f(unit[None, :, None])[0], task.logits[0].softmax(-1)
    for estimate, (a, b) in zip(found, sets, strict=True):
        weight = (f[a] - f[b]) / (1 / (1 - p[a]) + 1 / (1 - p[b]))
        assert close(estimate, weight * (unit[a] - unit[b]))


@pytest.mark.parametrize(
    ("t", "printed"),
    [(0.45, [0.0769513, 0.0643489, 0.0838575]), (1.2, [0.0137276, 0.0321805, 0.0224513])],
)
def test_the_unordered_pair_on_three_categories(monkeypatch, t, printed):
    """By sets, whose probability is known, and by the draws themselves."""
    task = gradest.make_task("categorical", target=t)
    mean, variance = mean_and_variance(*every_set(monkeypatch, task, 2)[:2])
    f, g = (VALUES - t).square(), truth(task)
    share = 1 / (1 / (1 - PI).unsqueeze(1) + 1 / (1 - PI))
    spread = (PI.unsqueeze(1) * PI * (f.unsqueeze(1) - f).square() * share).sum(1)
    assert close(mean, g) and close(variance, spread - g.squeeze() ** 2)
    assert close(variance, printed, 0.51e-7)  # seven decimals
    found = exact_moments(Replicator(gradest.make_estimator("unordered_set"), task))
    assert close(found.mean[0], g) and close(found.variance[0], spread - g.squeeze() ** 2)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize(
    ("name", "samples"),
    [("categorical", 2), ("categorical", 3), ("bernoulli", 2), ("bernoulli", 4), ("quadratic", 2)],
)
def test_the_draws_of_the_unordered_set_are_enumerated(name, samples, baseline):
    task = gradest.make_task(name)
    estimator = gradest.make_estimator("unordered_set", samples=samples, baseline=baseline)
    found, true = exact_moments(Replicator(estimator, task)), exact_gradient(task.problem())
    rounding = 1e-12  # of gradients of size one
    assert close(found.mean, true.gradient, rounding) and close(found.value, true.value, rounding)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("k", [2, 3])
def test_sets_and_the_draws_of_their_members_have_the_same_moments(monkeypatch, k, baseline):
    task = polynomial(0, 3, categories=2)
    _, variance = mean_and_variance(*every_set(monkeypatch, task, k, baseline=baseline)[:2])
    estimator = gradest.make_estimator("unordered_set", samples=k, baseline=baseline)
    assert close(exact_moments(Replicator(estimator, task)).variance[0], variance)


def rloo_pair_variance(task: Task) -> Tensor:
    """½ π_k Σ_j π_j (f_k − f_j)² − g_k²."""
    f = task.problem().f(torch.eye(4, dtype=torch.float64)[None, :, None])[0]
    p = task.logits[0].softmax(-1)
    return p / 2 * ((f.unsqueeze(1) - f).square() @ p) - truth(task)[0] ** 2


def summed_and_sampled(task: Task, k: int) -> Tensor:
    """Variance of k draws without replacement, the last weighted by what the others leave."""
    f = task.problem().f(torch.eye(4, dtype=torch.float64)[None, :, None])[0]
    p = task.logits[0].softmax(-1)
    term = f.unsqueeze(1) * (torch.eye(4).double() - p)  # f(s) ∇ log p(s)
    orders = list(itertools.permutations(range(4), k))
    probability = doubles([draw_probability(p, order) for order in orders])
    found = torch.stack(
        [
            sum(p[s] * term[s] for s in order[:-1])
            + (1 - p[list(order[:-1])].sum()) * term[order[-1]]
            for order in orders
        ]
    )
    return mean_and_variance(probability, found.unsqueeze(1))[1]


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_variances_of_the_unordered_set(monkeypatch, seed):
    task = table(seed)

    def variance(k: int, baseline: bool) -> Tensor:
        return mean_and_variance(*every_set(monkeypatch, task, k, baseline=baseline)[:2])[1]

    _, reinforce = mean_and_variance(*every_draw(gradest.make_estimator("reinforce"), task))
    for k in (2, 3):
        assert (variance(k, False) <= reinforce + EXACT).all()
        assert (variance(k, False) <= summed_and_sampled(task, k) + EXACT).all()
    assert (variance(2, True) <= rloo_pair_variance(task) + EXACT).all()


def importance_weighted(task: Task, s: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Σ_{s∈S} p(s)/q(s) f(s) ∇ log p(s) integrated over κ: P(S), E[ĝ; S] and E[ĝ²; S].

    κ is the largest perturbed logit outside of S and q(s) = P(φ_s + G > κ).  With A = Σ α outside
    of S and v = exp(−A e^−κ), which is uniform, q(s) = 1 − v^(α_s/A).
    """
    f = task.problem().f(torch.eye(4, dtype=torch.float64)[None, :, None])[0]
    p, inside = task.logits[0].softmax(-1), list(s)
    nodes, weights = (doubles(x) for x in np.polynomial.legendre.leggauss(200))
    x = (nodes + 1) / 2
    v, weights = x**8, 4 * x**7 * weights  # fractional powers of v become smooth in x
    q = -torch.expm1(v.log().unsqueeze(1) * p[inside] / (1 - p[inside].sum()))  # [V, S]
    term = (p * f)[inside].unsqueeze(1) * (torch.eye(4).double() - p)[inside]  # [S, K]
    density, found = weights * q.prod(1), (1 / q) @ term  # [V], [V, K]
    return density.sum(), density @ found, density @ found.square()


@pytest.mark.parametrize("seed", range(8))
def test_the_unordered_set_is_importance_weighting_given_its_set(monkeypatch, seed):
    """Kool, van Hoof & Welling's estimator of 2019 with κ integrated out; so it varies less."""
    task, tolerance = table(seed), 1e-8  # the quadrature's, of fractional powers
    probability, found, sets = every_set(monkeypatch, task, 2, baseline=False)
    mass, mean, square = (
        torch.stack(x) for x in zip(*(importance_weighted(task, s) for s in sets), strict=True)
    )
    assert close(mass, probability, tolerance)
    assert close(mean / mass.unsqueeze(1), found.squeeze(1), tolerance)
    variance = mean_and_variance(probability, found)[1].squeeze(0)
    assert (square.sum(0) - truth(task)[0] ** 2 >= variance - tolerance).all()


def test_the_baseline_of_the_unordered_set_can_help_and_can_harm(monkeypatch):
    helps = set()
    for seed in range(8):
        pair = [
            mean_and_variance(*every_set(monkeypatch, table(seed), 2, baseline=b)[:2])[1].sum()
            for b in (True, False)
        ]
        helps.add(bool(pair[0] < pair[1]))
    assert helps == {True, False}


def test_a_constant_cost_has_its_own_value_and_no_gradient():
    task = Given(polynomial(0, 3).logits, lambda z: 7 + 0 * z.sum((-2, -1)))
    for k in (2, 3, 5):
        estimator = gradest.make_estimator("unordered_set", samples=k)
        assert close(values(estimator, task, 50, Draws.seeded(0)), torch.full((50,), 7.0))
        assert close(estimates(estimator, task, 50, Draws.seeded(0)), torch.zeros(50, 2, 3))


def drawn(logits: Tensor, samples: int):
    module = sys.modules[type(gradest.make_estimator("unordered_set")).__module__]
    return module.without_replacement(logits, samples)


class Listed(Draws):
    """Every joint outcome of single draws of K categories, one a row, and its probability [R]."""

    def __init__(self, places: int, categories: int) -> None:
        super().__init__()
        digits = itertools.product(range(categories), repeat=places)
        self.digits = torch.tensor(list(digits))  # [R, N · S]
        self.probability = torch.ones(len(self.digits), dtype=torch.float64)

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        assert samples == 1
        latents = logits.shape[1]
        index, self.digits = self.digits.split([latents, self.digits.shape[1] - latents], 1)
        log_pi = logits.log_softmax(-1).gather(-1, index.unsqueeze(-1)).squeeze(-1)
        self.probability = self.probability * log_pi.sum(1).exp()
        return index.unsqueeze(1)


RARE = 10**10
TREES = {
    "one": [[4, 1, 2, 3]],
    "bits": [[3, 7], [1, 1], [5, 2]],
    "two": [[3, 1, 4], [1, 5, 9]],
    "rare": [[RARE, 1, 3], [1, RARE, 2]],
    "rare one": [[RARE**2, 1, RARE, 2 * RARE]],
    "masked": [[3, 0, 4], [0, 5, 9]],
    "only one": [[0, 7], [5, 0], [1, 0]],
}


def law_of_the_tree(alpha: list[list[int]]) -> tuple[Tensor, dict[tuple[int, ...], Fraction]]:
    """Logits [N, K], and p(z) without any rounding."""
    logits = doubles([[math.log(a) if a else -math.inf for a in row] for row in alpha])
    codes = itertools.product(range(len(alpha[0])), repeat=len(alpha))
    total = math.prod(sum(row) for row in alpha)
    weight = {z: math.prod(row[k] for row, k in zip(alpha, z, strict=True)) for z in codes}
    return logits, {z: Fraction(w, total) for z, w in weight.items()}


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("alpha", TREES.values(), ids=TREES)
def test_the_order_of_draws_without_replacement_has_its_law(alpha, samples):
    """Π p(z_s)/(1 − Σ p(z_s')) over those before it, to ten digits however rare an order is."""
    logits, p = law_of_the_tree(alpha)
    latents, categories = logits.shape
    source = Listed(samples * latents, categories)
    with drawing_from(source):
        z, log_p, log_rest = drawn(logits.expand(len(source.digits), -1, -1), samples)
    assert source.digits.shape[1] == 0 and source.probability.isfinite().all()
    assert float(source.probability.sum()) == pytest.approx(1, rel=EXACT)
    possible = [code for code in p if p[code]]
    size = min(samples, len(possible))  # what follows are repetitions
    found = dict.fromkeys(itertools.permutations(possible, size), 0.0)
    for row in source.probability.nonzero().flatten().tolist():
        order = tuple(map(tuple, z[row].argmax(-1).tolist()))
        assert all(p[code] for code in order)
        order, repetitions = order[:size], [0.0] * (samples - size)
        found[order] += float(source.probability[row])  # a KeyError where one comes twice
        each, rest = [float(p[code]) for code in order], 1 - sum(p[code] for code in order)
        assert log_p[row].exp().tolist() == pytest.approx(each + repetitions, rel=EXACT, abs=0)
        assert float(log_rest[row].exp()) == pytest.approx(float(rest), rel=EXACT, abs=0)
    for order, probability in found.items():
        expected, left = Fraction(1), Fraction(1)
        for code in order:
            expected, left = expected * p[code] / left, left - p[code]
        assert probability == pytest.approx(float(expected), rel=EXACT, abs=0)


@pytest.mark.parametrize("samples", [1, 3, 8, 9, 20])
def test_draws_without_replacement_account_for_every_outcome(seeded, samples):
    logits = polynomial(2, 3).logits.expand(50, -1, -1)
    z, log_p, log_rest = drawn(logits, samples)
    assert z.shape[1] == min(samples, 9)
    assert close(log_p, log_prob(logits.unsqueeze(1), z))
    assert close(log_p.exp().sum(1) + log_rest.exp(), torch.ones(50))
    for row in z.argmax(-1).tolist():
        assert len({tuple(code) for code in row}) == len(row)


@pytest.mark.parametrize("rare", [0.1, 1e-3, 1e-10])
def test_draws_without_replacement_never_list_the_outcomes(seeded, rare):
    """There are 3^200."""
    alpha = doubles([1.0, rare / 2, rare / 2]).expand(50, 200, 3)
    z, log_p, log_rest = drawn(alpha.log(), 8)
    assert z.shape == (50, 8, 200, 3)
    for row in z.argmax(-1).tolist():
        assert len({tuple(code) for code in row}) == 8
    assert close(log_p, log_prob(alpha.log().unsqueeze(1), z))
    assert close(log_p.exp().sum(1) + log_rest.exp(), torch.ones(50))
    if rare == 1e-10:
        # The likeliest comes first, and the others change one latent of it each.
        assert (z[:, 0, :, 0] == 1).all() and (z[:, 1:, :, 0].sum(-1) == 199).all()
        left = 200 * rare - 7 * rare / 2
        assert log_rest.exp().tolist() == pytest.approx([left] * 50, rel=200 * rare)
        _, _, log_rest = drawn(alpha.log(), 1)
        left = -math.expm1(-200 * math.log1p(rare))
        assert log_rest.exp().tolist() == pytest.approx([left] * 50, rel=EXACT)


@pytest.mark.parametrize("baseline", [True, False])
def test_where_masks_leave_fewer_outcomes_than_samples_the_unordered_set_is_exact(baseline):
    logits = doubles([[0.3, -math.inf, 1.0], [-math.inf, 0.2, -math.inf]])
    v = doubles([[1.0, math.nan, 3.0], [math.nan, 2.0, math.nan]])
    task = Given(logits, lambda z: torch.where(z > 0, v.to(z), 0.0).sum((-2, -1)).square())
    estimator = gradest.make_estimator("unordered_set", samples=4, baseline=baseline)
    found = estimates(estimator, task, 20, Draws.seeded(0))
    p = logits[0].softmax(-1)
    slope = p[0] * p[2] * (25 - 9)
    assert close(found[:, 0], doubles([-1.0, 0, 1]).mul(slope).expand(20, 3))
    assert close(values(estimator, task, 20, Draws.seeded(0)), (9 * p[0] + 25 * p[2]).expand(20))


@pytest.mark.parametrize("samples", [2, 3])
def test_the_unordered_set_keeps_its_precision_where_outcomes_are_nearly_certain(samples):
    """Two outcomes take all but e⁻⁹⁰ of the mass, so 1 − p(S) would round to zero."""
    logits = torch.tensor([[[0.0, 0.3, -90.0, -91.0, -92.0]]], dtype=torch.float64)
    with drawing_from(Draws.seeded(0)):
        z, _, log_rest = drawn(logits, samples)
    outside = logits[0, 0][z.sum((0, 1, 2)) == 0].logsumexp(0) - logits.logsumexp(-1).squeeze()
    assert close(log_rest, outside)
    task = Given(logits[0], lambda z: z.squeeze(-2) @ doubles([1.0, 2, 5, 7, 9]).to(z))
    estimator = gradest.make_estimator("unordered_set", samples=samples)
    found = estimates(estimator, task, 5, Draws.seeded(0))
    assert close(found, truth(task).expand_as(found))
