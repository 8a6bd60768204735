"""Costs that live elsewhere: asking for codes and telling their costs is the direct call."""

import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gradest import Cost, Estimator
from gradest.categorical import log_prob, nabla, sample
from gradest.errors import UsageError
from gradest.nn import Expectation
from gradest.plugins import all_estimators
from tests.test_nn import K, N, f, frozen_state, logits_for

BLACK_BOXES = [n for n, c in all_estimators().items() if not (c.differentiates or c.relaxes)]
OTHERS = [name for name in all_estimators() if name not in BLACK_BOXES]


def objective_of(name: str) -> dict[str, Any]:
    objective = all_estimators()[name].objective
    return {"samples": 3, "objective": objective} if objective else {}


def direct(expect: Expectation, logits: Tensor, seed: int) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    value = expect(logits, Cost(f, **objective_of(expect.estimator.name)))
    gradient = torch.autograd.grad(value.sum(), logits)[0]
    return value.detach(), gradient, torch.get_rng_state()


@pytest.mark.parametrize("name", BLACK_BOXES)
def test_telling_is_the_direct_call_bit_for_bit(name: str) -> None:
    logits = logits_for(name, 2, 3)
    called, told = Expectation(name), Expectation(name)
    for seed in range(3):  # a state that adapts is compared over several calls
        expected = direct(called, logits, seed)
        torch.manual_seed(seed)
        z, ticket = told.ask(logits, **objective_of(name))
        assert z.shape[:2] == (2, 3) and z.shape[-2:] == logits.shape[-2:] and z.ndim in (4, 5)
        value = told.tell(ticket, f(z))
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert all(map(torch.equal, (value, gradient, torch.get_rng_state()), expected))
        assert frozen_state(told) == frozen_state(called)


@pytest.mark.parametrize("name", BLACK_BOXES)
def test_a_pickled_ticket_needs_the_logits_again(name: str) -> None:
    logits, expect = logits_for(name, 4), Expectation(name).eval()
    expected = direct(expect, logits, 1)
    torch.manual_seed(1)
    z, ticket = expect.ask(logits, **objective_of(name))
    ticket = pickle.loads(pickle.dumps(ticket))
    with pytest.raises(UsageError, match=r"unpickled has lost the graph.*logits=logits"):
        expect.tell(ticket, f(z))
    with pytest.raises(UsageError, match="the logits changed"):
        expect.tell(ticket, f(z), logits=logits + torch.linspace(0, 1, logits.shape[-1]))
    # Recomputed on other hardware they differ in the last bits.
    value = expect.tell(ticket, f(z), logits=logits * (1 + 1e-15))
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(torch.autograd.grad(value.sum(), logits)[0], expected[1])


@pytest.mark.parametrize("name", OTHERS)
def test_an_estimator_that_needs_a_derivative_says_so(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name} needs (the derivative of f|f at codes that)"):
        Expectation(name).ask(logits_for(name, 2), **objective_of(name))


@dataclass(eq=False)
class Greedy(Estimator):
    """A black box that evaluates f again at the cheaper of two codes."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, 2)  # [R, 2, N, K]
        cost = f(z)
        best = z[torch.arange(len(z)), cost.argmin(1)]
        return f(best) + cost.mean(1) * nabla(log_prob(logits, best))


@dataclass(eq=False)
class Stubborn(Estimator):
    """It evaluates f until a cost is below one half."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        for _ in range(3):
            if cost.mean() < 0.5:
                break
            cost = f(z)
        return cost * (1 + nabla(log_prob(logits, z)))


@dataclass(eq=False)
class Halfway(Estimator):
    """It needs f between the vertices, though no derivative of it."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return f((z + 1 / z.shape[-1]) / 2) * (1 + nabla(log_prob(logits, z)))


def test_codes_off_the_vertices_cannot_be_asked_for() -> None:
    with pytest.raises(UsageError, match=r"^Halfway needs f at codes that are not one-hot"):
        Expectation(Halfway()).ask(logits_for("rloo", 2))


@pytest.mark.parametrize("estimator", [Greedy(), Stubborn()], ids=lambda x: x.name)
def test_codes_that_depend_on_costs_cannot_be_asked_for(estimator: Estimator) -> None:
    with pytest.raises(UsageError, match=r"chooses codes by the costs of earlier ones"):
        Expectation(estimator).ask(logits_for("rloo", 6))


def test_tickets_are_told_in_any_order_and_once() -> None:
    logits, expect = logits_for("rloo", 4), Expectation("rloo", samples=3)
    expected = [direct(expect, logits, seed)[:2] for seed in range(3)]
    asked = []
    for seed in range(3):
        torch.manual_seed(seed)
        asked.append(expect.ask(logits))
    for number in (2, 0, 1):
        z, ticket = asked[number]
        value = expect.tell(ticket, f(z))
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert all(map(torch.equal, (value, gradient), expected[number]))
        with pytest.raises(UsageError, match="told already"):
            expect.tell(ticket, f(z))


def test_costs_have_the_leading_shape_of_the_codes() -> None:
    logits, expect = logits_for("rloo", 2, 3), Expectation("rloo", samples=5)
    z, ticket = expect.ask(logits)
    assert z.shape == (2, 3, 5, N, K)
    for cost in (f(z)[..., :4], f(z).flatten(0, 1), 1.0):
        with pytest.raises(UsageError, match=r"costs of shape \[2, 3, 5\], one for each code, got"):
            expect.tell(ticket, cost)
    rewards = torch.randint(9, z.shape[:-2])  # whole numbers, as a human gives them
    assert expect.tell(ticket, rewards).dtype == logits.dtype
    one, ticket = Expectation("reinforce").ask(logits)
    assert one.shape == logits.shape
    with pytest.raises(UsageError, match=r"expected a ticket of rloo\(samples=5\), got one of rei"):
        expect.tell(ticket, f(one))


def test_costs_may_have_a_graph_of_their_own() -> None:
    logits, scale = logits_for("rloo", 4), torch.ones((), dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    Expectation("rloo")(logits, lambda z: scale * f(z)).sum().backward()
    expected, scale.grad = scale.grad, None
    torch.manual_seed(0)
    expect = Expectation("rloo")
    z, ticket = expect.ask(logits)
    expect.tell(ticket, scale * f(z)).sum().backward()
    assert torch.equal(scale.grad, expected)


def test_a_state_that_decides_the_codes_must_not_change_in_between() -> None:
    logits, expect = logits_for("arsm", 3), Expectation("arsm")
    z, ticket = expect.ask(logits)
    ticket.estimate.record[0] = ticket.estimate.record[0]._replace(
        answer=ticket.estimate.record[0].answer.flip(-1)
    )
    with pytest.raises(UsageError, match="these ask for other codes"):
        expect.tell(ticket, f(z))


def test_asking_leaves_the_estimator_as_it_was() -> None:
    logits, expect = logits_for("nvil", 3), Expectation("nvil")
    direct(expect, logits, 0)
    before = frozen_state(expect).replace("'calls': 1", "'calls': 2")
    expect.ask(logits)
    assert frozen_state(expect) == before
