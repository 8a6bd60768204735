"""Coupled samples against closed forms and the laws they obey.

Moments are exact: draws that are discrete, or that matter only through the cell of a grid they fall
in, are prescribed once for each cell.
"""

import itertools
import math
import sys

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Problem, Task
from gradest.measurement import enumerated_truth
from gradest.randomness import Draws, drawing_from
from tests.estimators.quadrature import (
    Moments,
    assert_close,
    assert_unbiased,
    coupled,
    estimates,
    gauss,
    moments,
    over_samples,
    product,
    ready,
    thetas,
)
from tests.estimators.toys import bit
from tests.support import EXACT, Prescribed

arsm, carms = (sys.modules[gradest.all_estimators()[name].__module__] for name in ("arsm", "carms"))


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
        result = over_pairs(name, bit(theta, t))
        assert_unbiased(result, bit(theta, t))
        assert_close(result.mean, [-g, g])
        assert_close(result.variance, [formula, formula])
        assert formula == pytest.approx(printed, rel=1e-7, abs=1e-12)  # as printed


@pytest.mark.parametrize("latents", [1, 2, 3])
@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_antithetic_pairs_are_unbiased(name, latents):
    assert_unbiased(over_pairs(name, coupled(latents, 2)), coupled(latents, 2))


def test_disarm_is_arm_given_its_two_samples():
    task, nodes = coupled(2, 2), 3
    u, weight = cells(task, nodes)
    arm, disarm = (
        estimates(ready(name, task), task, len(u), Prescribed(u))[0] for name in ("arm", "disarm")
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
    result, _ = estimates(ready("disarm", task), task, 100, Prescribed(u))
    assert torch.equal(result == 0, agree.unsqueeze(-1).expand_as(result)) and agree.any()


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
    arms = estimates(ready("arms", task, samples=2), task, 50, Prescribed(e))
    # (U₁, U₂) = (u, 1 − u) below θ = ½, and (1 − u, u) from there on.
    u, beyond = e[:, 1] / e.sum(1), torch.tensor(thetas(task)) >= 0.5
    assert beyond.any() and not beyond.all()
    disarm = estimates(ready("disarm", task), task, 50, Prescribed(torch.where(beyond, 1 - u, u)))
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
    result = estimates(Independent(samples=3), task, 50, Prescribed(e))
    p = torch.tensor(thetas(task), dtype=torch.float64)
    rare = (1 - e / e.sum(1, keepdim=True)) ** 2 < torch.minimum(p, 1 - p)
    index = (rare ^ (p > 0.5)).long()  # the same bits
    rloo = estimates(ready("rloo", task, samples=3), task, 50, Prescribed(index))
    for a, b in zip(result, rloo, strict=True):
        assert_close(a, b)
    # And with dependent bits that is biased: the factor is what the test of the mean looks at.
    shares, weight = product([rare_patterns(theta, 3) for theta in thetas(task)])
    result = moments(Independent(samples=3), task, weight, shares.movedim(1, 2))
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    assert (result.mean - truth).norm() > 0.1 * truth.norm()


@pytest.mark.parametrize("n", [3, 4, 6])
@pytest.mark.parametrize(("theta", "t"), [(row[0], row[1]) for row in ONE_BIT])
def test_arms_varies_less_than_leave_one_out_on_one_bit(theta, t, n):
    """Seen on this cost; not proved for others."""
    task = bit(theta, t)
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
    result = moments(ready("carms", task, samples=2), task, *over_orders(task))
    assert_close(result.mean, [0.5, -0.45, -0.05])
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
    result = estimates(ready("carms", task, samples=2), task, 50, Prescribed(only, e))
    disarm = estimates(ready("disarm", task), task, 50, Prescribed(e[:, 0] / e.sum(1)))
    for a, d in zip(result, disarm, strict=True):
        assert_close(a, d)


# ARSM.  Only the shares ϖ of the exponentials matter.


def test_arsm_with_two_categories_is_arm():
    task = coupled(3, 2)
    u = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double()
    result = estimates(ready("arsm", task), task, 50, Prescribed(torch.stack([1 - u, u], -1)))
    arm = estimates(ready("arm", task), task, 50, Prescribed(u))
    for a, b in zip(result, arm, strict=True):
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
    result = moments(ready("arsm", task), task, weight, points)
    assert_unbiased(result, task)
    assert_close(result.variance, ARSM[t], 0.51e-7)


def test_swaps_are_numbered_by_what_they_swap():
    swaps, number = arsm._swaps(4, torch.device("cpu"))
    assert len(swaps) == 7
    for m in range(4):
        for j in range(4):
            order = list(range(4))
            order[m], order[j] = order[j], order[m]
            assert swaps[number[m, j]].tolist() == order
