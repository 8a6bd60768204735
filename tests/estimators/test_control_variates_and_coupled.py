"""Learned control variates and coupled samples against closed forms and the laws they obey.

Moments are exact wherever they can be: draws that are discrete, or that matter only through the
cell of a grid they fall in, are prescribed once for each cell; Gumbel noise is integrated by
Gauss-Legendre quadrature, since only the shares of its exponentials matter, which are uniform.
"""

import itertools
import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import conditional_gumbel, nabla
from gradest.checks.problems import Polynomial
from gradest.measurement import enumerated_truth
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT

QUADRATURE = 1e-8  # what the rules below reach, as their convergence shows


arsm, carms, rebar = (
    sys.modules[gradest.all_estimators()[name].__module__] for name in ("arsm", "carms", "rebar")
)


class Scripted(Draws):
    """Serves prescribed draws in the order of the requests, whose shapes must fit."""

    def __init__(self, *answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def _answer(self, shape: Sequence[int]) -> Tensor:
        answer = self.answers[self.count]
        assert answer.shape == tuple(shape)
        self.count += 1
        return answer

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        return self._answer((len(logits), samples, *logits.shape[1:-1]))

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._answer(shape)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._answer(shape)


def ready(name: str, task: Task, steps: int = 0, **knobs) -> Estimator:
    """An estimator as a measurement would prepare it."""
    estimator = gradest.make_estimator(name, **knobs)
    problem = task.problem()
    with drawing_from(Draws.seeded(0)):
        estimator.reset(problem.logits)
        for _ in range(steps):
            estimator.adapt(problem.logits.repeat(64, 1, 1), problem.f.replicated(1))
    return estimator


def estimates(estimator: Estimator, task: Task, rows: int, source: Draws) -> tuple[Tensor, Tensor]:
    """ĝ [R, N, K] and value [R] of that many rows on a task with one data point."""
    problem = task.problem()
    logits = problem.logits.repeat(rows, 1, 1).requires_grad_()
    with drawing_from(source):
        value = estimator(logits, problem.f.replicated(1))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return gradient, value.detach()


class Moments:
    """Mean and variance of ĝ, coordinate by coordinate, and the mean value."""

    def __init__(self, weight: Tensor, gradient: Tensor, value: Tensor) -> None:
        self.mean = torch.einsum("r,rnk->nk", weight, gradient)
        self.variance = torch.einsum("r,rnk->nk", weight, (gradient - self.mean).square())
        self.value = weight @ value

    @property
    def trace(self) -> float:
        return float(self.variance.sum())


def moments(estimator: Estimator, task: Task, weight: Tensor, *answers: Tensor) -> Moments:
    assert weight.sum() == pytest.approx(1, abs=1e-9)
    return Moments(weight, *estimates(estimator, task, len(weight), Scripted(*answers)))


def assert_close(actual: Tensor, expected: Tensor | Sequence, tolerance: float = EXACT) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    gap = (actual.squeeze() - expected.squeeze()).abs().max()
    assert gap <= tolerance, f"differs by {gap:.2g}"


def assert_unbiased(found: Moments, task: Task, tolerance: float = EXACT) -> None:
    truth = enumerated_truth.exact_gradient(task.problem())
    assert truth.gradient.abs().max() > 100 * tolerance
    assert_close(found.mean, truth.gradient[0], tolerance)
    assert_close(found.value, truth.value, tolerance)


def gauss(nodes: int, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Nodes and weights on an interval."""
    node, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
    return low + (high - low) * (node + 1) / 2, (high - low) * weight / 2


def product(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Independent (points [P, ...], weights [P]) -> [R, parts, ...] and [R]."""
    choice = torch.cartesian_prod(*(torch.arange(len(w)) for _, w in parts))
    choice = choice.reshape(-1, len(parts))
    points = torch.stack([x[choice[:, i]] for i, (x, _) in enumerate(parts)], 1)
    weight = math.prod(w[choice[:, i]] for i, (_, w) in enumerate(parts))
    return points, weight


def every_index(task: Task, samples: int) -> tuple[Tensor, Tensor]:
    """All draws of S samples [R, S, N] and their probabilities [R]."""
    log_p = task.problem().logits[0].log_softmax(-1)  # [N, K]
    latents, categories = log_p.shape
    one = torch.cartesian_prod(*[torch.arange(categories)] * (samples * latents))
    index = one.reshape(-1, samples, latents)
    return index, log_p[torch.arange(latents), index].sum((1, 2)).exp()


def thetas(task: Task) -> list[float]:
    return task.problem().logits[0].softmax(-1)[:, 1].tolist()


# Tasks.  Curved within a latent and coupled between them, so that no symmetry hides a mistake.


def coupled(latents: int, categories: int, seed: int = 0) -> Task:
    draws = torch.Generator().manual_seed(100 + seed)
    logits = torch.randn(1, latents, categories, generator=draws, dtype=torch.float64)
    return Polynomial("coupled", logits, seed)


def one_bit(theta: float, t: float) -> Task:
    return gradest.make_task("bernoulli", theta=(theta,), target=t)


class Affine(Task):
    """f(z) = 3 + w · z."""

    def problem(self, batch=None) -> Problem:
        weight = torch.tensor([[0.3, -1.0], [1.5, 0.1], [-0.4, 0.8]])
        logits = torch.tensor([[[0.2, -0.5], [0.0, 0.7], [1.0, 0.0]]], dtype=torch.float64)
        return Problem(logits, Cost(lambda z: 3 + (z * weight.to(z)).sum((-2, -1))))


# Antithetic pairs.  A bit of the pair changes where u passes θ or 1 − θ: Gauss-Legendre between
# these is exact, as ĝ is linear in u.


def cells(task: Task, nodes: int = 2) -> tuple[Tensor, Tensor]:
    """u [R, N] and weights [R]."""
    parts = []
    for theta in thetas(task):
        ends = sorted({0.0, theta, 1 - theta, 1.0})
        node, weight = zip(*(gauss(nodes, *ends) for ends in itertools.pairwise(ends)), strict=True)
        parts.append((torch.cat(node), torch.cat(weight)))
    return product(parts)


def over_pairs(name: str, task: Task) -> Moments:
    u, weight = cells(task)
    return moments(ready(name, task), task, weight, u)


def over_samples(name: str, task: Task, samples: int, steps: int = 0, **knobs) -> Moments:
    index, weight = every_index(task, samples)
    return moments(ready(name, task, steps, samples=samples, **knobs), task, weight, index)


# θ, t and the published g, Var ARM, Var DisARM.  With K = 2 the gradient is (−g, g), and each of
# the two coordinates has the variance of the one logit.
ONE_BIT = [
    (0.3, 0.45, 0.021, 0.000339, 0.000294),
    (0.8, 0.45, 0.016, 0.00039733333, 0.000384),
    (0.5, 0.499, 0.0005, 8.3333333e-8, 0.0),
    (0.1, 0.1, 0.072, 0.020842667, 0.020736),
]


@pytest.mark.parametrize(("theta", "t", "g", "arm", "disarm"), ONE_BIT)
def test_arm_and_disarm_on_one_bit(theta, t, g, arm, disarm):
    a, d = theta * (1 - theta), 1 - 2 * t
    formulas = {
        "arm": d**2 * ((1 - abs(1 - 2 * theta) ** 3) / 12 - a**2),
        "disarm": d**2 * a * (max(theta, 1 - theta) / 2 - a),
    }
    for (name, formula), printed in zip(formulas.items(), (arm, disarm), strict=True):
        found = over_pairs(name, one_bit(theta, t))
        assert_unbiased(found, one_bit(theta, t))
        assert_close(found.mean, [-g, g])
        assert_close(found.variance, [formula, formula])
        assert formula == pytest.approx(printed, rel=1e-7, abs=1e-12)  # as printed


@pytest.mark.parametrize("latents", [1, 2, 3])
@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_antithetic_pairs_are_unbiased(name, latents):
    assert_unbiased(over_pairs(name, coupled(latents, 2)), coupled(latents, 2))


def test_disarm_is_arm_given_its_two_samples():
    task, nodes = coupled(2, 2), 3
    u, weight = cells(task, nodes)
    arm, disarm = (
        estimates(ready(name, task), task, len(u), Scripted(u))[0] for name in ("arm", "disarm")
    )
    pieces = len(u) // nodes**2  # the nodes of a cell of the square give the same samples
    side = int(pieces**0.5)

    def averaged(x: Tensor) -> Tensor:
        shape = (side, nodes, side, nodes, *x.shape[1:])
        return x.reshape(shape).sum((1, 3))

    mass = averaged(weight)[..., None, None]
    assert_close(averaged(weight[:, None, None] * arm) / mass, averaged(disarm) / nodes**2)


def test_disarm_is_zero_where_its_samples_agree():
    task = coupled(3, 2)
    theta = torch.tensor(thetas(task))
    u = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)).double()
    agree = (u < theta) == (1 - u < theta)
    found, _ = estimates(ready("disarm", task), task, 100, Scripted(u))
    assert torch.equal(found == 0, agree.unsqueeze(-1).expand_as(found)) and agree.any()


