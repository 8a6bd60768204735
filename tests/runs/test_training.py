"""Trainings: steps, evaluation, looks, checkpoints, and runs that are interrupted."""

import copy
import math
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import torch

from gradest import cli, load_networks, make_estimator, make_task, measure
from gradest.categorical import log_prob, nabla, sample
from gradest.errors import Inapplicable, KnobError, UsageError
from gradest.measurement.objectives import analytic_terms
from gradest.plugins.registry import PluginBundle, Registry
from gradest.randomness import Draws, drawing_from
from gradest.runs import training_cell
from gradest.runs.provenance import describe_run
from gradest.runs.runner import run
from gradest.runs.suite import load_suite
from gradest.runs.tables import write_results
from gradest.runs.training import evaluation, loop
from gradest.runs.training.loop import train
from gradest.runs.training.results import Pictures, generate_pictures
from gradest.runs.training.settings import Annealing, TrainingSettings
from gradest.runs.training.snapshot import Snapshot, measure_gradient
from gradest.runs.training.state import keep_networks
from gradest.runs.training.trainer import Trainer
from gradest.runs.workers import Workers
from gradest.statistics.rounding import resolution
from tests.support import ROOT, every_figure

TINY = {"latents": 2, "categories": 3, "hidden": 5}
STEPS = 12
ALONE = Workers(jobs=1, backend="threading")


class Interrupted(Exception):
    pass


def trainer(estimator="rloo", model="categorical_vae", knobs=TINY, own=None, **options):
    options = {"learning_rate": 1e-2, "batch": 50, "seed": 3, "anneal": {}} | options
    return Trainer(make_estimator(estimator, **(own or {})), make_task(model, **knobs), **options)


def settings(**changes):
    asked = {
        "steps": STEPS,
        "batch": 50,
        "evaluation": {
            "every": 4,
            "points": 20,
            "samples": 3,
            "test_points": 30,
            "test_samples": 5,
        },
        "checkpoint_seconds": 0.0,
    }
    return TrainingSettings.model_validate(asked | changes)


def curves(points):
    """Without the seconds, and with NaN equal to itself."""
    return [(p.step, p.split, p.metric, *map(repr, (p.value, p.low, p.high))) for p in points]


def parameters(of):
    return torch.cat([p.detach().flatten() for p in of.networks.parameters()])


CASES = {
    "rloo": {},
    "concrete": {"anneal": {"temperature": Annealing(rate=0.1, least=0.3, every=2)}},
    "float64": {"estimator": "straight_through", "dtype": torch.float64},
    "nvil": {},
    "relax": {},
    "rebar": {},
    "reinforce_ema": {},
    "aimle": {},
    "layers": {
        "estimator": "rloo",
        "model": "structured_prediction",
        "knobs": {"latents": 2, "categories": 3, "layers": 2},
    },
}


@pytest.mark.parametrize(
    ("case", "stop"), [*((c, 5) for c in CASES), ("rloo", 1), ("relax", 8), ("nvil", STEPS)]
)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(case, stop, tmp_path, monkeypatch):
    options = {"estimator": case} | CASES[case]
    whole, images = train(trainer(**options), settings(), 7, tmp_path / "whole")
    advance = Trainer.advance

    def interrupted(self):
        if self.step == stop:
            raise Interrupted
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        if stop == STEPS:  # after the last step, before anything is said about the end
            patch.setattr(loop, "negative_bound", raises_at_last(loop.negative_bound))
        with pytest.raises(Interrupted):
            train(trainer(**options), settings(), 7, tmp_path / "parts")
    taken = []
    monkeypatch.setattr(Trainer, "advance", lambda self: taken.append(self.step) or advance(self))
    again, same = train(trainer(**options), settings(), 7, tmp_path / "parts")
    assert taken == list(range(stop, STEPS))  # it did go on, and not start over
    assert curves(again) == curves(whole)
    assert all(torch.equal(*pair) for pair in zip(same, images, strict=True))
    assert {p.name for p in (tmp_path / "parts").iterdir()} == {"checkpoint.pt", "headway"}


