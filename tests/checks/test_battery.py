"""The conformance battery certifies what is right and names the law that a mistake breaks."""

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import LAWS, PATHWISE, Cost, Estimator, Problem, Task, Tuned
from gradest.categorical import (
    conditional_gumbel,
    gumbel_max,
    leave_one_out_mean,
    log_prob,
    nabla,
    one_hot,
    sample,
    straight_through,
)
from gradest.checks import (
    ESTIMATOR_LAWS,
    Finding,
    check_estimator,
    check_task,
    passed,
    task_findings,
)
from gradest.checks.definitions import OF_ESTIMATORS, OF_TASKS
from gradest.checks.model_laws import MODEL_LAWS
from gradest.checks.symmetry_laws import _compare
from gradest.checks.task_laws import TASK_LAWS
from gradest.commands.check import check
from gradest.knobs import AtLeast2
from gradest.measurement.enumerated_truth import all_codes
from gradest.plugins.registry import Registry
from gradest.randomness import draws
from gradest.statistics.moments import Moments
from tests.support import ROOT
from tools.mutants import verdict, verdict_in_order, with_defaults

WRONG: list[Any] = []


def breaks(*laws: str) -> Callable[[type], type]:
    """Enters a class among the wrong ones, with every law that it breaks and no other."""

    def enter(cls: type) -> type:
        WRONG.append(pytest.param(cls, set(laws), id=cls.__name__))
        return cls

    return enter


def rejected(findings: list[Finding]) -> set[str]:
    return {finding.law for finding in findings if finding.status == "failed"}


def detail(findings: list[Finding], law: str) -> str:
    return next(finding.detail for finding in findings if finding.law == law)


def score_function(logits: Tensor, z: Tensor, cost: Tensor, baseline: Any = 0.0) -> Tensor:
    return cost + (cost - baseline) * nabla(log_prob(logits, z))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(gradest.all_estimators()))
def test_every_estimator_is_certified(name: str) -> None:
    findings = check_estimator(gradest.all_estimators()[name])
    assert passed(findings), findings
    modest = [f.law for f in findings if "but it holds" in f.detail]
    assert not modest, f"{name} obeys {modest} without claiming it"


@pytest.mark.parametrize("name", sorted(gradest.all_tasks()))
def test_every_task_is_certified(name: str) -> None:
    findings = check_task(gradest.all_tasks()[name])
    assert passed(findings), findings


@dataclass(eq=False)
class Rebar(Tuned):
    """State with an optimiser, hard and relaxed samples, an unbiased mixture of both."""

    relaxes = True
    differentiates = True

    def build(self, logits: Tensor) -> list[Tensor]:
        self._eta = logits.new_ones(()).requires_grad_()
        return [self._eta]

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        b, z = gumbel_max(logits)
        hard, soft, given = f(b), f.frozen(z.softmax(-1)), conditional_gumbel(logits, b)
        control = f.frozen(given.softmax(-1))
        weight = hard - self._eta * control
        return hard + weight * nabla(log_prob(logits, b)) + self._eta * nabla(soft - control)


@dataclass(eq=False)
class Disarm(Estimator):
    """Binary alone, with a gradient in closed form."""

    categories = 2
    evaluations = "N - N + 2"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        a = logits[..., 1] - logits[..., 0]  # [R, N]
        u, theta = draws().uniform(a.shape, a), a.sigmoid()
        b, c = (u < theta).long(), (u > 1 - theta).long()
        cost, other = f(one_hot(b, logits)), f(one_hot(c, logits))
        g = 0.5 * (cost - other).unsqueeze(-1) * (b - c) * a.abs().sigmoid()
        return (cost + other) / 2 + (g.detach() * nabla(a)).sum(-1)


@pytest.mark.slow
def test_certifies_state_and_counts_evaluations_where_none_are_claimed() -> None:
    findings = check_estimator(Rebar)
    assert passed(findings), findings
    (evaluations,) = [f for f in findings if f.law == "evaluations"]
    assert evaluations.status == "skipped"
    assert "3 (one categorical), 3 (coupled categoricals)" in evaluations.detail


def test_certifies_what_is_binary_and_skips_the_problems_that_are_not() -> None:
    findings = check_estimator(Disarm)
    assert passed(findings), findings
    inapplicable = [f for f in findings if f.law == "applies"]
    assert len(inapplicable) == 2
    assert all(f.status == "skipped" and "Disarm needs K = 2" in f.detail for f in inapplicable)


