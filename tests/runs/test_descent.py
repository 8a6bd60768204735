"""Descents: their steps, seeds, records and settings, and suites that have them."""

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task, make_estimator, make_task, measure
from gradest.categorical import log_prob, nabla, sample
from gradest.errors import Inapplicable, KnobError, NonFiniteGradient, SuiteError, UsageError
from gradest.measurement import stackable
from gradest.plugins import Registry
from gradest.randomness import BlockDraws, drawing_from
from gradest.report.claims.judgement import judge
from gradest.report.documents.document import render_markdown
from gradest.report.frames.loading import load_run
from gradest.report.studies.descent import STUDY, section
from gradest.report.studies.descent import descents as figure
from gradest.report.terminal_summary import summarize_run
from gradest.runs import suite as suites
from gradest.runs.descent import curves, loop, recording
from gradest.runs.descent.descent import Descent
from gradest.runs.descent.loop import batch_size, descend, seconds_expected
from gradest.runs.descent.recording import Recorder
from gradest.runs.training import Annealing, DescentSettings, stream_seed
from tests.support import EXACT, LEVEL, run_suite

SEEDS = [11, 12, 13]
BIT = {"theta": [0.3], "target": 0.45}


def settings(**changes: Any) -> DescentSettings:
    return DescentSettings.model_validate({"replicates": 64} | changes)


def begin(
    estimator: str | Estimator = "rloo",
    seeds: Any = SEEDS,
    task: Task | None = None,
    rate: float = 0.1,
    anneal: Any = None,
    **changes: Any,
) -> Descent:
    estimator = make_estimator(estimator) if isinstance(estimator, str) else estimator
    return Descent(
        copy.deepcopy(estimator),
        task or make_task("bernoulli"),
        settings(**changes),
        learning_rate=rate,
        seeds=seeds,
        anneal=anneal or {},
    )


def advanced(descent: Descent, steps: int) -> Tensor:
    """The logits of each seed after some steps: [M, B, N, K]."""
    for _ in range(steps):
        descent.advance()
    return descent.per_seed(descent.logits.detach())


STACKED = sorted(
    name for name, cls in gradest.all_estimators().items() if cls.stackable and cls.adapt_steps
)


