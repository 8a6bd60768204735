"""What `measure` enumerates by default, against replicates and against sums by hand."""

import json
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import log_prob, nabla, sample
from gradest.errors import Inapplicable, NonFiniteGradient, UsageError
from gradest.measurement.dtype_error import DtypeError
from gradest.measurement.enumerated_moments import exact_moments, outcome_count
from gradest.measurement.enumerated_truth import all_codes
from gradest.measurement.parameters import SCALES
from gradest.measurement.replicator import Replicator
from gradest.measurement.result import ENUMERATED
from tests.support import EXACT, LEVEL

TASKS = {"bernoulli": {"theta": (0.3, 0.8)}, "categorical": {}}


def countable() -> list[tuple[str, str]]:
    """Every estimator of the catalogue with each task on which its draws can be enumerated."""
    found = []
    for task_name, knobs in TASKS.items():
        task = gradest.make_task(task_name, **knobs)
        for name in sorted(gradest.all_estimators()):
            try:
                replicator = Replicator(gradest.make_estimator(name), task)
            except Inapplicable:
                continue
            if outcome_count(replicator, limit=1000) not in (None, 1):
                found.append((task_name, name))
    return found


PAIRS = countable()


def test_the_default_enumerates_a_good_part_of_the_catalogue():
    assert len(PAIRS) >= 20
    assert {"reinforce", "rloo", "straight_through"} <= {name for _, name in PAIRS}


@pytest.mark.slow
@pytest.mark.parametrize(("task_name", "name"), PAIRS)
def test_the_default_agrees_with_replicates_in_mean_and_variance(task_name, name):
    task = gradest.make_task(task_name, **TASKS[task_name])
    exact, drawn = (
        gradest.measure(
            gradest.make_estimator(name),
            task,
            replicates=20_000,
            adapt_steps=2,
            enumerate_draws=None if by_default else False,
            seed=5,
        )
        for by_default in (True, False)
    )
    assert (exact.method, exact.replicates) == (ENUMERATED, 0)
    assert (drawn.method, drawn.outcomes, drawn.replicates) == ("monte_carlo", None, 20_000)
    assert exact.outcomes == exact.row()["outcomes"] > 1
    assert exact.evaluations == drawn.evaluations
    assert exact.gradient_evaluations == drawn.gradient_evaluations
    k = stats.norm.isf(LEVEL / (2 * exact.mean.numel()))
    size = max(float(exact.mean.abs().max()), float(exact.variance.max()) ** 0.5)
    assert drawn.standard_error.max() <= 0.02 * size, "inconclusive"
    rounding = EXACT * size
    assert ((drawn.mean - exact.mean).abs() <= k * drawn.standard_error + rounding).all()
    moments = drawn.gradient
    each = moments.m2 / (moments.count.unsqueeze(1) - 1)  # [J, D]
    error = (each.std(0) / len(each) ** 0.5).reshape(exact.variance.shape)
    assert error.max() <= 0.05 * exact.variance.max() + rounding, "inconclusive"
    # The mean of 64 skewed batch variances: a Student's t of a quarter of their degrees of freedom
    # has the wider tails that this asks for.
    k = stats.t.isf(LEVEL / (2 * exact.mean.numel()), 15)
    assert ((drawn.variance - exact.variance).abs() <= k * error + rounding**2 + 1e-14).all()
    value = drawn.objective.pooled
    error = float((value.m2 / (20_000 - 1) / 20_000).sqrt())
    assert abs(drawn.value - exact.value) <= k * error + EXACT


