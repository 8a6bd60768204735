"""The conformance battery certifies what is right and names the law that a mistake breaks."""

import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Tuned
from gradest.categorical import (
    conditional_gumbel,
    gumbel_max,
    log_prob,
    nabla,
    one_hot,
    sample,
)
from gradest.checks import (
    ESTIMATOR_LAWS,
    Finding,
    check_estimator,
    passed,
)
from gradest.checks.definitions import OF_ESTIMATORS, OF_TASKS
from gradest.checks.model_laws import MODEL_LAWS
from gradest.checks.symmetry_laws import _compare
from gradest.checks.task_laws import TASK_LAWS
from gradest.randomness import draws
from gradest.statistics.moments import Moments
from tests.checks.wrong_estimators import (
    WRONG,
    ClaimsToBeUnbiased,
    RightForTwoSamplesAlone,
    SurrogateLoss,
    TwoNeighboursOfEachCategory,
    leave_one_out,
    score_function,
)
from tests.support import ROOT, broken_laws
from tools.mutants import verdict, with_defaults


def detail(findings: list[Finding], law: str) -> str:
    return next(finding.detail for finding in findings if finding.law == law)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(gradest.all_estimators()))
def test_every_estimator_is_certified(name: str) -> None:
    findings = check_estimator(gradest.all_estimators()[name])
    assert passed(findings), findings
    modest = [f.law for f in findings if "but it holds" in f.detail]
    assert not modest, f"{name} obeys {modest} without claiming it"


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


@pytest.mark.weekly
def test_certifies_state_and_counts_evaluations_where_none_are_claimed() -> None:
    findings = check_estimator(Rebar)
    assert passed(findings), findings
    (evaluations,) = [f for f in findings if f.law == "evaluations"]
    assert evaluations.status == "skipped"
    expected = "3 (test problem 'one categorical'), 3 (test problem 'coupled categoricals')"
    assert expected in evaluations.detail


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


@pytest.mark.slow
def test_how_many_draws_there_are_may_depend_on_them() -> None:
    findings = check_estimator(DrawsUntilAllAccept)
    assert passed(findings), findings


@pytest.mark.parametrize(
    "cls", [SamplesAsMoreRows, pytest.param(SamplesFirst, marks=pytest.mark.slow)]
)
def test_rows_of_noise_need_not_be_rows_of_logits(cls: type[Estimator]) -> None:
    findings = check_estimator(cls)
    assert passed(findings), findings
    assert "cannot be made common" in detail(findings, "rare")


@pytest.mark.weekly
@pytest.mark.parametrize("cls, laws", WRONG)
def test_the_broken_laws_reject_and_no_others(cls: type[Estimator], laws: set[str]) -> None:
    findings = check_estimator(cls)
    assert broken_laws(findings) == laws, findings
    assert not passed(findings)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [5, 7])
def test_rare_events_that_hang_on_several_draws_are_no_reason_to_reject(samples: int) -> None:
    """The tilt reaches few of them, and those few look as if they were known precisely."""
    arms = with_defaults(gradest.all_estimators()["arms"], {"samples": samples})
    finding = verdict(arms, "rare")
    assert finding.status == "skipped", finding


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
    "cls, reason",
    [
        (OneValueForAll, "expected one value a row, shape [16], got []"),
        (SamplesAsRows, "expected f to be called for all 16 rows, got 32"),
        (NoGradient, "does not require grad"),
        (NotFinite, "rows are NaN or infinite"),
        (NeedsTwoRows, "IndexError: index 1 is out of bounds"),
    ],
)
def test_says_what_is_wrong_with_the_shape(cls: type[Estimator], reason: str) -> None:
    findings = check_estimator(cls)
    assert "shape" in broken_laws(findings)
    assert reason in detail(findings, "shape")