@pytest.mark.parametrize("name", [*STACKED, "rloo", "disarm", "gumbel_softmax"])
def test_a_seed_descends_alone_as_it_does_next_to_others(name: str) -> None:
    together = advanced(begin(name), 4)
    for seed, own in zip(SEEDS, together, strict=True):
        (alone,) = advanced(begin(name, [seed]), 4)
        assert (alone - own).abs().max() < EXACT
    assert not torch.equal(together[0], together[1])


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.8), eps=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.7, momentum=0.2, centered=True),
}
ASKED = {
    "sgd": {"sgd": {"momentum": 0.9, "nesterov": True}},
    "adam": {"adam": {"betas": [0.5, 0.8], "eps": 1e-3}},
    "rmsprop": {"rmsprop": {"alpha": 0.7, "momentum": 0.2, "centered": True}},
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_is_the_step_that_is_written_down_in_bare_torch(name: str) -> None:
    descent = begin("rloo", [7], make_task("bernoulli", **BIT), optimiser=ASKED[name])
    source = BlockDraws([stream_seed("steps", 7)])
    logits = torch.tensor([[[0.7, 0.3]]], dtype=torch.float64).log().requires_grad_()
    optimiser = OPTIMISERS[name]([logits])
    for _ in range(5):
        with drawing_from(source):
            z = sample(logits, 2)
        cost = (z[..., 0, 1] - 0.45).square()  # [1, 2]
        advantage = cost - cost.flip(1)
        score = (z * logits.log_softmax(-1).unsqueeze(1)).sum((-2, -1))
        optimiser.zero_grad()
        (advantage * score).mean(1).sum().backward()
        optimiser.step()
    assert (advanced(descent, 5)[0] - logits).abs().max() < EXACT


def test_the_exact_gradient_descends_and_ascends_as_in_closed_form() -> None:
    for maximise, sign in ((False, -1), (True, 1)):
        descent = begin(
            "exact", [0], make_task("bernoulli", **BIT), 0.5, optimiser="sgd", maximise=maximise
        )
        phi = math.log(0.3 / 0.7)  # of two logits that move oppositely, each by half of it
        for _ in range(20):
            descent.advance()
            theta = 1 / (1 + math.exp(-phi))
            phi += sign * 2 * 0.5 * (1 - 2 * 0.45) * theta * (1 - theta)
        moved = descent.logits.detach()[0, 0]
        assert float(moved[1] - moved[0]) == pytest.approx(phi, abs=EXACT)


class Points(Task):
    """Two data points with a penalty and a prior, so that every term of an objective counts."""

    def __init__(self, kl: str = "exact") -> None:
        self.name, self._kl = "points", kl

    def problem(self, batch: Any = None) -> Problem:
        logits = torch.tensor([[[0.3, -0.5, 0.1]], [[-1.0, 0.4, 0.8]]], dtype=torch.float64)
        prior = torch.tensor([[0.2, 0.0, -0.4]], dtype=torch.float64)
        return Problem(logits, Cost(self._cost, prior=prior, kl=self._kl, logits=logits))

    def _cost(self, z: Tensor) -> Tensor:
        w = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.2, -1.0]], dtype=torch.float64)
        return (z.squeeze(-2) * w.to(z)[(slice(None), *(None,) * (z.ndim - 3))]).sum(-1)

    def penalty(self, logits: Tensor) -> Tensor:
        return 0.1 * logits.square().sum((-2, -1))


def objective(task: Task, logits: Tensor) -> Tensor:
    """Σ_b of all terms, by hand: the cost is linear in z."""
    pi = logits.softmax(-1)
    w = torch.tensor([[[1.0, -2.0, 0.5]], [[3.0, 0.2, -1.0]]], dtype=torch.float64)
    prior = torch.tensor([[0.2, 0.0, -0.4]], dtype=torch.float64).log_softmax(-1)
    divergence = (pi * (logits.log_softmax(-1) - prior)).sum()
    return (pi * w).sum() + divergence + 0.1 * logits.square().sum()


@pytest.mark.parametrize("kl", ["exact", "sampled"])
def test_data_points_have_logits_of_their_own_and_all_terms_are_descended(kl: str) -> None:
    task = Points(kl)
    descent = begin("exact", [1, 2], task, 0.2, optimiser="sgd", replicates=64)
    logits = task.problem().logits.clone().requires_grad_()
    for _ in range(3):
        total = objective(task, logits)
        (gradient,) = torch.autograd.grad(total, logits)
        recorded = Recorder(descent).measure()
        assert recorded["value"][0].tolist() == pytest.approx([float(total.detach()) / 2] * 2)
        assert recorded["gradient_norm"][0].tolist() == pytest.approx([float(gradient.norm())] * 2)
        own = logits.detach().softmax(-1)[:, 0, 1].mean()
        assert recorded["probability"][0].tolist() == pytest.approx([float(own)] * 2)
        assert (recorded["gradient_variance"] == 0).all()
        logits = (logits - 0.2 * gradient).detach().requires_grad_()
        descent.advance()
        assert (descent.per_seed(descent.logits.detach()) - logits).abs().max() < EXACT


def test_the_recorded_variance_is_that_of_a_measurement_at_these_logits() -> None:
    task = make_task("bernoulli", **BIT)
    descent = begin("reinforce", [1, 2], task)
    advanced(descent, 10)
    found = Recorder(descent).measure()["gradient_variance"]
    for logits, own in zip(descent.per_seed(descent.logits.detach()), found.t(), strict=True):
        at = make_task("bernoulli", theta=[float(logits.softmax(-1)[0, 0, 1])], target=0.45)
        row = measure(make_estimator("reinforce"), at, enumerate_draws=True).row()
        assert own.tolist() == pytest.approx([row["variance"]] * 3, rel=1e-9)


