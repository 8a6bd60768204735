"""What estimates are compared with where enumeration does not reach."""

import json
import math

import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import log_prob, nabla, sample
from gradest.errors import UsageError
from gradest.measurement import enumerated_truth
from gradest.measurement import reference as reference_module
from gradest.measurement.parameters import LOG_ALPHA, projections
from gradest.measurement.reference import (
    ReferencePrecision,
    measure_reference,
    needs_reference,
)
from gradest.measurement.replicator import Replicator
from gradest.measurement.truth import Reference, Truth, exact_truth, truth_from_reference
from gradest.plugins.registry import catalogue_estimators
from gradest.runs import references
from gradest.runs.journal import read_records
from tests.support import EXACT, LEVEL, run_suite, small_task

K = stats.norm.isf(LEVEL / 2)


class Closed(Task):
    """Two data points, a penalty and a closed form."""

    name = "closed"
    wrong = 0.0  # added to the closed form
    logits = torch.tensor(
        [[[0.5, -0.7, 0.2], [-0.3, 0.9, 0.0]], [[-0.8, 0.4, 0.3], [0.6, 0.0, -0.7]]],
        dtype=torch.float64,
    )
    values = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.1, -1.2]], dtype=torch.float64)

    def problem(self, batch=None) -> Problem:
        return Problem(self.logits, Cost(lambda z: (z * self.values.to(z)).sum((-2, -1)).square()))

    def expectation(self, logits: Tensor) -> Tensor | None:
        """The square of the mean and the variance of a sum of independent latents."""
        pi = logits.softmax(-1)
        mean, square = (pi * self.values).sum(-1), (pi * self.values.square()).sum(-1)
        return mean.sum(-1).square() + (square - mean.square()).sum(-1) + self.wrong

    def penalty(self, logits: Tensor) -> Tensor:
        return logits.square().sum((-2, -1))


class Unknown(Closed):
    """The same without a closed form."""

    name = "unknown"

    def expectation(self, logits: Tensor) -> None:
        return None


@pytest.fixture
def blind(monkeypatch):
    """No truth is enumerated, nor does the estimator apply that is one enumeration."""
    monkeypatch.setattr(enumerated_truth, "LIMIT", 1)
    monkeypatch.setattr(catalogue_estimators()["exact"], "outcomes", 1)


def closed_forms() -> list[str]:
    result = []
    for name in sorted(gradest.all_tasks()):
        task = gradest.make_task(name)
        if task.expectation(task.problem().logits.detach()) is not None:
            result.append(name)
    return result


def test_some_tasks_have_a_closed_form():
    assert {"bernoulli", "quadratic"} <= set(closed_forms())


@pytest.mark.parametrize("name", closed_forms())
def test_a_closed_form_is_the_sum_over_all_outcomes_and_so_is_its_gradient(name):
    """At the task's own logits, at others, and at a batch of them."""
    task = small_task(name)
    problem = task.problem()
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(3, *problem.logits.shape[1:], generator=draws, dtype=torch.float64)
    cases = [problem.logits.detach().double()]
    if len(problem.logits) == 1:
        cases.append(cases[0] + noise)
    for logits in cases:
        logits = logits.clone().requires_grad_()
        closed = task.expectation(logits)
        assert closed.shape == logits.shape[:1]
        (gradient,) = torch.autograd.grad(closed.sum(), logits)
        truth = enumerated_truth.exact_gradient(Problem(logits, problem.f))
        scale = float(truth.gradient.abs().max())
        assert torch.allclose(closed, truth.value, rtol=EXACT, atol=EXACT)
        assert torch.allclose(gradient, truth.gradient, rtol=0, atol=EXACT * max(scale, 1))