@pytest.mark.slow
@pytest.mark.parametrize(("task_name", "name"), PAIRS)
def test_enumerated_shares_and_cosines_are_those_of_replicates(task_name, name):
    task = gradest.make_task(task_name, **TASKS[task_name])
    exact, drawn = (
        gradest.measure(
            gradest.make_estimator(name), task, adapt_steps=2, enumerate_draws=choice, seed=1
        )
        for choice in (True, False)
    )
    n = 10_000
    k = stats.norm.isf(LEVEL / 2)
    error = (exact.zero * (1 - exact.zero) / n) ** 0.5
    assert abs(exact.zero - drawn.zero) <= k * error + EXACT
    for parameter in SCALES:
        a, b = exact.row(parameter), drawn.row(parameter)
        assert a["cosine_se"] == 0
        assert b["cosine_se"] <= 0.02
        assert abs(a["cosine"] - b["cosine"]) <= k * b["cosine_se"] + EXACT


@pytest.mark.parametrize("name", ["concrete", "rebar", "gumbel_rao"])
def test_what_is_continuous_cannot_be_asked_to_be_enumerated(name):
    task = gradest.make_task("bernoulli")
    estimator = gradest.make_estimator(name)
    with pytest.raises(
        UsageError, match=f"^{name} on bernoulli: the draws cannot be enumerat"
    ) as told:
        gradest.measure(estimator, task, enumerate_draws=True, adapt_steps=0)
    assert "noise has no finite number of outcomes" in str(told.value)
    assert "\n" not in str(told.value)
    assert gradest.measure(estimator, task, replicates=64, adapt_steps=0).method == "monte_carlo"


def test_more_outcomes_than_the_limit_are_drawn_and_refused_on_demand(monkeypatch):
    monkeypatch.setattr("gradest.measurement.setup.LIMIT", 8**2 - 1)
    task, rloo = gradest.make_task("bernoulli"), gradest.make_estimator("rloo")
    assert gradest.measure(rloo, task, replicates=64).method == "monte_carlo"
    with pytest.raises(UsageError, match="64 joint outcomes, and at most 63 are enumerated"):
        gradest.measure(rloo, task, enumerate_draws=True)
    monkeypatch.setattr("gradest.measurement.setup.LIMIT", 8**2)
    found = gradest.measure(rloo, task, replicates=64)
    assert (found.method, found.outcomes) == (ENUMERATED, 64)


def test_outcomes_are_counted_without_a_visit():
    def count(name, task="bernoulli", **knobs):
        replicator = Replicator(gradest.make_estimator(name, **knobs), gradest.make_task(task))
        return outcome_count(replicator)

    assert count("reinforce") == 2**3
    assert count("rloo", samples=4) == 2**12
    assert count("rloo", "categorical", samples=3) == 27
    assert count("exact") == 1
    assert count("concrete") is None
    assert count("rloo", samples=7) is None  # 2²¹ are more than a million
    few = Replicator(gradest.make_estimator("reinforce"), gradest.make_task("bernoulli"))
    assert outcome_count(few, limit=7) is None and outcome_count(few, limit=8) == 8


class Points(Task):
    """Three data points, each with a cost of its own; the third never has a gradient."""

    logits = torch.tensor(
        [[[0.5, -0.7, 0.2]], [[-0.8, 0.4, 0.3]], [[0.1, 0.0, -0.4]]], dtype=torch.float64
    )
    values = torch.tensor([[0.0, 1.0, 4.0], [2.0, -1.0, 0.0], [3.0, 3.0, 3.0]])
    name = "points"

    def problem(self, batch=None) -> Problem:
        def cost(z: Tensor) -> Tensor:  # [B, ..., 1, 3] -> [B, ...]
            values = self.values.to(z).reshape(3, *[1] * (z.ndim - 2), 3)
            return (z * values).sum((-2, -1))

        return Problem(self.logits, Cost(cost))


def score_function(logits: Tensor, f: Cost) -> Tensor:
    z = sample(logits)
    return f(z) + f(z) * nabla(log_prob(logits, z))


class Centred(Estimator):
    """REINFORCE less the cost of the first category: zero whenever that is drawn."""

    name = "centred"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        first = torch.zeros_like(z)
        first[..., 0] = 1
        return f(z) + (f(z) - f(first)).detach() * nabla(log_prob(logits, z))