class SamplesAsMoreRows(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits.repeat_interleave(2, 0)).unflatten(0, (-1, 2))
        return leave_one_out(logits, z, f(z))


class SamplesFirst(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z, _ = gumbel_max(logits.expand(2, *logits.shape))
        return leave_one_out(logits, z.transpose(0, 1), f(z.transpose(0, 1)))


class DrawsUntilAllAccept(Estimator):
    """Uniform proposals, each accepted with its probability relative to the largest."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        accept = (logits - logits.amax(-1, keepdim=True)).detach().exp()
        z = sample(torch.zeros_like(logits))
        accepted = torch.zeros_like(logits[..., 0], dtype=torch.bool)
        while True:
            accepted |= draws().uniform(accepted.shape, logits) < (accept * z).sum(-1)
            if accepted.all():
                return score_function(logits, z, f(z))
            z = torch.where(accepted.unsqueeze(-1), z, sample(torch.zeros_like(logits)))


def leave_one_out(logits: Tensor, z: Tensor, cost: Tensor) -> Tensor:
    return score_function(logits.unsqueeze(1), z, cost, leave_one_out_mean(cost, dim=1)).mean(1)


@pytest.mark.slow
def test_how_many_draws_there_are_may_depend_on_them() -> None:
    findings = check_estimator(DrawsUntilAllAccept)
    assert passed(findings), findings


@pytest.mark.parametrize("cls", [SamplesAsMoreRows, SamplesFirst])
def test_rows_of_noise_need_not_be_rows_of_logits(cls: type[Estimator]) -> None:
    findings = check_estimator(cls)
    assert passed(findings), findings
    assert "cannot be made common" in detail(findings, "rare")


@breaks("evaluations")
@dataclass(eq=False)
class ForgetsTheFrozen(Estimator):
    evaluations = "samples"
    samples: int = 4

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, self.samples)
        baseline = f.frozen(sample(logits, 1))
        return score_function(logits.unsqueeze(1), z, f(z), baseline).mean(1)


@breaks("evaluations")
class RightForOneLatentAlone(Estimator):
    evaluations = "N"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z))


@breaks("evaluations")
@dataclass(eq=False)
class RightForTwoSamplesAlone(Estimator):
    evaluations = "2"
    samples: AtLeast2 = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, self.samples)
        return leave_one_out(logits, z, f(z))


@breaks("rows")
class BatchMeanBaseline(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return score_function(logits, z, cost, cost.mean())


@breaks("rows")
class BaselineAtTheMeanLogits(Estimator):
    """A baseline that is the same for all rows, and right on average."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        likeliest = one_hot(logits.mean(0).argmax(-1), logits)
        return score_function(logits, z, f(z), f.frozen(likeliest.expand_as(z).clone()))


@breaks("rows")
class BaselineFromTheNoiseOfAll(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        b, z = gumbel_max(logits)
        return score_function(logits, b, f(b), z.detach().mean((1, 2)).roll(1).tanh())


@breaks("bias")
class TwoNeighboursOfEachCategory(Estimator):
    """Local expectations over the category before and the one after: all there are of three."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost, gains = f(z), torch.zeros_like(z)
        own = torch.eye(z.shape[1]).to(z).unsqueeze(-1)  # [N, N, 1]
        for step in {1, z.shape[-1] - 1}:
            moved = z.roll(step, -1)
            near = torch.where(own > 0, moved.unsqueeze(1), z.unsqueeze(1))  # [R, N, N, K]
            gains = gains + moved * (f(near) - cost.unsqueeze(1)).unsqueeze(-1)
        return cost + (gains * nabla(logits.softmax(-1))).sum((-2, -1))


@breaks("bias")
class SelfIncludingBaseline(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, 8)
        cost = f(z)
        return score_function(logits.unsqueeze(1), z, cost, cost.mean(1, keepdim=True)).mean(1)


@breaks("value", "parameters")
class SurrogateLoss(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, 2)
        cost = f(z)
        advantage = cost - leave_one_out_mean(cost, dim=1)
        return (advantage.detach() * log_prob(logits.unsqueeze(1), z)).mean(1)


@breaks("value")
class SamplesAnotherLaw(Estimator):
    """The claim of a bias excuses a small error of the value, not this one."""

    unbiased = False
    differentiates = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(straight_through(sample(logits / 0.7), logits.softmax(-1)))


@breaks("bias")
class FoldsTheCurrentCostIn(Estimator):
    adapt_steps = 50

    def reset(self, logits: Tensor) -> None:
        self._mean = logits.new_zeros(())

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self._mean = self._mean.lerp(f(sample(logits)).detach().mean(), 0.05)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return score_function(logits, z, cost, 0.95 * self._mean + 0.05 * cost)


@breaks("bias")
class Scaled(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, 2)
        cost = f(z)
        advantage = cost - leave_one_out_mean(cost, dim=1)
        return (cost + 1.05 * advantage * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


@breaks("bias")
class ClaimsToBeUnbiased(Estimator):
    differentiates = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(straight_through(sample(logits), logits.softmax(-1)))


@breaks("bias")
class ClaimsToBeBiased(Estimator):
    unbiased = False

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z))


@breaks("state", "seed")
class LearnsInTheCall(Estimator):
    def reset(self, logits: Tensor) -> None:
        self._seen = [logits.new_zeros(())]

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost, baseline = f(z), self._seen[0].clone()
        self._seen[0] += 0.1 * (cost.detach().mean() - baseline)
        return score_function(logits, z, cost, baseline)


@breaks("seed")
class LearnsInAGlobal(Estimator):
    seen: ClassVar[list[float]] = []

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        self.seen.append(1.0)
        return score_function(logits, z, f(z), 0.01 * len(self.seen[:100]))


@breaks("seed")
class SurvivesReset(Estimator):
    adapt_steps = 5

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self._mean = 0.9 * getattr(self, "_mean", 0.0) + 0.1 * f(sample(logits)).detach().mean()

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z), getattr(self, "_mean", 0.0))


@breaks("randomness", "seed")
class DrawsFromTorch(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return score_function(logits, z, cost, torch.rand_like(cost))


@breaks("randomness", "seed")
class DrawsFromNumpy(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z), np.random.rand() + random.random())


@breaks("seed", "bias", "value")
class IgnoresItsDraws(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        sample(logits)
        z = one_hot(logits.argmax(-1), logits)
        return score_function(logits, z, f(z))


@breaks("vertices")
class RelaxesInSilence(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z), f(logits.softmax(-1)).detach())


@breaks("vertices")
class ClaimsToRelax(Estimator):
    relaxes = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z))


@breaks("derivative")
class DifferentiatesInSilence(Estimator):
    unbiased = False

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(straight_through(sample(logits), logits.softmax(-1)))


@breaks("derivative")
class ClaimsToDifferentiate(Estimator):
    differentiates = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z))


@breaks("extreme logits")
class LogOfZero(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        log_p = (z * logits.softmax(-1).log()).sum((-2, -1))
        return cost + cost * nabla(log_p)


@breaks("float32", "bias")
class DifferenceQuotient(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = all_codes(logits).unsqueeze(0).expand(len(logits), -1, -1, -1)
        cost, step = f(z), 1e-6

        def expected(logits: Tensor) -> Tensor:
            return (log_prob(logits.unsqueeze(1), z).exp() * cost).sum(1)

        value, objective = expected(logits.detach()), 0.0
        for n, k in np.ndindex(*logits.shape[1:]):
            moved = logits.detach().clone()
            moved[:, n, k] += step
            objective = objective + (expected(moved) - value) / step * nabla(logits[:, n, k])
        return value + objective


@breaks("float32", "extreme logits")
class LacksFloat32(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        if logits.dtype == torch.float32:
            raise NotImplementedError("float64 only")
        z = sample(logits)
        return score_function(logits, z, f(z))


@breaks("laws")
class ClaimsWhatIsNoLaw(Estimator):
    laws = frozenset({"zero-sum"})

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z))


@breaks("zero sum", "pathwise")
class StraightThroughIdentity(Estimator):
    unbiased = False
    differentiates = True
    laws = LAWS | {PATHWISE}

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(straight_through(sample(logits), logits))


@breaks("shift", "constant", "scale")
class BaselineOfTheLogits(Estimator):
    laws = LAWS

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z), logits.detach().sum((-2, -1)))


def one_baseline_a_category(logits: Tensor, z: Tensor, f: Cost) -> Tensor:
    """Unbiased, since every coordinate's score has mean zero by itself."""
    baseline = torch.arange(logits.shape[-1]).to(logits)
    cost, score = f(z), z - logits.softmax(-1)
    return cost + ((cost[:, None, None] - baseline) * score * nabla(logits)).sum((-2, -1))


@breaks("labels")
class CategoriesAreNumbers(Estimator):
    laws = frozenset({"labels", "shift"})

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return one_baseline_a_category(logits, sample(logits), f)


@breaks("labels")
class CategoriesAreNumbersUnderGumbelNoise(Estimator):
    laws = frozenset({"labels", "shift"})

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return one_baseline_a_category(logits, gumbel_max(logits)[0], f)


@breaks("parameters")
class DetachesTheCost(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z).detach())


@breaks("parameters")
class AttachesTheControlVariate(Estimator):
    relaxes = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z)) + nabla(f(logits.detach().softmax(-1)))


