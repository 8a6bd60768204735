"""The catalogue against closed forms and the laws that its members obey.

Moments over discrete draws are exact: every outcome is prescribed once and weighted by its
probability.  Moments over Gumbel noise are integrated by quadrature.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Task
from gradest.categorical import log_prob, nabla, sample
from gradest.measurement.enumerated_truth import all_codes, exact_gradient
from gradest.randomness import Draws, drawing_from
from gradest.statistics import squared_bias, total_variance
from tests.estimators.toys import estimates
from tests.support import EXACT, Prescribed


def every_draw(estimator: Estimator, task: Task, samples: int = 1) -> tuple[Tensor, Tensor]:
    """Probability [R] and ĝ [R, N, K] of each of the K^(S·N) possible draws."""
    logits = task.problem().logits[0]  # [N, K]
    latents, categories = logits.shape
    places = samples * latents
    number = torch.arange(categories**places).unsqueeze(1)
    index = (number // categories ** torch.arange(places) % categories).unflatten(1, (samples, -1))
    log_p = logits.log_softmax(-1)  # [N, K]
    probability = log_p[torch.arange(latents), index].sum((1, 2)).exp()  # [R]
    return probability, estimates(estimator, task, len(index), Prescribed(index=index))


def mean_and_variance(probability: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinate by coordinate: [R, N, K] -> [N, K] each."""
    mean = torch.einsum("r,rnk->nk", probability, x)
    return mean, torch.einsum("r,rnk->nk", probability, (x - mean).square())


def assert_exactly(actual: Tensor, expected: Tensor | Sequence[float]) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert torch.allclose(actual.squeeze(), expected.squeeze(), rtol=0, atol=EXACT)


# One bit, f(b) = (b − t)², A = θ(1 − θ), D = 1 − 2t.  With K = 2 the gradient is (−g, g), so each
# of the two coordinates has the variance of the one logit, and the trace is twice as large.


def reinforce_variance(theta: float, t: float) -> float:
    return theta * (1 - theta) * ((1 - theta) * (1 - t) ** 2 + theta * t**2) ** 2


def rloo_variance(theta: float, t: float) -> float:
    a = theta * (1 - theta)
    return a * (1 - 2 * t) ** 2 * (0.5 - a)


def straight_through_mean(theta: float, t: float) -> float:
    return 2 * (theta - t) * theta * (1 - theta)


# θ, t, and the published values of g, Var REINFORCE, Var RLOO(2), mean and Var of straight-through
ONE_BIT = [
    (0.3, 0.45, 0.021, 0.015593813, 0.000609, -0.063, 0.037044),
    (0.8, 0.45, 0.016, 0.007921, 0.000544, 0.112, 0.016384),
    (0.5, 0.499, 0.0005, 0.015625125, 2.5e-7, 0.0005, 0.0625),
    (0.1, 0.1, 0.072, 0.047961, 0.023616, 0.0, 0.002916),
]
bits = pytest.mark.parametrize(
    ("theta", "t", "g", "reinforce", "rloo", "st_mean", "st_variance"), ONE_BIT
)


@bits
def test_reinforce_on_one_bit(theta, t, g, reinforce, rloo, st_mean, st_variance):
    task = gradest.make_task("bernoulli", theta=(theta,), target=t)
    mean, variance = mean_and_variance(*every_draw(gradest.make_estimator("reinforce"), task))
    assert_exactly(mean, [-g, g])
    assert_exactly(variance, [reinforce_variance(theta, t)] * 2)
    assert reinforce_variance(theta, t) == pytest.approx(reinforce, abs=0.5e-9)  # as printed


@bits
def test_rloo_on_one_bit(theta, t, g, reinforce, rloo, st_mean, st_variance):
    task = gradest.make_task("bernoulli", theta=(theta,), target=t)
    mean, variance = mean_and_variance(*every_draw(gradest.make_estimator("rloo"), task, 2))
    assert_exactly(mean, [-g, g])
    assert_exactly(variance, [rloo_variance(theta, t)] * 2)
    assert_exactly(variance, [rloo] * 2)


