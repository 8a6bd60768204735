"""The tasks: shapes, determinism, knobs, and the trained state of the autoencoder."""

import importlib
import math
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Task
from gradest.errors import KnobError
from gradest.measurement import enumerated_truth
from gradest.measurement.objectives import analytic_terms
from tests.support import EXACT, small_task

cache = importlib.import_module("gradest.tasks._cache")
images = importlib.import_module("gradest.tasks._images")
TASKS = sorted(gradest.all_tasks())


# what holds for all


@pytest.mark.parametrize("name", TASKS)
def test_the_cost_keeps_every_leading_axis_and_every_dtype(name):
    logits, f = gradest.make_task(name).problem()
    points, latents, categories = logits.shape
    assert logits.dtype == torch.float64
    for dtype in (torch.float64, torch.float32):
        for middle in ((), (3,), (3, 2)):
            z = torch.rand(points, *middle, latents, categories, dtype=dtype).softmax(-1)
            cost = f(z)
            assert cost.shape == (points, *middle) and cost.dtype == dtype
            assert cost.isfinite().all()


@pytest.mark.parametrize("name", TASKS)
def test_the_cost_treats_middle_axes_one_by_one(name):
    logits, f = gradest.make_task(name).problem()
    z = torch.rand(len(logits), 5, *logits.shape[1:], dtype=torch.float64)
    expected = torch.stack([f(z[:, i]) for i in range(5)], 1)
    assert torch.allclose(f(z), expected, rtol=1e-12, atol=EXACT)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_the_same_each_time_and_leaves_the_global_random_state_alone(name):
    before = torch.get_rng_state()
    first, again = small_task(name).problem(), small_task(name).problem()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.logits, again.logits)
    z = enumerated_truth.all_codes(first.logits)[:50].expand(len(first.logits), -1, -1, -1)
    assert torch.equal(first.f(z), again.f(z))


@pytest.mark.parametrize("name", TASKS)
def test_a_relaxable_cost_is_differentiable_on_the_simplex(name):
    task = gradest.make_task(name)
    logits, f = task.problem()
    if not task.relaxable:
        pytest.skip(f"{name} is defined on the vertices alone")
    y = logits.detach().softmax(-1).requires_grad_()
    (gradient,) = torch.autograd.grad(f(y).sum(), y)
    assert gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize("name", TASKS)
def test_the_default_problem_is_asymmetric_and_curved(name):
    """At uniform logits, or where f is affine, many wrong estimators look right."""
    task = small_task(name)
    logits, f = task.problem()
    pi = logits.detach().softmax(-1)
    assert (pi - 1 / logits.shape[-1]).abs().max() > 0.05
    assert enumerated_truth.exact_gradient(task.problem()).gradient.abs().max() > 1e-3
    if task.relaxable:
        codes = enumerated_truth.all_codes(logits)[:1000].expand(len(logits), -1, -1, -1)
        middle = f(codes[:, :-1] / 2 + codes[:, 1:] / 2)
        assert (middle - f(codes[:, :-1]) / 2 - f(codes[:, 1:]) / 2).abs().max() > 1e-3


@pytest.mark.parametrize("name", TASKS)
def test_the_penalty_is_one_number_a_data_point(name):
    task = gradest.make_task(name)
    logits = task.problem().logits
    assert analytic_terms(task, logits, task.problem().f).shape == (len(logits),)


# the toys


def test_bernoulli_has_its_probabilities_and_its_cost():
    task = gradest.make_task("bernoulli", theta=(0.1, 0.7), target=0.2)
    logits, f = task.problem()
    theta = torch.tensor([0.1, 0.7], dtype=torch.float64)
    pi = logits.softmax(-1)
    assert torch.allclose(pi[0, :, 1], theta, rtol=0, atol=EXACT)
    # log α is normalised, so that α is (1 − θ, θ).
    assert torch.allclose(logits.exp(), pi, rtol=0, atol=EXACT)
    codes = enumerated_truth.all_codes(logits).unsqueeze(0)
    costs = f(codes)[0].tolist()  # of 00, 01, 10, 11
    assert costs == pytest.approx([0.08, 0.68, 0.68, 1.28], rel=1e-12)
    half = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    assert f(half).item() == pytest.approx(0.18, rel=1e-12)


