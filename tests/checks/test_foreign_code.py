"""What `--check` and `measure` say of code that was not written for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator, make_task, measure
from gradest.categorical import gumbel_max, log_prob, nabla, one_hot, sample
from gradest.checks import check_estimator
from gradest.errors import ContractError
from gradest.randomness import draws

TASK = make_task("categorical")


class Score(Estimator):
    """The score function of the codes of a subclass."""

    name = "score"
    laws = LAWS - {"constant"}

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = self.codes(logits)
        cost = f(z)
        return cost + self.weight(cost) * nabla(self.log_prob(logits, z))

    def codes(self, logits: Tensor) -> Tensor:
        return sample(logits)

    def weight(self, cost: Tensor) -> Tensor:
        return cost.detach()

    def log_prob(self, logits: Tensor, z: Tensor) -> Tensor:
        return log_prob(logits, z)


class SingleWeights(Score):
    def weight(self, cost: Tensor) -> Tensor:
        return cost.detach().float().to(cost)


class GuardedLogarithm(Score):
    def log_prob(self, logits: Tensor, z: Tensor) -> Tensor:
        return ((logits.softmax(-1) + 1e-12).log() * z).sum((-2, -1))


class SmallBias(Score):
    """A bias a hundred times the rounding of single precision."""

    def weight(self, cost: Tensor) -> Tensor:
        return (1 + 1e-4) * cost.detach()


class Marked(Tensor):
    """A subclass, as libraries that trace operations have one."""


class OfSubclass(Score):
    def codes(self, logits: Tensor) -> Tensor:
        return sample(logits.as_subclass(Marked))


class WithoutRows(Score):
    def codes(self, logits: Tensor) -> Tensor:
        return one_hot(draws().categories(logits[0, 0], 1), logits).expand_as(logits)


class Shared(Score):
    def codes(self, logits: Tensor) -> Tensor:
        return sample(logits[:1]).expand_as(logits)


class SharedGlobal(Score):
    def codes(self, logits: Tensor) -> Tensor:
        noise = -torch.rand(logits.shape[1:], dtype=logits.dtype).log()
        return one_hot((logits - noise.log()).argmax(-1), logits)


class InContext(Score):
    """Endless draws within a context of its own, which an exception would leave otherwise."""

    entered: ClassVar[list[str]] = []

    def codes(self, logits: Tensor) -> Tensor:
        with self.context():
            return gumbel_max(logits)[0]

    @contextmanager
    def context(self) -> Iterator[None]:
        self.entered.append("in")
        try:
            yield
        except BaseException:
            self.entered.append("raised")
            raise
        self.entered.append("out")


@dataclass(eq=False)
class FailsAtOneSetting(Score):
    samples: int = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        if self.samples == 4:
            raise RuntimeError("out of range")
        z = sample(logits, self.samples)
        cost = f(z)
        return (cost + cost.detach() * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


def findings(cls: type[Estimator]) -> dict[str, tuple[str, str]]:
    return {finding.law: (finding.status, finding.detail) for finding in check_estimator(cls)}


@pytest.mark.slow
@pytest.mark.parametrize("cls", [SingleWeights, GuardedLogarithm])
def test_the_rounding_of_single_precision_is_no_bias(cls):
    laws = findings(cls)
    assert not [law for law, (status, _) in laws.items() if status in ("failed", "inconclusive")]
    row = measure(cls(), TASK).row()
    assert row["verdict"] == "unbiased" and row["relative_bias"] > 0
    if cls is SingleWeights:
        assert "the rounding of single precision" in laws["bias"][1]
        assert "unbiased up to rounding" in row["note"]


def test_a_larger_bias_is_one():
    assert findings(SmallBias)["bias"][0] == "failed"
    assert measure(SmallBias(), TASK).row()["verdict"] == "biased"


@pytest.mark.slow
def test_tensor_subclasses_pass():
    assert measure(OfSubclass(), TASK).row()["relative_bias"] < 1e-15
    assert findings(OfSubclass)["bias"][0] == "passed"


@pytest.mark.parametrize("cls", [WithoutRows, Shared, SharedGlobal])
def test_noise_that_rows_share_is_refused_by_name(cls):
    with pytest.raises(ContractError, match="check 'rows'"):
        measure(cls(), TASK)
    failed = {law: detail for law, (status, detail) in findings(cls).items() if status == "failed"}
    expected = {WithoutRows: "shape", Shared: "rows", SharedGlobal: "randomness"}[cls]
    assert expected in failed and "IndexError" not in failed[expected]


def test_no_exception_passes_through_code_with_endless_draws():
    assert measure(InContext(), TASK, replicates=64).method == "monte_carlo"
    entered = InContext.entered
    assert "raised" not in entered and entered.count("in") == entered.count("out") > 0


def test_an_error_names_the_knob_at_which_it_was_raised():
    laws = findings(FailsAtOneSetting)
    raised = "RuntimeError: out of range; raised at samples = 4, test problem 'one categorical'"
    assert laws["settings"] == ("failed", raised)