@bits
def test_straight_through_on_one_bit(theta, t, g, reinforce, rloo, st_mean, st_variance):
    task = gradest.make_task("bernoulli", theta=(theta,), target=t)
    estimator = gradest.make_estimator("straight_through")
    mean, variance = mean_and_variance(*every_draw(estimator, task))
    assert_exactly(mean, [-straight_through_mean(theta, t), straight_through_mean(theta, t)])
    assert_exactly(mean, [-st_mean, st_mean])
    assert_exactly(variance, [4 * (theta * (1 - theta)) ** 3] * 2)
    assert_exactly(variance, [st_variance] * 2)


@bits
def test_the_optimal_constant_baseline_leaves_one_bit_no_variance(
    theta, t, g, reinforce, rloo, st_mean, st_variance
):
    baseline = (1 - theta) * (1 - t) ** 2 + theta * t**2
    task = gradest.make_task("bernoulli", theta=(theta,), target=t)
    estimator = gradest.make_estimator("reinforce", baseline=baseline)
    mean, variance = mean_and_variance(*every_draw(estimator, task))
    assert_exactly(mean, [-g, g])
    assert_exactly(variance, [0.0, 0.0])


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_rloo_has_the_variance_of_a_u_statistic(samples):
    theta, t = 0.8, 0.45
    a, d = theta * (1 - theta), 1 - 2 * t
    one, two = a * (1 - 2 * theta) ** 2 * d**2 / 4, a * d**2 * (0.5 - a)
    task = gradest.make_task("bernoulli", theta=(theta,), target=t)
    estimator = gradest.make_estimator("rloo", samples=samples)
    mean, variance = mean_and_variance(*every_draw(estimator, task, samples))
    assert_exactly(mean, [-a * d, a * d])
    expected = (4 * (samples - 2) * one + 2 * two) / (samples * (samples - 1))
    assert_exactly(variance, [expected] * 2)


@bits
def test_on_one_bit_antithetic_pairs_beat_independent_ones(
    theta, t, g, reinforce, rloo, st_mean, st_variance
):
    """Second moments: DisARM has max(θ, 1 − θ) times that of leave-one-out, ARM lies between."""
    a, d = theta * (1 - theta), 1 - 2 * t
    arm = d**2 * ((1 - abs(1 - 2 * theta) ** 3) / 12 - a**2)
    disarm = d**2 * a * (max(theta, 1 - theta) / 2 - a)
    task = gradest.make_task("bernoulli", theta=(theta,), target=t)
    pair = mean_and_variance(*every_draw(gradest.make_estimator("rloo"), task, 2))[1]
    assert_exactly(max(theta, 1 - theta) * (pair + g**2) - g**2, [disarm] * 2)
    assert (pair >= arm - EXACT).all() and arm >= disarm - EXACT


@pytest.mark.parametrize("samples", [2, 3])
def test_leave_one_out_varies_more_than_the_mean_as_baseline(samples):
    """REINFORCE less E f, averaged over as many samples; the ratio tends to one."""
    task = gradest.make_task("quadratic", latents=2, categories=2)
    mean = float(exact_gradient(task.problem()).value)
    loo = mean_and_variance(
        *every_draw(gradest.make_estimator("rloo", samples=samples), task, samples)
    )[1]
    known = mean_and_variance(*every_draw(gradest.make_estimator("reinforce", baseline=mean), task))
    assert (loo >= known[1] / samples - EXACT).all()


