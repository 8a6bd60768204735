"""The optimal straight-through estimator, and ReinMax with the Jacobian of Gumbel-Rao.

Categories are enumerated, and noise is integrated by Gauss-Legendre.
"""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import gradest
from gradest import Task
from tests.estimators.toys import (
    VALUES,
    Given,
    affine,
    bits,
    close,
    cosine,
    doubles,
    estimates,
    every_draw,
    mean_and_variance,
    pair,
    polynomial,
    relative_bias,
    table,
    trace,
    truth,
)
from tests.support import Prescribed

DEFAULT = gradest.make_task("categorical")
AFFINE = affine(doubles([[2.0, 0.5, 1.0]]).log(), VALUES.unsqueeze(0))


def goste(task: Task, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of ĝ: [N, K] each."""
    return mean_and_variance(*every_draw(gradest.make_estimator("goste", eps=eps), task))


# GOSTE


@pytest.mark.parametrize(
    ("tau", "bias", "variance"),
    [
        (0.0, 0.5313, 0.94056),
        (1.0, 0.3054, 1.20372),
        (10.0, 0.0637, 1.57192),
        (100.0, 0.0072, 1.67435),
        (np.inf, 0.0, 1.68783),
    ],
)
def test_bias_falls_and_variance_rises_with_the_weight_of_the_bias(tau, bias, variance):
    mean, spread = goste(DEFAULT, 1 / tau if tau else 1e12)
    assert relative_bias(mean, DEFAULT) == pytest.approx(bias, abs=0.51e-4)
    assert trace(spread) == pytest.approx(variance, abs=0.51e-5)


def test_a_large_eps_is_straight_through():
    for task in (pair(), polynomial(0, 3)):
        ours, theirs = (
            every_draw(gradest.make_estimator(name, **knobs), task)[1]
            for name, knobs in (("goste", {"eps": 1e14}), ("straight_through", {}))
        )
        assert close(ours, theirs) and theirs.abs().max() > 0.1


@bits
def test_for_bits_the_limit_is_reinmax(theta, t):
    for task in (gradest.make_task("bernoulli", theta=(theta,), target=t), polynomial(1, 3, 2, 2)):
        ours, theirs = (
            every_draw(gradest.make_estimator(name, **knobs), task)[1]
            for name, knobs in (("goste", {"eps": 0.0}), ("reinmax", {}))
        )
        assert close(ours, theirs)


@pytest.mark.parametrize("eps", [0.0, 0.01, 1.0, 100.0])
def test_a_cost_that_is_affine_in_each_latent_is_exact_at_every_eps(eps):
    for task in (AFFINE, table(2, 3, seed=0)):
        assert close(goste(task, eps)[0], truth(task))


@pytest.mark.parametrize("latents", [1, 2])
def test_the_limit_is_exact_up_to_degree_two(latents):
    for seed in range(3):
        quadratic, cubic = (polynomial(seed, degree, latents) for degree in (2, 3))
        assert close(goste(quadratic, 0.0)[0], truth(quadratic))
        assert relative_bias(goste(cubic, 0.0)[0], cubic) > 1e-3


def test_the_matrices_are_the_minimum_of_their_objective():
    """Any direction that keeps E S = J raises E‖S‖² + 1/(2ε) Σ (…)²."""
    eps, pi = 0.3, doubles([4.0, 1.0, 2.0]) / 7
    jacobian = pi.diag() - pi.outer(pi)
    # Row i of S(x) is the estimate for f' = eᵢ: S(x)ᵀ eᵢ.
    s = torch.stack(
        [
            every_draw(gradest.make_estimator("goste", eps=eps), Given(pi.log()[None], slope))[1][
                :, 0
            ]
            for slope in (lambda z, i=i: z[..., 0, i] for i in range(3))
        ],
        1,
    )  # [x, i, j]
    assert close(torch.einsum("x,xij->ij", pi, s), jacobian)

    def objective(s: Tensor) -> float:
        size = (pi[:, None, None] * s.square()).sum()
        gap = pi[:, None, None] * s + pi[None, :, None] * s.transpose(0, 1)
        gap = gap - torch.einsum("xj,xi->xij", jacobian, torch.eye(3).double())
        return float(size + gap.square().sum() / (2 * eps))

    draws, step = torch.Generator().manual_seed(0), 1e-4
    for _ in range(10):
        move = torch.randn(3, 3, 3, generator=draws).double()
        move = move - torch.einsum("x,xij->ij", pi, move)
        up, down = objective(s + step * move), objective(s - step * move)
        assert abs(up - down) <= 1e-12  # stationary
        assert min(up, down) > objective(s)


def test_a_masked_category_is_none_in_the_limit_too():
    task = table(2, 3, seed=0)
    for extreme in (-torch.inf, -800.0):
        logits = task.logits.clone()
        logits[:, 1] = extreme
        masked = Given(logits, task.cost)
        probability, ours = every_draw(gradest.make_estimator("goste", eps=0.0), masked)
        assert ours[probability > 0].isfinite().all()
        ours[probability == 0] = 0.0
        assert close(mean_and_variance(probability, ours)[0], truth(masked))


# ReinMax-Rao.  Only the shares of the exponentials matter, which are uniform on the simplex.


def rao(task: Task, temperature: float, samples: int) -> tuple[Tensor, float]:
    """Mean [1, 3] and total variance of ĝ for M = `samples`, on one latent of three categories."""
    node, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(80))
    u = (node + 1) / 2
    u, weight = u**2 * (3 - 2 * u), weight / 2 * 6 * u * (1 - u)  # crowded where shares vanish
    a, b = (x.flatten() for x in torch.meshgrid(u, u, indexing="ij"))
    shares = torch.stack([a, (1 - a) * b, (1 - a) * (1 - b)], -1)[:, None, None]  # [R, 1, 1, 3]
    density = (weight.unsqueeze(1) * weight).flatten() * 2 * (1 - a)
    estimator = gradest.make_estimator("reinmax_rao", temperature=temperature, samples=1)
    pi = task.problem().logits[0, 0].softmax(-1)
    means, spreads = [], []
    for z in range(3):
        index = torch.full((len(a), 1, 1), z)
        g = estimates(estimator, task, len(a), Prescribed(index=index, exponentials=shares))[:, 0]
        means.append(density @ g)
        spreads.append(density @ (g - means[-1]).square())
    means, spreads = torch.stack(means), torch.stack(spreads)  # [3, 3], given z
    mean = pi @ means
    variance = pi @ ((means - mean).square() + spreads / samples).sum(1)
    return mean.unsqueeze(0), float(variance)


@pytest.mark.parametrize(
    ("temperature", "scale"), [(0.3, 0.67), (0.5, 0.72), (0.7, 0.71), (1.0, 0.63), (1.5, 0.45)]
)
def test_an_affine_cost_gets_a_shrunken_gradient(temperature, scale):
    mean, _ = rao(AFFINE, temperature, 100)
    best = float((mean * truth(AFFINE)).sum() / truth(AFFINE).square().sum())
    assert best == pytest.approx(scale, abs=0.51e-2)


def test_a_high_temperature_turns_it_around():
    warm, hot = (cosine(rao(AFFINE, temperature, 1)[0], AFFINE) for temperature in (3.0, 4.0))
    assert warm > 0 > hot
    mean, _ = rao(AFFINE, 1e6, 1)  # −½ J(π) f'
    assert close(mean, -truth(AFFINE) / 2, 1e-5)


@pytest.mark.parametrize(
    ("temperature", "bias", "variance"),
    [(0.3, 0.2333, 1.05), (0.5, 0.3007, 1.03), (1.0, 0.5196, 0.65)],
)
def test_a_squared_cost_has_less_variance_and_a_bias(temperature, bias, variance):
    mean, spread = rao(DEFAULT, temperature, 10**9)
    assert relative_bias(mean, DEFAULT) == pytest.approx(bias, abs=0.51e-4)
    assert spread == pytest.approx(variance, abs=0.51e-2)
    assert spread < trace(
        mean_and_variance(*every_draw(gradest.make_estimator("reinmax"), DEFAULT))[1]
    )


def test_in_the_cold_it_is_half_of_straight_through_for_an_affine_cost():
    """With an error of order τ."""
    gaps = [float((rao(AFFINE, tau, 1)[0] - truth(AFFINE) / 2).norm()) for tau in (0.2, 0.1, 0.05)]
    for warm, cold in itertools.pairwise(gaps):
        assert 1.5 <= warm / cold <= 2.2