class Reinforce(Estimator):
    name = "reinforce_by_hand"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return score_function(logits, f)


def joint() -> tuple[Tensor, Tensor]:
    """All joint outcomes of three points: one category for each [27, 3], and probabilities [27]."""
    index = torch.cartesian_prod(*[torch.arange(3)] * 3)
    log_p = Points.logits.squeeze(1).log_softmax(-1)  # [B, K]
    return index, log_p[torch.arange(3), index].sum(1).exp()


def test_the_shares_and_the_value_of_several_points_are_those_of_their_joint_outcomes():
    """The estimate is the whole of them: zero where all are, a value that is their mean."""
    found = gradest.measure(Centred(), Points())
    index, p = joint()
    values = Points.values.double()[torch.arange(3), index]  # [27, B]
    zero = (values == Points.values[:, 0]).all(1)
    assert found.zero == pytest.approx(float(p[zero].sum()), abs=EXACT)
    value = values.mean(1)
    mean = float(p @ value)
    variance = float(p @ (value - mean).square())
    assert found.value == pytest.approx(mean, abs=EXACT)
    pooled = found.objective.pooled
    assert float(pooled.m2[0, 0]) == pytest.approx(variance, abs=EXACT)
    drawn = gradest.measure(Centred(), Points(), enumerate_draws=False)
    error = (found.zero * (1 - found.zero) / 10_000) ** 0.5
    assert abs(drawn.zero - found.zero) <= 4.5 * error
    assert abs(drawn.value - mean) <= 4.5 * (variance / 10_000) ** 0.5


def test_the_cosine_of_several_points_comes_from_replicates():
    found = gradest.measure(Reinforce(), Points())
    index, p = joint()
    one = torch.eye(3, dtype=torch.float64)[index]  # [27, B, K]
    pi = Points.logits.squeeze(1).softmax(-1)
    cost = Points.values.double()[torch.arange(3), index]
    estimate = (cost.unsqueeze(-1) * (one - pi)).flatten(1)  # [27, D]
    exact = found.exact.flatten()
    assert torch.allclose(p @ estimate, exact, atol=EXACT)
    for parameter in SCALES:
        weight = found.weight(parameter).flatten()
        cosine = torch.nn.functional.cosine_similarity(estimate * weight, exact * weight, dim=1)
        mean = float(p @ cosine)
        error = float(p @ (cosine - mean).square()) ** 0.5 / 2**7  # 2¹⁴ replicates
        row = found.row(parameter)
        assert row["cosine_se"] == pytest.approx(error, rel=0.05)
        assert error < 0.01 and abs(row["cosine"] - mean) <= 4.5 * error
        assert row["variance"] == pytest.approx(
            float((p @ (estimate * weight).square() - (p @ (estimate * weight)).square()).sum()),
            abs=EXACT,
        )


class Odd(Estimator):
    """In one coordinate infinite where the second category is drawn, NaN where the third is.

    The value is finite: the root of x has an infinite derivative at 0, and 0 · ∞ is NaN.
    """

    name = "odd"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        x = nabla(logits[:, 0, 0]) + z[:, 0, 0]
        root = x.sqrt()
        return f(z) + torch.where(z[:, 0, 2] > 0, 0.0, 1.0) * root


@pytest.mark.parametrize("enumerate_draws", [True, False])
def test_the_odd_shares_of_several_points_combine(enumerate_draws):
    """A joint estimate is finite where each point is, and overflows where some point does."""
    found = gradest.measure(Odd(), Points(), tolerant=True, enumerate_draws=enumerate_draws)
    pi = Points.logits.squeeze(1).softmax(-1)
    nonfinite = 1 - float(pi[:, 0].prod())
    overflow = 1 - float((1 - pi[:, 1]).prod())
    noise = 0 if enumerate_draws else 4.5 * 0.5 / 100
    assert found.nonfinite == pytest.approx(nonfinite, abs=noise + EXACT)
    assert found.overflow == pytest.approx(overflow, abs=noise + EXACT)
    row = found.row()
    assert row["verdict"] == "inconclusive" and "variance" not in row
    assert row["nonfinite"] == found.nonfinite
    with pytest.raises(NonFiniteGradient):
        gradest.measure(Odd(), Points(), enumerate_draws=enumerate_draws)