def test_leave_one_out_and_no_baseline_have_no_order():
    """Two samples each: where E f = 0 the baseline is noise, far from it a blessing."""
    wins = set()
    for offset in (0.0, 10.0):
        base = gradest.make_task("quadratic", latents=1, categories=3).problem()
        shift = offset - float(exact_gradient(base).value)

        class Shifted(Task):
            def problem(self, batch=None, base=base, shift=shift):
                return gradest.Problem(base.logits, Cost(lambda z: base.f.fn(z) + shift))

        loo = mean_and_variance(*every_draw(gradest.make_estimator("rloo"), Shifted(), 2))[1]
        plain = mean_and_variance(*every_draw(gradest.make_estimator("reinforce"), Shifted()))[1]
        wins.add(bool(loo.sum() < plain.sum() / 2))
    assert wins == {True, False}


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_half_the_variance_of_log_weights_differentiates_to_leave_one_out(samples):
    """VarGrad: ∇ ½ Var_S(log q(z) − log p(z)) with z fixed is RLOO of f = log q − log p.

    Richter, Boustati, Nüsken, Ruiz & Akyildiz, "VarGrad", 2020, arXiv 2010.10436.
    """
    draws = torch.Generator().manual_seed(0)
    prior = torch.randn(2, 3, generator=draws, dtype=torch.float64)
    logits = torch.randn(1, 2, 3, generator=draws, dtype=torch.float64)

    class LogRatio(Task):
        def problem(self, batch=None):
            f = Cost(lambda z: log_prob(logits, z) - log_prob(prior, z))
            return gradest.Problem(logits, f)

    rows, index = 20, torch.randint(3, (20, samples, 2), generator=draws)
    estimator = gradest.make_estimator("rloo", samples=samples)
    found = estimates(estimator, LogRatio(), rows, Prescribed(index=index))
    leaf = logits.expand(rows, -1, -1).clone().requires_grad_()
    z = torch.eye(3, dtype=torch.float64)[index]
    log_weight = log_prob(leaf.unsqueeze(1), z) - log_prob(prior, z)
    (expected,) = torch.autograd.grad(log_weight.var(1).sum() / 2, leaf)
    assert torch.allclose(found, expected, rtol=0, atol=EXACT)


# Three categories, α = (2, ½, 1), f_k = (k − t)².

PI = torch.tensor([4, 1, 2], dtype=torch.float64) / 7
VALUES = torch.arange(3, dtype=torch.float64)
thirds = pytest.mark.parametrize("t", [0.45, 1.2])
# The printed variances: seven decimals.
PRINTED = {
    ("reinforce", 0.45): [0.4121248, 0.0377242, 0.6464461],
    ("reinforce", 1.2): [0.1959504, 0.0074796, 0.1451928],
    ("rloo", 0.45): [0.2605664, 0.0843940, 0.2871678],
    ("rloo", 1.2): [0.0722699, 0.0680883, 0.0483299],
    ("straight_through", 0.45): [0.5167915, 0.0051679, 0.4186011],
    ("straight_through", 1.2): [0.5167915, 0.0051679, 0.4186011],
}