@pytest.mark.parametrize("seed", range(5))
def test_disarm_varies_no_more_than_arm(seed):
    for latents in (1, 2):
        task = coupled(latents, 2, seed)
        arm, disarm = over_pairs("arm", task), over_pairs("disarm", task)
        assert (disarm.variance <= arm.variance + EXACT).all()
        if latents == 1:
            rloo = over_samples("rloo", task, 2)
            assert (arm.variance <= rloo.variance + EXACT).all()
            second, twice = (m.variance + m.mean.square() for m in (disarm, rloo))
            assert_close(second, max(*thetas(task), 1 - thetas(task)[0]) * twice)


def test_disarm_and_leave_one_out_have_no_order_beyond_one_latent():
    better = worse = 0
    for seed in range(20):
        task = coupled(2, 2, seed)
        disarm, rloo = over_pairs("disarm", task), over_samples("rloo", task, 2)
        worse += int((disarm.variance[:, 0] > rloo.variance[:, 0] + 1e-6).sum())
        better += int((disarm.variance[:, 0] < rloo.variance[:, 0] - 1e-6).sum())
    assert better > worse > 0


# Antithetic samples.  With p = min(θ, 1 − θ), m = n − 1 and q = p^(1/m), a bit is rare where its
# share d exceeds 1 − q; j given bits are all rare with probability max(0, jq − (j − 1))ᵐ.