@breaks("knobs")
@dataclass(eq=False)
class IgnoresAKnob(Estimator):
    temperature: float = 1.0

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z, _ = gumbel_max(logits)
        return score_function(logits, z, f(z))


@breaks("rare")
class ClampsProbabilities(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        log_p = logits.softmax(-1).clamp(min=1e-6).log()
        return cost + cost * nabla((z * log_p).sum((-2, -1)))


@breaks("rare")
class ClampsSmallProbabilities(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        log_p = logits.softmax(-1).clamp(min=1e-8).log()
        return cost + cost * nabla((z * log_p).sum((-2, -1)))


@breaks("adapting")
class NeverAdapts(Estimator):
    def reset(self, logits: Tensor) -> None:
        self._mean = logits.new_zeros(())

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self._mean = self._mean.lerp(f(sample(logits)).detach().mean(), 0.05)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z), self._mean)


@breaks("settings")
@dataclass(eq=False)
class RightForTwoSamples(Estimator):
    samples: AtLeast2 = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, self.samples)
        cost = f(z)
        score = nabla(log_prob(logits.unsqueeze(1), z))
        return (cost + 2 * (cost - cost.mean(1, keepdim=True)) * score).mean(1)


@breaks("degree")
class ClaimsTooHighADegree(Estimator):
    unbiased = False
    differentiates = True
    degree = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(straight_through(sample(logits), logits.softmax(-1)))


