"""Advantages as libraries for reinforcement learning write them, judged."""

import pytest
import torch
from torch import Tensor

from gradest import make_estimator, make_task, measure
from gradest.checks import check_estimator, passed
from gradest.commands.check import check
from gradest.contracts import built_in
from gradest.errors import ContractError, UsageError
from gradest.foreign import advantages
from tests.support import EXACT

TASK = make_task("categorical")


def leave_one_out(rewards: Tensor) -> Tensor:
    return rewards - (rewards.sum() - rewards) / (len(rewards) - 1)


def centred(rewards: Tensor) -> Tensor:
    return rewards - rewards.mean(-1, keepdim=True)


def group_relative(rewards: Tensor) -> Tensor:
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


def over_the_batch(rewards: Tensor) -> Tensor:
    return rewards - rewards.mean()


def named(cls: type, name: str) -> type:
    cls.name = name
    return cls


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_leave_one_out_is_ours_and_a_mean_is_biased_by_one_part_in_g(samples):
    theirs = measure(named(advantages(leave_one_out, samples), "loo")(), TASK)
    ours = measure(make_estimator("rloo", samples=samples), TASK)
    assert theirs.outcomes == 3**samples
    for a, b in ((theirs.mean, ours.mean), (theirs.variance, ours.variance)):
        assert (a - b).abs().max() < EXACT
    for batched in (False, True):
        cls = named(advantages(centred, samples, batched=batched), "centred")
        assert abs(measure(cls(), TASK).row()["relative_bias"] - 1 / samples) < EXACT


@pytest.mark.weekly
def test_check_judges_them():
    assert passed(check_estimator(named(advantages(leave_one_out, 2), "loo")))

    class GroupRelative(advantages(group_relative, 3)):
        name = "group_relative"

    failed = {f.law for f in check_estimator(GroupRelative) if f.status == "failed"}
    assert failed == {"bias"}
    mixed = named(advantages(over_the_batch, 3, batched=True), "mixed")
    failed = {f.law for f in check_estimator(mixed) if f.status == "failed"}
    assert "rows" in failed


@pytest.mark.weekly
def test_a_class_of_a_file_is_checked_by_its_name(plugin, capsys):
    text = (
        "from gradest.foreign import advantages\n"
        "def centred(rewards): return rewards - rewards.mean()\n"
        "def loo(rewards): return centred(rewards) * len(rewards) / (len(rewards) - 1)\n"
        "Loo = advantages(loo, 2)\n"
        "class Centred(advantages(centred, 2)):\n    unbiased = False\n"
        "class Wrong(advantages(centred, 2)):\n    pass\n"
    )
    path = plugin("rewards.py", text)
    assert [check(f"{path}:{name}", []) for name in ("Loo", "Centred", "Wrong")] == [0, 0, 1]
    assert "Wrong: rejected" in capsys.readouterr().out


def test_arguments_and_results_are_validated():
    assert not built_in(advantages(centred))
    with pytest.raises(UsageError, match="expected a function of rewards"):
        advantages(3)
    with pytest.raises(UsageError, match="samples = 1; expected a whole number of at least 2"):
        advantages(centred, 1)
    cls = named(advantages(torch.mean, 2), "mean")
    with pytest.raises(ContractError, match=r"mean: expected advantages of shape \[2\].*got \[\]"):
        measure(cls(), TASK)