@pytest.mark.parametrize("name", closed_forms())
def test_past_the_limit_the_row_is_held_against_the_closed_form(name, monkeypatch):
    task, estimator = small_task(name), gradest.make_estimator("local_expectation")
    with_sum = gradest.measure(estimator, task, replicates=2000)
    size = with_sum.logits.shape
    monkeypatch.setattr(enumerated_truth, "LIMIT", size[2] ** size[1] - 1)
    result = gradest.measure(estimator, task, replicates=2000)
    row = result.row()
    assert (row["reference"], row["reference_by"], row["reference_se"]) == ("closed_form", "", 0.0)
    assert torch.allclose(result.exact, with_sum.exact, rtol=0, atol=EXACT)
    assert result.exact_value == pytest.approx(with_sum.exact_value, rel=EXACT)
    z = (result.mean - result.exact).abs() - EXACT
    assert (z <= K * 1.5 * result.standard_error).all()
    assert row["gradient_norm"] == pytest.approx(with_sum.row()["gradient_norm"], rel=EXACT)
    monkeypatch.setattr(enumerated_truth, "LIMIT", size[2] ** size[1])
    assert gradest.measure(estimator, task, replicates=64).row()["reference"] == "exact"


def test_the_closed_form_has_the_penalty_added_to_value_and_gradient(blind):
    task = Closed()
    replicator = Replicator(gradest.make_estimator("reinforce"), task)
    result = exact_truth(replicator, {})
    logits = task.logits.clone().requires_grad_()
    whole = task.expectation(logits) + task.penalty(logits)
    (gradient,) = torch.autograd.grad(whole.sum(), logits)
    assert result.source == "closed_form" and result.spread == 0
    assert torch.allclose(result.value, whole.detach(), rtol=0, atol=EXACT)
    assert torch.allclose(result.gradients[LOG_ALPHA], gradient.flatten(), rtol=0, atol=EXACT)
    row = gradest.measure(gradest.make_estimator("reinforce"), task).row()
    assert row["exact_value"] == pytest.approx(float(whole.detach().mean()), abs=EXACT)
    assert row["bias_sq"] == pytest.approx(0, abs=EXACT)


def test_enumeration_goes_before_the_closed_form():
    class Wrong(Closed):
        wrong = 7.0

    right, wrong = (
        gradest.measure(gradest.make_estimator("exact"), task) for task in (Closed(), Wrong())
    )
    assert right.exact_value == wrong.exact_value
    assert wrong.row()["reference"] == "exact"


def test_the_truth_and_a_reference_survive_json():
    task = Unknown()
    reference = measure_reference(task, ReferencePrecision(standard_error=0.1))
    back = Reference.from_json(json.loads(json.dumps(reference.to_json())))
    truth = truth_from_reference(back)
    again = Truth.from_json(json.loads(json.dumps(truth.to_json())))
    before = truth_from_reference(reference)
    for each in (truth, again):
        assert (each.source, each.by) == ("monte_carlo", reference.estimator)
        assert torch.equal(each.gradients[LOG_ALPHA], before.gradients[LOG_ALPHA])
        assert torch.equal(each.noise[LOG_ALPHA].m2, before.noise[LOG_ALPHA].m2)


# references


def test_a_reference_is_needed_where_nothing_else_gives_the_truth(monkeypatch):
    def asked(task):
        problem = task.problem()
        return needs_reference(problem, task.expectation(problem.logits))

    assert not asked(Closed()) and not asked(Unknown())
    monkeypatch.setattr(enumerated_truth, "LIMIT", 3**2 - 1)
    assert not asked(Closed()) and asked(Unknown())
    monkeypatch.setattr(enumerated_truth, "LIMIT", 3**2)
    assert not asked(Unknown())


class Centred(Estimator):
    """A constant baseline, and a backward pass through f that adds nothing."""

    name = "centred"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits) + 0 * logits
        return f(z) + (f(z).detach() - 0.5) * nabla(log_prob(logits, z.detach()))


class Plain(Estimator):
    name = "plain"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return f(z) + f(z).detach() * nabla(log_prob(logits, z))


def test_work_counts_backward_passes_through_f(blind, monkeypatch):
    result = {}
    for cls in (Plain, Centred):
        seen = gradest.measure(cls(), Unknown(), replicates=512, enumerate_draws=False)
        result[cls.name] = seen
    plain, centred = result["plain"], result["centred"]
    assert plain.evaluations == centred.evaluations == 2
    assert (plain.gradient_evaluations, centred.gradient_evaluations) == (0, 1)
    gain = float(plain.variance.sum() / centred.variance.sum())
    assert 1.05 < gain < 1.45  # less than half as much again, which the backward pass costs
    candidates = {"centred": Centred, "plain": Plain}
    monkeypatch.setattr(reference_module, "catalogue_estimators", lambda: candidates)
    assert measure_reference(Unknown()).estimator == "plain"


