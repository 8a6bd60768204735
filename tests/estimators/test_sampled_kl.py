"""KL divergences from samples: which of their gradients has which mean."""

import pytest
import torch
from torch import Tensor

import gradest
from gradest.categorical import kl_divergence, log_prob, sample
from gradest.measurement import all_codes
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT

TASK = gradest.make_task("regularised_reward")
KINDS = ["k1", "k2", "k3", "k3_k2"]


def mean(**knobs) -> tuple[float, Tensor]:
    """The enumerated means of the value and of the gradient, [D], without those of E f."""
    m = gradest.measure(gradest.make_estimator("sampled_kl", samples=2, **knobs), TASK)
    assert m.method == "enumerated"
    logits, f = TASK.problem()
    without = gradest.Problem(logits, gradest.Cost(f.fn))
    truth = gradest.measurement.exact_gradient(without)
    return m.value - float(truth.value), (m.mean - truth.gradient).flatten()


def divergences() -> dict[str, tuple[float, Tensor]]:
    """Values and gradients: of KL(π ‖ ref), KL(ref ‖ π) and E k2, over all codes."""
    logits, f = TASK.problem()
    logits = logits.clone().requires_grad_()
    log_pi, log_ref = logits[0].log_softmax(-1), f.prior.log_softmax(-1)
    d = (log_pi - log_ref)[0].unsqueeze(1) + (log_pi - log_ref)[1]  # [K, K], of two tokens
    p = (log_pi[0].unsqueeze(1) + log_pi[1]).exp()
    values = {
        "forward": kl_divergence(logits, f.prior).sum(),
        "reverse": kl_divergence(f.prior.unsqueeze(0), logits).sum(),
        "k2": (p * d.square() / 2).sum(),
    }
    return {
        name: (float(x.detach()), torch.autograd.grad(x, logits, retain_graph=True)[0].flatten())
        for name, x in values.items()
    }


FORWARD, REVERSE, K2 = (divergences()[name] for name in ("forward", "reverse", "k2"))
ZERO = torch.zeros_like(FORWARD[1])


@pytest.mark.parametrize("lag", [0.0, 0.3])
@pytest.mark.parametrize(
    ("kind", "loss", "reward"),
    [
        ("k1", ZERO, FORWARD[1]),
        ("k2", FORWARD[1], K2[1] - FORWARD[1]),
        ("k3", REVERSE[1], FORWARD[1] - REVERSE[1]),
        ("k3_k2", FORWARD[1], FORWARD[1] - REVERSE[1]),
    ],
)
def test_the_gradient_has_its_mean_in_every_place(kind, loss, reward, lag):
    value = K2[0] if kind == "k2" else FORWARD[0]
    for place, expected in {"loss": loss, "reward": reward, "both": loss + reward}.items():
        estimate, gradient = mean(kind=kind, place=place, lag=lag)
        assert estimate == pytest.approx(value, abs=EXACT)
        torch.testing.assert_close(gradient, expected, rtol=0.0, atol=EXACT)


def test_off_policy_a_loss_needs_weights():
    logits, f = TASK.problem()
    logits = logits.clone().requires_grad_()
    z = all_codes(logits)
    d = log_prob(logits, z) - log_prob(f.prior, z)
    older = log_prob(0.7 * logits.detach(), z).exp()
    weight = (log_prob(logits, z) - log_prob(0.7 * logits, z)).exp().detach()
    plain, weighted = (
        torch.autograd.grad((older * w * d.square() / 2).sum(), logits, retain_graph=True)[0]
        for w in (1.0, weight)
    )
    torch.testing.assert_close(weighted.flatten(), FORWARD[1], rtol=0.0, atol=EXACT)
    assert (plain.flatten() - FORWARD[1]).norm() > 0.05 * FORWARD[1].norm()


def estimates(**knobs) -> Tensor:
    logits, f = TASK.problem()
    rows = logits.repeat(50, 1, 1).requires_grad_()
    estimator = gradest.make_estimator("sampled_kl", **knobs)
    with drawing_from(Draws.seeded(0)):
        value = estimator(rows, f.replicated(1, rows))
    return torch.autograd.grad(value.sum(), rows)[0]


@pytest.mark.parametrize("lag", [0.0, 0.3])
def test_three_of_them_are_the_same_estimate(lag):
    k1 = estimates(kind="k1", place="reward", lag=lag)
    torch.testing.assert_close(estimates(kind="k2", lag=lag), k1, rtol=0.0, atol=EXACT)
    torch.testing.assert_close(
        estimates(kind="k3", place="both", lag=lag), k1, rtol=0.0, atol=EXACT
    )


def test_on_policy_and_without_a_divergence_it_is_leave_one_out():
    logits, f = gradest.make_task("quadratic").problem()
    rows = logits.repeat(50, 1, 1).requires_grad_()

    def gradient(name: str, **knobs) -> Tensor:
        with drawing_from(Draws.seeded(0)):
            value = gradest.make_estimator(name, samples=4, **knobs)(rows, f.replicated(1))
        return torch.autograd.grad(value.sum(), rows)[0]

    expected = gradient("rloo")
    torch.testing.assert_close(gradient("sampled_kl", lag=0.0), expected, rtol=EXACT, atol=EXACT)


def test_k3_varies_without_limit_where_a_word_is_rare_under_the_policy_alone():
    logits = torch.tensor([[[0.0, -20.0]]], dtype=torch.float64)
    prior = torch.zeros(1, 2, dtype=torch.float64)
    d = logits.log_softmax(-1) - prior.log_softmax(-1)
    k3 = (-d).expm1() + d
    second = (logits.softmax(-1) * k3.square()).sum()
    assert second > 1e7  # of a mean of log 2
    with drawing_from(Draws.seeded(0)):
        assert sample(logits.expand(1000, -1, -1))[:, 0, 1].sum() == 0  # and no sample shows it


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_form_replaces_none_of_it(kind):
    exact = gradest.make_task("regularised_reward", kl="exact")
    rows = [
        gradest.measure(gradest.make_estimator("sampled_kl", kind=kind, samples=2), exact).row()
        for kind in ("k1", kind)
    ]
    assert rows[0]["variance"] == rows[1]["variance"] and rows[1]["verdict"] == "unbiased"
