"""Relaxations, against closed forms and quadrature.

Noise on one bit is integrated by the trapezoidal rule, whose error on these analytic integrands is
far below the rounding.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Task
from gradest.randomness import Draws
from tests.estimators.toys import (
    Given,
    bit,
    bits,
    close,
    doubles,
    estimates,
    logit,
    values,
)
from tests.support import Prescribed

# Gumbel-softmax


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_gumbel_softmax_without_a_prior_is_concrete_draw_by_draw(temperature):
    task = gradest.make_task("quadratic", latents=3, categories=4)
    result, other = (
        estimates(gradest.make_estimator(name, temperature=temperature), task, 20, Draws.seeded(0))
        for name in ("gumbel_softmax", "concrete")
    )
    assert torch.equal(result, other) and result.abs().max() > 0.1


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
    result = igr_mean(bit(theta, t), temperature=temperature, sigma=sigma, delta=delta)
    assert close(result, [expected, -expected])


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