@pytest.fixture
def asked(monkeypatch):
    """Every measurement that is made for a reference: [(estimator, replicates, seed)]."""
    seen = []

    def watched(estimator, task, *, replicates, seed, **rest):
        seen.append((estimator, replicates, seed))
        return gradest.measure(estimator, task, replicates=replicates, seed=seed, **rest)

    monkeypatch.setattr(reference_module, "measure", watched)
    return seen


def test_the_choice_is_the_unbiased_one_with_the_least_work_times_variance(blind, asked):
    result = measure_reference(Unknown(), ReferencePrecision(standard_error=0.05), seed=3)
    by_name = catalogue_estimators()
    candidates = {e.name for e, replicates, _ in asked if replicates == 512}
    assert all(by_name[name].unbiased for name in candidates)
    assert all(by_name[name].adapt_steps == 0 for name in candidates)
    assert len(candidates) >= 8
    assert "straight_through" in by_name and "straight_through" not in candidates
    work = {}
    for name in candidates:
        try:
            pilot = gradest.measure(
                by_name[name](), Unknown(), replicates=512, seed=3, enumerate_draws=False
            )
        except UsageError:
            continue
        passes = pilot.evaluations + pilot.gradient_evaluations
        work[name] = float(pilot.variance.sum()) * passes
    assert result.estimator == min(work, key=work.get)


def test_the_last_measurement_has_draws_of_its_own(blind, asked):
    result = measure_reference(Unknown(), ReferencePrecision(standard_error=0.05), seed=3)
    *pilots, last = asked
    assert last[0].name == result.estimator
    assert last[2] not in {seed for _, _, seed in pilots}
    counted = float(result.gradients[LOG_ALPHA].count.sum())
    assert counted == last[1]  # no pilot among them
    alone = gradest.measure(
        type(last[0])(), Unknown(), replicates=last[1], seed=last[2], enumerate_draws=False
    )
    assert torch.equal(alone.gradient.mean, result.gradients[LOG_ALPHA].mean)


def relative_error(reference: Reference) -> float:
    pooled = reference.gradients[LOG_ALPHA].pooled
    replicates = float(pooled.count)
    variance = float(pooled.m2.sum()) / (replicates - 1)
    return (variance / replicates) ** 0.5 / float(pooled.mean.norm())


@pytest.mark.parametrize("wanted", [0.01, 0.003])
def test_a_reference_is_as_precise_as_asked(blind, wanted):
    result = measure_reference(Unknown(), ReferencePrecision(standard_error=wanted))
    # Planned from a pilot of 512: its variance is known to a few per cent.
    assert relative_error(result) == pytest.approx(wanted, rel=0.1)


@pytest.mark.slow
def test_a_reference_is_unbiased(blind):
    """Its noise is what it says: z over twelve coordinates, for ten seeds."""
    logits = Closed.logits.clone().requires_grad_()
    whole = Closed().expectation(logits) + Closed().penalty(logits)
    (gradient,) = torch.autograd.grad(whole.sum(), logits)
    within = []
    for seed in range(10):
        result = measure_reference(Unknown(), ReferencePrecision(standard_error=0.02), seed=seed)
        pooled = result.gradients[LOG_ALPHA].pooled
        error = (pooled.m2[0] / (pooled.count - 1) / pooled.count).sqrt()
        z = (pooled.mean[0] - gradient.flatten()) / error
        assert z.abs().max() <= stats.norm.isf(LEVEL / (2 * 12))
        value = result.value.pooled
        off = abs(float(value.mean) - float(whole.detach().mean()))
        assert off <= K * float((value.m2 / (value.count - 1) / value.count).sqrt())
        within.append(float((z.abs() < 1).double().mean()))
    assert 0.5 <= sum(within) / 10 <= 0.85  # 68 % of normal deviates


def test_the_budget_goes_before_the_precision(blind):
    asked_for = ReferencePrecision(standard_error=1e-9, max_evaluations=5000)
    result = measure_reference(Unknown(), asked_for)
    estimator = catalogue_estimators()[result.estimator]()
    one = gradest.measure(estimator, Unknown(), replicates=64, enumerate_draws=False)
    affordable = 5000 // (one.evaluations + one.gradient_evaluations)
    assert float(result.gradients[LOG_ALPHA].count.sum()) == affordable
    least = measure_reference(Unknown(), ReferencePrecision(max_evaluations=1))
    assert float(least.gradients[LOG_ALPHA].count.sum()) == 64