def raises_at_last(bound):
    def found(of, items, samples):
        if of.step == STEPS and samples > 3:
            raise Interrupted
        return bound(of, items, samples)

    return found


def test_how_often_it_is_saved_and_looked_at_changes_no_training(tmp_path, monkeypatch):
    ends, last = [], []
    for number, (every, seconds) in enumerate([(1, 0.0), (4, 0.0), (5, 1e9), (100, 1e9)]):
        asked = settings(
            evaluation={
                "every": every,
                "points": 20,
                "samples": 3,
                "test_points": 30,
                "test_samples": 5,
            },
            checkpoint_seconds=seconds,
            gradient={"steps": [3], "points": 1, "replicates": 64} if number == 0 else None,
        )
        one = trainer("nvil", dtype=torch.float64)
        found, _ = train(one, asked, 7, tmp_path / str(number))
        ends.append(torch.cat([parameters(one), *(w.flatten() for w in one.estimator._layers)]))
        # Of the gradient's looks and of means since the last look there are others.
        kept = [p for p in found if p.step == STEPS and p.metric != "running_objective"]
        last.append(curves(kept))
    assert all(torch.equal(end, ends[0]) for end in ends)
    assert all(each == last[0] for each in last)


def test_the_running_objective_is_the_mean_since_the_last_look(tmp_path, monkeypatch):
    seen, advance = [], Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda self: seen.append(advance(self)) or seen[-1])
    points, _ = train(trainer(), settings(), 7, tmp_path)
    found = {p.step: p.value for p in points if p.metric == "running_objective"}
    # Sums of float32 numbers of like size are exact in float64.
    means = {s: float(torch.stack(seen[s - 4 : s]).double().sum()) / 4 for s in (4, 8, 12)}
    assert found == means


def test_what_is_never_looked_at_is_not_held_beside_the_training_data(tmp_path):
    asked = settings(gradient={"steps": [3], "points": 30, "replicates": 64})
    items = loop._Evaluator(trainer(), asked, 7)._items
    assert [len(items[split]) for split in ("train", "valid", "test")] == [30, 20, 30]
    for each in items.values():  # no view of all of them
        assert each.untyped_storage().nbytes() == each.nbytes
    few = loop._Evaluator(trainer(), settings(evaluation={"test_points": 3}), 7)
    assert few.pictures().samples.shape == (10, 8, 8)


def test_a_damaged_checkpoint_warns_in_one_line_and_starts_over(tmp_path):
    whole, _ = train(trainer(), settings(), 7, tmp_path)
    path = tmp_path / "checkpoint.pt"
    for damaged in (path.read_bytes()[:700], b"", b"no checkpoint\nat all"):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="training from the start") as warned:
            again, _ = train(trainer(), settings(), 7, tmp_path)
        assert len(warned) == 1 and "\n" not in str(warned[0].message)
        assert str(path) in str(warned[0].message)
        assert curves(again) == curves(whole)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("write failed\nat archive.cc")]
)
def test_a_full_disk_says_so_in_one_line_and_leaves_nothing_half_written(
    error, tmp_path, monkeypatch
):
    def full(state, path):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="cannot be written") as raised:
        train(trainer(), settings(), 7, tmp_path)
    assert "\n" not in str(raised.value) and "checkpoint.pt" in str(raised.value)
    assert {p.name for p in tmp_path.iterdir()} <= {"headway"}


def test_one_step_is_the_step_that_is_written_down_in_bare_torch():
    one, other = (trainer(dtype=torch.float64, own={"samples": 3}) for _ in range(2))
    networks, model = other.networks, other.model
    x = other.model.preprocess(other._items[other._indices()], torch.float64)
    optimiser = torch.optim.Adam(networks.parameters(), lr=1e-2)
    with drawing_from(copy.copy(other._draws)):
        logits = networks["encoder"](x).unflatten(-1, (2, 3))
        z = sample(logits, 3)  # [B, S, N, K]
    pixels = networks["decoder"](z.flatten(-2))
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    cost = bce(pixels, x.unsqueeze(1).expand_as(pixels), reduction="none").sum(-1)  # [B, S]
    advantage = (cost - (cost.sum(1, keepdim=True) - cost) / 2).detach()
    log_q = logits.log_softmax(-1)
    score = (z * log_q.unsqueeze(1)).sum((-2, -1))
    kl = (log_q.exp() * (log_q + math.log(3))).sum((-2, -1))
    objective = ((cost + advantage * score).mean(1) + kl).mean()
    objective.backward()
    optimiser.step()
    before = parameters(one)
    value = one.advance()
    # The same sums in another order: rounding, which Adam's first step, a sign, can blow up.
    assert torch.allclose(parameters(one), parameters(other), rtol=0, atol=1e-8)
    assert (parameters(one) - before).abs().max() > 1e-3
    assert float(value) == pytest.approx(float((cost.mean(1) + kl).mean().detach()), rel=1e-12)
    assert model.knobs == one.model.knobs


