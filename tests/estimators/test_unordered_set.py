"""The unordered set: its moments, its relations to other estimators and its draws.

Means and variances are exact, since the sets are listed.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gradest
from gradest import Task
from gradest.categorical import log_prob
from gradest.measurement.enumerated_moments import exact_moments
from gradest.measurement.enumerated_truth import all_codes, exact_gradient
from gradest.measurement.replicator import Replicator
from gradest.randomness import Draws, drawing_from
from tests.estimators.toys import (
    PI,
    VALUES,
    Given,
    close,
    doubles,
    estimates,
    every_draw,
    mean_and_variance,
    polynomial,
    truth,
    values,
)
from tests.support import EXACT, Prescribed

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
        result = estimates(estimator, task, len(sets), Prescribed())
    return probability, result, sets


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
    probability, result, _ = every_set(monkeypatch, task, k, baseline=baseline)
    assert close(probability.sum(), 1.0)
    assert close(mean_and_variance(probability, result)[0], truth(task))


def test_an_unordered_set_of_one_is_reinforce(monkeypatch):
    task = table(0)
    probability, result, _ = every_set(monkeypatch, task, 1)
    expected, reinforce = every_draw(gradest.make_estimator("reinforce"), task)
    assert close(probability, expected) and close(result, reinforce)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("task", [table(0), polynomial(0, 3, categories=2)], ids=["one", "bits"])
def test_an_unordered_set_of_all_is_exact(task, baseline):
    for samples in (4, 9):  # all four outcomes, and more than there are
        estimator = gradest.make_estimator("unordered_set", samples=samples, baseline=baseline)
        result = estimates(estimator, task, 10, Draws.seeded(0))
        assert close(result, truth(task).expand_as(result))
        value = values(estimator, task, 10, Draws.seeded(0))
        assert close(value, exact_gradient(task.problem()).value.expand(10))


def test_an_unordered_pair_has_a_closed_form(monkeypatch):
    """ĝ = (f_a − f_b)(e_a − e_b)/(1/(1 − p_a) + 1/(1 − p_b))."""
    task = table(0)
    _, result, sets = every_set(monkeypatch, task, 2)
    unit = torch.eye(4, dtype=torch.float64)
    f, p = task.problem().f(unit[None, :, None])[0], task.logits[0].softmax(-1)
    for estimate, (a, b) in zip(result, sets, strict=True):
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
    result = exact_moments(Replicator(gradest.make_estimator("unordered_set"), task))
    assert close(result.mean[0], g) and close(result.variance[0], spread - g.squeeze() ** 2)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize(
    ("name", "samples"),
    [
        *(("categorical", 2), ("categorical", 3), ("bernoulli", 2), ("bernoulli", 4)),
        pytest.param("quadratic", 2, marks=pytest.mark.slow),
    ],
)
def test_the_draws_of_the_unordered_set_are_enumerated(name, samples, baseline):
    task = gradest.make_task(name)
    estimator = gradest.make_estimator("unordered_set", samples=samples, baseline=baseline)
    result, true = exact_moments(Replicator(estimator, task)), exact_gradient(task.problem())
    rounding = 1e-12  # of gradients of size one
    assert close(result.mean, true.gradient, rounding) and close(result.value, true.value, rounding)


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
    result = torch.stack(
        [
            sum(p[s] * term[s] for s in order[:-1])
            + (1 - p[list(order[:-1])].sum()) * term[order[-1]]
            for order in orders
        ]
    )
    return mean_and_variance(probability, result.unsqueeze(1))[1]


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
    density, result = weights * q.prod(1), (1 / q) @ term  # [V], [V, K]
    return density.sum(), density @ result, density @ result.square()


@pytest.mark.parametrize("seed", range(8))
def test_the_unordered_set_is_importance_weighting_given_its_set(monkeypatch, seed):
    """Kool, van Hoof & Welling's estimator of 2019 with κ integrated out; so it varies less."""
    task, tolerance = table(seed), 1e-8  # the quadrature's, of fractional powers
    probability, result, sets = every_set(monkeypatch, task, 2, baseline=False)
    mass, mean, square = (
        torch.stack(x) for x in zip(*(importance_weighted(task, s) for s in sets), strict=True)
    )
    assert close(mass, probability, tolerance)
    assert close(mean / mass.unsqueeze(1), result.squeeze(1), tolerance)
    variance = mean_and_variance(probability, result)[1].squeeze(0)
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
    result = dict.fromkeys(itertools.permutations(possible, size), 0.0)
    for row in source.probability.nonzero().flatten().tolist():
        order = tuple(map(tuple, z[row].argmax(-1).tolist()))
        assert all(p[code] for code in order)
        order, repetitions = order[:size], [0.0] * (samples - size)
        result[order] += float(source.probability[row])  # a KeyError where one comes twice
        each, rest = [float(p[code]) for code in order], 1 - sum(p[code] for code in order)
        assert log_p[row].exp().tolist() == pytest.approx(each + repetitions, rel=EXACT, abs=0)
        assert float(log_rest[row].exp()) == pytest.approx(float(rest), rel=EXACT, abs=0)
    for order, probability in result.items():
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
    result = estimates(estimator, task, 20, Draws.seeded(0))
    p = logits[0].softmax(-1)
    slope = p[0] * p[2] * (25 - 9)
    assert close(result[:, 0], doubles([-1.0, 0, 1]).mul(slope).expand(20, 3))
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
    result = estimates(estimator, task, 5, Draws.seeded(0))
    assert close(result, truth(task).expand_as(result))
