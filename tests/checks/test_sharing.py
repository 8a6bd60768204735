"""Whether rows share noise: never found where they do not, and found where they do in part."""

import re
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator
from gradest.categorical import gumbel, leave_one_out_mean, log_prob, nabla, one_hot, sample
from gradest.checks.battery import Subject
from gradest.checks.controlled_noise import UnevenNoise
from gradest.checks.problems import rare
from gradest.checks.sharing import agreement, excess, excessive
from gradest.randomness import draws
from tools.mutants import verdict

CALLS, ROWS = 32, 512


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DISTRIBUTIONS = {
    "normal": lambda x: x,
    "skewed": lambda x: x.exp().pow(3),
    "heavy tails": lambda x: x / noise(99, *x.shape),
    "seldom not zero": lambda x: (x > 2.5).double(),
    "two values": lambda x: (x > 0.3).double(),
    "constant": torch.ones_like,
}


@pytest.mark.parametrize("change", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_independent_rows_pass_whatever_their_distribution(change):
    p_values = []
    for seed in range(40):
        found = agreement(change(noise(seed, CALLS, 64, 3)))
        assert found.by_chance
        p_values.append(found.p_value)
    # 24 comparisons are corrected for, so that few runs come close to any level.
    assert sum(p < 0.05 for p in p_values) <= 8


def test_columns_that_differ_from_row_to_row_and_call_to_call_alike_pass():
    x = noise(0, CALLS, ROWS, 2) + noise(1, 1, ROWS, 2)  # rows of two kinds, as of data points
    assert agreement(x).by_chance


SHARED = {
    "all rows": lambda x: x[:, :1].expand_as(x),
    "neighbours": lambda x: x[:, ::2].repeat_interleave(2, 1),
    "blocks of eight": lambda x: x[:, ::8].repeat_interleave(8, 1),
    "halves": lambda x: torch.cat([x[:, : ROWS // 2]] * 2, 1),
    "halves of opposite signs": lambda x: torch.cat([x[:, : ROWS // 2], -x[:, : ROWS // 2]], 1),
    "a sixth of the variance": lambda x: x + 0.45 * noise(5, CALLS, 1, 2),
    "one column of two": lambda x: torch.stack([x[..., 0], x[:, :1, 1].expand(-1, ROWS)], -1),
}


@pytest.mark.parametrize("change", SHARED.values(), ids=SHARED)
def test_shared_noise_is_found(change):
    assert not agreement(change(noise(0, CALLS, ROWS, 2))).by_chance


def test_noise_that_calls_repeat_is_found_when_calls_take_the_place_of_rows():
    x = noise(0, 1, ROWS, 2).expand(CALLS, -1, -1) + 0.1 * noise(1, CALLS, ROWS, 2)
    assert agreement(x).by_chance
    assert not agreement(x.transpose(0, 1)).by_chance


def excessive_in(x: Tensor) -> bool:
    return excessive(excess(x), len(x))


@pytest.mark.parametrize("calls", [8, CALLS])
def test_means_that_vary_from_call_to_call_exceed_what_rows_explain(calls):
    for seed, change in enumerate(DISTRIBUTIONS.values()):
        assert not excessive_in(change(noise(seed, calls, ROWS, 3)))
    x = noise(0, calls, ROWS, 3)
    assert excessive_in(x + 0.2 * noise(1, calls, 1, 3))
    assert excessive_in(noise(1, calls, 1, 3).expand(-1, ROWS, -1))


def test_two_outliers_in_one_call_are_no_shared_noise():
    x = noise(0, CALLS, ROWS, 1)
    x[3, :2] += 1e6
    assert not excessive_in(x)


def score_function(logits: Tensor, z: Tensor, cost: Tensor) -> Tensor:
    return cost + cost * nabla(log_prob(logits, z))


def inverted(logits: Tensor, u: Tensor) -> Tensor:
    """One-hot codes by inversion of u [..., N, 1]."""
    index = (logits.softmax(-1).cumsum(-1) < u).sum(-1)
    return one_hot(index.clamp(max=logits.shape[-1] - 1), logits)


class OneSampleForAll(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits[:1]).expand(len(logits), -1, -1)
        return score_function(logits, z, f(z))


class TheFirstSampleForAll(Estimator):
    """The noise comes row by row, and that of the others is thrown away."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)[:1].expand(len(logits), -1, -1)
        return score_function(logits, z, f(z))


class OneGumbelForAll(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = one_hot((logits + gumbel(logits[:1])).argmax(-1), logits)
        return score_function(logits, z, f(z))


class OneOfFourSamplesShared(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        shared = sample(logits[:1]).unsqueeze(1).expand(len(logits), -1, -1, -1)
        z = torch.cat([sample(logits, 3), shared], 1)
        cost = f(z)
        advantage = cost - leave_one_out_mean(cost, 1)
        return (cost + advantage * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


class OneBaselineForAll(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost, baseline = f(z), draws().normal((1,), logits)
        return cost + (cost - baseline) * nabla(log_prob(logits, z))


class HalvesAreAntithetic(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        u = draws().uniform((-(-len(logits) // 2), logits.shape[1], 1), logits)
        z = inverted(logits, torch.cat([u, 1 - u])[: len(logits)])
        return score_function(logits, z, f(z))


class SeededAnew(Estimator):
    """The same noise in every call, one for all rows: to look at, a deterministic estimator."""

    unbiased = False

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        own = torch.Generator().manual_seed(0)
        z = inverted(logits, torch.rand(logits.shape[1], 1, generator=own, dtype=logits.dtype))
        return score_function(logits, z, f(z))


class DrawsInReset(Estimator):
    def reset(self, logits: Tensor) -> None:
        self.u = draws().uniform((logits.shape[1], 1), logits)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = inverted(logits, self.u)
        return score_function(logits, z, f(z))


class DrawsInResetAndIsBiased(DrawsInReset):
    unbiased = False


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (OneSampleForAll, "rows share noise: .* in 100 % of .* draw for every row, as sample"),
        (TheFirstSampleForAll, "rows share noise"),
        (OneGumbelForAll, "rows share noise"),
        (OneOfFourSamplesShared, "rows share noise"),
        (OneBaselineForAll, "rows share noise"),
        (HalvesAreAntithetic, "rows share noise"),
        (SeededAnew, "calls repeat their noise: .* with gradest.categorical"),
        (DrawsInReset, "rows share noise that `reset` or `adapt` drew: .* draw in the call"),
        (DrawsInResetAndIsBiased, "rows share noise that `reset` or `adapt` drew"),
    ],
)
def test_rows_refuses_shared_noise(cls, told):
    found = verdict(cls, "rows")
    assert found.status == "failed" and re.search(told, found.detail), found


def test_a_generator_of_its_own_is_refused_by_randomness():
    found = verdict(SeededAnew, "randomness")
    assert found.status == "failed" and "a torch.Generator of its own" in found.detail


class SamplesInTheFirstAxis(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits.repeat(2, 1, 1)).unflatten(0, (2, -1)).transpose(0, 1)
        cost = f(z)
        advantage = cost - leave_one_out_mean(cost, 1)
        return (cost + advantage * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


class RandomFeatures(Estimator):
    """A baseline with weights that reset draws: its state moves the noise and not the mean."""

    def reset(self, logits: Tensor) -> None:
        self.baseline = 5 * draws().normal((), logits)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return cost + (cost - self.baseline) * nabla(log_prob(logits, z))


@pytest.mark.parametrize(
    "cls", [SamplesInTheFirstAxis, RandomFeatures, gradest.all_estimators()["exact"]]
)
def test_rows_with_noise_of_their_own_pass(cls):
    assert verdict(cls, "rows").status == "passed"


class Managed(Estimator):
    """Draws within a context manager of its own, for rows of any number."""

    open: ClassVar[int] = 0

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        Managed.open += 1
        z = sample(logits.repeat_interleave(2, 0)).unflatten(0, (-1, 2))
        u = draws().uniform((1,), logits)
        Managed.open -= 1  # left out when an exception passes
        cost = f(z) + u  # by a hundredth of the variance
        advantage = cost - leave_one_out_mean(cost, 1)
        return (cost + advantage * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


def test_no_exception_passes_through_the_estimator():
    Managed.open = 0
    assert verdict(Managed, "rows").status == "failed"  # one uniform for all rows
    subject = Subject(Managed)
    with pytest.raises(UnevenNoise, match=r"uniforms of shape \[1\] for 2 rows"):
        subject.tilted_moments(rare(14.0)[0])
    assert Managed.open == 0