def test_a_variance_by_replicates_has_an_interval_that_covers_the_enumerated_one() -> None:
    """The draws of `arm` cannot be enumerated; its variance on one bit is known."""
    task = make_task("bernoulli", theta=[0.25], target=0.49)
    seeds = list(range(20))
    recorded = Recorder(begin("arm", seeds, task, replicates=2000)).measure()["gradient_variance"]
    value, low, high = recorded
    assert (low < value).all() and (value < high).all()
    row = measure(make_estimator("arm"), task, replicates=200_000, seed=3).row()
    covered = int(((low < row["variance"]) & (row["variance"] < high)).sum())
    # Of twenty intervals at 95 %, fewer than 14 cover with a probability below LEVEL.
    assert covered >= 14
    assert value.unique().numel() == len(seeds)
    assert 1 - sum(math.comb(20, k) * 0.95**k * 0.05 ** (20 - k) for k in range(14, 21)) < LEVEL


def test_the_state_that_a_seed_has_learned_is_the_one_whose_variance_is_recorded() -> None:
    """The networks learn; fresh ones would have the variance of the first step."""
    descent = begin("relax", SEEDS, make_task("bernoulli", theta=[0.5], target=0.499), rate=1e-9)
    recorder = Recorder(descent)
    before = recorder.measure()["gradient_variance"][0]
    advanced(descent, 60)
    after = recorder.measure()["gradient_variance"][0]
    assert (after < before / 2).all()


def test_records_change_no_step_and_a_longer_descent_begins_as_a_shorter_one(tmp_path) -> None:
    def ends(every: int, steps: int, seeds: list[int] = SEEDS) -> curves.Curves:
        return descend(partial(begin, "nvil", every=every), seeds, steps, tmp_path)

    often, seldom = ends(1, 6), ends(100, 6)
    assert often.steps == [0, 1, 2, 3, 4, 5, 6] and seldom.steps == [0, 6]
    for name, x in often.metrics.items():
        assert torch.equal(x[[0, -1]], seldom.metrics[name]), name
    longer = ends(3, 9)
    assert longer.steps == [0, 3, 6, 9]
    assert torch.equal(longer.metrics["value"][2], often.metrics["value"][-1])
    (alone,) = (ends(6, 6, [seed]) for seed in SEEDS[1:2])
    for name, x in seldom.metrics.items():
        assert (alone.metrics[name][..., 0] - x[..., 1]).abs().max() < EXACT, name
    assert often.seconds == sorted(often.seconds)


@pytest.mark.parametrize(("bits", "source"), [(3, "_enumerates"), (18, "_closed"), (60, "_closed")])
def test_large_problems_have_their_closed_form_and_small_ones_their_sum(bits, source) -> None:
    task = make_task("bernoulli", theta=[0.2 + 0.01 * n for n in range(bits)])
    recorder = Recorder(begin("rloo", [1], task))
    assert getattr(recorder, source)
    recorded = recorder.measure()
    logits = task.problem().logits.requires_grad_()
    value = task.expectation(logits)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert float(recorded["value"][0, 0]) == pytest.approx(value.item(), rel=1e-12)
    assert float(recorded["gradient_norm"][0, 0]) == pytest.approx(float(gradient.norm()), rel=1e-9)


class Unknown(type(make_task("bernoulli"))):
    """Too many bits to enumerate, and no closed form."""

    def expectation(self, logits: Tensor) -> None:
        return None