def test_categorical_has_its_weights_and_its_cost():
    task = gradest.make_task("categorical", alpha=(2, 0.5, 1), values=(0, 1, 2), target=0.45)
    logits, f = task.problem()
    assert torch.allclose(logits.exp(), torch.tensor([2, 0.5, 1]).double(), rtol=0, atol=EXACT)
    codes = enumerated_truth.all_codes(logits).unsqueeze(0)
    assert f(codes)[0].tolist() == pytest.approx([0.2025, 0.3025, 2.4025], rel=1e-12)
    middle = torch.tensor([[[0.5, 0.25, 0.25]]], dtype=torch.float64)
    assert f(middle).item() == pytest.approx(0.09, rel=1e-12)  # (¾ − 0.45)²


def test_quadratic_couples_its_latents_and_changes_with_its_seed():
    logits, f = gradest.make_task("quadratic", latents=3, categories=2).problem()
    x = torch.rand(1, 3, 2, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda y: f(y).sum(), x).reshape(6, 6)
    assert torch.allclose(hessian, hessian.T, rtol=0, atol=EXACT)
    coupling = hessian - torch.block_diag(*(hessian[i : i + 2, i : i + 2] for i in (0, 2, 4)))
    assert coupling.abs().max() > 0.1
    third = torch.autograd.functional.jacobian(
        lambda y: torch.autograd.functional.hessian(lambda w: f(w).sum(), y, create_graph=True), x
    )
    assert third.abs().max() <= EXACT  # a quadratic form
    other = gradest.make_task("quadratic", latents=3, categories=2, seed=1).problem()
    assert not torch.equal(logits, other.logits)


def test_quadratic_is_of_unit_size_whatever_its_dimension():
    """A_ii ~ N(0, 1/(N K))."""
    squares = 0.0
    for seed in range(30):
        f = gradest.make_task("quadratic", latents=2, categories=5, seed=seed).problem().f
        unit = torch.eye(10, dtype=torch.float64).reshape(1, 10, 2, 5)
        diagonal = (f(unit) + f(-unit)) / 2  # b drops out
        squares += float((10 * diagonal.square()).sum())
    assert 1e-4 < stats.chi2.cdf(squares, 300) < 1 - 1e-4


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("bernoulli", {"theta": []}, "expected a probability for each latent"),
        ("bernoulli", {"theta": [0.5, 1.0]}, r"bernoulli: theta\[1\] = 1.0"),
        ("bernoulli", {"theta": 0.5}, "bernoulli: theta = 0.5"),
        ("bernoulli", {"target": "half"}, "bernoulli: target = 'half'"),
        ("bernoulli", {"thetas": [0.5]}, "no knob 'thetas'; did you mean 'theta'"),
        ("categorical", {"alpha": [1, -1, 2]}, r"categorical: alpha\[1\] = -1"),
        ("categorical", {"alpha": [1, 0, 2]}, r"categorical: alpha\[1\] = 0"),
        ("categorical", {"alpha": [1, 2]}, "got 2 entries of alpha and 3 of values"),
        ("categorical", {"alpha": [1], "values": [1]}, "at least two categories"),
        ("categorical", {"alpha": [], "values": []}, "got 0 entries of alpha and 0 of values"),
        ("quadratic", {"latents": 0}, "quadratic: latents = 0"),
        ("quadratic", {"categories": 1}, "quadratic: categories = 1"),
        ("quadratic", {"seed": 1.5}, "quadratic: seed = 1.5"),
        ("categorical_vae", {"steps": 0}, "categorical_vae: steps = 0"),
        ("categorical_vae", {"points": 0}, "categorical_vae: points = 0"),
        ("categorical_vae", {"points": 298}, "points"),  # 297 are held out
    ],
)
def test_a_bad_knob_is_an_error_that_names_it(name, knobs, message):
    with pytest.raises(KnobError, match=message):
        gradest.make_task(name, **knobs).problem()


# the autoencoder

SMALL = {"latents": 2, "categories": 3, "hidden": 8, "steps": 3}