@breaks("degree")
class ClaimsTooLowADegree(Estimator):
    unbiased = False
    differentiates = True
    degree = 1

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z, pi = sample(logits), logits.softmax(-1)
        s = (z - pi).detach()
        second = s * (s * nabla(logits)).sum(-1, keepdim=True)
        return f(straight_through(z, (pi + second) / 2))


@breaks("degree")
@dataclass(eq=False)
class ForgetsToDivide(Estimator):
    """A relaxation whose gradient vanishes in the limit in which it should be right."""

    unbiased = False
    differentiates = True
    degree = 2
    limit = {"temperature": 0.05}
    temperature: float = 0.5

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        b, z = gumbel_max(logits)
        y = ((logits + (z - logits).detach()) / self.temperature).softmax(-1)
        return f(straight_through(b, self.temperature * y))


@breaks("rows")
class DividesByTheRows(Estimator):
    """Unbiased, as every multiple of a control variate is, and another method for every R."""

    relaxes = True
    differentiates = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z, pi = sample(logits), logits.softmax(-1)
        x = pi.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f.frozen(x).mean(), x)
        h = (slope * (z - pi)).sum((-2, -1))
        return score_function(logits, z, f(z), h) + (slope * nabla(pi)).sum((-2, -1))


@breaks("direction")
class PointsDownhill(Estimator):
    unbiased = False
    differentiates = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(straight_through(sample(logits), -logits.softmax(-1)))


@breaks("direction")
class PointsDownhillUnderGumbelNoise(Estimator):
    unbiased = False
    differentiates = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(straight_through(gumbel_max(logits)[0], -logits.softmax(-1)))


@breaks("adapting")
class AdaptsTheWrongWay(Estimator):
    adapt_steps = 50

    def reset(self, logits: Tensor) -> None:
        self._mean = logits.new_zeros(())

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self._mean = self._mean.lerp(100 - f(sample(logits)).detach().mean(), 0.05)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z), self._mean)


@breaks("rare")
class ClampsTheUniform(Estimator):
    """DisARM that never sees the rarer value of a bit."""

    categories = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        phi = logits[..., 1] - logits[..., 0]  # [R, N]
        u, theta = draws().uniform(phi.shape, phi).clamp(1e-5, 1 - 1e-5), phi.sigmoid()
        b, c = (one_hot(x.long(), logits) for x in (u < theta, 1 - u < theta))
        cost = f(torch.stack([b, c], 1))
        sign = b[..., 1] - c[..., 1]
        g = (cost[:, :1] - cost[:, 1:]) * sign * phi.abs().sigmoid() / 2
        return cost.mean(1) + (g * nabla(phi)).sum(-1)