def test_without_either_the_value_is_estimated_and_the_norm_left_out() -> None:
    theta = [0.2 + 0.01 * n for n in range(60)]
    task = Unknown(theta=theta)
    known = float(make_task("bernoulli", theta=theta).expectation(task.problem().logits))
    descent = begin("rloo", list(range(20)), task, replicates=400)
    recorded = Recorder(descent).measure()
    assert set(recorded) == {"value", "probability", "gradient_variance"}
    value, low, high = recorded["value"]
    assert int(((low < known) & (known < high)).sum()) >= 14
    assert float((high - low).max()) < 0.5 < known
    assert value.unique().numel() == 20


def test_annealed_knobs_fall_with_the_step() -> None:
    falling = Annealing(rate=0.1, least=0.2, every=2)
    descent = begin("gumbel_softmax", anneal={"temperature": falling, "samples": falling})
    advanced(descent, 3)
    assert descent.estimator.temperature == math.exp(-0.2)
    with pytest.raises(KnobError, match="samples"):
        begin("rloo", anneal={"samples": falling})


def test_an_estimator_that_does_not_apply_is_refused() -> None:
    with pytest.raises(Inapplicable, match="K = 2"):
        begin("arm", task=make_task("categorical"))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"latent": 3}, "training.descent.probability.latent = 3; expected less than 3, the"),
        ({"category": 2}, "probability.category = 2; expected less than 2, the number of cat"),
    ],
)
def test_a_category_that_the_task_does_not_have_is_named(chosen, message) -> None:
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        Recorder(begin(probability=chosen))


@dataclass(eq=False)
class OneState(Estimator):
    """A baseline that is the mean of all costs seen: one state, for one block."""

    adapt_steps = 1

    def reset(self, logits: Tensor) -> None:
        self._total, self._count = logits.new_zeros(()), 0

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self._total, self._count = self._total + f(sample(logits)).detach().sum(), self._count + 1

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return cost + (cost - self._total / self._count) * nabla(log_prob(logits, z))


class SamplesFirst(Estimator):
    """Noise whose first axis is that of the samples, which cannot be split into blocks of rows."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits.expand(2, *logits.shape)).transpose(0, 1)  # [R, 2, N, K]
        cost = f(z)
        return (cost + (cost - cost.flip(1)) * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


class MixedRows(Estimator):
    """Each row has the samples of the row before it."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits).roll(1, 0)
        cost = f(z)
        return cost + cost * nabla(log_prob(logits, z))


@pytest.mark.parametrize("cls", [OneState, SamplesFirst, MixedRows])
def test_seeds_that_cannot_be_a_batch_descend_one_after_the_other(cls, tmp_path) -> None:
    make = partial(begin, cls(), task=make_task("bernoulli", **BIT))
    assert batch_size(make, SEEDS) == 1
    found = descend(make, SEEDS, 3, tmp_path)
    for m, seed in enumerate(SEEDS):
        descent = make([seed])
        advanced(descent, 3)
        own = Recorder(descent).measure()
        assert torch.equal(found.metrics["value"][-1][:, m], own["value"][:, 0])
    assert (tmp_path / "headway").exists()


def test_a_batch_has_as_many_seeds_as_memory_takes(monkeypatch) -> None:
    make = partial(begin, "rloo")  # 3 bits and 2 samples: 12 numbers a seed
    assert batch_size(make, SEEDS) == 3
    monkeypatch.setattr(loop, "_NUMBERS", 25)
    assert batch_size(make, SEEDS) == 2
    monkeypatch.setattr(loop, "_NUMBERS", 1)
    assert batch_size(make, SEEDS) == 1
    assert stackable(make_estimator("rloo"))


def test_a_seed_that_diverges_is_recorded_to_its_end_and_leaves_the_others_alone() -> None:
    descent = begin("rloo", SEEDS)
    with torch.no_grad():
        descent.per_seed(descent.logits)[1] = math.nan
    advanced(descent, 2)
    recorded = Recorder(descent).measure()
    for name, x in recorded.items():
        assert x[:, 1].isnan().all() and x[:, [0, 2]].isfinite().all(), name
    alone = begin("rloo", SEEDS[2:])
    advanced(alone, 2)
    assert (Recorder(alone).measure()["value"][0, 0] - recorded["value"][0, 2]).abs() < EXACT


