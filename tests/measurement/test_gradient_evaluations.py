"""How often a backward pass goes through f: counted at z, whatever else happens to z."""

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator
from gradest.errors import Inapplicable


def square() -> Cost:
    return Cost(lambda z: z.square().sum((-2, -1)))


def codes(*middle: int) -> Tensor:
    return torch.rand(4, *middle, 2, 3, dtype=torch.float64, requires_grad=True)


def test_a_backward_pass_counts_as_many_as_were_evaluated_together():
    f = square()
    value = f(codes(5, 2))
    assert (f.evaluations, f.gradient_evaluations) == (10, 0)
    value.sum().backward()
    assert (f.evaluations, f.gradient_evaluations) == (10, 10)


def test_only_what_a_gradient_flows_through_counts():
    f, z = square(), codes()
    one, other = f(z), f(z)
    torch.autograd.grad(one.sum(), z, retain_graph=True)
    assert (f.evaluations, f.gradient_evaluations) == (2, 1)
    torch.autograd.grad((one + other).sum(), z)
    assert f.gradient_evaluations == 3  # the first was walked twice


@pytest.mark.parametrize("kind", ["detached", "no_grad", "plain"])
def test_what_asks_for_no_gradient_counts_none(kind):
    f, z = square(), codes()
    given = {"detached": z.detach(), "no_grad": z, "plain": torch.rand(4, 2, 3)}[kind]
    with torch.set_grad_enabled(kind != "no_grad"):
        value = f(given)
    (value.sum() + z.sum()).backward()
    assert (f.evaluations, f.gradient_evaluations) == (1, 0)


def test_other_uses_of_the_same_code_count_nothing():
    """A leaf that goes into f and into something else has the gradient of both."""
    f, z = square(), codes()
    (f(z).detach().sum() + 3 * z.sum()).backward()
    assert f.gradient_evaluations == 0
    z.grad = None
    (f(z).sum() + 3 * z.sum()).backward()
    assert f.gradient_evaluations == 1
    assert torch.equal(z.grad, 2 * z.detach() + 3)


def test_frozen_parameters_count_like_live_ones():
    layer = torch.nn.Linear(6, 1, dtype=torch.float64)
    f = Cost(lambda z, net: net(z.flatten(-2)).squeeze(-1), layer)
    z = codes(3)
    (f(z).sum() + f.frozen(z).sum()).backward()
    assert (f.evaluations, f.gradient_evaluations) == (6, 6)
    plain = z.detach()
    f(plain).sum().backward()  # to the parameters alone
    assert (f.evaluations, f.gradient_evaluations) == (9, 6)
    f.frozen(plain)
    assert (f.evaluations, f.gradient_evaluations) == (12, 6)


def test_replicated_rows_count_as_one_estimate():
    f = square().replicated(2)
    z = torch.rand(6, 5, 2, 3, requires_grad=True)  # three replicates of two points
    f(z).sum().backward()
    assert (f.evaluations, f.gradient_evaluations) == (5, 5)


def test_the_derivative_of_a_derivative_counts_the_passes():
    f, z = Cost(lambda z: z.pow(3).sum((-2, -1))), codes()
    (slope,) = torch.autograd.grad(f(z).sum(), z, create_graph=True)
    assert f.gradient_evaluations == 1
    (curvature,) = torch.autograd.grad(slope.sum(), z)
    assert torch.allclose(curvature, 6 * z.detach())
    assert f.gradient_evaluations >= 1


COUNTS = {  # name: (evaluations, gradient evaluations) on three bits
    "reinforce": (1, 0),
    "rloo": (2, 0),
    "exact": (8, 0),
    "straight_through": (1, 1),
    "reinmax": (1, 1),
    "concrete": (1, 1),
    "gumbel_softmax": (1, 1),
    "st_gumbel_softmax": (1, 1),
    "rebar": (3, 2),  # f(b) has none; f(z) and f(z_b) are differentiated
}


@pytest.mark.parametrize("name", sorted(COUNTS))
@pytest.mark.parametrize("replicates", [64, 500])
def test_a_measurement_counts_both_for_one_estimate(name, replicates):
    if name not in gradest.all_estimators():
        pytest.fail(f"{name} has left the catalogue")
    found = gradest.measure(
        gradest.make_estimator(name),
        gradest.make_task("bernoulli"),
        replicates=replicates,
        adapt_steps=0,
        enumerate_draws=False,
    )
    row = found.row()
    assert (row["evaluations"], row["gradient_evaluations"]) == COUNTS[name]


@pytest.mark.parametrize("name", sorted(gradest.all_estimators()))
def test_what_neither_relaxes_nor_differentiates_has_no_backward_pass_through_f(name):
    estimator = gradest.make_estimator(name)
    try:
        found = gradest.measure(
            estimator, gradest.make_task("bernoulli"), replicates=64, adapt_steps=0
        )
    except Inapplicable:
        return
    assert 0 <= found.gradient_evaluations <= found.evaluations
    if not estimator.relaxes and not estimator.differentiates:
        assert found.gradient_evaluations == 0
    if estimator.differentiates:
        assert found.gradient_evaluations >= 1


class Mixed(Estimator):
    """Three codes: one differentiated, one detached, one frozen and unused."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        pi = logits.softmax(-1)
        with torch.no_grad():
            f(pi)
        f.frozen(pi)
        return f(pi) + f(pi.detach())


def test_an_estimate_counts_its_own_passes_alone():
    found = gradest.measure(Mixed(), gradest.make_task("categorical_vae", latents=2, steps=5))
    assert (found.evaluations, found.gradient_evaluations) == (4, 1)