@pytest.mark.parametrize("cls, laws", WRONG)
def test_each_broken_law_rejects(cls: type[Estimator], laws: set[str]) -> None:
    for law in laws:
        finding = verdict_in_order(cls, law)
        assert finding.status == "failed", finding


@pytest.mark.slow
@pytest.mark.parametrize("cls, laws", WRONG)
def test_no_other_law_rejects(cls: type[Estimator], laws: set[str]) -> None:
    findings = check_estimator(cls)
    assert rejected(findings) == laws, findings
    assert not passed(findings)


@pytest.mark.parametrize("samples", [5, 7])
def test_rare_events_that_hang_on_several_draws_are_no_reason_to_reject(samples: int) -> None:
    """The tilt reaches few of them, and those few look as if they were known precisely."""
    arms = with_defaults(gradest.all_estimators()["arms"], {"samples": samples})
    found = verdict(arms, "rare")
    assert found.status == "skipped", found


class SeedsItself(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        own = torch.Generator().manual_seed(0)
        u = torch.rand(logits[..., :1].shape, generator=own, dtype=logits.dtype)
        z = one_hot((logits.softmax(-1).cumsum(-1) < u).sum(-1), logits)
        return score_function(logits, z, f(z))


def test_noise_of_its_own_is_no_absence_of_noise() -> None:
    findings = check_estimator(SeedsItself)
    assert "a torch.Generator of its own" in detail(findings, "randomness")
    assert "although nothing is drawn" in detail(findings, "seed")
    assert not passed(findings)


class OneValueForAll(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z)).mean()


class SamplesAsRows(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, 2)
        cost = f(z.flatten(0, 1)).unflatten(0, (-1, 2))
        return score_function(logits.unsqueeze(1), z, cost).mean(1)