def test_the_numbers_in_the_codes_bound_candidates_and_replicates(blind, monkeypatch):
    asked_for, numbers = ReferencePrecision(standard_error=1e-9), Unknown().problem().logits.numel()
    pilots = set()
    measured = reference_module._measure_replicates

    def watched(estimator, *rest):
        result = measured(estimator, *rest)
        pilots.add((estimator.name, result.evaluations))
        return result

    monkeypatch.setattr(reference_module, "_measure_replicates", watched)
    monkeypatch.setattr(reference_module, "_NUMBERS", 512 * numbers * 2)  # of two evaluations
    result = measure_reference(Unknown(), asked_for)
    assert {"reinforce", "rloo"} <= {name for name, _ in pilots}
    assert max(evaluations for _, evaluations in pilots) == 2
    chosen = dict(pilots)[result.estimator]
    assert float(result.gradients[LOG_ALPHA].count.sum()) <= 512 * 2 / chosen


@pytest.mark.slow
def test_another_seed_makes_another_reference(blind):
    first, again, other = (
        measure_reference(Unknown(), ReferencePrecision(standard_error=0.05), seed=seed)
        for seed in (0, 0, 1)
    )
    a, b, c = (r.gradients[LOG_ALPHA].pooled.mean for r in (first, again, other))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_reference_whose_draws_could_be_listed_still_has_noise(blind):
    """Between the two limits the best estimator may be one whose draws are enumerated."""
    reference = measure_reference(Unknown(), ReferencePrecision(standard_error=0.02))
    assert float(reference.gradients[LOG_ALPHA].count.sum()) >= 32
    row = gradest.measure(gradest.make_estimator("rloo"), Unknown(), reference=reference).row()
    assert 0 < row["reference_se"] < 0.05


def test_without_a_candidate_there_is_one_clear_line(blind, monkeypatch):
    monkeypatch.setattr(
        reference_module,
        "catalogue_estimators",
        lambda: {"straight_through": catalogue_estimators()["straight_through"]},
    )
    with pytest.raises(
        UsageError, match="unknown: expected an unbiased estimator of the catalogue"
    ):
        measure_reference(Unknown())


def test_a_reference_covers_the_groups_of_parameters(blind):
    task = gradest.make_task("categorical_vae", latents=2, categories=3, steps=5, points=2)
    reference = measure_reference(task, ReferencePrecision(standard_error=0.02))
    assert set(reference.gradients) == {LOG_ALPHA, "encoder"}
    maps = projections(task, task.problem().logits)
    mean = reference.gradients[LOG_ALPHA].pooled.mean[0]
    projected = reference.gradients["encoder"].pooled.mean[0]
    assert torch.allclose(mean @ maps["encoder"], projected, rtol=0, atol=1e-8)
    result = gradest.measure(
        gradest.make_estimator("straight_through"), task, replicates=256, reference=reference
    )
    row = result.row("encoder")
    assert row["reference"] == "monte_carlo" and row["reference_se"] > 0
    assert not math.isnan(row["cosine"])


def test_the_reference_error_is_relative_to_the_gradient_in_each_scale(blind):
    reference = measure_reference(Unknown(), ReferencePrecision(standard_error=0.02))
    result = gradest.measure(gradest.make_estimator("rloo"), Unknown(), reference=reference)
    pooled = reference.gradients[LOG_ALPHA].pooled
    variance = pooled.m2[0] / (float(pooled.count) - 1) / float(pooled.count)
    for parameter in ("log_alpha", "alpha"):
        weight = result.weight(parameter).flatten()
        norm = float((pooled.mean[0] * weight).norm())
        expected = float((variance * weight.square()).sum()) ** 0.5 / norm
        assert result.row(parameter)["reference_se"] == pytest.approx(expected, rel=1e-9)


def test_what_is_known_needs_no_reference():
    reference = measure_reference(Unknown(), ReferencePrecision(standard_error=0.1))
    off = Reference(
        reference.estimator,
        {name: m.scaled(torch.tensor(9.0)) for name, m in reference.gradients.items()},
        reference.value,
    )
    result = gradest.measure(gradest.make_estimator("rloo"), Closed(), reference=off)
    assert result.row()["reference"] == "exact"
    assert result.row()["gradient_norm"] < 5