@dataclass(eq=False)
class Noisy(Estimator):
    """Unbiased, and so noisy that nobody can tell."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        noise = 1000 * draws().normal((len(logits),), logits)
        return score_function(logits, z, f(z), noise) + noise


@pytest.mark.slow
def test_noise_does_not_certify() -> None:
    findings = check_estimator(Noisy)
    assert {f.law for f in findings if f.status == "inconclusive"} == {
        "parameters",
        "value",
        "bias",
    }
    assert not broken_laws(findings)
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


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_noise_is_no_evidence_of_a_wrong_direction(sign: float) -> None:
    finding = verdict(with_defaults(UphillInAStorm, {"sign": sign}), "direction")
    assert finding.status == "inconclusive", finding


class Shortened(Estimator):
    """Half of REINFORCE: right in direction."""

    unbiased = False

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return cost + cost / 2 * nabla(log_prob(logits, z))


class ShortenedUnderGumbelNoise(Estimator):
    """The same, with a baseline, where the draws cannot be enumerated."""

    unbiased = False
    aligned = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z, _ = gumbel_max(logits.unsqueeze(1).expand(-1, 8, -1, -1))
        return leave_one_out(logits, z, f(z)) - nabla(leave_one_out(logits, z, f.frozen(z))) / 2


def test_a_mean_in_the_direction_of_the_gradient_can_be_claimed() -> None:
    finding = verdict(Shortened, "direction")
    assert finding.status == "passed" and "but it holds: add aligned = True" in finding.detail
    claiming = type("Claiming", (Shortened,), {"aligned": True})
    finding = verdict(claiming, "direction")
    assert finding.status == "passed" and "a multiple of the gradient" in finding.detail


@pytest.mark.slow
def test_the_direction_is_measured_where_it_cannot_be_enumerated() -> None:
    finding = verdict(ShortenedUnderGumbelNoise, "direction")
    assert finding.status == "passed" and "a multiple of the gradient" in finding.detail


def test_a_normalised_cost_shows_how_it_turns_the_gradient_of_a_skewed_one() -> None:
    grpo = gradest.all_estimators()["grpo"]
    finding = verdict(grpo, "direction")
    assert (
        finding.status == "passed" and "-0.20 (test problem 'skewed categories')" in finding.detail
    )


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


@pytest.mark.slow
@pytest.mark.parametrize("towards", [1.0, -1.0])
def test_a_change_within_the_noise_is_no_evidence_about_adapting(towards: float) -> None:
    finding = verdict(with_defaults(AdaptsALittle, {"towards": towards}), "adapting")
    assert finding.status == "inconclusive", finding


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
    ("cls", "law", "text"),
    [
        (TwoNeighboursOfEachCategory, "bias", r"relative bias \d+\.\d\d %, enumerated"),
        (SurrogateLoss, "value", r"deviates from E f by \d+\.\d\d %, enumerated"),
        (RightForTwoSamplesAlone, "settings", r"relative bias at most \de-1\d %, enumerated"),
        (RightForTwoSamplesAlone, "rare", r"a coordinate at most \de-1\d %, enumerated"),
    ],
)
def test_what_is_relative_is_given_in_percent(cls: type[Estimator], law: str, text: str) -> None:
    assert re.search(text, verdict(cls, law).detail)


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
    assert broken_laws(findings) == {law}
    assert not passed(findings)


def test_every_law_is_defined_in_a_sentence() -> None:
    assert set(OF_ESTIMATORS) == {"builds", "applies", *ESTIMATOR_LAWS}
    assert set(OF_TASKS) == {"builds", *TASK_LAWS, *MODEL_LAWS}
    docs = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for law, definition in (*OF_ESTIMATORS.items(), *OF_TASKS.items()):
        assert f"| `{law}` | {definition.removesuffix('.')} |" in docs


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
    "cls, reason",
    [
        (Exits, "SystemExit: 0"),
        (RaisesTheUnspeakable, "Unspeakable: its message cannot be read: RuntimeError"),
    ],
)
def test_whatever_a_plugin_raises_rejects_it(cls: type[Estimator], reason: str) -> None:
    findings = check_estimator(cls)
    assert detail(findings, "shape") == reason and not passed(findings)


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


@dataclass(eq=False)
class OneAverageForAll(Estimator):
    """A moving average of the costs of all rows, though it claims a state for each block."""

    adapt_steps = 5
    stackable = True

    def reset(self, logits: Tensor) -> None:
        self._mean = logits.new_zeros(())

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self._mean = self._mean.lerp(f(sample(logits)).detach().mean(), 0.5)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return cost + (cost - self._mean) * nabla(log_prob(logits, z))


def blocks_finding(cls: type[Estimator]) -> Finding:
    return verdict(cls, "blocks")


def test_several_states_in_one_instance_are_those_of_several_instances() -> None:
    shared = blocks_finding(OneAverageForAll)
    assert shared.status == "failed" and "use self.per_row" in shared.detail

    class Modest(OneAverageForAll):
        stackable = False

    assert blocks_finding(Modest).status == "skipped"
    for name in ("reinforce_ema", "nvil", "relax"):
        assert blocks_finding(gradest.all_estimators()[name]).status == "passed"


def test_an_estimator_that_draws_its_samples_first_is_not_estimated_in_blocks() -> None:
    finding = blocks_finding(SamplesFirst)
    assert finding.status == "skipped" and "together differ by inf" in finding.detail