class Undefined(Points):
    def _cost(self, z: Tensor) -> Tensor:
        return super()._cost(z) / 0.0


def test_an_objective_that_is_not_finite_at_the_start_is_an_error(tmp_path) -> None:
    with pytest.raises(NonFiniteGradient, match="rloo on points: expected a finite objective at"):
        descend(partial(begin, "rloo", task=Undefined()), SEEDS, 5, tmp_path)


def test_the_expected_time_counts_all_steps_records_and_batches(monkeypatch) -> None:
    clock = iter([10.0, 11.0, 13.0])  # five steps take 1 s, a record 2 s
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(loop, "batch_size", lambda *_: 2)
    make = partial(begin, "rloo", every=10)
    assert seconds_expected(make, SEEDS, 25) == pytest.approx((25 / 5 + 4 * 2.0) * 3 / 2)


def test_curves_are_kept_bit_by_bit_and_numbers_without_an_error_once() -> None:
    exact = torch.tensor([[0.1, math.nan]], dtype=torch.float64).expand(2, 3, 2)
    noisy = torch.tensor([[0.1, -math.inf], [0.0, -math.inf], [0.3, math.inf]]).double()
    kept = curves.Curves([0, 5], [0.0, 1.5], {"value": exact, "other": noisy.expand(2, 3, 2)})
    data = kept.to_json()
    assert data["metrics"]["value"]["shape"] == [2, 1, 2]
    again = curves.Curves.from_json(data)
    for name, x in kept.metrics.items():
        assert torch.equal(again.metrics[name].nan_to_num(7.0), x.nan_to_num(7.0))
    with pytest.raises(ValueError, match="for every step"):
        curves.Curves.from_json(data | {"steps": [0]})


SUITE = """
seeds: [0, 1, 2, 3, 4, 5, 6, 7]
training:
  steps: 20
  learning_rate: [0.5, 0.05]
  descent: {every: 10, replicates: 64, optimiser: sgd%s}
tasks:
  - bernoulli: {theta: [0.5], target: 0.2}
  - categorical
estimators: [exact, reinforce, arm]
claims:
  - holds: share(probability(exact) < 0.5) >= 0.5
    on: [bernoulli]
  - holds: median(gradient_variance(exact, step=10, learning_rate=0.05)) < 1e-9
  - holds: value(exact, step=0) == value(reinforce, step=0)
    on: [bernoulli]
"""


def cells(text: str, folder) -> list[Any]:
    path = folder / "suite.yaml"
    path.write_text(text)
    return list(suites.load_suite(str(path), Registry.load([])).cells)