# runs


TASK = '''
"""A task of unknown truth: 2¹⁸ outcomes, and no closed form."""
from dataclasses import dataclass
import torch
from gradest import Cost, Problem, Task

@dataclass(eq=False)
class Vast(Task):
    target: float = 0.45

    def problem(self, batch=None):
        logits = torch.linspace(-9, 9, 36, dtype=torch.float64).sin().reshape(1, 18, 2)

        def cost(z):
            return (z[..., 0].mean(-1) - self.target).square()

        return Problem(logits, Cost(cost))
'''

SUITE = """\
replicates: 100
enumerate_draws: false
timed: false
reference: {standard_error: 0.2, max_evaluations: 20000}
parameters: [log_alpha]
tasks: [vast, bernoulli]
estimators: [rloo, straight_through]
"""


@pytest.fixture
def ran(tmp_path, plugin):
    """Runs a suite in one process; returns its rows and the records of its journal."""

    def ran(text: str = SUITE, task: str = TASK, **options):
        folder = run_suite(tmp_path, text, [plugin("vast.py", task)], **options)
        rows = pd.read_parquet(folder / "measurements.parquet")
        return rows, list(read_records(folder / "journal.jsonl"))

    return ran


def kinds(records: list[dict]) -> list[tuple[str, str]]:
    return [(r["kind"], r["cell"]["task"]) for r in records if r["kind"] in ("cell", "reference")]


def test_a_run_measures_a_reference_once_for_the_task_that_needs_it(ran):
    rows, records = ran()
    assert (rows.status == "ok").all()
    assert kinds(records).count(("reference", "vast")) == 1
    assert kinds(records).count(("reference", "bernoulli")) == 0
    assert kinds(records)[0] == ("reference", "vast")
    (reference,) = [r for r in records if r["kind"] == "reference"]
    vast, exact = rows[rows.task == "vast"], rows[rows.task == "bernoulli"]
    assert set(vast.reference) == {"monte_carlo"}
    assert set(vast.reference_by) == {reference["reference"]["estimator"]}
    assert vast.reference_se.between(0.02, 0.4).all()
    assert vast.gradient_norm.nunique() == 1  # one reference for all
    assert set(exact.reference) == {"exact"}
    assert exact.reference_se.eq(0).all()


def test_a_resumed_run_keeps_its_reference(ran, tmp_path):
    rows, records = ran()
    again, more = ran()
    assert len(more) == len(records)
    pd.testing.assert_frame_equal(rows, again)
    _, grown = ran(SUITE.replace("[rloo, ", "[rloo, reinforce, "))
    assert kinds(grown).count(("reference", "vast")) == 1
    assert kinds(grown).count(("cell", "vast")) == 3


def test_cells_without_a_truth_are_measured_again_once_references_are_wanted(ran):
    wanted = "reference: {standard_error: 0.2, max_evaluations: 20000}"
    _, without = ran(SUITE.replace(wanted, "reference: null"))
    assert kinds(without).count(("reference", "vast")) == 0
    rows, after = ran()
    more = kinds(after)[len(kinds(without)) :]
    assert more == [("reference", "vast"), ("cell", "vast"), ("cell", "vast")]
    assert set(rows[rows.task == "vast"].reference) == {"monte_carlo"}


def test_a_task_whose_cells_have_their_truth_is_not_built_to_look_for_it(ran, monkeypatch):
    ran()
    built = []
    unknown = references._unknown
    monkeypatch.setattr(
        references, "_unknown", lambda task: built.append(task.name) or unknown(task)
    )
    ran()
    assert built == ["vast"]
    ran(SUITE.replace("[rloo, ", "[rloo, reinforce, "))
    assert built[1:] == ["bernoulli", "vast"]