@pytest.mark.parametrize(
    ("estimator", "kl"),
    [("rloo", "exact"), ("rloo", "sampled"), ("rloo", "relaxed"), ("concrete", "exact")],
)
@torch.no_grad()
def test_the_divergence_is_counted_once(estimator, kl, assert_mean):
    """At a decoder that ignores its code, so that what is left of the objective is the KL."""
    one, log_q, surprise = indifferent(estimator, kl)
    items = one.model.data("train")[:1].expand(20_000, -1)
    with drawing_from(Draws.seeded(0)):
        found = evaluation.objective(one, items)
    divergence = float((log_q.exp() * (log_q + math.log(3))).sum())
    if kl == "sampled":
        assert_mean(found, surprise + divergence, divergence / 50)
    else:
        assert torch.allclose(found, torch.tensor(surprise + divergence).double())


@torch.no_grad()
def test_the_divergence_of_densities_stands_in_the_place_of_the_other(assert_mean):
    one, log_q, surprise = indifferent("concrete", "relaxed")
    items = one.model.data("train")[:1].expand(20_000, -1)
    with drawing_from(Draws.seeded(0)):
        found = evaluation.objective(one, items)
    # With u = log q + G the density of y is in proportion to Π q / (Σ q e^(−u))^K, if p is uniform:
    uniform = torch.rand(400_000, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    u = log_q - (-uniform.log()).log()
    ratio = log_q.sum(-1) - 3 * ((log_q - u).logsumexp(-1) - (-u).logsumexp(-1))
    divergence = float(ratio.sum(-1).mean())
    discrete = float((log_q.exp() * (log_q + math.log(3))).sum())
    assert divergence > 1.5 * discrete
    assert_mean(found, surprise + divergence, discrete / 20)


def indifferent(estimator, kl):
    """A trainer, the log q of its first data point, and −log p(x | z) whatever z."""
    one = trainer(estimator, knobs={**TINY, "kl": kl}, dtype=torch.float64)
    for parameter in one.networks["decoder"].parameters():
        parameter.zero_()
    one.networks["encoder"][-1].bias += torch.tensor([2.0, 0, 0, -1, 0, 1]).double()
    logits = one.problem(one.model.data("train")[:1]).logits[0]
    return one, logits.log_softmax(-1), 64 * math.log(2)


def test_every_epoch_visits_every_item_but_the_remainder_once_and_in_another_order():
    one = trainer(batch=300)  # 1,300 items: four batches, 100 left over
    visited = []
    for step in range(12):
        one.step = step
        visited.append(one._indices())
    epochs = [torch.cat(visited[i : i + 4]) for i in (0, 4, 8)]
    assert all(len(epoch.unique()) == 1200 for epoch in epochs)
    left = [set(range(1300)) - set(epoch.tolist()) for epoch in epochs]
    assert left[0] != left[1] != left[2]  # the remainder is another one each time
    assert not torch.equal(epochs[0], epochs[1])
    other = trainer(batch=300, seed=4)
    assert not torch.equal(other._indices(), visited[0])
    assert len(trainer(batch=5000)._indices()) == 1300


def test_annealing_falls_in_steps_to_the_least():
    falling = Annealing(rate=0.01, least=0.5, every=10)
    assert [falling.at(s) for s in (0, 9, 10, 19)] == [1, 1, math.exp(-0.1), math.exp(-0.1)]
    assert falling.at(60) == pytest.approx(math.exp(-0.6))
    assert falling.at(70) == falling.at(10**6) == 0.5


def test_annealing_is_for_the_estimators_that_have_the_knob():
    anneal = {"temperature": Annealing(rate=0.1, least=0.2, every=2)}
    one, other = trainer("concrete", anneal=anneal), trainer("rloo", anneal=anneal)
    for _ in range(3):
        one.advance(), other.advance()
    assert one.estimator.temperature == math.exp(-0.2)
    assert not hasattr(other.estimator, "temperature")
    with pytest.raises(KnobError, match="samples"):
        trainer("rloo", anneal={"samples": Annealing()})


def test_the_rate_at_which_an_estimator_tunes_itself_can_be_annealed():
    falling = Annealing(rate=100.0, least=1e-30, every=1)  # 1, and then as good as nothing
    one = trainer("relax", anneal={"learning_rate": falling})
    one.advance()
    before = one.state()["estimator"]["_parameters"]
    one.advance()
    after = one.state()["estimator"]["_parameters"]
    moved = [float((a - b).abs().max()) for a, b in zip(before, after, strict=True)]
    assert max(moved) < 1e-20


def test_an_estimator_that_does_not_apply_is_refused():
    with pytest.raises(Inapplicable, match="K = 2"):
        trainer("arm")


def exact_surprise(one, items):
    """−log p(x), by all codes: [B]."""
    logits, f = one.problem(items)
    n, k = logits.shape[1:]
    codes = torch.cartesian_prod(*[torch.arange(k)] * n).reshape(-1, n)
    z = torch.nn.functional.one_hot(codes, k).to(logits)  # [S, N, K]
    z = z.expand(len(logits), *z.shape)
    log_q = log_prob(logits.unsqueeze(1), z)
    return -(log_q - f.bounded(2)(z)).logsumexp(1), log_q, f.bounded(2)(z)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "prior"),
    [
        ("categorical_vae", "learned"),
        ("bernoulli_vae", "uniform"),
        pytest.param("categorical_vae", "uniform", marks=pytest.mark.slow),
        pytest.param("bernoulli_vae", "learned", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_bounds_have_the_mean_that_enumeration_gives(model, prior, assert_mean):
    knobs = TINY if model == "categorical_vae" else {"latents": 3}
    one = trainer(model=model, knobs={**knobs, "prior": prior}, dtype=torch.float64)
    with torch.enable_grad():
        for _ in range(5):
            one.advance()
    if prior == "learned":
        one.networks["prior"].logits.add_(
            torch.linspace(-1, 1, 6).view(-1, 2 if "b" in model[:1] else 3)
        )
    items = one.model.data("test")[:1]
    log_p, log_q, cost = exact_surprise(one, items)
    # All pairs of codes, with their probabilities.
    weight = (log_q[0, :, None] + log_q[0, None, :]).exp()
    pairs = math.log(2) - torch.logaddexp(-cost[0, :, None], -cost[0, None, :])
    expected = {1: float((log_q[0].exp() * cost[0]).sum()), 2: float((weight * pairs).sum())}
    many = items.expand(40_000, -1)
    with drawing_from(Draws.seeded(1)):
        found = {m: evaluation.negative_bound(one, many, m) for m in (1, 2)}
        elbo = evaluation.negative_elbo(one, many)
        tight = evaluation.negative_bound(one, items.expand(20, -1), 20_000)
    gain = expected[1] - expected[2]
    assert gain > 0
    for m in (1, 2):
        assert_mean(found[m], expected[m], gain / 4)  # else it could not tell m = 1 from m = 2
    assert_mean(elbo, expected[1], gain / 4)
    assert float(log_p) < expected[2] < expected[1]
    assert_mean(tight, float(log_p), (expected[2] - float(log_p)) / 50)


@pytest.mark.parametrize("kl", ["sampled", "relaxed"])
def test_what_the_model_is_trained_on_does_not_enter_its_evaluation(kl):
    one, other = (trainer(knobs={**TINY, "kl": each}) for each in ("exact", kl))
    items = one.model.data("test")[:50]
    for found in (evaluation.negative_elbo, lambda *given: evaluation.negative_bound(*given, 3)):
        values = []
        for each in (one, other):
            with drawing_from(Draws.seeded(2)):
                values.append(found(each, items))
        assert torch.equal(*values)


@torch.no_grad()
def test_a_bound_in_blocks_is_the_bound(monkeypatch, assert_mean):
    one = trainer(dtype=torch.float64)
    items = one.model.data("test")[:1].expand(3000, -1)
    with drawing_from(Draws.seeded(1)):
        whole = evaluation.negative_bound(one, items, 7)
    sizes, blocks = [], evaluation.sample

    def watched(logits, samples=None):
        sizes.append((len(logits), samples))
        return blocks(logits, samples)

    monkeypatch.setattr(evaluation, "_NUMBERS", 64 * 7 * 100)
    monkeypatch.setattr(evaluation, "sample", watched)
    with drawing_from(Draws.seeded(2)):
        parts = evaluation.negative_bound(one, items, 7)
    assert len(sizes) == 30 and sizes[0] == (100, 7)
    monkeypatch.setattr(evaluation, "_NUMBERS", 64 * 2)
    with drawing_from(Draws.seeded(3)):
        small = evaluation.negative_bound(one, items[:600], 7)
    assert sizes[-1] == (1, 1) and sizes[-2] == (1, 2)
    expected = float(whole.mean())
    for found in (parts, small):
        error = math.hypot(*(float(x.std()) / len(x) ** 0.5 for x in (found, whole)))
        assert abs(float(found.mean()) - expected) < 4 * error
        # A sum that forgot a block would be off by log 7/6 or more.
        assert error < math.log(7 / 6) / 8


def test_a_sum_over_blocks_does_not_overflow(monkeypatch):
    one = trainer()
    with torch.no_grad():
        one.networks["decoder"][-1].bias.fill_(500.0)  # −log w in the thousands, in float32
    items = one.model.data("test")[:4]
    assert evaluation.negative_bound(one, items, 300).isfinite().all()


MODELS = {
    "structured": ("structured_prediction", {"latents": 2, "categories": 3}),
    "bits": ("structured_prediction", {"latents": 3, "categories": 2}),
    "layers": ("structured_prediction", {"latents": 2, "categories": 3, "layers": 2}),
    "bound": ("categorical_vae", {**TINY, "samples": 3, "kl": "sampled"}),
    "bernoulli": ("bernoulli_vae", {"latents": 3, "kl": "relaxed"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_and_is_evaluated(model, dtype, tmp_path):
    name, knobs = MODELS[model]
    one = trainer("rloo", name, knobs, dtype=dtype, learning_rate=3e-2)
    points, images = train(one, settings(steps=40), 7, tmp_path)
    assert all(math.isfinite(p.value) for p in points)
    valid = [p.value for p in points if (p.split, p.metric) == ("valid", "negative_elbo")]
    assert valid[-1] < valid[0] - 1
    assert Pictures.from_json(images.to_json()).samples.shape == (10, 8, 8)
    # An estimator of hard codes has no gap, be it of a bound.
    gaps = [p for p in points if p.metric == "gap"]
    assert sum(p.low <= 0 <= p.high for p in gaps) >= 0.8 * len(gaps)


def test_pictures_of_several_layers_come_from_the_last():
    one = trainer("rloo", *MODELS["layers"])
    with torch.no_grad():
        # The second layer puts all weight on the first category of each latent, whatever z₁ is.
        one.networks["between"][0][0].weight.zero_()
        one.networks["between"][0][0].bias.copy_(torch.tensor([50.0, 0, 0, 50.0, 0, 0]))
    items = one.model.data("test")
    with drawing_from(Draws.seeded(0)):
        found = generate_pictures(one, items)
    code = torch.tensor([1.0, 0, 0, 1, 0, 0])
    lower = (255 * one.networks["decoder"](code).sigmoid()).detach().round().byte()
    assert (found.reconstructions.flatten(1)[:, 32:] == lower).all()


@pytest.mark.parametrize("estimator", ["rloo", "concrete", "nvil"])
def test_a_look_at_the_gradient_is_a_measurement_at_that_state(estimator):
    one = trainer(estimator)
    for _ in range(4):
        one.advance()
    asked = settings(gradient={"steps": [4], "points": 2, "replicates": 64}).gradient
    x = one.model.preprocess(one.model.data("train")[:2], torch.float64)
    found = dict(measure_gradient(one, x, asked, 5))
    fresh = make_estimator(estimator)
    steps = min(fresh.adapt_steps, 200)
    problem = Snapshot(one, x)
    measurement = measure(fresh, problem, replicates=64, seed=5, adapt_steps=steps)
    row = measurement.row()
    assert found["gradient_variance"][""] == row["variance"]
    squared = row["bias_sq"] / row["gradient_norm"] ** 2
    rounding = resolution(torch.float64) ** 2  # is written as zero
    assert found["gradient_bias_sq"][""] == (squared if abs(squared) > rounding else 0.0)
    # The truth is that of the live model, in float32, with the KL.
    logits, f = one.problem(one.model.data("train")[:2])
    with torch.enable_grad():
        value = make_estimator("exact")(logits, f) + analytic_terms(one.model, logits, f)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert torch.allclose(measurement.exact, gradient.double(), rtol=1e-4, atol=1e-4)
    assert nabla(logits).shape == logits.shape


def test_a_training_that_diverged_is_recorded_to_its_end(tmp_path):
    one = trainer("rloo", learning_rate=1e38)
    asked = settings(gradient={"steps": [0, STEPS], "points": 1, "replicates": 64})
    points, _ = train(one, asked, 7, tmp_path)
    last = [p for p in points if p.split == "test"]
    assert len(last) == 2 and all(math.isnan(p.value) for p in last)
    assert {p.step for p in points if p.metric == "gradient_variance"} == {0}


SUITE = """
seeds: [0, 1]
training:
  steps: 60
  batch: 50
  evaluation: {every: 10, points: 20, samples: 3, test_samples: 10}
  checkpoint_seconds: 0
tasks: [{categorical_vae: {latents: 2, categories: 3, hidden: 5}}]
estimators: [rloo, {nvil: {hidden: 5}}]
"""


def test_the_expected_time_of_a_training_includes_its_looks_at_the_gradient(tmp_path, monkeypatch):
    measured = []

    def expected(make, adapt_steps, replicates, device):
        made = make()
        measured.append((made.task.name, len(made.logits), adapt_steps, replicates(made, 1)))
        return 7.0

    monkeypatch.setattr(training_cell, "seconds_of", lambda call: 0.0)
    monkeypatch.setattr(training_cell, "expected_seconds", expected)
    path, registry = tmp_path / "small.yaml", Registry.load([])
    looks = "gradient: {steps: [0, 60, 0], points: 3, replicates: 99}"
    path.write_text(SUITE.replace("checkpoint_seconds: 0", looks))
    found = [cell.expected_seconds(registry) for cell in load_suite(str(path), registry).cells[::2]]
    assert found == [14.0, 14.0]  # two steps, each once
    assert measured == [("categorical_vae", 3, steps, 99) for steps in (0, 200)]
    path.write_text(SUITE)
    assert load_suite(str(path), registry).cells[0].expected_seconds(registry) == 0.0


@pytest.mark.weekly
def test_a_run_that_is_killed_amid_its_trainings_ends_as_one_that_is_not(tmp_path, monkeypatch):
    every_figure(monkeypatch)
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    out = tmp_path / "killed"
    arguments = ["--suite", str(path), "--out", str(out), "--backend", "threading", "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "benchmark.py", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("unfinished/*/checkpoint.pt")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(out.glob("unfinished/*/checkpoint.pt"))
    assert cli.main(arguments) == 0
    assert not (out / "unfinished").exists()
    report = (out / "report.md").read_text()
    assert "| 1" in report and "training_objectives.png" in report and "pictures.png" in report
    rows = pd.read_parquet(out / "training.parquet")
    pd.testing.assert_frame_equal(
        rows.drop(columns="seconds"),
        undisturbed(path, tmp_path / "whole").drop(columns="seconds"),
        check_exact=True,
    )


def undisturbed(path, folder, **options):
    registry = Registry.load([])
    suite = load_suite(str(path), registry)
    run(suite.name, suite.cells, folder, registry, PluginBundle.of([]), ALONE, **options)
    write_results(folder, describe_run(suite, registry, datetime.now(UTC)))
    return pd.read_parquet(folder / "training.parquet")


def test_the_networks_of_every_finished_training_are_kept_and_can_be_loaded(tmp_path):
    path, registry, out = tmp_path / "small.yaml", Registry.load([]), tmp_path / "out"
    path.write_text(SUITE.replace("steps: 60", "steps: 6").replace("[0, 1]", "[3]"))
    undisturbed(path, out)
    files = {file.name: file for file in (out / "networks").iterdir()}
    cells = load_suite(str(path), registry).cells
    for cell, name in zip(cells, ("rloo", "nvil"), strict=True):
        file = files.pop(f"categorical_vae_{name}_rate0.001_seed3_{cell.key[:12]}.pt")
        state = torch.load(file, weights_only=True)
        assert {part.dtype for part in state.values()} == {torch.float32}
        one = cell.trainer(registry)
        before = parameters(one)
        asked = TrainingSettings.model_validate(cell.training)
        train(one, asked, cell.draw_seed, tmp_path / name)
        networks = load_networks(make_task("categorical_vae", **TINY), file)
        own = torch.cat([part.flatten() for part in networks.parameters()])
        assert own.dtype == torch.float64 and not own.requires_grad
        assert torch.equal(own, parameters(one).double()) and not torch.equal(own.float(), before)
    assert not files


def test_networks_that_do_not_fit_are_refused_in_one_line(tmp_path):
    path = tmp_path / "some.pt"
    keep_networks(path, make_task("categorical_vae", **TINY).networks(0))
    for name, knobs, said in (
        (
            "categorical_vae",
            {**TINY, "hidden": 6},
            "expected networks of categorical_vae with the knobs of the training",
        ),
        ("bernoulli_vae", {}, "expected networks of bernoulli_vae with the knobs of the training"),
        ("bernoulli", {}, "expected a Model, got"),
    ):
        with pytest.raises(UsageError, match=said) as raised:
            load_networks(make_task(name, **knobs), path)
        assert "\n" not in str(raised.value)
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"some\.pt: unreadable"):
        load_networks(make_task("categorical_vae", **TINY), path)


def test_a_run_that_starts_over_forgets_what_was_half_done(tmp_path, monkeypatch):
    path = tmp_path / "small.yaml"
    path.write_text(SUITE.replace("steps: 60", "steps: 20").replace("[0, 1]", "[0]"))

    def full(state, path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        save, saved = torch.save, []

        def fills(state, path):
            saved.append(path)
            if len(saved) > 5:
                full(state, path)
            save(state, path)

        patch.setattr(torch, "save", fills)
        rows = undisturbed(path, tmp_path / "out")
    assert rows["status"].tolist() == ["failed", "failed"]
    for reason in rows["reason"]:
        assert "cannot be written" in reason and "No space left" in reason and "\n" not in reason
    (kept,) = (tmp_path / "out").glob("unfinished/*/checkpoint.pt")  # the second has none
    assert not (tmp_path / "out" / "networks").exists()
    taken, advance = [], Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda self: taken.append(self.step) or advance(self))
    (tmp_path / "copy" / "unfinished").parent.mkdir()
    shutil.copytree(tmp_path / "out", tmp_path / "copy", dirs_exist_ok=True)
    again = undisturbed(path, tmp_path / "out")
    assert taken == [*range(5, 20), *range(20)]
    taken.clear()
    (tmp_path / "copy" / "networks").mkdir()
    (tmp_path / "copy" / "networks" / "of_old.pt").touch()
    fresh = undisturbed(path, tmp_path / "copy", fresh=True)
    assert taken == [*range(20), *range(20)]
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), fresh.drop(columns="seconds"))
    assert not list(tmp_path.glob("*/unfinished")) and not kept.exists()
    names = [{p.name for p in tmp_path.glob(f"{each}/networks/*")} for each in ("out", "copy")]
    assert names[0] == names[1] and len(names[0]) == 2
