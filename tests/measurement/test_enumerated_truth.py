"""The exact expectation and its gradient."""

import math

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Problem
from gradest.errors import Inapplicable
from gradest.measurement import enumerated_truth
from gradest.measurement.enumerated_truth import all_codes, codes, enumerable, exact_gradient
from tests.support import EXACT


def by_autograd(problem: Problem) -> tuple[Tensor, Tensor]:
    """E f [B] and its gradient [B, N, K], by differentiating Σ_z p(z) f(z)."""
    logits = problem.logits.detach().requires_grad_()
    points, latents, categories = logits.shape
    index = torch.cartesian_prod(*[torch.arange(categories)] * latents).reshape(-1, latents)
    z = torch.eye(categories, dtype=logits.dtype)[index]  # [K^N, N, K]
    p = (logits.softmax(-1).unsqueeze(1) * z).sum(-1).prod(-1)  # [B, K^N]
    value = (p * problem.f(z.expand(points, *z.shape))).sum(1)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


PROBLEMS = {
    "quadratic": lambda: gradest.make_task("quadratic", latents=3, categories=3, seed=1).problem(),
    "bernoulli": lambda: gradest.make_task("bernoulli").problem(),
    "categorical": lambda: gradest.make_task("categorical").problem(),
    "several data points": lambda: gradest.make_task(
        "categorical_vae", latents=2, categories=3, steps=2, points=3
    ).problem(),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_truth_is_the_derivative_of_the_expectation(name):
    problem = PROBLEMS[name]()
    value, gradient = by_autograd(problem)
    truth = exact_gradient(problem)
    scale = float(value.abs().max())
    assert torch.allclose(truth.value, value, rtol=0, atol=EXACT * max(1, scale))
    assert torch.allclose(truth.gradient, gradient, rtol=0, atol=EXACT * max(1, scale))
    assert gradient.abs().max() > 1e-3  # else there was nothing to compare


@pytest.mark.parametrize("chunk", [1, 7, 50, 10**9])
def test_the_size_of_a_block_changes_nothing(chunk, monkeypatch):
    problem = PROBLEMS["several data points"]()
    whole = exact_gradient(problem)
    calls = []
    f = Cost(lambda z: calls.append(z.shape[1]) or problem.f(z))
    counting = problem._replace(f=f)
    monkeypatch.setattr(enumerated_truth, "_CHUNK", chunk)
    pieces = exact_gradient(counting)
    assert sum(calls) == 1 + 3**2 and max(calls) <= max(1, chunk // problem.logits.numel())
    assert torch.allclose(pieces.value, whole.value, rtol=1e-12, atol=0)
    assert torch.allclose(pieces.gradient, whole.gradient, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    ("theta", "target", "g"),
    [(0.3, 0.45, 0.021), (0.8, 0.45, 0.016), (0.5, 0.499, 0.0005), (0.1, 0.1, 0.072)],
)
def test_one_bit_has_the_gradient_of_the_closed_form(theta, target, g):
    """θ(1 − θ)(1 − 2t), with K = 2 as ±."""
    problem = gradest.make_task("bernoulli", theta=(theta,), target=target).problem()
    truth = exact_gradient(problem)
    expected = torch.tensor([[[-g, g]]], dtype=torch.float64)
    assert torch.allclose(truth.gradient, expected, rtol=0, atol=EXACT)
    mean_cost = theta * (1 - target) ** 2 + (1 - theta) * target**2
    assert math.isclose(float(truth.value), mean_cost, rel_tol=1e-12)


@pytest.mark.parametrize("target", [0.45, 1.2])
def test_three_categories_have_the_gradient_of_the_closed_form(target):
    """g_k = π_k (f_k − f̄)."""
    pi = torch.tensor([4, 1, 2], dtype=torch.float64) / 7
    f = (torch.arange(3, dtype=torch.float64) - target).square()
    truth = exact_gradient(gradest.make_task("categorical", target=target).problem())
    expected = pi * (f - pi @ f)
    assert torch.allclose(truth.gradient[0, 0], expected, rtol=0, atol=EXACT)
    assert math.isclose(float(truth.value), float(pi @ f), rel_tol=1e-12)


def test_three_categories_have_the_gradient_that_was_published():
    truth = exact_gradient(gradest.make_task("categorical").problem())
    printed = torch.tensor([-0.3673469, -0.0775510, 0.4448980], dtype=torch.float64)
    assert torch.allclose(truth.gradient[0, 0], printed, rtol=0, atol=0.5e-7)  # seven decimals


@pytest.mark.parametrize("cost", [math.inf, math.nan])
def test_an_outcome_of_probability_zero_adds_nothing_whatever_its_cost(cost):
    logits = torch.tensor([[[0.3, -math.inf, 1.2], [0.1, 0.2, -math.inf]]], dtype=torch.float64)

    def f(z: Tensor) -> Tensor:
        impossible = (z[..., 0, 1] > 0) | (z[..., 1, 2] > 0)
        return torch.where(impossible, cost, z[..., 0, 0])

    truth = exact_gradient(Problem(logits, Cost(f)))
    p = logits.softmax(-1)[0, 0]
    assert math.isclose(float(truth.value), float(p[0]), rel_tol=1e-12)
    expected = torch.zeros(1, 2, 3, dtype=torch.float64)
    expected[0, 0] = p[0] * (torch.tensor([1.0, 0.0, 0.0]) - p)
    assert torch.allclose(truth.gradient, expected, rtol=0, atol=EXACT)


def test_the_truth_keeps_its_digits_where_one_outcome_is_nearly_certain():
    """π = (e⁻¹⁰⁰, e⁻⁵⁰, 1) to rounding: g₁ = π₁ (f₁ − f₂), and g₂ its opposite."""
    logits = torch.tensor([[[-50.0, 0.0, 50.0]]], dtype=torch.float64)
    costs = torch.tensor([1.0, 0.3, 0.7], dtype=torch.float64)
    truth = exact_gradient(Problem(logits, Cost(lambda z: (z @ costs).squeeze(-1))))
    g = math.exp(-50) * (0.3 - 0.7)
    assert math.isclose(float(truth.gradient[0, 0, 1]), g, rel_tol=1e-12)
    assert math.isclose(float(truth.gradient[0, 0, 2]), -g, rel_tol=1e-12)
    flat = exact_gradient(Problem(logits, Cost(lambda z: 0.1 + 0 * (z @ costs).squeeze(-1))))
    assert not flat.gradient.any()


def test_the_spread_is_the_widest_range_of_possible_costs(monkeypatch):
    logits = torch.tensor([[[0.0, 1.0, -math.inf]], [[0.3, 0.1, -40.0]]], dtype=torch.float64)
    table = torch.tensor([[1.0, 4.0, math.inf], [2.0, -3.0, 1e9]], dtype=torch.float64)

    def f(z: Tensor) -> Tensor:  # [B, C, 1, K] -> [B, C]
        return table.gather(1, z.squeeze(-2).argmax(-1))

    problem = Problem(logits, Cost(f))
    assert exact_gradient(problem).spread == 5.0  # e⁻⁴⁰ says nothing of the costs that occur
    monkeypatch.setattr(enumerated_truth, "_CHUNK", 1)
    assert exact_gradient(problem).spread == 5.0


def test_the_cost_sees_its_own_data_point():
    logits = torch.zeros(3, 1, 2, dtype=torch.float64)
    scale = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    f = Cost(lambda z: z[..., 0, 1] * scale.reshape(3, *[1] * (z.ndim - 3)))
    truth = exact_gradient(Problem(logits, f))
    assert torch.allclose(truth.value, scale / 2, rtol=1e-12)
    assert torch.allclose(truth.gradient[:, 0, 1], scale / 4, rtol=1e-12)


def test_single_precision_logits_are_summed_in_double_precision():
    problem = gradest.make_task("quadratic").problem()
    single = exact_gradient(problem._replace(logits=problem.logits.float()))
    double = exact_gradient(problem._replace(logits=problem.logits.float().double()))
    assert single.gradient.dtype == torch.float64
    assert torch.equal(single.gradient, double.gradient)


def test_the_truth_takes_no_derivative_of_the_cost():
    truth = exact_gradient(gradest.make_task("categorical_vae", steps=2, latents=2).problem())
    assert not truth.gradient.requires_grad and not truth.value.requires_grad


def test_every_outcome_is_coded_once_in_order():
    logits = torch.zeros(1, 3, 2, dtype=torch.float32)
    everything = all_codes(logits)  # [8, 3, 2]
    assert everything.dtype == torch.float32
    bits = [[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert everything.argmax(-1).tolist() == bits
    assert (everything.sum(-1) == 1).all()
    assert torch.equal(codes(3, 2, logits, 3, 6), everything[3:6])


def test_the_truth_is_bounded_by_the_numbers_in_its_codes():
    """B · N · K numbers for each outcome: one wide latent has as few outcomes as many narrow."""

    def few(*size: int) -> bool:
        return enumerable(
            Problem(torch.zeros(size, dtype=torch.float64), Cost(lambda z: z[..., 0, 0]))
        )

    assert few(1, 16, 2) and few(100, 16, 2) and few(1, 1, 10_000)
    assert not few(1, 1, 65_536)  # as many outcomes as 16 bits
    assert not few(1000, 16, 2)
    assert not few(1, 17, 2)  # more than 100,000 outcomes
    assert not few(1, 5000, 7)


def test_what_visits_all_outcomes_does_not_apply_where_their_codes_fill_the_memory():
    task = gradest.make_task("extreme", categories=65_536, latents=1)
    for name in ("exact", "sum_and_sample"):
        with pytest.raises(Inapplicable, match=f"{name} enumerates all K\\^N outcomes.* GiB"):
            gradest.measure(gradest.make_estimator(name), task, replicates=64)