def rare_patterns(theta: float, n: int) -> tuple[Tensor, Tensor]:
    """Exponentials [P, n] that give each pattern of rare bits, and its probability [P]."""
    q = min(theta, 1 - theta) ** (1 / (n - 1))

    def all_rare(j: int) -> float:
        return max(0.0, j * q - (j - 1)) ** (n - 1)

    shares, weights = [], []
    for k in range(n + 1):
        # Inclusion and exclusion over the bits beyond these k that are rare as well.
        p = sum((-1) ** j * math.comb(n - k, j) * all_rare(k + j) for j in range(n - k + 1))
        if p < 1e-15:
            continue
        for rare in itertools.combinations(range(n), k):
            share = torch.full((n,), 1e-6 if k else 1 / n, dtype=torch.float64)
            if k:
                share[list(rare)] = (1 - 1e-6 * (n - k)) / k
            assert ((share > 1 - q) == (share > 1e-3)).all() or k == 0
            shares.append(share)
            weights.append(p)
    return torch.stack(shares), torch.tensor(weights, dtype=torch.float64)


def over_patterns(task: Task, n: int) -> Moments:
    shares, weight = product([rare_patterns(theta, n) for theta in thetas(task)])
    return moments(ready("arms", task, samples=n), task, weight, shares.movedim(1, 2))


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("latents", [1, 2])
def test_arms_is_unbiased(latents, n):
    for seed in range(3):
        assert_unbiased(over_patterns(coupled(latents, 2, seed), n), coupled(latents, 2, seed))


def test_arms_with_two_samples_is_disarm():
    task = coupled(3, 2)
    e = torch.empty(50, 2, 3, dtype=torch.float64).exponential_(generator=torch.manual_seed(0))
    arms = estimates(ready("arms", task, samples=2), task, 50, Scripted(e))
    # (U₁, U₂) = (u, 1 − u) below θ = ½, and (1 − u, u) from there on.
    u, beyond = e[:, 1] / e.sum(1), torch.tensor(thetas(task)) >= 0.5
    assert beyond.any() and not beyond.all()
    disarm = estimates(ready("disarm", task), task, 50, Scripted(torch.where(beyond, 1 - u, u)))
    for a, d in zip(arms, disarm, strict=True):
        assert_close(a, d)


@pytest.mark.parametrize("n", [2, 3, 4, 10])
def test_the_factor_of_arms_undoes_the_dependence(n):
    """ρ = θ(1 − θ)/(θ − P₁₁) in a form that no θ breaks, with P₁₁ as published."""
    estimator, m = gradest.make_estimator("arms", samples=n), n - 1
    theta = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    p = torch.minimum(theta, 1 - theta)
    both = (2 * p ** (1 / m) - 1).clamp(min=0) ** m
    both = torch.where(theta < 0.5, both, 2 * theta - 1 + both)
    rho = estimator._rho(theta.logit().abs())
    assert_close(rho, theta * (1 - theta) / (theta - both))
    for dtype, size in ((torch.float32, 80.0), (torch.float64, 1400.0)):
        assert estimator._rho(torch.tensor(size, dtype=dtype)) == 1


def test_arms_without_dependence_is_leave_one_out():
    task = coupled(2, 2)
    correct = type(gradest.make_estimator("arms"))

    class Independent(correct):
        def _rho(self, size: Tensor) -> Tensor:
            return torch.ones_like(size)

    e = torch.empty(50, 3, 2, dtype=torch.float64).exponential_(generator=torch.manual_seed(0))
    found = estimates(Independent(samples=3), task, 50, Scripted(e))
    p = torch.tensor(thetas(task), dtype=torch.float64)
    rare = (1 - e / e.sum(1, keepdim=True)) ** 2 < torch.minimum(p, 1 - p)
    index = (rare ^ (p > 0.5)).long()  # the same bits
    rloo = estimates(ready("rloo", task, samples=3), task, 50, Scripted(index))
    for a, b in zip(found, rloo, strict=True):
        assert_close(a, b)
    # And with dependent bits that is biased: the factor is what the test of the mean looks at.
    shares, weight = product([rare_patterns(theta, 3) for theta in thetas(task)])
    found = moments(Independent(samples=3), task, weight, shares.movedim(1, 2))
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    assert (found.mean - truth).norm() > 0.1 * truth.norm()


@pytest.mark.parametrize("n", [3, 4, 6])
@pytest.mark.parametrize(("theta", "t"), [(row[0], row[1]) for row in ONE_BIT])
def test_arms_varies_less_than_leave_one_out_on_one_bit(theta, t, n):
    """Seen on this cost; not proved for others."""
    task = one_bit(theta, t)
    assert over_samples("rloo", task, n).trace >= 1.15 * over_patterns(task, n).trace


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_copula_has_uniform_margins_and_its_pair_law(n, assert_mean):
    grid = torch.tensor([0.2, 0.5, 0.8, 0.95], dtype=torch.float64)
    ends = carms.roots(grid, n)
    assert_close(carms.pair_cdf(ends, torch.ones(4).double(), n), grid)
    with drawing_from(Draws.seeded(0)):
        u = carms.copula_uniforms((100_000, n), grid)
    below = (u[:, :2].unsqueeze(-1) <= grid).double()  # [R, 2, 4]
    assert_mean(below[:, 0], grid, 0.002)
    both = torch.einsum("ru,rv->ruv", below[:, 0], below[:, 1])
    expected = carms.pair_cdf(ends.unsqueeze(1), ends, n)
    seen = expected > 0
    assert not both[:, ~seen].any()
    assert_mean(both[:, seen], expected[seen], 0.002)


