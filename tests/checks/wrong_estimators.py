"""Deliberately wrong estimators, each with every law of the battery that it breaks."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from gradest import LAWS, PATHWISE, Cost, Estimator
from gradest.categorical import (
    gumbel_max,
    leave_one_out_mean,
    log_prob,
    nabla,
    one_hot,
    sample,
    straight_through,
)
from gradest.knobs import AtLeast2
from gradest.measurement.enumerated_truth import all_codes
from gradest.randomness import draws

WRONG: list[Any] = []


def breaks(*laws: str) -> Callable[[type], type]:
    """Enters a class among the wrong ones, with every law that it breaks and no other."""

    def enter(cls: type) -> type:
        WRONG.append(pytest.param(cls, set(laws), id=cls.__name__))
        return cls

    return enter


def score_function(logits: Tensor, z: Tensor, cost: Tensor, baseline: Any = 0.0) -> Tensor:
    return cost + (cost - baseline) * nabla(log_prob(logits, z))


def leave_one_out(logits: Tensor, z: Tensor, cost: Tensor) -> Tensor:
    return score_function(logits.unsqueeze(1), z, cost, leave_one_out_mean(cost, dim=1)).mean(1)


class Score(Estimator):
    """Right, for classes that claim something wrong about it."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return score_function(logits, z, f(z))


class StraightThrough(Estimator):
    """Right, for classes that claim something wrong about it."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(straight_through(sample(logits), logits.softmax(-1)))


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
class RightForOneLatentAlone(Score):
    evaluations = "N"


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
class ClaimsToBeUnbiased(StraightThrough):
    differentiates = True


@breaks("bias")
class ClaimsToBeBiased(Score):
    unbiased = False


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
class ClaimsToRelax(Score):
    relaxes = True


@breaks("derivative")
class DifferentiatesInSilence(StraightThrough):
    unbiased = False


@breaks("derivative")
class ClaimsToDifferentiate(Score):
    differentiates = True


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
        cost, step = f(z), 1e-4

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
class ClaimsWhatIsNoLaw(Score):
    laws = frozenset({"zero-sum"})


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
class ClaimsTooHighADegree(StraightThrough):
    unbiased = False
    differentiates = True
    degree = 2


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


@breaks("direction")
class ClaimsToBeAligned(StraightThrough):
    """The direction is exact for an affine f alone."""

    unbiased = False
    aligned = True
    differentiates = True


@breaks("direction")
@dataclass(eq=False)
class ClaimsToBeAlignedUnderGumbelNoise(Estimator):
    """Dr. GRPO with a scale that reads the cost, where the draws cannot be enumerated."""

    unbiased = False
    aligned = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z, _ = gumbel_max(logits)
        cost = f(z)
        return cost + cost / (1 + cost.abs()) * nabla(log_prob(logits, z))


@breaks("value")
class SamplesOfAnotherDistribution(Estimator):
    """From logits that are 3 % flatter, which moves E f on the test problems by less than 2 %."""

    unbiased = False
    differentiates = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        b, _ = gumbel_max(0.97 * logits)
        return f(straight_through(b, logits.softmax(-1)))


@breaks("value")
class ClaimsAnotherDistribution(StraightThrough):
    unbiased = False
    own_distribution = True
    differentiates = True


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
