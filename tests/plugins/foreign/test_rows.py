"""Code for one row: it equals the same code for a batch, draw by draw, and sees one row alone."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import OneHotCategorical

from gradest import LAWS, Cost, Estimator, Problem, Task, make_estimator, make_task, measure
from gradest.categorical import gumbel_max, log_prob, nabla, sample, straight_through
from gradest.errors import ContractError
from gradest.foreign import per_row, redirected, value_and_frozen
from gradest.measurement import Replicator
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT

LOGITS = torch.tensor([[[0.3, -0.8, 0.5], [1.0, 0.2, -0.4]]], dtype=torch.float64)
WEIGHTS = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.9, -1.1]], dtype=torch.float64)


class Coupled(Task):
    """Two data points, with a scale of their own and a parameter."""

    name = "coupled"

    def problem(self, batch=None):
        def cost(z, module):
            scale = torch.tensor([1.0, 2.0]).to(z)[(..., *(None,) * (z.ndim - 3))]
            u = (z * WEIGHTS.to(z)).sum((-2, -1))
            return scale * module((u + u**3).unsqueeze(-1)).squeeze(-1)

        module = nn.Linear(1, 1).double()
        nn.init.constant_(module.weight, 1.5)
        nn.init.constant_(module.bias, 0.5)
        self.module = module
        return Problem(torch.cat([LOGITS, LOGITS.roll(1, -1)]), Cost(cost, module))


def relax(logits: Tensor, f: Cost) -> Tensor:
    """Two requests of noise, then f at two places, and a use of f': all that a row can ask for."""
    b, z = gumbel_max(logits)
    soft = (z / 0.7).softmax(-1)
    again = sample(logits, 2)  # [R, 2, N, K]
    cost, other = f(b), f(again).mean(1)
    relaxed = f.frozen(soft)
    weight = (cost - other - relaxed).detach()
    return cost + weight * nabla(log_prob(logits, b)) + nabla(relaxed)


def straight(logits: Tensor, f: Cost) -> Tensor:
    return f(straight_through(sample(logits), logits.softmax(-1)))


def many(logits: Tensor, f: Cost) -> Tensor:
    z = sample(logits, 3)
    cost = f(z)
    score = nabla(log_prob(logits.unsqueeze(1), z))
    return (cost + (cost - cost.mean(1, keepdim=True)) * score).mean(1)


def _estimates(fn, rows=20):
    class Wrapped(Estimator):
        name = "wrapped"

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            return fn(logits, f)

    task = Coupled()
    problem = task.problem()
    with drawing_from(Draws.seeded(3)):
        replicator = Replicator(Wrapped(), task)
        logits = replicator.logits.repeat_interleave(rows, 0).requires_grad_()
        f = problem.f.replicated(2, logits)
        value = fn(logits, f)
    parameters = list(problem.f.module.parameters())
    gradients = torch.autograd.grad(value.square().sum(), [logits, *parameters])
    return value.detach(), *gradients, torch.tensor(f.evaluations)


@pytest.mark.parametrize("fn", [relax, straight, many])
def test_one_row_at_a_time_equals_all_rows_at_once(fn):
    whole, apart = _estimates(fn), _estimates(per_row(lambda z, f: fn(z, f).sum()))
    for a, b in zip(whole, apart, strict=True):
        assert (a - b).abs().max() <= EXACT * a.abs().max()


def test_rows_with_equal_draws_share_a_call_and_stay_enumerable():
    calls = []

    class Foreign(Estimator):
        name = "foreign"
        laws = LAWS - {"constant"}

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            return per_row(self.one)(logits, f)

        def one(self, logits: Tensor, f: Cost) -> Tensor:
            calls.append(len(logits))
            distribution = OneHotCategorical(logits=logits)
            with redirected(logits, axis=1):
                z = distribution.sample((2,)).movedim(0, 1)
            cost = f(z)
            return (cost + cost.detach() * nabla(log_prob(logits.unsqueeze(1), z))).mean()

    task = make_task("categorical")
    result, ours = measure(Foreign(), task), measure(make_estimator("reinforce"), task)
    assert (result.method, result.outcomes) == ("enumerated", 9)
    assert (result.mean - ours.mean).abs().max() < EXACT
    assert (2 * result.variance - ours.variance).abs().max() < EXACT
    calls.clear()
    with drawing_from(Draws.seeded(0)):
        Replicator(Foreign(), task).each(500)
    assert set(calls) == {1} and len(calls) <= 1 + 9 + 9


def test_code_that_normalises_over_its_batch_is_right_row_by_row():
    def batch_mean(logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return cost + (cost - 0.1 * cost.mean()).detach() * nabla(log_prob(logits, z))

    class Batch(Estimator):
        name = "batch"
        fn = staticmethod(batch_mean)

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            return self.fn(logits, f)

    class Apart(Batch):
        fn = staticmethod(per_row(batch_mean))

    task = make_task("categorical")
    with pytest.raises(ContractError, match="rows depend on each other"):
        measure(Batch(), task)
    assert abs(measure(Apart(), task).row()["relative_bias"] - 0.1) < EXACT


def test_rows_may_draw_unequally_often():
    def until(logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        while z[0, 0, 0] == 1:  # the first category of the first latent is drawn again
            z = sample(logits)
        return f(z) + 0 * logits.sum()

    logits = LOGITS.repeat(200, 1, 1).requires_grad_()
    f = Cost(lambda z: z[..., 0, 0])
    with drawing_from(Draws.seeded(0)):
        value = per_row(until)(logits, f)
    assert value.shape == (200,) and not value.any()


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda logits, f: f(sample(logits)).expand(2), r"got shape \[2\]"),
        (lambda logits, f: f(sample(logits)), "a gradient to the logits, got one without"),
        (lambda logits, f: 3.0, "got 3.0"),
        (
            lambda logits, f: sample(logits.expand(3, -1, -1)).sum(),
            r"draws of one row.*\[3, 2, 3\]",
        ),
    ],
)
def test_what_is_no_estimate_of_a_row_is_named(fn, message):
    logits = LOGITS.repeat(4, 1, 1).requires_grad_()
    with pytest.raises(ContractError, match=message):
        per_row(fn)(logits, Cost(lambda z: z.sum((-2, -1))))


def test_no_exception_passes_through_the_code():
    depth = []

    def fn(logits: Tensor, f: Cost) -> Tensor:
        depth.append("open")
        try:
            return f(straight_through(sample(logits), logits.softmax(-1)))
        except BaseException:
            depth.append("raised")
            raise
        finally:
            depth.append("closed")

    per_row(fn)(LOGITS.clone().requires_grad_(), Cost(lambda z: (z * WEIGHTS).sum((-2, -1))))
    assert "raised" not in depth and depth.count("open") == depth.count("closed") == 3


def test_value_and_frozen_take_one_evaluation():
    problem = Coupled().problem()
    f = problem.f
    logits = problem.logits.clone().requires_grad_()
    z = straight_through(sample(logits), logits.softmax(-1))
    weight = f.module.weight
    value, frozen = value_and_frozen(f, z)
    assert f.evaluations == 1 and torch.equal(value, frozen)
    for result, direct in ((value, f(z)), (frozen, f.frozen(z))):
        ours, theirs = (
            torch.autograd.grad(x.sum(), [logits, weight], retain_graph=True, allow_unused=True)
            for x in (result, direct)
        )
        assert (ours[0] - theirs[0]).abs().max() < EXACT
        assert (ours[1] is None) == (theirs[1] is None) == (result is frozen)
    assert value_and_frozen(f, z.detach())[1].requires_grad is False