def test_the_draws_of_a_seed_depend_on_what_is_descended_alone(tmp_path) -> None:
    text = SUITE % ""
    (one, *_) = cells(text, tmp_path)
    # The seeds of longer, more often recorded descents of more seeds are the same and more.
    longer = text.replace("steps: 20", "steps: 30").replace("every: 10", "every: 5")
    (more, *_) = cells(longer.replace("[0, 1, 2,", "[9, 0, 1, 2,"), tmp_path)
    assert more.key != one.key and more.draw_seeds[1:] == one.draw_seeds
    assert len(set(more.draw_seeds)) == len(more.seeds) == 9
    for changes in ({"optimiser": {"adam": {}}}, {"maximise": True}):
        other = replace(one, descent={**one.descent, **changes})
        assert other.key != one.key and set(other.draw_seeds).isdisjoint(one.draw_seeds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("descents")
    return {
        "down": run_suite(place, SUITE % "", name="down"),
        "up": run_suite(place, _few(SUITE % ", maximise: true"), name="up"),
    }


def _few(text: str) -> str:
    """The suite with two seeds and one task, where what is asked needs no more."""
    text = text.replace("[0, 1, 2, 3, 4, 5, 6, 7]", "[0, 1]").replace("reinforce, arm]", "arm]")
    return text.replace("  - categorical\n", "").partition("claims:")[0]


def test_a_run_has_a_row_for_every_seed_step_and_metric(folder) -> None:
    rows = pd.read_parquet(folder["down"] / "descents.parquet")
    assert list(rows) == list(curves.COLUMNS)
    done = rows[rows["status"].eq("ok")]
    assert len(done) == 8 * 3 * 5 * 5 * 2  # seeds, steps, metrics, pairs that apply, rates
    skipped = rows[rows["status"].eq("skipped")]
    assert skipped["estimator"].unique().tolist() == ["arm"] and len(skipped) == 8 * 2
    assert skipped["task"].unique().tolist() == ["categorical"]
    wide = done.pivot_table(
        index=["task", "estimator", "learning_rate", "seed", "step"],
        columns="metric",
        values="value",
    )
    positive = wide[wide["gradient_variance"].gt(0)]
    assert np.allclose(positive["log_variance"], np.log(positive["gradient_variance"]))
    assert (done["low"] <= done["value"]).all() and (done["value"] <= done["high"]).all()


def test_the_best_rate_is_the_lowest_value_or_the_largest_where_it_ascends(folder) -> None:
    for sense, better in (("down", min), ("up", max)):
        run = load_run(folder[sense])
        ends = run.all_descents
        ends = ends[ends["metric"].eq("value") & ends["step"].eq(20) & ends["label"].eq("exact")]
        means = ends.groupby(["task", "learning_rate"])["value"].mean()
        chosen = run.descents[run.descents["label"].eq("exact")]
        for task, rows in chosen.groupby("task"):
            assert set(rows["learning_rate"]) == {0.5}  # the larger step goes further either way
            assert means[task].loc[0.5] == better(means[task])
    down, up = (load_run(folder[sense]).descents for sense in ("down", "up"))
    ends = [x[x["metric"].eq("value") & x["task"].eq("bernoulli")]["value"] for x in (down, up)]
    assert ends[0].min() < 0.2 and ends[1].max() > 0.5


def test_claims_about_seeds_are_judged(folder) -> None:
    share, median, value = judge(load_run(folder["down"]))
    assert (share.verdict, median.verdict, value.verdict) == ("reproduced",) * 3
    assert share.decisive.interval.estimate == 1.0 and share.decisive.interval.low < 0.7
    assert len(median.places) == 2


def test_the_report_has_the_curves_and_a_table_of_the_ends(folder) -> None:
    run = load_run(folder["down"])
    text = render_markdown(list(section(run)))
    assert "sgd (momentum = 0.0, nesterov = false) descends" in text.replace("\\", "")
    assert "arm on categorical" in text and "skipped: arm needs K = 2" in text
    bit = text.partition("### categorical")[0]
    assert bit.index("| exact ") < bit.index("| reinforce ")
    one = run.descents[run.descents["task"].eq("bernoulli")]
    titles = [ax.get_ylabel() for ax in figure(one).axes]
    assert titles == ["E f", "probability", "‖∇E f‖", "ln tr Cov(ĝ)"]
    ((name, make), *_) = STUDY.latex(run)
    assert name.startswith("descent-") and "reinforce" in make().latex("tab:x")
    shown = list(summarize_run(run))
    assert any("logits after 20 steps" in str(each) for each in shown)
    frame = gradest.read_descents(folder["down"])
    assert {"label", "task_label", "rates"} <= set(frame) and frame["rates"].eq(2).all()
    ascending = render_markdown(list(section(load_run(folder["up"]))))
    assert "ascends the estimates" in ascending


BAD = """
training:
  steps: 5
  descent: {%s}
tasks: [bernoulli]
estimators: [rloo]
"""


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("optimiser: adm", "unknown key 'adm'; did you mean 'adam'"),
        ("optimizer: adam", "unknown key 'optimizer'; did you mean 'optimiser'"),
        ("optimiser: {adam: {beta: 1}}", "unknown key 'beta'; did you mean 'betas'"),
        ("optimiser: {adam: {betas: [0.9, 1.0]}}", "training.descent.optimiser.adam.betas = 1.0"),
        ("optimiser: {adam: {betas: [0.9]}}", "field required"),
        ("optimiser: {sgd: {momentum: -0.1}}", "training.descent.optimiser.sgd.momentum = -0.1"),
        ("optimiser: {sgd: {nesterov: true}}", "expected a momentum above 0 with nesterov"),
        ("optimiser: {sgd: {}, adam: {}}", "expected one of sgd, adam, rmsprop, got sgd and adam"),
        ("optimiser: {}", "expected one of sgd, adam, rmsprop, got none"),
        ("optimiser: 3", "training.descent.optimiser = 3"),
        ("optimiser: {rmsprop: {eps: 0}}", "training.descent.optimiser.rmsprop.eps = 0"),
        ("every: 0", "training.descent.every = 0"),
        ("replicates: 10", "training.descent.replicates = 10"),
        ("maximise: 1", "training.descent.maximise = 1"),
        ("probability: {category: -1}", "training.descent.probability.category = -1"),
        ("probability: {categori: 1}", "unknown key 'categori'; did you mean 'category'"),
    ],
)
def test_a_bad_setting_is_named_with_file_line_and_key(entry, message, tmp_path) -> None:
    with pytest.raises(SuiteError) as error:
        cells(BAD % entry, tmp_path)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'suite.yaml'}:4: ") and "\n" not in text
    if "field required" not in message:
        assert message in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BAD.replace("descent: {%s}", "evaluation: {every: 3}"), "training.evaluation is about mo"),
        (
            BAD.replace("descent: {%s}", "descent: {every: 3}").replace(
                "bernoulli", "bernoulli_vae"
            ),
            "training.descent is about tasks that are not models, of which this suite has none",
        ),
    ],
)
def test_keys_that_no_task_needs_are_refused(text, message, tmp_path) -> None:
    with pytest.raises(SuiteError) as error:
        cells(text, tmp_path)
    assert message in str(error.value) and ":4: " in str(error.value)