@pytest.mark.weekly
def test_another_precision_of_the_reference_measures_its_cells_again(ran):
    rows, _ = ran()
    other, after = ran(SUITE.replace("standard_error: 0.2", "standard_error: 0.1"))
    assert kinds(after).count(("reference", "vast")) == 2
    assert kinds(after).count(("cell", "vast")) == 4
    assert kinds(after).count(("cell", "bernoulli")) == 2
    first, then = (frame[frame.task == "vast"] for frame in (rows, other))
    assert (then.reference_se < first.reference_se).all()
    assert then.variance.tolist() == first.variance.tolist()  # by the same draws
    back, last = ran()
    assert kinds(last).count(("reference", "vast")) == 2  # the first is in the journal still
    assert kinds(last).count(("cell", "vast")) == 6
    assert back.reference_se.tolist() == rows.reference_se.tolist()


@pytest.mark.slow
def test_a_reference_by_an_estimator_that_has_changed_is_measured_again(ran, monkeypatch):
    _, records = ran()
    monkeypatch.setattr(references, "digest_of_class", lambda cls: f"another {cls.__name__}")
    _, after = ran()
    assert len({r["key"] for r in after if r["kind"] == "reference"}) == 2
    more = kinds(after)[len(kinds(records)) :]
    assert more == [("reference", "vast"), ("cell", "vast"), ("cell", "vast")]


def test_tasks_with_other_knobs_have_references_of_their_own(ran):
    _, records = ran(SUITE.replace("[vast, ", "[{vast: {target: [0.2, 0.45]}}, "))
    assert kinds(records).count(("reference", "vast")) == 2


@pytest.mark.slow
def test_fresh_measures_the_reference_again_to_the_same_numbers(ran):
    rows, _ = ran()
    again, records = ran(fresh=True)
    assert kinds(records).count(("reference", "vast")) == 1
    assert again.gradient_norm.tolist() == rows.gradient_norm.tolist()


RAISING = {
    "problem": ("batch=None):\n", "batch=None):\n        raise RuntimeError('no data')\n"),
    "expectation": ("Task):\n", "Task):\n    def expectation(self, logits):\n        {}['pi']\n\n"),
    "cost": ("return (z[", "raise RuntimeError('no data')\n            return (z["),
}


@pytest.mark.parametrize("where", RAISING)
def test_a_task_that_raises_fails_its_own_cells_with_its_own_words(ran, where, capsys):
    rows, records = ran(task=TASK.replace(*RAISING[where]))
    own, other = rows[rows.task == "vast"], rows[rows.task == "bernoulli"]
    said = "KeyError: 'pi'" if where == "expectation" else "RuntimeError: no data"
    if where == "cost":
        said = (
            "CostError: vast: the cost raised RuntimeError for z of shape [1, 3, 2, 18, 2]: no data"
        )
    assert own.status.eq("failed").all() and own.reason.eq(said).all() and len(own) == 2
    assert other.status.eq("ok").all() and len(other) == 2
    assert kinds(records).count(("reference", "vast")) == 0
    # A reference that was tried and failed is told, as any cell is.
    assert capsys.readouterr().err.count(f"failed vast: {said}") == (where == "cost")


def test_what_is_not_the_tasks_own_failure_ends_the_run(ran, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("gradest.runs.references.needs_reference", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        ran()


def test_a_task_for_which_no_reference_is_to_be_had_ends_no_other(ran, monkeypatch, capsys):
    def refused(jobs, *_):
        reason = "UsageError: vast: expected an unbiased estimator of the catalogue"
        yield jobs[0], {"reference": None, "reason": reason}

    monkeypatch.setattr("gradest.runs.references.answers", refused)
    rows, _ = ran()
    assert rows.status.eq("ok").all() and len(rows) == 4
    assert set(rows[rows.task == "vast"].reference) != {"monte_carlo"}
    said = "failed vast: UsageError: vast: expected an unbiased estimator of the catalogue"
    assert said in capsys.readouterr().err


class Exaggerated(Estimator):
    """Twice the score function."""

    name = "exaggerated"
    unbiased = False

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return f(z) + 2 * f(z) * nabla(log_prob(logits, z))


def test_a_bias_is_seen_against_a_reference_too(blind):
    reference = measure_reference(Unknown(), ReferencePrecision(standard_error=0.005))
    result = gradest.measure(
        Exaggerated(), Unknown(), replicates=20_000, reference=reference, enumerate_draws=False
    )
    row = result.row()
    assert row["verdict"] == "biased"
    logits = Closed.logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(Closed().expectation(logits).sum(), logits)
    assert row["bias_sq"] == pytest.approx(float(slope.square().sum()), rel=0.1)