# CARMS with n = 2: U = (u, 1 − u), and a category changes where u or 1 − u passes the end of one.


def over_orders(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [R], orders [R, 1, N] and exponentials [R, 2, N]."""
    parts = []
    for pi in task.problem().logits[0].softmax(-1):
        orders = carms._orders(len(pi), pi.device)
        points, weights = [], []
        for number, order in enumerate(orders):
            ends = pi[order].cumsum(0)[:-1].tolist()
            ends = sorted({0.0, 1.0, *ends, *(1 - end for end in ends)})
            for low, high in itertools.pairwise(ends):
                middle = (low + high) / 2
                points.append((number, middle, 1 - middle))
                weights.append((high - low) / len(orders))
        parts.append((torch.tensor(points), torch.tensor(weights, dtype=torch.float64)))
    points, weight = product([(p.double(), w) for p, w in parts])  # [R, N, 3]
    return weight, points[..., 0].long().unsqueeze(1), points[..., 1:].movedim(1, 2)


@pytest.mark.parametrize(("latents", "categories"), [(1, 2), (1, 3), (1, 5), (2, 2), (2, 3)])
def test_carms_is_unbiased(latents, categories):
    task = coupled(latents, categories)
    assert_unbiased(moments(ready("carms", task, samples=2), task, *over_orders(task)), task)


class Three(Task):
    """π = (.5, .3, .2) and f = (1, −2, ½) + 10."""

    def problem(self, batch=None) -> Problem:
        logits = torch.tensor([[[0.5, 0.3, 0.2]]], dtype=torch.float64).log()
        value = torch.tensor([11.0, 8.0, 10.5])
        return Problem(logits, Cost(lambda z: z.squeeze(-2) @ value.to(z)))


def test_carms_with_one_fixed_order_would_be_biased(monkeypatch):
    task = Three()
    assert_unbiased(moments(ready("carms", task, samples=2), task, *over_orders(task)), task)
    monkeypatch.setattr(carms, "_orders", lambda categories, device: torch.arange(3).unsqueeze(0))
    found = moments(ready("carms", task, samples=2), task, *over_orders(task))
    assert_close(found.mean, [0.5, -0.45, -0.05])
    assert_close(enumerated_truth.exact_gradient(task.problem()).gradient, [0.5, -0.6, 0.1])


def test_carms_weighs_pairs_by_the_law_that_they_have(assert_mean):
    """Beyond two samples, where the uniforms move in more than one direction."""
    task, n = coupled(1, 4), 3
    pi = task.problem().logits.softmax(-1)  # [1, 1, K]
    estimator, orders = gradest.make_estimator("carms", samples=n), carms._orders(4, pi.device)
    with drawing_from(Draws.seeded(0)):
        index = estimator._sampled(pi.expand(100_000, -1, -1), orders)[:, :, 0]  # [R, n]
    eye = torch.eye(4, dtype=torch.float64)
    assert_mean(eye[index[:, 2]], pi[0, 0], 0.002)
    a, b = torch.triu_indices(4, 4, offset=1)
    pairs = torch.stack([a, b, b], 1).unsqueeze(-1)  # [6, n, 1]
    first, second = torch.tensor([0]), torch.tensor([1])
    r = estimator._surprise(pi.expand(6, -1, -1), orders, pairs, first, second)[:, 0, 0]
    law = pi[0, 0, a] * pi[0, 0, b] / r
    met = eye[index[:, 0]][:, a] * eye[index[:, 1]][:, b]
    assert_mean(met, law, 0.002)
    assert (law > 0).all() and not torch.allclose(r, torch.ones(6).double(), rtol=0.1)


def test_carms_with_two_samples_of_a_bit_is_disarm():
    task = coupled(3, 2)
    e = torch.empty(50, 2, 3, dtype=torch.float64).exponential_(generator=torch.manual_seed(0))
    only = torch.zeros(50, 1, 3, dtype=torch.long)  # two categories have one pair of ends
    found = estimates(ready("carms", task, samples=2), task, 50, Scripted(only, e))
    disarm = estimates(ready("disarm", task), task, 50, Scripted(e[:, 0] / e.sum(1)))
    for a, d in zip(found, disarm, strict=True):
        assert_close(a, d)


# ARSM.  Only the shares ϖ of the exponentials matter.


def test_arsm_with_two_categories_is_arm():
    task = coupled(3, 2)
    u = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double()
    found = estimates(ready("arsm", task), task, 50, Scripted(torch.stack([1 - u, u], -1)))
    arm = estimates(ready("arm", task), task, 50, Scripted(u))
    for a, b in zip(found, arm, strict=True):
        assert_close(a, b)


def simplex_cells(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """ϖ [R, 1, 3] and weights, exact for what is polynomial where no swap changes a category.

    That changes where ϖ_a/ϖ_b is a ratio of two α.  With ϖ = (st, s(1 − t), 1 − s) these are lines
    s(t), which cross each other at certain t; between those the integral over s is smooth in t.
    """
    ratios = [float(alpha[i] / alpha[j]) for i in range(3) for j in range(3) if i != j]
    crossings = {*ratios, *(a / b for a in ratios for b in ratios)}
    ends = sorted({0.0, 1.0, *(r / (1 + r) for r in crossings)})
    points, weights = [], []
    for low, high in itertools.pairwise(ends):
        if high - low < 1e-12:
            continue
        for t, t_weight in zip(*(x.tolist() for x in gauss(12, low, high)), strict=True):
            breaks = {r / (r + x) for r in ratios for x in (t, 1 - t)}
            for below, above in itertools.pairwise(sorted({0.0, 1.0, *breaks})):
                s, s_weight = gauss(3, below, above)
                points.append(torch.stack([s * t, s * (1 - t), 1 - s], -1))
                weights.append(2 * t_weight * s_weight * s)
    return torch.cat(points).unsqueeze(1), torch.cat(weights)


# The printed variances of the three categories α = (2, ½, 1), f = (v · z − t)².
ARSM = {
    0.45: [0.1130708, 0.1185914, 0.0776070],
    1.2: [0.0291790, 0.0296440, 0.0209553],
}


@pytest.mark.parametrize("t", ARSM)
def test_arsm_on_three_categories(t):
    task = gradest.make_task("categorical", target=t)
    points, weight = simplex_cells(torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64))
    found = moments(ready("arsm", task), task, weight, points)
    assert_unbiased(found, task)
    assert_close(found.variance, ARSM[t], 0.51e-7)


def test_swaps_are_numbered_by_what_they_swap():
    swaps, number = arsm._swaps(4, torch.device("cpu"))
    assert len(swaps) == 7
    for m in range(4):
        for j in range(4):
            order = list(range(4))
            order[m], order[j] = order[j], order[m]
            assert swaps[number[m, j]].tolist() == order


# Gumbel noise.  Given argmax z = b, z follows from exponentials as z̃ does; all that matters of
# them is their shares, uniform on the simplex.  Nodes are crowded (u → 3u² − 2u³) at its edges.


def shares(categories: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Exponentials [P, K] and weights [P]."""
    u, weight = gauss(nodes)
    u, weight = u**2 * (3 - 2 * u), weight * 6 * u * (1 - u)
    if categories == 2:
        return torch.stack([u, 1 - u], -1), weight
    a, b = torch.cartesian_prod(u, u).unbind(1)
    return (
        torch.stack([a, (1 - a) * b, (1 - a) * (1 - b)], -1),
        (weight.unsqueeze(1) * weight).flatten() * 2 * (1 - a),
    )


def noise_given(task: Task, b: int, e: Tensor) -> Tensor:
    """Exponentials [P, 1, K] with argmax z = b, made of those that z | b is made of."""
    logits = task.problem().logits.expand(len(e), -1, -1)
    index = torch.full((len(e), 1), b)
    with drawing_from(Scripted(e.unsqueeze(1))):
        z = conditional_gumbel(logits, torch.nn.functional.one_hot(index, e.shape[-1]).double())
    return (logits - z).exp()


def over_noise(estimator: Estimator, task: Task, nodes: int, tied: bool = False) -> Moments:
    """One latent: the noise of z, and unless it is tied to that, the noise of z̃."""
    pi = task.problem().logits.softmax(-1).flatten()
    e, weight = shares(len(pi), nodes)
    every = torch.arange(len(e))
    first, second = (every, every) if tied else torch.cartesian_prod(every, every).unbind(1)
    weight = weight if tied else weight[first] * weight[second]
    noise = torch.cat([noise_given(task, b, e[first]) for b in range(len(pi))])
    answers = [noise] if tied else [noise, e[second].repeat(len(pi), 1).unsqueeze(1)]
    weight = torch.cat([p * weight for p in pi])
    return moments(estimator, task, weight, *answers)


def over_noise_in_parts(estimator: Estimator, task: Task, nodes: int) -> Tensor:
    """E ĝ where z and z̃ do not meet: ĝ = A(b, z̃) + B(z), so E ĝ = E[ĝ | z̃] + E[ĝ | z] − ĝ."""
    pi = task.problem().logits.softmax(-1).flatten()
    e, weight = shares(len(pi), nodes)
    fixed = torch.full_like(e, 1 / len(pi))
    total = 0.0
    for b, p in enumerate(pi):
        for z, z_tilde, sign in ((e, fixed, 1), (fixed, e, 1), (fixed, fixed, -1)):
            noise = noise_given(task, b, z)
            found = moments(estimator, task, weight, noise, z_tilde.unsqueeze(1))
            total = total + sign * p * found.mean
    return total


def randomised(estimator: Estimator, seed: int = 0) -> Estimator:
    """With a network that it did not learn."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in estimator._network.parameters:
            parameter.normal_(generator=draws)
    return estimator


@pytest.mark.parametrize("coupled_noise", [True, False])
@pytest.mark.parametrize(("eta", "temperature"), [(1.0, 0.5), (0.6, 1.3), (-2.0, 0.8)])
def test_rebar_is_unbiased_on_a_bit(eta, temperature, coupled_noise):
    task = coupled(1, 2, 3)
    knobs = {"eta": eta, "temperature": temperature, "coupled": coupled_noise}
    found = over_noise(ready("rebar", task, **knobs), task, 200, coupled_noise)
    assert_unbiased(found, task, QUADRATURE)


@pytest.mark.parametrize(("eta", "temperature"), [(1.0, 0.7), (0.6, 1.3)])
def test_rebar_is_unbiased_on_three_categories(eta, temperature):
    task = coupled(1, 3, 1)
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    knobs = {"eta": eta, "temperature": temperature}
    found = over_noise_in_parts(ready("rebar", task, coupled=False, **knobs), task, 150)
    assert_close(found, truth, QUADRATURE)
    found = over_noise(ready("rebar", task, **knobs), task, 150, tied=True)
    assert_unbiased(found, task, QUADRATURE)


def test_tied_noise_moves_as_conditional_noise_does():
    """z̃ has the value and the gradient of the conditional draw that lands on z."""
    logits = coupled(4, 3).problem().logits.repeat(20, 1, 1).requires_grad_()
    with drawing_from(Draws.seeded(0)):
        b = gradest.categorical.sample(logits)
        drawn = conditional_gumbel(logits, b)
    tied = rebar._tied(logits, b, drawn.detach())
    assert torch.equal(tied, drawn)
    weight = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0)).double()
    expected, found = (torch.autograd.grad((weight * z).sum(), logits)[0] for z in (drawn, tied))
    assert_close(found, expected)


@pytest.mark.parametrize("coupled_noise", [True, False])
def test_rebar_without_its_control_variate_is_reinforce(coupled_noise):
    task = coupled(2, 3)
    for name, knobs in (("rebar", {"eta": 0.0, "coupled": coupled_noise}), ("relax", {})):
        e = torch.empty(40, 2, 3, dtype=torch.float64).exponential_(generator=torch.manual_seed(0))
        found = estimates(ready(name, task, **knobs), task, 40, Scripted(e, e))
        index = (task.problem().logits - e.log()).argmax(-1).unsqueeze(1)  # [R, 1, N]
        expected = estimates(ready("reinforce", task), task, 40, Scripted(index))
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b)


@pytest.mark.parametrize("coupled_noise", [True, False])
def test_rebar_is_affine_in_eta(coupled_noise):
    """Draw by draw: so its variance is quadratic in η, and the best no worse than REINFORCE."""
    task = coupled(2, 3)
    zero, one, three = (
        estimates(ready("rebar", task, eta=eta, coupled=coupled_noise), task, 40, Draws.seeded(0))[
            0
        ]
        for eta in (0.0, 1.0, 3.0)
    )
    assert_close(three - zero, 3 * (one - zero))
    assert (one - zero).abs().max() > 1e-2


def test_rebar_can_be_worse_than_reinforce():
    """On the bit θ = σ(0.4), t = 0.45 with η = 1: .0220 and .0857 where REINFORCE has .0141."""
    task = one_bit(1 / (1 + math.exp(-0.4)), 0.45)
    reinforce = moments(ready("reinforce", task), task, *reversed(every_index(task, 1)))
    assert float(reinforce.variance[0, 1]) == pytest.approx(0.0141, abs=0.5e-4)
    for temperature, printed in ((0.5, 0.0220), (0.1, 0.0857)):
        found = over_noise(ready("rebar", task, temperature=temperature), task, 400, tied=True)
        assert float(found.variance[0, 1]) == pytest.approx(printed, abs=0.5e-4)


def test_tuned_rebar_follows_a_cost_that_it_can_track():
    """t = −1, where f is nearly linear: the published figures are 1.167 and 0.016."""
    task = one_bit(1 / (1 + math.exp(-0.4)), -1.0)
    for coupled_noise in (True, False):
        knobs = {"coupled": coupled_noise, "learning_rate": 0.05}
        estimator = ready("rebar", task, steps=300, **knobs)
        found = over_noise(estimator, task, 200, coupled_noise)
        assert_unbiased(found, task, 1e-6)  # λ has grown, and z / λ is no smoother for that
        assert found.variance[0, 1] < 0.05
    reinforce = moments(ready("reinforce", task), task, *reversed(every_index(task, 1)))
    assert float(reinforce.variance[0, 1]) == pytest.approx(1.167, abs=0.5e-3)


def test_rebar_that_is_not_tuned_stays_as_it_is():
    task = coupled(2, 3)
    still, moved = (ready("rebar", task, 3, eta=0.7, tuned=tuned) for tuned in (False, True))
    for estimator, same in ((still, True), (moved, False)):
        eta, temperature = estimator._eta.item(), estimator._log_temperature.exp().item()
        assert (eta == pytest.approx(0.7)) == same and (temperature == pytest.approx(0.5)) == same


def conditional(logits: Tensor, b: Tensor, total: Tensor) -> Tensor:
    """−log(E_i/α_i + E_b/Σα) with something else for log Σα."""
    log_e = gradest.randomness.draws().exponential(b.shape, logits).log()
    top = (b * log_e).sum(-1, keepdim=True) - total
    return -torch.where(b > 0, top, torch.logaddexp(log_e - logits, top))


def total_of(logits: Tensor) -> Tensor:
    return logits.logsumexp(-1, keepdim=True)


CONDITIONALS = {
    "correct": lambda logits, b: conditional(logits, b, total_of(logits)),
    "without a gradient": lambda logits, b: conditional_gumbel(logits, b).detach(),
    "with unit slope": lambda logits, b: conditional_gumbel(logits, b).detach() + nabla(logits),
    "with a constant total": lambda logits, b: conditional(logits, b, total_of(logits).detach()),
    "as printed, where the total is one": lambda logits, b: conditional(
        logits, b, torch.zeros_like(total_of(logits))
    ),
}


@pytest.mark.parametrize("which", CONDITIONALS)
def test_mistaken_conditional_noise_would_show(which, monkeypatch):
    task = coupled(1, 3, 1)
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    monkeypatch.setattr(rebar, "conditional_gumbel", CONDITIONALS[which])
    found = over_noise_in_parts(ready("rebar", task, coupled=False), task, 150)
    if which == "correct":
        assert_close(found, truth, 1e-6)
    else:
        assert (found - truth).norm() > 0.005 * truth.norm()


@pytest.mark.parametrize("tied", [True, False])
def test_rebar_without_the_gradient_of_the_conditional_part_would_show(tied, monkeypatch):
    """∇c(z̃) left out: the same as z̃ without a gradient, also where it is tied to z."""
    task = coupled(1, 2, 3)
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    for name in ("_tied", "conditional_gumbel"):
        correct = getattr(rebar, name)
        monkeypatch.setattr(rebar, name, lambda *given, c=correct: c(*given).detach())
    found = over_noise(ready("rebar", task, coupled=tied), task, 100, tied)
    assert (found.mean - truth).norm() > 0.05 * truth.norm()


# RELAX


def test_relax_with_the_relaxed_cost_for_its_surrogate_is_rebar():
    task, eta, temperature = coupled(2, 3), 0.6, 0.8
    correct = type(gradest.make_estimator("relax"))

    class Relaxed(correct):
        def _surrogate(self, logits: Tensor, f: Cost, relaxed: Tensor) -> Tensor:
            return eta * f.frozen(relaxed)

    relax = Relaxed(temperature=temperature)
    with drawing_from(Draws.seeded(0)):
        relax.reset(task.problem().logits)
    rebar = ready("rebar", task, eta=eta, temperature=temperature, coupled=False)
    for a, b in zip(
        *(estimates(e, task, 40, Draws.seeded(1)) for e in (relax, rebar)), strict=True
    ):
        assert_close(a, b)


@pytest.mark.parametrize("seed", [0, 1])
def test_relax_is_unbiased_for_every_surrogate(seed):
    for latents_categories, nodes in (((1, 2), 200), ((1, 3), 150)):
        task = coupled(*latents_categories, seed)
        estimator = randomised(ready("relax", task, temperature=0.7), seed)
        truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
        assert_close(over_noise_in_parts(estimator, task, nodes), truth, QUADRATURE)
    # And without taking its parts apart.
    task = coupled(1, 2, seed)
    found = over_noise(randomised(ready("relax", task, temperature=0.7), seed), task, 200)
    assert_unbiased(found, task, QUADRATURE)


def test_relax_learns_to_vary_less_than_reinforce():
    task = one_bit(0.3, 0.45)
    before, after = (over_noise(ready("relax", task, steps), task, 100) for steps in (0, 300))
    reinforce = moments(ready("reinforce", task), task, *reversed(every_index(task, 1)))
    assert_close(before.variance, reinforce.variance)
    assert after.trace < 0.1 * before.trace


@pytest.mark.parametrize("latents", [1, 2])
def test_networks_draw_from_the_vocabulary_and_have_their_width(latents):
    task = coupled(latents, 2)
    for name, inputs, outputs in (("relax", 4 * latents, 1), ("rodeo", 2, 2)):
        before = torch.get_rng_state()
        network = ready(name, task, width=5)._network
        assert torch.equal(torch.get_rng_state(), before)
        shapes = [tuple(parameter.shape) for parameter in network.parameters]
        assert shapes == [(inputs, 5), (5,), (5, outputs), (outputs,)]


# Double control variates and discrete Stein operators


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("name", ["double_cv", "rodeo"])
def test_before_they_learn_they_are_leave_one_out(name, samples):
    task = coupled(3, 2)
    found, rloo = (
        estimates(ready(n, task, samples=samples), task, 40, Draws.seeded(1))
        for n in (name, "rloo")
    )
    for a, b in zip(found, rloo, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize(("latents", "samples"), [(1, 2), (2, 2), (2, 3), (3, 2), (3, 3)])
@pytest.mark.parametrize("alpha", [-1.0, 0.7])
def test_double_cv_is_unbiased_for_every_alpha(latents, samples, alpha):
    task = coupled(latents, 2)
    assert_unbiased(over_samples("double_cv", task, samples, alpha=alpha), task)


@pytest.mark.parametrize("samples", [2, 3])
def test_double_cv_leaves_no_variance_on_an_affine_cost(samples):
    found = over_samples("double_cv", Affine(), samples, alpha=-1.0)
    assert_unbiased(found, Affine())
    assert_close(found.variance, torch.zeros(3, 2))
    assert over_samples("double_cv", Affine(), samples).trace > 0.1


@pytest.mark.parametrize(("latents", "samples"), [(1, 2), (2, 2), (2, 3), (3, 2), (3, 3)])
def test_rodeo_is_unbiased_for_every_network(latents, samples):
    task = coupled(latents, 2)
    index, weight = every_index(task, samples)
    estimator = randomised(ready("rodeo", task, samples=samples))
    found = moments(estimator, task, weight, index)
    assert_unbiased(found, task)
    assert found.trace > 2 * over_samples("rloo", task, samples).trace  # the network does act


@pytest.mark.parametrize("name", ["double_cv", "rodeo"])
def test_learning_lowers_the_variance_below_leave_one_out(name):
    """Summed over the coordinates, which is what they descend."""
    for seed in range(3):
        task = coupled(3, 2, seed)
        before, after = (over_samples(name, task, 2, steps) for steps in (0, 150))
        assert_unbiased(after, task)
        assert after.trace < 0.9 * before.trace


def test_extrapolating_a_sample_from_itself_would_show():
    """The mistake that hₖ depends on bₖ."""
    task = coupled(2, 2)
    correct = type(gradest.make_estimator("rodeo"))

    class Own(correct):
        def _extrapolated(self, cost, slope, b, flip):
            return super()._extrapolated(cost.flip(1), slope.flip(1), b, flip)

    index, weight = every_index(task, 2)
    estimator = Own()
    with drawing_from(Draws.seeded(0)):
        estimator.reset(task.problem().logits)
    found = moments(randomised(estimator), task, weight, index)
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    assert (found.mean - truth).norm() > 0.05 * truth.norm()


# All of them


KNOBS = {"arms": {"samples": 3}, "carms": {"samples": 3}, "double_cv": {}, "rodeo": {}}
COSTS = {  # evaluations of f on N = 3 latents, of K = 2 categories and of K = 4
    "arm": (2, None),
    "disarm": (2, None),
    "arms": (3, None),
    "carms": (3, 3),
    "arsm": (2, 7),
    "rebar": (3, 3),
    "relax": (1, 1),
    "double_cv": (2, None),
    "rodeo": (2, None),
}


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_is_evaluated_on_whole_vectors_and_as_often_as_stated(name):
    for categories, expected in zip((2, 4), COSTS[name], strict=True):
        if expected is None:
            with pytest.raises(gradest.errors.Inapplicable, match="needs K = 2"):
                gradest.measure(gradest.make_estimator(name), coupled(3, categories), adapt_steps=0)
            continue
        task = coupled(3, categories)
        estimator = gradest.make_estimator(name, **KNOBS.get(name, {}))
        found = gradest.measure(estimator, task, replicates=64, adapt_steps=0)
        assert found.evaluations == expected


@pytest.mark.parametrize("name", ["arsm", "carms", "rebar", "relax"])
def test_three_categories_keep_the_laws_that_two_do(name):
    """Σ_k ĝ = 0; a shift of the logits changes nothing; for coupled samples neither does f + 10."""
    task = coupled(2, 3)

    class Changed(Task):
        def __init__(self, shift: float = 0.0, offset: float = 0.0) -> None:
            self.shift, self.offset = shift, offset

        def problem(self, batch=None) -> Problem:
            logits, f = task.problem()
            shift = self.shift * torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
            return Problem(logits + shift, Cost(lambda z: f.fn(z) + self.offset))

    def found(changed: Task) -> Tensor:
        return estimates(ready(name, changed, 3), changed, 40, Draws.seeded(1))[0]

    plain = found(Changed())
    assert plain.abs().max() > 1e-3
    assert_close(plain.sum(-1), torch.zeros(40, 2))
    assert_close(found(Changed(shift=3.0)), plain, 1e-9)  # Adam divides by its own gradient
    if name in ("arsm", "carms"):
        assert_close(found(Changed(offset=10.0)), plain)


@pytest.mark.parametrize("name", ["rebar", "double_cv"])
def test_a_factor_on_the_cost_is_one_on_the_estimate_of_what_is_not_tuned(name):
    task = coupled(2, 2)

    class Fourfold(Task):
        def problem(self, batch=None) -> Problem:
            logits, f = task.problem()
            return Problem(logits, Cost(lambda z: 4 * f.fn(z)))

    knobs = {"eta": 0.7} if name == "rebar" else {"alpha": 0.7}
    plain, scaled = (
        estimates(ready(name, t, **knobs), t, 40, Draws.seeded(1))[0] for t in (task, Fourfold())
    )
    assert_close(scaled, 4 * plain)


class Decoder(Task):
    """A cost with a parameter of its own: f(z) = (w · z)², summed over the latents."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(2, 1, bias=False).double()
        with torch.no_grad():
            self.module.weight.copy_(torch.tensor([[0.4, -1.3]]))

    def problem(self, batch=None) -> Problem:
        cost = Cost(lambda z, net: net(z).square().sum((-2, -1)), self.module)
        return Problem(torch.tensor([[[0.3, -0.2], [0.0, 0.9]]], dtype=torch.float64), cost)


def decoder_gradient(name: str, **knobs) -> tuple[float, float]:
    """⟨w, ∇_w Σ value⟩ and 2 Σ value: the same for values that are quadratic in w."""
    task = Decoder()
    estimator = ready(name, task, **knobs)
    if name in ("relax", "rodeo"):
        randomised(estimator)
    logits, f = task.problem()
    with drawing_from(Draws.seeded(1)):
        value = estimator(logits.repeat(40, 1, 1).requires_grad_(), f.replicated(1)).sum()
    w = task.module.weight
    (gradient,) = torch.autograd.grad(value, w)
    return (w * gradient).sum().item(), 2 * value.item()


@pytest.mark.parametrize("name", COSTS)
def test_a_task_learns_from_the_value_alone(name):
    """Whose gradient is that of the hard samples' costs; control variates leave no trace."""
    # Where z̃ is tied to z, c(z) − c(z̃) is zero for every w.
    found, expected = decoder_gradient(name, **({"coupled": False} if name == "rebar" else {}))
    assert found == pytest.approx(expected, rel=EXACT)


def test_a_control_variate_that_the_task_learns_from_would_show(monkeypatch):
    monkeypatch.setattr(Cost, "frozen", Cost.__call__)
    found, expected = decoder_gradient("rebar", coupled=False)
    assert abs(found - expected) > 0.01 * abs(expected)