def closed_form(name: str, t: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of an estimator, coordinate by coordinate."""
    f = (VALUES - t).square()
    f_bar = PI @ f
    g = PI * (f - f_bar)
    value, value_bar = VALUES, PI @ VALUES
    if name == "reinforce":
        own = PI * (1 - PI) ** 2 * f**2
        return g, own + PI**2 * (PI @ f**2 - PI * f**2) - g**2
    if name == "rloo":
        return g, 0.5 * PI * ((f.unsqueeze(1) - f).square() @ PI) - g**2
    spread = PI @ (value - value_bar).square()
    mean = 2 * (value_bar - t) * PI * (value - value_bar)
    return mean, 4 * PI**2 * (value - value_bar) ** 2 * spread


@thirds
@pytest.mark.parametrize("name", ["reinforce", "rloo", "straight_through"])
def test_three_categories(name, t):
    task = gradest.make_task("categorical", target=t)
    samples = 2 if name == "rloo" else 1
    mean, variance = mean_and_variance(*every_draw(gradest.make_estimator(name), task, samples))
    expected_mean, expected_variance = closed_form(name, t)
    assert_exactly(mean, expected_mean)
    assert_exactly(variance, expected_variance)
    printed = torch.tensor(PRINTED[name, t], dtype=torch.float64)
    assert torch.allclose(expected_variance, printed, rtol=0, atol=0.51e-7)


@thirds
@pytest.mark.parametrize("name", ["reinforce", "rloo", "straight_through"])
def test_a_measurement_finds_the_closed_form(name, t):
    task = gradest.make_task("categorical", target=t)
    found = gradest.measure(
        gradest.make_estimator(name), task, replicates=20_000, seed=1, enumerate_draws=False
    )
    mean, variance = closed_form(name, t)
    k = 4.5  # two statistics, six cases: correct code fails one in ten thousand
    measured = total_variance(found.gradient)
    assert measured.standard_error <= 0.05 * measured.estimate, "inconclusive"
    assert abs(measured.estimate - float(variance.sum())) <= k * measured.standard_error
    z = (found.mean[0, 0] - mean) / found.standard_error[0, 0]
    assert z.abs().max() <= k
    bias = float((mean - closed_form("reinforce", t)[0]).square().sum())
    measured = squared_bias(found.gradient, found.exact.flatten())
    assert abs(measured.estimate - bias) <= k * measured.standard_error
    assert (measured.low > 0) == (bias > 0)


# The laws of single methods.


def test_the_three_forms_of_rloo_are_the_same_sample_by_sample():
    task = gradest.make_task("quadratic", latents=2, categories=3)
    problem, samples, rows = task.problem(), 4, 20
    index = torch.randint(3, (rows, samples, 2), generator=torch.Generator().manual_seed(0))
    estimator = gradest.make_estimator("rloo", samples=samples)
    found = estimates(estimator, task, rows, Prescribed(index=index))
    z = torch.eye(3, dtype=torch.float64)[index]  # [R, S, N, K]
    f = problem.f(z.unsqueeze(0)).squeeze(0)[..., None, None]  # [R, S, 1, 1]
    centred = ((f - f.mean(1, keepdim=True)) * z).sum(1) / (samples - 1)
    pairs = [
        (f[:, i] - f[:, j]) * (z[:, i] - z[:, j]) / 2 for i in range(samples) for j in range(i)
    ]
    assert torch.allclose(found, centred, rtol=0, atol=EXACT)
    assert torch.allclose(found, torch.stack(pairs).mean(0), rtol=0, atol=EXACT)


def test_the_value_of_an_objective_is_the_cost_of_its_draws():
    task = gradest.make_task("quadratic", latents=2, categories=3)
    problem = task.problem()
    index = torch.randint(3, (5, 3, 2), generator=torch.Generator().manual_seed(0))
    z = torch.eye(3, dtype=torch.float64)[index]  # [R, S, N, K]
    cost = problem.f(z.unsqueeze(0)).squeeze(0)  # [R, S]
    logits = problem.logits.expand(5, -1, -1)
    for name, samples in (("rloo", 3), ("reinforce", 1), ("straight_through", 1)):
        knobs = {"samples": 3} if name == "rloo" else {}
        estimator = gradest.make_estimator(name, **knobs)
        with drawing_from(Prescribed(index=index[:, :samples])):
            value = estimator(logits, problem.f.replicated(1))
        assert torch.allclose(value, cost[:, :samples].mean(1), rtol=0, atol=EXACT)


def adapted(estimator: Estimator, task: Task, steps: int, seed: int = 0) -> Estimator:
    """As a measurement would prepare it."""
    problem = task.problem()
    with drawing_from(Draws.seeded(seed)):
        estimator.reset(problem.logits.detach())
        for _ in range(steps):
            logits = problem.logits.detach().repeat_interleave(16, 0)
            estimator.adapt(logits, problem.f.replicated(len(problem.logits)))
    return estimator


def test_the_moving_average_follows_its_recursion():
    task = gradest.make_task("categorical")
    estimator = gradest.make_estimator("reinforce_ema", decay=0.7)
    problem = task.problem()
    estimator.reset(problem.logits)
    expected = None
    for category in (2, 0, 1, 1):
        with drawing_from(Prescribed(index=torch.full((8, 1, 1), category))):
            estimator.adapt(problem.logits.expand(8, -1, -1), problem.f.replicated(1))
        cost = (category - 0.45) ** 2
        expected = cost if expected is None else 0.7 * expected + 0.3 * cost
        # ĝ = (f − m) s is zero where m is the cost, so the estimate at category 0 shows m.
        shown = estimates(
            estimator, task, 1, Prescribed(index=torch.zeros(1, 1, 1, dtype=torch.long))
        )
        assert_exactly(shown, (0.45**2 - expected) * (torch.eye(3)[0] - PI))


def test_the_moving_average_leaves_the_mean_alone():
    task = gradest.make_task("categorical")
    estimator = adapted(gradest.make_estimator("reinforce_ema", decay=0.7), task, 5)
    mean, variance = mean_and_variance(*every_draw(estimator, task))
    assert_exactly(mean, closed_form("reinforce", 0.45)[0])
    assert not torch.allclose(variance, closed_form("reinforce", 0.45)[1], rtol=0.1)


def test_a_moving_average_that_holds_the_current_cost_would_show():
    """The mistake that the test above must catch: the mean is then β g."""
    correct = type(gradest.make_estimator("reinforce_ema"))

    class Folding(correct):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            cost = f(z)
            baseline = torch.lerp(self._mean, cost, 1 - self.decay)
            return cost + (cost - baseline) * nabla(log_prob(logits, z))

    task = gradest.make_task("categorical")
    mean, _ = mean_and_variance(*every_draw(adapted(Folding(decay=0.7), task, 5), task))
    assert_exactly(mean, 0.7 * closed_form("reinforce", 0.45)[0])


def test_a_baseline_that_holds_its_own_sample_would_show():
    """The mistake that the closed forms of RLOO must catch: the mean is then (S − 1)/S · g."""

    class Including(type(gradest.make_estimator("rloo"))):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits, self.samples)
            cost = f(z)
            score = nabla(log_prob(logits.unsqueeze(1), z))
            return (cost + (cost - cost.mean(1, keepdim=True)) * score).mean(1)

    task = gradest.make_task("categorical")
    mean, _ = mean_and_variance(*every_draw(Including(samples=2), task, 2))
    assert_exactly(mean, 0.5 * closed_form("reinforce", 0.45)[0])


def test_straight_through_has_no_variance_on_an_affine_cost_and_no_bias():
    task = Table(torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.1, -0.7]]), affine=True)
    mean, variance = mean_and_variance(
        *every_draw(gradest.make_estimator("straight_through"), task)
    )
    assert_exactly(variance, torch.zeros(2, 3))
    assert_exactly(mean, gradest.measure(gradest.make_estimator("exact"), task).exact)


class Table(Task):
    """Two latents of three categories and a given cost: affine, or multilinear in the table."""

    def __init__(self, table: Tensor, affine: bool = False) -> None:
        self.table, self.affine = table.double(), affine

    def problem(self, batch=None) -> gradest.Problem:
        logits = torch.tensor([[[0.2, -0.5, 1.0], [0.0, 0.7, -0.3]]], dtype=torch.float64)

        def cost(z: Tensor) -> Tensor:
            if self.affine:
                return (z * self.table).sum((-2, -1))
            return torch.einsum("...i,ij,...j->...", z[..., 0, :], self.table, z[..., 1, :])

        return gradest.Problem(logits, Cost(cost))


def test_straight_through_is_simple_with_subsets_of_one():
    """SIMPLE differentiates the marginals μ = ∇_φ log Σ over subsets; of size one, they are π.

    Ahmed, Zeng, Niepert & Van den Broeck, "SIMPLE", 2023, arXiv 2210.01941.
    """
    task = gradest.make_task("quadratic", latents=2, categories=3)
    problem = task.problem()
    _, found = every_draw(gradest.make_estimator("straight_through"), task)
    z = all_codes(problem.logits).requires_grad_()  # [K^N, N, K], in the order of every draw
    (slope,) = torch.autograd.grad(problem.f(z.unsqueeze(0)).sum(), z)
    phi = problem.logits[0].clone().requires_grad_()
    (mu,) = torch.autograd.grad(phi.logsumexp(-1).sum(), phi, create_graph=True)
    expected = [torch.autograd.grad(mu, phi, f, retain_graph=True)[0] for f in slope]
    found = {tuple(row.flatten().round(decimals=9).tolist()) for row in found}
    assert found == {tuple(row.flatten().round(decimals=9).tolist()) for row in expected}


def test_straight_through_on_the_multilinear_extension_is_local_expectation():
    """ĝ_n = J(π_n) [f with coordinate n set to k]_k, sample by sample."""
    table = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
    task = Table(table)
    probability, found = every_draw(gradest.make_estimator("straight_through"), task)
    pi = task.problem().logits[0].softmax(-1)  # [N, K]
    for row, (first, second) in enumerate((i % 3, i // 3) for i in range(9)):
        for n, f in enumerate((table[:, second], table[first])):
            local = pi[n] * (f - pi[n] @ f)
            assert torch.allclose(found[row, n], local, rtol=0, atol=EXACT)
    mean, _ = mean_and_variance(probability, found)
    assert_exactly(mean, gradest.measure(gradest.make_estimator("exact"), task).exact)


# Gumbel noise.  On one bit only G₁ − G₀ matters, which is logistic: E₀ = 1, E₁ = e⁻ˡ.


def logistic_mean(name: str, temperature: float, theta: float, t: float) -> Tensor:
    """E ĝ [2] on one bit, by Gauss-Legendre over the logistic noise on both sides of b = 0 | 1."""
    task = gradest.make_task("bernoulli", theta=(theta,), target=t)
    estimator = gradest.make_estimator(name, temperature=temperature)
    node, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(400))
    switch = -math.log(theta / (1 - theta))  # b = 1 from here on
    parts = []
    for low, high in ((switch - 40, switch), (switch, switch + 40)):
        noise = (high - low) / 2 * node + (high + low) / 2  # [R]
        density = torch.from_numpy(stats.logistic.pdf(noise.numpy())) * weight * (high - low) / 2
        exponentials = torch.stack([torch.ones_like(noise), (-noise).exp()], -1).unsqueeze(1)
        found = estimates(estimator, task, len(noise), Prescribed(exponentials=exponentials))
        parts.append(torch.einsum("r,rk->k", density, found[:, 0]))
    return sum(parts)


def logistic_integral(function, theta: float) -> float:
    """∫ function(l) of the logistic density, on both sides of the switch from b = 0 to 1."""
    switch = -math.log(theta / (1 - theta))
    sides = ((switch - 40, switch), (switch, switch + 40))

    def weighted(x):
        return function(x) * stats.logistic.pdf(x)

    return sum(integrate.quad(weighted, *side, epsabs=1e-12, limit=200)[0] for side in sides)


@pytest.mark.parametrize("temperature", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_straight_through_gumbel_softmax_has_the_mean_of_its_formula(temperature):
    """ĝ = 1/τ J(y) f'(b) with shared noise: on one bit ±1/τ y(1 − y) 2(b − t)."""
    theta, t = 0.3, 0.45
    logit = math.log(theta / (1 - theta))

    def formula(noise: float) -> float:
        y = 1 / (1 + math.exp(-(logit + noise) / temperature))
        return y * (1 - y) / temperature * 2 * ((logit + noise > 0) - t)

    expected = logistic_integral(formula, theta)
    found = logistic_mean("st_gumbel_softmax", temperature, theta, t)
    # Both quadratures leave out tails of e⁻⁴⁰ and converge far beyond this.
    assert torch.allclose(found, torch.tensor([-expected, expected]).double(), rtol=0, atol=1e-9)


def test_straight_through_gumbel_softmax_gets_a_quadratic_right_as_it_cools():
    """Its mean becomes ReinMax's, with an error of order τ."""
    theta, t, g = 0.3, 0.45, 0.021
    errors = [
        abs(float(logistic_mean("st_gumbel_softmax", tau, theta, t)[1]) - g)
        for tau in (0.2, 0.1, 0.05)
    ]
    for warm, cool in itertools.pairwise(errors):
        assert 1.7 <= warm / cool <= 2.3
    assert errors[0] > 1e-3


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_concrete_has_the_mean_of_its_formula(temperature):
    """ĝ = 1/λ J(y) f'(y): on one bit ±1/λ y(1 − y) 2(y − t)."""
    theta, t = 0.3, 0.45
    logit = math.log(theta / (1 - theta))

    def formula(noise: float) -> float:
        y = 1 / (1 + math.exp(-(logit + noise) / temperature))
        return y * (1 - y) / temperature * 2 * (y - t)

    expected = logistic_integral(formula, theta)
    found = logistic_mean("concrete", temperature, theta, t)
    assert torch.allclose(found, torch.tensor([-expected, expected]).double(), rtol=0, atol=1e-9)


class Linear(Task):
    """α = (2, ½, 1) and f = (0, 1, 2) · z: the affine cost of the published figures."""

    def problem(self, batch=None) -> gradest.Problem:
        logits = torch.tensor([[[2.0, 0.5, 1.0]]], dtype=torch.float64).log()
        return gradest.Problem(logits, Cost(lambda z: z.squeeze(-2) @ VALUES.to(z)))


def concrete_mean(temperature: float) -> Tensor:
    """E ĝ [3] of Concrete on Linear.

    Only the shares of the exponentials matter, which are uniform on the simplex: Gauss-Legendre
    on the triangle, with nodes crowded (u → 3u² − 2u³) where a share goes to zero.
    """
    node, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(300))
    u = (node + 1) / 2
    u, weight = u**2 * (3 - 2 * u), weight / 2 * 6 * u * (1 - u)
    a, b = (x.flatten() for x in torch.meshgrid(u, u, indexing="ij"))
    shares = torch.stack([a, (1 - a) * b, (1 - a) * (1 - b)], -1).unsqueeze(1)  # [R, 1, 3]
    measure = (weight.unsqueeze(1) * weight).flatten() * 2 * (1 - a)
    estimator = gradest.make_estimator("concrete", temperature=temperature)
    found = estimates(estimator, Linear(), len(a), Prescribed(exponentials=shares))
    return torch.einsum("r,rk->k", measure, found[:, 0])