@pytest.mark.parametrize("rows", [1, 4, 7, 50])
@pytest.mark.parametrize("name", ["rloo", "measure_valued", "straight_through"])
def test_how_many_outcomes_are_looked_at_together_changes_nothing(name, rows):
    def more(gradient: Tensor) -> Tensor:  # [B, R, D] -> [B, R, 2]
        return torch.stack([gradient.abs().amax(-1), gradient.square().sum(-1)], -1)

    replicator = Replicator(gradest.make_estimator(name), Points())
    whole, pieces = (exact_moments(replicator, more=more, rows=n) for n in (10**6, rows))
    assert whole.outcomes == pieces.outcomes > 1
    for field in whole._fields[:-1]:
        a, b = getattr(whole, field), getattr(pieces, field)
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12), field


def test_further_statistics_are_weighted_by_probability():
    replicator = Replicator(Reinforce(), Points())
    seen = []

    def more(gradient: Tensor) -> Tensor:
        seen.append(gradient.shape)
        return gradient.square().sum(-1, keepdim=True)

    found = exact_moments(replicator, more=more, rows=2)
    assert seen == [(3, 2, 3), (3, 1, 3)]
    pi = Points.logits.squeeze(1).softmax(-1)  # [B, K]
    score = torch.eye(3, dtype=torch.float64) - pi.unsqueeze(1)  # [B, z, K]
    squares = Points.values.double().square() * score.square().sum(-1)  # [B, z]
    mean = (pi * squares).sum(1, keepdim=True)
    variance = (pi * (squares - mean).square()).sum(1, keepdim=True)
    assert torch.allclose(found.more_mean, mean, rtol=0, atol=EXACT)
    assert torch.allclose(found.more_variance, variance, rtol=0, atol=EXACT)


def test_an_enumerated_measurement_has_no_noise_and_survives_json():
    found = gradest.measure(gradest.make_estimator("rloo"), gradest.make_task("categorical"))
    row = found.row()
    assert not found.standard_error.any()
    assert row["variance"] == row["variance_low"] == row["variance_high"] > 0
    assert row["variance_precision"] == 0 and row["value_se"] == 0
    assert (row["replicates"], row["outcomes"]) == (0, 9)
    assert found.drift == DtypeError(0.0, 0.0)
    back = type(found).from_json(json.loads(json.dumps(found.to_json())))
    assert json.dumps(found.identity | back.row()) == json.dumps(row)  # NaN is NaN here


def test_exact_moments_of_a_masked_latent_leave_its_category_out():
    task = gradest.make_task("extreme", masked=1)
    found = gradest.measure(gradest.make_estimator("reinforce"), task)
    z = all_codes(found.logits)
    p = log_prob(found.logits, z)
    p = torch.where(p > -math.inf, p.exp(), 0.0).flatten()
    cost = task.problem().f(z.unsqueeze(0))[0]
    score = z - found.logits.softmax(-1)
    estimate = cost[:, None, None] * score
    mean = (p[:, None, None] * estimate).sum(0)
    variance = (p[:, None, None] * (estimate - mean).square()).sum(0)
    assert torch.allclose(found.mean[0], mean, atol=EXACT)
    assert torch.allclose(found.variance[0], variance, atol=EXACT)
    assert not found.mean[..., 0].any() and not found.variance[..., 0].any()
    assert torch.allclose(found.mean, found.exact, atol=EXACT)