def test_models_and_other_tasks_can_share_a_suite(tmp_path) -> None:
    text = BAD.replace("descent: {%s}", "batch: 20").replace(
        "[bernoulli]", "[bernoulli, bernoulli_vae]"
    )
    assert [cell.kind for cell in cells(text, tmp_path)] == ["descent", "training"]
    (cell, _) = cells(text.replace("batch: 20", "dtype: float32"), tmp_path)
    assert cell.dtype == "float32"
    assert cells(text, tmp_path)[0].dtype == "float64"


def test_a_run_of_one_seed_says_why_a_claim_has_no_number(tmp_path) -> None:
    text = (SUITE % "").replace("[0, 1, 2, 3, 4, 5, 6, 7]", "[0]").replace("[0.5, 0.05]", "0.05")
    out = run_suite(tmp_path, text)
    share, median, value = judge(load_run(out))
    assert share.verdict == "cannot tell" and share.decisive.interval.high == 1.0
    for each in (median, value):
        assert each.verdict == "cannot tell" and "has one seed" in each.decisive.reason


def test_recorded_replicates_do_not_depend_on_the_number_of_seeds(monkeypatch) -> None:
    """Also where they are computed in several pieces."""
    monkeypatch.setattr(recording, "_CHUNK", 100)
    task = make_task("bernoulli", theta=[0.25], target=0.49)
    many = Recorder(begin("arm", SEEDS, task, replicates=200)).measure()["gradient_variance"]
    alone = Recorder(begin("arm", SEEDS[1:2], task, replicates=200)).measure()["gradient_variance"]
    assert torch.equal(many[:, 1], alone[:, 0])
