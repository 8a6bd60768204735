"""The laws of closed forms, parameters and masked logits name what is wrong with a task."""

import math

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Problem, Task
from gradest.checks import Finding, check_task, passed
from gradest.measuring import enumeration


class Good(Task):
    """log α = W φ for two data points, a squared cost, its closed form and two groups."""

    parameters = ("weights", "shift")
    values = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.1, -1.2]], dtype=torch.float64)

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        normal = {"generator": draws, "dtype": torch.float64}
        self.x = torch.randn(12, 4, **normal)
        self.weights = torch.randn(4, **normal).requires_grad_()
        self.shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def logits(self) -> Tensor:
        return (self.x @ self.weights).reshape(2, 2, 3) + self.shift

    def problem(self, batch=None) -> Problem:
        return Problem(
            self.logits(), Cost(lambda z: (z * self.values.to(z)).sum((-2, -1)).square())
        )

    def group(self, name: str):
        return [getattr(self, name)]

    def expectation(self, logits: Tensor) -> Tensor | None:
        pi = logits.softmax(-1)
        mean, square = (pi * self.values).sum(-1), (pi * self.values.square()).sum(-1)
        return mean.sum(-1).square() + (square - mean.square()).sum(-1)


def statuses(cls: type[Task]) -> dict[str, Finding]:
    return {finding.law: finding for finding in check_task(cls)}


def test_a_good_task_passes_every_law():
    findings = check_task(Good)
    assert passed(findings), findings
    found = statuses(Good)
    assert found["expectation"].status == found["parameters"].status == "passed"
    assert "weights, shift" in found["parameters"].detail


def test_what_a_task_does_not_have_is_skipped():
    class Plain(Good):
        parameters = ()

        def expectation(self, logits: Tensor) -> None:
            return None

    found = statuses(Plain)
    assert found["expectation"].status == found["parameters"].status == "skipped"
    assert passed(list(found.values()))


class OffByAConstant(Good):
    def expectation(self, logits: Tensor) -> Tensor:
        return super().expectation(logits) + 1e-6


class WithoutTheVariance(Good):
    def expectation(self, logits: Tensor) -> Tensor:
        return (logits.softmax(-1) * self.values).sum((-2, -1)).square()


class RightValueWrongGradient(Good):
    def expectation(self, logits: Tensor) -> Tensor:
        whole = super().expectation(logits)
        return whole.detach() + 2 * (whole - whole.detach())


class MeanOverThePoints(Good):
    def expectation(self, logits: Tensor) -> Tensor:
        return super().expectation(logits).mean().expand(len(logits))


@pytest.mark.parametrize(
    "cls", [OffByAConstant, WithoutTheVariance, RightValueWrongGradient, MeanOverThePoints]
)
def test_a_wrong_closed_form_is_rejected(cls):
    found = statuses(cls)
    assert {law for law, f in found.items() if f.status == "failed"} == {"expectation"}
    assert "differs from the sum over outcomes" in found["expectation"].detail


def test_a_closed_form_beyond_enumeration_is_tested_by_draws(monkeypatch):
    monkeypatch.setattr("gradest.measuring.enumeration.LIMIT", 8)
    found = statuses(WithoutTheVariance)
    assert found["expectation"].status == "failed"
    assert "standard errors from draws" in found["expectation"].detail
    assert statuses(Good)["expectation"].status == "passed"


class DetachedFromOne(Good):
    def logits(self) -> Tensor:
        return (self.x @ self.weights).reshape(2, 2, 3) + self.shift.detach()


def test_a_group_that_the_logits_do_not_depend_on_is_rejected():
    found = statuses(DetachedFromOne)
    assert {law for law, f in found.items() if f.status == "failed"} == {"parameters"}
    assert found["parameters"].detail == "the logits do not depend on shift"


class Masked(Good):
    parameters = ()

    def logits(self) -> Tensor:
        logits = super().logits().detach().clone()
        logits[0, 0, 1] = -math.inf
        return logits

    def expectation(self, logits: Tensor) -> None:
        return None


class AllMasked(Masked):
    def logits(self) -> Tensor:
        logits = super().logits()
        logits[1, 0] = -math.inf
        return logits


class Certain(Masked):
    def logits(self) -> Tensor:
        logits = super().logits()
        logits[1, 0, 0] = math.inf
        return logits


class NotANumber(Masked):
    def logits(self) -> Tensor:
        logits = super().logits()
        logits[1, 0, 0] = math.nan
        return logits


def test_some_categories_may_be_masked():
    found = statuses(Masked)
    assert found["logits"].status == "passed" and passed(list(found.values()))


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (AllMasked, "a latent has no finite logit"),
        (Certain, "1 logits are NaN or +∞"),
        (NotANumber, "1 logits are NaN or +∞"),
    ],
)
def test_logits_that_are_no_law_are_rejected(cls, told):
    assert statuses(cls)["logits"].status == "failed"
    assert statuses(cls)["logits"].detail == told


def test_a_masked_closed_form_is_compared_too():
    class WithClosedForm(Masked):
        def expectation(self, logits: Tensor) -> Tensor:
            return Good.expectation(self, logits)

    class Wrong(WithClosedForm):
        def expectation(self, logits: Tensor) -> Tensor:
            return 1.001 * super().expectation(logits)

    assert statuses(WithClosedForm)["expectation"].status == "passed"
    assert statuses(Wrong)["expectation"].status == "failed"


@pytest.mark.parametrize("name", sorted(gradest.all_tasks()))
def test_tasks_that_ship_and_name_parameters_depend_on_them(name):
    task = gradest.make_task(name)
    found = statuses(type(task))
    assert found["parameters"].status == ("passed" if task.parameters else "skipped")
    closed = task.expectation(task.problem().logits.detach().double())
    size = task.problem().logits.shape
    if closed is None:
        assert found["expectation"].status == "skipped"
    elif size[2] ** size[1] <= enumeration.LIMIT:
        assert found["expectation"].status == "passed"