class NoGradient(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(sample(logits))


class NotFinite(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return score_function(logits, z, cost, cost.log())


class NeedsTwoRows(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z), 0 * logits[1, 0, 0])


@pytest.mark.parametrize(
    "cls, told",
    [
        (OneValueForAll, "expected one value a row, shape [16], got []"),
        (SamplesAsRows, "expected f to be called for all 16 rows, got 32"),
        (NoGradient, "does not require grad"),
        (NotFinite, "rows are NaN or infinite"),
        (NeedsTwoRows, "IndexError: index 1 is out of bounds"),
    ],
)
def test_says_what_is_wrong_with_the_shape(cls: type[Estimator], told: str) -> None:
    findings = check_estimator(cls)
    assert "shape" in rejected(findings)
    assert told in detail(findings, "shape")


@dataclass(eq=False)
class Noisy(Estimator):
    """Unbiased, and so noisy that nobody can tell."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        noise = 1000 * draws().normal((len(logits),), logits)
        return score_function(logits, z, f(z), noise) + noise


def test_noise_does_not_certify() -> None:
    findings = check_estimator(Noisy)
    assert {f.law for f in findings if f.status == "inconclusive"} == {
        "parameters",
        "value",
        "bias",
    }
    assert not rejected(findings)
    assert not passed(findings)


@dataclass(eq=False)
class UphillInAStorm(Estimator):
    """Points uphill by less than the noise, which is turned around as well: one of both is down."""

    unbiased = False
    sign: float = 1.0

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        noise = self.sign * 1e4 * draws().normal(logits.shape, logits)
        return score_function(logits, z, f(z)) + (noise * nabla(logits)).sum((-2, -1))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_noise_is_no_evidence_of_a_wrong_direction(sign: float) -> None:
    found = verdict(with_defaults(UphillInAStorm, {"sign": sign}), "direction")
    assert found.status == "inconclusive", found


@dataclass(eq=False)
class AdaptsALittle(Estimator):
    """A constant baseline that adapting hardly moves, for the better or for the worse."""

    adapt_steps = 1
    towards: float = 1.0

    def reset(self, logits: Tensor) -> None:
        self._baseline = 0.0

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self._baseline += 1e-3 * self.towards

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z), self._baseline)


@pytest.mark.parametrize("towards", [1.0, -1.0])
def test_a_change_within_the_noise_is_no_evidence_about_adapting(towards: float) -> None:
    found = verdict(with_defaults(AdaptsALittle, {"towards": towards}), "adapting")
    assert found.status == "inconclusive", found


@pytest.mark.parametrize("correlation", [-1.0, 1.0])
def test_relabelled_estimates_from_the_same_noise_are_compared_in_pairs(correlation: float) -> None:
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 2, generator=draws, dtype=torch.float64)
    own = 0.3 * torch.randn(64, 2, generator=draws, dtype=torch.float64)
    a, b = (
        SimpleNamespace(
            gradient=Moments(torch.full((64,), 8.0), mean, torch.zeros_like(mean)),
            logits=torch.zeros(1, 1, 2),
        )
        for mean in (noise + own, (correlation * noise).roll(1, -1))
    )
    z, freedom, _ = _compare(a, b)
    paired = stats.ttest_rel(noise + own, correlation * noise).statistic
    seconds = stats.ttest_rel((noise + own).square(), noise.square()).statistic
    assert z == pytest.approx(max(abs(paired).max(), abs(seconds).max()))
    assert freedom == 63


@pytest.mark.parametrize(
    ("cls", "law", "told"),
    [
        (TwoNeighboursOfEachCategory, "bias", r"relative bias \d+\.\d\d%, enumerated"),
        (SurrogateLoss, "value", r"deviates from E f by \d+\.\d\d%, enumerated"),
        (RightForTwoSamplesAlone, "settings", r"relative bias at most \de-1\d%, enumerated"),
        (RightForTwoSamplesAlone, "rare", r"a coordinate at most \de-1\d%, enumerated"),
    ],
)
def test_what_is_relative_is_told_in_percent(cls: type[Estimator], law: str, told: str) -> None:
    assert re.search(told, verdict(cls, law).detail)


class FiveCategories(Estimator):
    categories = 5

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        raise AssertionError("never called")


@dataclass(eq=False)
class NoDefault(Estimator):
    samples: int

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        raise AssertionError("never called")


@pytest.mark.parametrize("cls, law", [(FiveCategories, "applies"), (NoDefault, "builds")])
def test_rejects_what_cannot_be_tested(cls: type[Estimator], law: str) -> None:
    findings = check_estimator(cls)
    assert rejected(findings) == {law}
    assert not passed(findings)


def test_every_law_is_defined_in_a_sentence() -> None:
    assert set(OF_ESTIMATORS) == {"builds", "applies", *ESTIMATOR_LAWS}
    assert set(OF_TASKS) == {"builds", *TASK_LAWS, *MODEL_LAWS}
    docs = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for law, definition in (*OF_ESTIMATORS.items(), *OF_TASKS.items()):
        assert f"| `{law}` | {definition.removesuffix('.')} |" in docs


def test_findings_come_one_by_one_and_each_law_is_announced() -> None:
    begun: list[str] = []
    for finding in task_findings(Good, begun.append):
        assert begun[-1] == finding.law
    assert begun == list(TASK_LAWS)


class Exits(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        raise SystemExit(0)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class RaisesTheUnspeakable(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        raise Unspeakable


@pytest.mark.parametrize(
    "cls, told",
    [
        (Exits, "SystemExit: 0"),
        (RaisesTheUnspeakable, "Unspeakable: its message cannot be read: RuntimeError"),
    ],
)
def test_whatever_a_plugin_raises_rejects_it(cls: type[Estimator], told: str) -> None:
    findings = check_estimator(cls)
    assert detail(findings, "shape") == told and not passed(findings)


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
    told = "The cost of a data point does not depend on the codes of other data points."
    assert f"\n             ({told})\n" in out
    assert ("\x1b" in out) == terminal
    assert ("testing      points\r\x1b[2Kfailed       points: " in out) == terminal
    assert out.endswith("bad: rejected\n")


@pytest.mark.parametrize(
    "statuses, certified",
    [
        (["passed", "skipped"], True),
        (["passed", "failed"], False),
        (["passed", "inconclusive"], False),
        (["skipped"], False),
        ([], False),
    ],
)
def test_what_certifies(statuses: list[Any], certified: bool) -> None:
    assert passed([Finding("law", status, "") for status in statuses]) == certified


def test_findings_are_reproducible_and_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    assert check_estimator(ClaimsToBeUnbiased) == check_estimator(ClaimsToBeUnbiased)
    assert torch.equal(before, torch.get_rng_state())


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
    assert rejected(findings) == laws, findings
    assert not passed(findings)
