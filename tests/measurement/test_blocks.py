"""Blocks of a problem: the same costs, closed forms and gradients as those of the task alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gradest import Cost, Problem, Task, make_estimator, make_task
from gradest.measurement import BlockedTask, Replicator, all_codes, block_gap, stackable
from gradest.measurement.enumerated_truth import exact_gradient
from gradest.randomness import BlockDraws, Draws, drawing_from
from tests.support import EXACT

BLOCKS = 3


class Points(Task):
    """Two data points with costs, terms and a prior of their own, so that their order matters."""

    def __init__(self, deep: bool = False) -> None:
        self.name, self._deep = "points", deep
        self._w = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.2, -1.0]], dtype=torch.float64)

    def problem(self, batch: Any = None) -> Problem:
        logits = torch.tensor([[[0.3, -0.5, 0.1]], [[-1.0, 0.4, 0.8]]], dtype=torch.float64)
        if self._deep:
            return Problem(logits, Cost(self._next, deep=True))
        return Problem(logits, Cost(self._cost, prior=logits.roll(1, 0), kl="exact", logits=logits))

    def _cost(self, z: Tensor) -> Tensor:  # [B, ..., 1, K] -> [B, ...]
        middle = (slice(None), *(None,) * (z.ndim - 3))
        return (z.squeeze(-2) * self._w.to(z)[middle]).sum(-1).square()

    def _next(self, z: Tensor) -> Problem:
        return Problem(2 * z - 0.5, Cost(self._cost))

    def penalty(self, logits: Tensor) -> Tensor:
        return self._w.sum(1) + logits.square().sum((-2, -1)) * 0.1

    def expectation(self, logits: Tensor) -> Tensor:
        return (logits.softmax(-1).squeeze(-2) * self._w.square()).sum(-1)


def test_the_costs_of_a_block_are_those_of_the_task() -> None:
    task = Points()
    alone, blocked = task.problem(), BlockedTask(task, BLOCKS).problem()
    assert torch.equal(blocked.logits, alone.logits.repeat(BLOCKS, 1, 1))
    z = torch.rand(BLOCKS * 2, 5, 1, 3, dtype=torch.float64)
    for block, cost in zip(z.chunk(BLOCKS), blocked.f(z).chunk(BLOCKS), strict=True):
        assert torch.equal(cost, alone.f(block))
    codes = all_codes(alone.logits)
    assert blocked.f(codes.expand(6, *codes.shape)).shape == (6, 3)


@pytest.mark.parametrize("deep", [False, True])
def test_the_truth_and_the_terms_of_a_block_are_those_at_its_logits(deep: bool) -> None:
    task = Points(deep)
    blocked = BlockedTask(task, BLOCKS)
    shift = torch.randn(BLOCKS * 2, 1, 3, dtype=torch.float64)
    problem = blocked.problem()
    logits = problem.logits + shift
    value, gradient, _ = exact_gradient(Problem(logits, problem.f))
    for m, own in enumerate(logits.chunk(BLOCKS)):
        f = task.problem().f
        expected = exact_gradient(Problem(own, f))
        rows = slice(2 * m, 2 * m + 2)
        assert (value[rows] - expected.value).abs().max() < EXACT
        assert (gradient[rows] - expected.gradient).abs().max() < EXACT
        assert torch.equal(blocked.penalty(logits)[rows], task.penalty(own))
        assert torch.equal(blocked.expectation(logits)[rows], task.expectation(own))


def test_one_block_is_the_measurement_of_the_task_itself() -> None:
    """The same draws give the same estimates as those of the task, penalty and prior included."""
    rows = []
    for task, source in ((Points(), Draws.seeded(4)), (BlockedTask(Points(), 1), BlockDraws([4]))):
        with drawing_from(source):
            replicator = Replicator(make_estimator("reinforce"), task)
            rows.append(replicator.each(1)[0])
    assert torch.equal(*rows)


def test_what_can_be_stacked_is_what_has_no_state_or_several() -> None:
    assert stackable(make_estimator("rloo")) and stackable(make_estimator("relax"))
    cls = type(make_estimator("relax"))
    assert not stackable(type("One", (cls,), {"stackable": False})())
    assert block_gap(make_estimator("rloo"), make_task("bernoulli"), 0) < EXACT