def vae(**knobs: int) -> Task:
    return gradest.make_task("categorical_vae", **{**SMALL, **knobs})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("GRADEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each training."""
    cls, done = gradest.all_tasks()["categorical_vae"], []
    train = cls._trained
    monkeypatch.setattr(cls, "_trained", lambda self: done.append(self.steps) or train(self))
    return done


def state_of(task: Task) -> Tensor:
    task.problem()
    return torch.cat([p.detach().flatten() for p in task._networks.state_dict().values()])


def digits(*splits: str) -> Tensor:
    return torch.cat([images.images("digits", split).pixels for split in splits]).double()


def test_the_digits_are_binary_and_held_out_ones_are_apart():
    training, held_out = digits("train", "valid"), digits("test")
    assert training.shape == (1500, 64) and held_out.shape == (297, 64)
    for pixels in (training, held_out):
        assert ((pixels == 0) | (pixels == 1)).all()
        assert 0.2 < pixels.mean() < 0.6


def test_a_trained_state_is_kept_and_read_again(folder, trainings):
    first = state_of(vae())
    assert trainings == [3] and len(list(folder.glob("*.pt"))) == 1
    again = vae()
    assert torch.equal(state_of(again), first)
    again.problem()
    assert trainings == [3]
    assert {path.suffix for path in folder.iterdir()} - {".lock"} == {".pt"}  # nothing half-written


@pytest.mark.parametrize("knob", ["latents", "categories", "hidden", "steps", "seed"])
def test_other_knobs_make_another_state(knob, folder, trainings):
    state_of(vae())
    other = state_of(vae(**{knob: 5}))
    assert len(trainings) == 2
    assert other.shape != state_of(vae()).shape or not torch.equal(other, state_of(vae()))


CORRUPT = {
    "empty": lambda raw: b"",
    "truncated": lambda raw: raw[: len(raw) // 2],
    "zeroed": lambda raw: bytes(len(raw)),
    "text": lambda raw: b"not a trained state",
    "other text": lambda raw: b".lock\n",
    "a pickle": lambda raw: b"\x80\x02.",
}


@pytest.mark.parametrize("damage", CORRUPT)
def test_a_corrupt_cache_is_trained_again_with_a_warning(damage, folder, trainings):
    first = state_of(vae())
    (path,) = folder.glob("*.pt")
    path.write_bytes(CORRUPT[damage](path.read_bytes()))
    with pytest.warns(UserWarning, match=r"(?s)unreadable .*; training again"):
        assert torch.equal(state_of(vae()), first)
    assert len(trainings) == 2
    assert torch.equal(state_of(vae()), first)  # mended
    assert len(trainings) == 2


def test_a_folder_that_cannot_be_made_costs_the_cache_not_the_run(tmp_path, monkeypatch, trainings):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GRADEST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="the trained state is not cached"):
        logits = vae().problem().logits
    assert logits.isfinite().all() and len(trainings) == 1


def test_a_state_that_cannot_be_written_costs_the_cache_not_the_run(folder, monkeypatch):
    def full(state, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("write failed\nat archive.cc")  # what torch makes of a full disk

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="the trained state is not cached") as warned:
        found = cache.cached_state("some", {"knob": 1}, lambda: {"x": torch.ones(2)})
    assert torch.equal(found["x"], torch.ones(2))
    assert "\n" not in str(warned[0].message)
    assert {path.suffix for path in folder.iterdir()} <= {".lock"}


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADEST_CACHE", str(tmp_path))
    assert cache.cache_folder() == tmp_path
    monkeypatch.delenv("GRADEST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "gradest"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "gradest"


def test_the_trained_state_does_not_depend_on_threads_or_global_seeds(tmp_path, monkeypatch):
    cls, threads, states, seen = type(vae()), torch.get_num_threads(), [], set()
    problem_at = cls.problem_at

    def watched(*arguments):
        seen.add(torch.get_num_threads())
        return problem_at(*arguments)

    monkeypatch.setattr(cls, "problem_at", watched)
    try:
        for number in (2, 3):
            monkeypatch.setenv("GRADEST_CACHE", str(tmp_path / str(number)))
            torch.set_num_threads(number)
            torch.manual_seed(number)
            states.append(state_of(vae()))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*states)
    assert seen == {1, 2, 3}  # one while training, the caller's own afterwards


def negative_elbo(task: Task, networks: torch.nn.ModuleDict, x: Tensor) -> float:
    """Exact, averaged over the data points."""
    problem = task.problem_at(networks, x)
    value = (
        enumerated_truth.exact_gradient(problem).value
        + analytic_terms(task, problem.logits, problem.f).detach()
    )
    return float(value.mean())


def test_training_lowers_the_negative_elbo_of_held_out_digits():
    task = vae(latents=2, categories=4, hidden=32, steps=100)
    task.problem()
    x = digits("test")[:100]
    before = negative_elbo(task, task.networks(task.seed), x)
    after = negative_elbo(task, task._networks, x)
    # 64 bits that ignore the data, each at its own mean, cost 64 · H: the bound of a decoder that
    # has not learnt to use its code.
    mean = digits("train", "valid").mean(0).clamp(0.001, 0.999)
    blind = -(x * mean.log() + (1 - x) * (1 - mean).log()).sum(1).mean()
    assert before > 40
    assert after < before - 10
    assert after < blind + 1


def test_the_default_state_uses_its_code():
    task = gradest.make_task("categorical_vae", latents=2)  # otherwise the default
    problem = task.problem(digits("test")[:100])
    value = enumerated_truth.exact_gradient(problem).value + analytic_terms(
        task, problem.logits, problem.f
    )
    mean = digits("train", "valid").mean(0).clamp(0.001, 0.999)
    x = digits("test")[:100]
    blind = -(x * mean.log() + (1 - x) * (1 - mean).log()).sum(1).mean()
    assert value.mean() < blind - 2
    assert (
        analytic_terms(task, problem.logits, problem.f).mean() > 0.5
    )  # nats that the code carries


def test_the_cost_of_the_vae_is_the_bernoulli_log_likelihood():
    task = vae(points=3)
    logits, f = task.problem()
    x = digits("test")[:3]
    z = enumerated_truth.all_codes(logits).expand(3, -1, -1, -1)  # [B, K^N, N, K]
    pixels = task._networks["decoder"](z.flatten(-2))
    likelihood = torch.distributions.Bernoulli(logits=pixels)
    expected = -likelihood.log_prob(x.unsqueeze(1)).sum(-1)
    assert torch.allclose(f(z), expected, rtol=1e-12, atol=0)


def test_the_penalty_of_the_vae_is_its_divergence_from_uniform():
    task = vae()
    logits, f = task.problem()
    logits = logits.detach()
    q = torch.distributions.Categorical(logits=logits)
    p = torch.distributions.Categorical(logits=torch.zeros_like(logits))
    expected = torch.distributions.kl_divergence(q, p).sum(-1)
    assert torch.allclose(analytic_terms(task, logits, f), expected, rtol=0, atol=EXACT)


def test_the_penalty_of_a_masked_category_is_finite_in_value_and_gradient():
    logits = torch.tensor([[[0.0, -math.inf, 1.0]]], dtype=torch.float64, requires_grad=True)
    penalty = analytic_terms(vae(latents=1), logits, vae(latents=1, categories=3).problem().f)
    (gradient,) = torch.autograd.grad(penalty.sum(), logits)
    q = logits.detach().softmax(-1)[0, 0, [0, 2]]
    assert penalty.item() == pytest.approx((q * q.log()).sum().item() + math.log(3), abs=EXACT)
    assert gradient.isfinite().all()


def test_another_batch_is_another_problem():
    task = vae(points=2)
    x = digits("train", "valid")[10:15]
    assert task.problem(x).logits.shape == (5, 2, 3)
    assert task.problem().logits.shape == (2, 2, 3)
    assert not torch.equal(task.problem(x).logits[:2], task.problem().logits)


def test_measuring_trains_no_network():
    """The encoder is where gradients arrive; nothing steps it."""
    task = vae()
    logits, f = task.problem()
    assert logits.requires_grad and all(p.requires_grad for p in task.group("encoder"))
    assert not any(p.requires_grad for p in f.module.parameters())