def test_concrete_is_biased_even_on_an_affine_cost_by_the_square_of_the_temperature():
    g = PI * (VALUES - PI @ VALUES)
    temperatures, printed = (1.0, 0.5, 0.25, 0.125), (0.133, 0.051, 0.015, 0.004)
    errors = [float((concrete_mean(x) - g).abs().max()) for x in temperatures]
    assert errors == pytest.approx(printed, abs=0.0005)  # three decimals
    assert errors[2] / errors[3] == pytest.approx(4, abs=0.3)


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_a_rounded_concrete_sample_has_the_law_of_the_discrete_one(temperature, assert_frequencies):
    seen = []
    problem = Linear().problem()
    f = Cost(lambda z: (seen.append(z.detach()), problem.f.fn(z))[1])
    with drawing_from(Draws.seeded(0)):
        estimator = gradest.make_estimator("concrete", temperature=temperature)
        estimator(problem.logits.expand(50_000, -1, -1).clone().requires_grad_(), f)
    (y,) = seen
    assert ((y > 0) & (y < 1)).any() and torch.allclose(y.sum(-1), torch.ones(1).double())
    assert_frequencies(y.argmax(-1).flatten().bincount(minlength=3), PI)


@pytest.mark.parametrize("name", sorted(gradest.all_estimators()))
def test_every_estimator_works_in_both_precisions_and_at_extreme_logits(name):
    for dtype, largest in ((torch.float64, 700.0), (torch.float32, 80.0)):
        logits = torch.tensor([[[-largest, largest], [largest, largest - 1]]], dtype=dtype)
        logits = logits.repeat(10, 1, 1).requires_grad_()
        f = Cost(lambda z: (z[..., 1].sum(-1) - 0.45).square())
        estimator = gradest.make_estimator(name)
        if estimator.objective:
            f = Cost(f.fn, samples=2, objective=estimator.objective)
        with drawing_from(Draws.seeded(0)):
            estimator.reset(logits.detach()[:1])
            objective = estimator(logits, f.replicated(1))
        (gradient,) = torch.autograd.grad(objective.sum(), logits)
        assert objective.dtype == gradient.dtype == dtype
        assert objective.isfinite().all() and gradient.isfinite().all()
