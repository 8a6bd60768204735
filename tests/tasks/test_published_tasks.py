"""The problems of papers: their costs, their closed forms and the figures printed for them."""

import math

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Task
from gradest.errors import KnobError
from gradest.measurement import all_codes, enumerated_truth
from tests.support import EXACT

SEPARABLE = [
    ("polynomial", {"latents": 3, "categories": 3, "exponent": 1.5, "spread": 1.0}),
    ("polynomial", {"latents": 2, "categories": 2, "exponent": 3.0, "target": 0.2}),
    ("absolute_differences", {"latents": 3, "categories": 5}),
    ("psd_quadratic", {"latents": 3, "categories": 3, "rows": 4, "shift": 1.0}),
    ("psd_quadratic", {"categories": 12}),
]


def costs(task: Task) -> tuple[Tensor, Tensor]:
    """All codes [C, N, K] and their costs [C]."""
    logits, f = task.problem()
    codes = all_codes(logits)
    return codes, f(codes.unsqueeze(0))[0]


@pytest.mark.parametrize(("name", "knobs"), SEPARABLE)
def test_the_closed_form_is_the_sum_over_all_codes(name, knobs):
    task = gradest.make_task(name, **knobs)
    truth = enumerated_truth.exact_gradient(task.problem())
    logits = task.problem().logits.clone().requires_grad_()
    value = task.expectation(logits)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    torch.testing.assert_close(value.detach(), truth.value, rtol=0, atol=EXACT)
    torch.testing.assert_close(gradient, truth.gradient, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("polynomial", {"latents": 128, "categories": 4, "exponent": 3.0}),
        ("absolute_differences", {"latents": 3, "categories": 100}),
        ("psd_quadratic", {"latents": 20, "categories": 6}),
    ],
)
def test_the_truth_is_known_at_the_size_of_the_paper(name, knobs):
    measurement = gradest.measure(
        gradest.make_estimator("rloo"), gradest.make_task(name, **knobs), replicates=2000
    )
    row = measurement.row()
    assert row["reference"] == "closed_form"
    assert row["p_value"] > 1e-4


def test_polynomial_has_the_power_of_the_first_category():
    task = gradest.make_task(
        "polynomial", latents=2, categories=3, exponent=1.5, target=0.45, theta=0.2, spread=0.0
    )
    pi = task.problem().logits.softmax(-1)[0, 0]
    assert pi.tolist() == pytest.approx([0.2, 0.4, 0.4], abs=EXACT)
    codes, values = costs(task)
    one, zero = 0.55**1.5, 0.45**1.5
    ones = codes[..., 0].sum(-1)
    expected = (ones * one + (2 - ones) * zero) / 2
    torch.testing.assert_close(values, expected, rtol=0, atol=EXACT)
    # At the optimum, which the paper's training ends near, the loss is |t|^p.
    assert zero == pytest.approx(0.30187, abs=5e-6)


def test_polynomial_moves_its_logits_within_the_spread():
    task = gradest.make_task("polynomial", latents=500, theta=0.5, spread=0.01)
    moves = task.problem().logits - math.log(0.5)
    assert moves.abs().max() <= 0.01 and 0.005 < moves.std() < 0.0065  # 0.01/√3
    other = gradest.make_task("polynomial", latents=500, theta=0.5, spread=0.01, seed=1)
    assert not torch.equal(task.problem().logits, other.problem().logits)


def test_joint_bits_are_independent_bits():
    task = gradest.make_task("joint_bits", eta=-0.7, targets=[0.6, 0.2])
    logits = task.problem().logits.detach()[0, 0]
    one, zero = 1 / (1 + math.exp(0.7)), 1 / (1 + math.exp(-0.7))
    expected = [zero * zero, zero * one, one * zero, one * one]
    assert logits.exp().tolist() == pytest.approx(expected, abs=EXACT)
    _, values = costs(task)
    assert values.tolist() == pytest.approx([0.4, 1.0, 0.2, 0.8], abs=EXACT)


@pytest.mark.parametrize(("eta", "gradient"), [(0.0, -0.045), (-4.0, -3.1793e-3)])
def test_the_gradient_of_joint_bits_is_that_of_the_paper(eta, gradient):
    """Σᵢ (1 − 2 pᵢ) θ (1 − θ) with respect to η."""
    measurement = gradest.measure(
        gradest.make_estimator("exact"), gradest.make_task("joint_bits", eta=eta)
    )
    (mean,) = measurement.means["eta"].tolist()
    assert mean == pytest.approx(gradient, rel=1e-4)
    assert measurement.row("eta")["gradient_norm"] == pytest.approx(abs(mean), abs=EXACT)


def test_absolute_differences_are_additive():
    """So that one sample of `indecater` is exact."""
    task = gradest.make_task("absolute_differences", latents=12, categories=3)
    row = gradest.measure(gradest.make_estimator("indecater", samples=1), task, replicates=64).row()
    assert row["variance"] < EXACT**2 and row["bias_norm"] < EXACT
    codes, values = costs(gradest.make_task("absolute_differences", latents=2, categories=4))
    # b is the only code without a cost, and from there each step costs one.
    x = codes @ torch.arange(4, dtype=torch.float64)
    b = x[values.argmin()]
    assert values.min() == 0
    torch.testing.assert_close(values, (x - b).abs().sum(-1), rtol=0, atol=EXACT)


def test_the_graded_reward_is_that_of_the_paper():
    task = gradest.make_task("graded_reward", categories=30, ratio=30.0, tilt=0.0)
    _, values = costs(task)
    expected = 0.5 + torch.arange(1, 31, dtype=torch.float64) / 900
    torch.testing.assert_close(values.sort().values, expected, rtol=0, atol=EXACT)
    gradient = enumerated_truth.exact_gradient(task.problem()).gradient
    assert gradient.abs().max().item() == pytest.approx(5.37e-4, rel=1e-3)


def test_the_psd_quadratic_is_convex_and_a_square_at_the_codes():
    task = gradest.make_task("psd_quadratic", categories=5, rows=3)
    x = torch.rand(1, 1, 5, dtype=torch.float64)
    f = task.problem().f
    hessian = torch.autograd.functional.hessian(lambda y: f(y).sum(), x).reshape(5, 5)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert eigenvalues.min() > -EXACT and (eigenvalues > EXACT).sum() == 3  # of rank M
    _, values = costs(task)
    diagonal = hessian.diagonal() / 2  # A_kk, the cost of category k
    torch.testing.assert_close(values.sort().values, diagonal.sort().values, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("polynomial", {"exponent": 0.5}, "polynomial: exponent = 0.5"),
        ("polynomial", {"theta": 1.0}, "polynomial: theta = 1.0"),
        ("joint_bits", {"targets": []}, "expected 1 to 10 targets, one for each bit, got 0"),
        ("joint_bits", {"targets": [0.5] * 11}, "got 11"),
        ("graded_reward", {"ratio": 0.0}, "graded_reward: ratio = 0.0"),
        ("psd_quadratic", {"rows": 0}, "psd_quadratic: rows = 0"),
    ],
)
def test_a_bad_knob_is_an_error_that_names_it(name, knobs, message):
    with pytest.raises(KnobError, match=message):
        gradest.make_task(name, **knobs)
