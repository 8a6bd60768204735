"""The battery certifies tasks that are right and names the law that a mistake breaks."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Problem, Task
from gradest.categorical import (
    one_hot,
)
from gradest.checks import (
    check_task,
    passed,
    task_findings,
)
from gradest.checks.task_laws import TASK_LAWS
from gradest.commands.check import check
from gradest.plugins.registry import Registry
from gradest.randomness import draws
from tests.support import broken_laws


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(gradest.all_tasks()))
def test_every_task_is_certified(name: str) -> None:
    findings = check_task(gradest.all_tasks()[name])
    assert passed(findings), findings


class Good(Task):
    """What the broken tasks below are made from: two data points, two latents, three categories."""

    def problem(self, batch: Any = None) -> Problem:
        return Problem(self.logits(), Cost(self.cost))

    def logits(self) -> Tensor:
        return torch.tensor([[[0.5, 0.0, -1.0]] * 2, [[0.0, 1.0, 0.2]] * 2], dtype=torch.float64)

    def weighted(self, z: Tensor) -> Tensor:  # [B, ..., N, K] -> [B, ...]
        weight = torch.tensor([[1.0, -0.5, 2.0], [0.3, 0.7, -1.0]]).to(z)
        return (weight * z).sum((-2, -1))

    def cost(self, z: Tensor) -> Tensor:
        return self.weighted(z) ** 2


def test_certifies_a_good_task() -> None:
    findings = check_task(Good)
    assert passed(findings), findings


class IntegerLogits(Good):
    def logits(self) -> Tensor:
        return torch.zeros(1, 2, 3, dtype=torch.int64)


class NoPointAxis(Good):
    def logits(self) -> Tensor:
        return torch.zeros(2, 3, dtype=torch.float64)


class InfiniteLogits(Good):
    def logits(self) -> Tensor:
        return super().logits() + math.inf


class SumsOverTheSamples(Good):
    def cost(self, z: Tensor) -> Tensor:
        return super().cost(z) + self.weighted(z).sum(-1, keepdim=True)


class FlattensTheMiddle(Good):
    def cost(self, z: Tensor) -> Tensor:
        return super().cost(z.flatten(1, -3))


class PointsTalk(Good):
    def cost(self, z: Tensor) -> Tensor:
        return super().cost(z) * super().cost(z).sum(0)


class OneDtype(Good):
    def cost(self, z: Tensor) -> Tensor:
        return super().cost(z).double()


class Imprecise(Good):
    def cost(self, z: Tensor) -> Tensor:
        return (super().cost(z) + 1e6) - 1e6


class NoisyCost(Good):
    def cost(self, z: Tensor) -> Tensor:
        return super().cost(z) + torch.rand(())


class AnotherEveryTime(Good):
    def logits(self) -> Tensor:
        return super().logits() + draws().normal((), super().logits())


class TouchesTheGlobalState(Good):
    def cost(self, z: Tensor) -> Tensor:
        torch.rand(())
        return super().cost(z)


class Argmax(Good):
    def cost(self, z: Tensor) -> Tensor:
        return super().cost(one_hot(z.argmax(-1), z)) + 0 * z.sum((-2, -1))


class RootAtZero(Good):
    def cost(self, z: Tensor) -> Tensor:
        return z.sqrt().sum((-2, -1)) + super().cost(z)


class PartlyDetached(Good):
    def cost(self, z: Tensor) -> Tensor:
        return self.weighted(z) * self.weighted(z).detach()


class OnePenalty(Good):
    def penalty(self, logits: Tensor) -> Tensor:
        return logits.sum()


class InfinitePenalty(Good):
    def penalty(self, logits: Tensor) -> Tensor:
        return logits.sum((-2, -1)) / 0


@pytest.mark.parametrize(
    "cls, laws",
    [
        (IntegerLogits, {"logits"}),
        (InfiniteLogits, {"logits"}),
        (SumsOverTheSamples, {"middle axes"}),
        (PointsTalk, {"points"}),
        (OneDtype, {"dtype"}),
        (Imprecise, {"dtype"}),
        (NoisyCost, {"deterministic"}),
        (AnotherEveryTime, {"deterministic"}),
        (TouchesTheGlobalState, {"deterministic"}),
        (Argmax, {"relaxable"}),
        (RootAtZero, {"relaxable"}),
        (PartlyDetached, {"relaxable"}),
        (OnePenalty, {"penalty"}),
        (InfinitePenalty, {"penalty"}),
    ],
)
def test_rejects_a_broken_task(cls: type[Task], laws: set[str]) -> None:
    findings = check_task(cls)
    assert broken_laws(findings) == laws, findings
    assert not passed(findings)


def test_findings_come_one_by_one_and_each_law_is_announced() -> None:
    begun: list[str] = []
    for finding in task_findings(Good, begun.append):
        assert begun[-1] == finding.law
    assert begun == list(TASK_LAWS)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_command_prints_each_law_as_it_is_decided(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    threads = torch.get_num_threads()
    Bad = type("Bad", (PointsTalk,), {"name": "bad"})
    registry = Registry(tasks={"bad": Bad})
    monkeypatch.setattr(Registry, "load", lambda plugins: registry)
    assert check("bad", []) == 1
    assert torch.get_num_threads() == threads
    out = capsys.readouterr().out
    sentence = "The cost of a data point does not depend on the codes of other data points."
    assert f"\n             ({sentence})\n" in out
    assert ("\x1b" in out) == terminal
    assert ("testing      points\r\x1b[2Kfailed       points: " in out) == terminal
    assert re.search(r"bad: rejected \(\d+ checks passed, 1 failed, \d+ skipped\)\n$", out)
