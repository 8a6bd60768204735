"""The laws of a task name what is wrong with its cost, closed form, parameters or logits."""

import math
import random
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

import gradest
from gradest import Cost, Problem, Task
from gradest.checks import Finding, check_task, passed
from gradest.measurement import enumerated_truth


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
    monkeypatch.setattr("gradest.measurement.enumerated_truth.LIMIT", 8)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(gradest.all_tasks()))
def test_tasks_that_ship_and_name_parameters_depend_on_them(name):
    task = gradest.make_task(name)
    found = statuses(type(task))
    assert found["parameters"].status == ("passed" if task.parameters else "skipped")
    closed = task.expectation(task.problem().logits.detach().double())
    size = task.problem().logits.shape
    if closed is None:
        assert found["expectation"].status == "skipped"
    elif size[2] ** size[1] <= enumerated_truth.LIMIT:
        assert found["expectation"].status == "passed"


class Quadratic(Task):
    """f = 2 + s + s² with s = W · z, for two data points; what follows breaks it."""

    points = 2

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.mean = 0.0
        self.norm = nn.BatchNorm1d(1).double()
        self.linear = skip_init(nn.Linear, 6, 1)  # nothing is drawn from the global state
        nn.init.ones_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def problem(self, batch=None) -> Problem:
        logits = torch.tensor([[[0.3, -0.8, 0.5], [1, 0.2, -0.4]]] * 2, dtype=torch.float64)
        logits[1] += torch.tensor([0.0, 0.5, 0.1])
        return Problem(logits[: self.points], Cost(self.cost))

    def good(self, z: Tensor) -> Tensor:
        s = (self.weights.to(z) * z).sum((-2, -1))
        return 2 + s + s * s

    weights = torch.tensor([[1, -0.5, 0.3], [0.2, 0.9, -1.1]], dtype=torch.float64)

    def cost(self, z: Tensor) -> Tensor:
        return self.good(z)


def scaled_in_place(self, z):
    z *= self.weights.to(z)
    return z.sum((-2, -1))


def zeroed(self, z):
    z[..., 0] = 0.0
    return self.good(z)


def counted(self, z):
    self.calls += 1
    return self.good(z) + self.calls


def counted_late(self, z):
    self.calls += 1
    return self.good(z) * (1 + (self.calls > 40))


def against_a_moving_average(self, z):
    cost = self.good(z)
    self.mean = 0.9 * self.mean + 0.1 * float(cost.detach().mean())
    return cost - self.mean


def normalised(self, z):
    cost = self.good(z)
    return self.norm.to(cost.dtype)(cost.reshape(-1, 1)).reshape(cost.shape)


def seeded_anew(self, z):
    own = torch.Generator().manual_seed(0)
    return self.good(z) + torch.rand(z.shape[:-2], generator=own, dtype=z.dtype)


BAD_COSTS = {
    "torch's random numbers": ("deterministic", lambda self, z: self.good(z) + torch.randn(())),
    "numpy's": ("deterministic", lambda self, z: self.good(z) + np.random.rand()),
    "Python's": ("deterministic", lambda self, z: self.good(z) + random.random()),
    "dropout": ("deterministic", lambda self, z: self.good(nn.functional.dropout(z, 0.5))),
    "a counter": ("deterministic", counted),
    "a counter that shows late": ("deterministic", counted_late),
    "a moving average": ("deterministic", against_a_moving_average),
    "its own generator": ("middle axes", seeded_anew),
    "the largest of the batch": ("middle axes", lambda self, z: self.good(z) / self.good(z).max()),
    "the mean of the batch": ("middle axes", lambda self, z: self.good(z) + self.good(z).mean()),
    "a normalised batch": ("middle axes", normalised),
    "points that talk": ("points", lambda self, z: self.good(z) + self.good(z).flip(0)),
    "their mean": ("points", lambda self, z: self.good(z) + self.good(z).mean(0, keepdim=True)),
    "z scaled in place": ("in place", scaled_in_place),
    "z set in place": ("in place", zeroed),
    "z's data changed": ("in place", lambda self, z: self.good(z.data.mul_(2))),
    "float32": ("dtype", lambda self, z: self.good(z.float())),
    "half": ("dtype", lambda self, z: self.good(z).half()),
    "integers": ("dtype", lambda self, z: self.good(z).long()),
    "bool": ("dtype", lambda self, z: self.good(z) > 2),
    "a float32 module": ("shape", lambda self, z: self.linear(z.flatten(-2)).squeeze(-1)),
    "None": ("shape", lambda self, z: None),
    "a number": ("shape", lambda self, z: 1.0),
    "a tuple": ("shape", lambda self, z: (self.good(z),)),
    "an array": ("shape", lambda self, z: self.good(z).detach().numpy()),
    "one number for all": ("shape", lambda self, z: self.good(z).sum()),
    "an exit": ("shape", lambda self, z: sys.exit()),
    "a detached cost": ("relaxable", lambda self, z: self.good(z.detach())),
    "NaN at one code": (
        "finite",
        lambda self, z: torch.where(z[..., 0, 0] * z[..., 1, 2] == 1, math.nan, self.good(z)),
    ),
}


_CASES = [
    pytest.param(
        *(law, cost, points),
        id=f"{name}, {points} points",
        marks=[pytest.mark.slow] if points == 1 else [],
    )
    for name, (law, cost) in BAD_COSTS.items()
    for points in (1, 2)
    if law != "points" or points > 1  # one data point has nobody to talk to
]


@pytest.mark.parametrize(("law", "cost", "points"), _CASES)
def test_a_cost_that_is_no_function_of_z_is_rejected_by_name(law, cost, points):
    findings = check_task(type("Bad", (Quadratic,), {"cost": cost, "points": points}))
    failed = [finding.law for finding in findings if finding.status == "failed"]
    assert failed[0] == law, findings
    assert not passed(findings)


@pytest.mark.parametrize("points", [1, 2])
def test_what_they_are_made_from_is_certified(points):
    findings = check_task(type("Sound", (Quadratic,), {"points": points}))
    assert passed(findings), findings
    assert {f.law: f.detail for f in findings}["finite"] == "at all 9 codes"


@pytest.mark.parametrize(
    ("which", "law", "told"),
    [
        ("z scaled in place", "in place", "compute z * w instead of z *= w"),
        ("None", "shape", "expected a tensor [2, 4, 5] for codes [2, 4, 5, 2, 3], got None"),
        ("a float32 module", "shape", "pass the module of parameters as Cost(fn, module)"),
        ("NaN at one code", "finite", "f is nan at the code [0, 2] of data point 0"),
        ("dropout", "deterministic", "avoid dropout (call eval())"),
        ("the mean of the batch", "middle axes", "without statistics of the batch"),
        ("a detached cost", "relaxable", "set relaxable = False"),
    ],
)
def test_says_how_to_mend_it(which, law, told):
    found = statuses(type("Bad", (Quadratic,), {"cost": BAD_COSTS[which][1]}))
    assert told in found[law].detail


def test_an_infinite_cost_of_what_cannot_happen_is_none():
    class Impossible(Masked):
        def problem(self, batch=None) -> Problem:
            logits, f = super().problem(batch)
            return Problem(
                logits,
                Cost(lambda z: torch.where(z[..., 0, 1] == 1, math.inf, f.fn(z)), points=f.points),
            )

    point = statuses(Impossible)["finite"]
    assert (point.status, point.detail) == ("failed", "f is inf at the code [1, 0] of data point 1")
