"""The models of images: networks, data, objectives, and several layers of latents."""

import importlib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

import gradest
from gradest import Cost, Problem
from gradest.categorical import log_prob, one_hot, sample
from gradest.checks import check_task, passed
from gradest.contracts import Model, inapplicable
from gradest.errors import DataError, KnobError
from gradest.knobs import grid
from gradest.measurement import enumerated_truth
from gradest.measurement.objectives import analytic_terms, nested_cost, problem_for
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT

models = importlib.import_module("gradest.tasks._models")
sets = importlib.import_module("gradest.tasks._images")

MODELS = ("categorical_vae", "bernoulli_vae", "structured_prediction", "vq")
SMALL = {"latents": 2, "steps": 2, "points": 3}
VARIANTS = [
    ("categorical_vae", {"categories": 3}),
    ("categorical_vae", {"categories": 3, "encoder": [7, 6], "activation": "relu"}),
    ("categorical_vae", {"categories": 3, "encoder": "linear", "decoder": [5]}),
    ("categorical_vae", {"categories": 3, "prior": "learned"}),
    ("categorical_vae", {"categories": 3, "kl": "sampled", "prior": "learned"}),
    ("categorical_vae", {"categories": 3, "kl": "sampled", "samples": 2}),
    ("categorical_vae", {"categories": 3, "kl": "relaxed"}),
    ("bernoulli_vae", {}),
    ("bernoulli_vae", {"encoder": [9, 8], "prior": "learned"}),
    ("bernoulli_vae", {"kl": "sampled", "samples": 3}),
    ("structured_prediction", {"categories": 3}),
    ("structured_prediction", {"categories": 2, "samples": 2}),
    ("structured_prediction", {"categories": 2, "layers": 2, "encoder": [9]}),
    ("structured_prediction", {"categories": 3, "layers": 2}),
    ("vq", {"categories": 3}),
    ("vq", {"categories": 3, "kl": "sampled", "samples": 2}),
]


def make(name: str, **knobs: object) -> Model:
    return gradest.make_task(name, **{**SMALL, **knobs})


def digits(task: Model, count: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return task.preprocess(task.data("train")[:count], dtype)


def shapes(networks: nn.Module) -> list[list[int]]:
    return [list(m.weight.shape) for m in networks.modules() if isinstance(m, nn.Linear)]


# networks


@pytest.mark.parametrize(("name", "knobs"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_follows_the_dtype_of_its_networks(name, knobs, dtype):
    task = make(name, **knobs)
    networks = task.networks(1).to(dtype)
    x = digits(task, 5, dtype)
    logits, f = task.problem_at(networks, x)
    assert x.dtype == logits.dtype == dtype
    latents, categories = logits.shape[1:]
    assert logits.shape[0] == 5 and latents == 2
    with drawing_from(Draws.seeded(0)):
        for middle in ((), (2,), (2, 4)):
            z = torch.rand(5, *middle, latents, categories).to(dtype).softmax(-1)
            cost = f(z)
            assert cost.shape == (5, *middle) and cost.dtype == dtype and cost.isfinite().all()
            pictures = task.decode_images(networks, x, z)
            assert pictures.shape == (5, *middle, 8, 8) and pictures.dtype == dtype
            assert ((pictures > 0) & (pictures < 1) | (pictures == 0) | (pictures == 1)).all()


@pytest.mark.parametrize(("name", "knobs"), VARIANTS)
def test_every_parameter_learns_and_the_seed_decides_where_it_starts(name, knobs):
    task = make(name, **knobs)
    networks, again, other = task.networks(3), task.networks(3), task.networks(4)
    first = networks["encoder"][0].weight
    assert torch.equal(first, again["encoder"][0].weight)
    assert not torch.equal(first, other["encoder"][0].weight)
    estimator = gradest.make_estimator("rloo")
    logits, f = task.problem_at(networks, digits(task, 50))
    with drawing_from(Draws.seeded(0)):
        value = estimator(*problem_for(estimator, logits, f)) + analytic_terms(task, logits, f)
    value.mean().backward()
    for parameter in networks.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "knobs", "expected"),
    [
        (
            "categorical_vae",
            {"latents": 20, "categories": 10, "encoder": "linear", "decoder": [200]},
            [[200, 784], [200, 200], [784, 200]],
        ),
        (
            "categorical_vae",
            {"latents": 30, "categories": 10, "encoder": [512, 256], "activation": "relu"},
            [[512, 784], [256, 512], [300, 256], [256, 300], [512, 256], [784, 512]],
        ),
        ("bernoulli_vae", {"latents": 200}, [[200, 784], [784, 200]]),
        (
            "bernoulli_vae",
            {"latents": 200, "encoder": [200, 200]},
            [[200, 784], [200, 200], [200, 200], [200, 200], [200, 200], [784, 200]],
        ),
        (
            "structured_prediction",
            {"latents": 24, "categories": 10, "layers": 2},
            [[240, 392], [240, 240], [392, 240]],
        ),
        (
            "structured_prediction",
            {"latents": 240, "categories": 2, "encoder": [100]},
            [[100, 392], [240, 100], [100, 240], [392, 100]],
        ),
    ],
)
def test_the_published_architectures_can_be_said(name, knobs, expected):
    assert shapes(make(name, dataset="mnist", **knobs).networks(0)) == expected


def test_activations_are_between_the_layers_alone():
    networks = make("categorical_vae", encoder=[5, 4], activation="relu").networks(0)
    for part in ("encoder", "decoder"):
        kinds = [type(module) for module in networks[part]]
        assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert isinstance(make("bernoulli_vae", encoder=[5]).networks(0)["encoder"][1], nn.Tanh)


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("categorical_vae", {"encoder": "lineer"}, "categorical_vae: encoder = 'lineer'"),
        ("categorical_vae", {"encoder": [4, 0]}, r"categorical_vae: encoder\[1\] = 0"),
        ("categorical_vae", {"encoder": []}, r"categorical_vae: encoder = \(\)"),
        ("categorical_vae", {"dataset": "cifar"}, "categorical_vae: dataset = 'cifar'"),
        ("categorical_vae", {"samples": 2}, "expected kl = 'sampled' for samples = 2, got 'exact'"),
        (
            "bernoulli_vae",
            {"samples": 2, "kl": "relaxed"},
            "bernoulli_vae: expected kl = 'sampled' for samples = 2",
        ),
        (
            "bernoulli_vae",
            {"dataset": "mnist", "points": 10_001},
            "10,000, the test images of mnist",
        ),
        ("structured_prediction", {"layers": 2, "samples": 2}, "layers = 2 and samples = 2"),
    ],
)
def test_a_bad_knob_is_an_error_that_names_it(name, knobs, message):
    with pytest.raises(KnobError, match=message):
        make(name, **knobs)


@pytest.mark.parametrize("name", ["bernoulli_vae", "structured_prediction"])
def test_models_that_ship_keep_the_laws_of_tasks(name):
    findings = check_task(gradest.all_tasks()[name])
    assert passed(findings), findings


def test_bits_have_one_unit_and_the_decoder_reads_it():
    task = make("bernoulli_vae")
    networks, x = task.networks(0), digits(make("bernoulli_vae"))
    logits, f = task.problem_at(networks, x)
    phi = networks["encoder"](x)
    assert torch.equal(logits, torch.stack([torch.zeros_like(phi), phi], -1))
    theta = logits.softmax(-1)[..., 1]
    assert torch.allclose(theta, phi.sigmoid(), rtol=0, atol=EXACT)
    b = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    expected = torch.distributions.Bernoulli(logits=networks["decoder"](b)).log_prob(x).sum(-1)
    assert torch.allclose(f(torch.stack([1 - b, b], -1)), -expected, rtol=1e-12, atol=0)


# data


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """60 images of 28 × 28 in every grey there is stand for MNIST, whatever the split."""
    pixels = torch.arange(60 * 784).remainder(256).to(torch.uint8).reshape(60, 784)
    stand_in = sets.Images(pixels, 255, 28)
    monkeypatch.setattr(models, "images", lambda name, split: stand_in)
    return pixels


def test_the_data_sets_are_those_that_there_are():
    assert get_args(models.Dataset) == tuple(sets.IMAGE_SETS)


def test_grey_is_drawn_as_bits_anew_and_a_seed_repeats_it(grey):
    task = make("categorical_vae", dataset="mnist")
    with drawing_from(Draws.seeded(0)):
        first, second = (task.preprocess(grey, torch.float32) for _ in range(2))
    with drawing_from(Draws.seeded(0)):
        again = task.preprocess(grey, torch.float64)
    assert torch.equal(first.double(), again) and again.dtype == torch.float64
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 1.0}


def test_a_grey_pixel_is_one_with_probability_grey_over_255(grey, assert_mean):
    task = make("categorical_vae", dataset="mnist")
    levels = torch.arange(256).to(torch.uint8).expand(4000, 256)
    with drawing_from(Draws.seeded(1)):
        bits = task.preprocess(levels, torch.float64)
    assert (bits[:, 0] == 0).all() and (bits[:, 255] == 1).all()
    assert_mean(bits[:, 1:255], levels[0, 1:255].double() / 255, 0.01)


def test_black_and_white_is_taken_as_it_is():
    task = make("categorical_vae")
    source = Draws.seeded(0)
    with drawing_from(source):
        x = task.preprocess(task.data("test"), torch.float64)
    assert source.count == 0
    assert torch.equal(x.to(torch.uint8), task.data("test"))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_measured_of_grey_images_is_fixed(name, grey):
    first, again = (make(name, dataset="mnist").problem() for _ in range(2))
    assert torch.equal(first.logits, again.logits)
    z = sample(first.logits, 3)
    assert torch.equal(first.f(z), again.f(z))


@pytest.mark.parametrize("name", MODELS)
def test_a_missing_data_set_is_one_clear_line(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADEST_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pooch", None)  # as where it is not installed
    with pytest.raises(DataError, match=r"train-images.* is missing; pip install") as caught:
        make(name, dataset="mnist").prepare()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dataset", list(sets.IMAGE_SETS))
def test_published_images_pose_a_problem(dataset, monkeypatch):
    """Where GRADEST_TEST_DATA names a folder of the published files."""
    folder = os.environ.get("GRADEST_TEST_DATA")
    files = [file for split in sets.IMAGE_SETS[dataset].splits.values() for file in split.files]
    if folder is None or not all((Path(folder) / file.name).exists() for file in files):
        pytest.skip("GRADEST_TEST_DATA does not have it")
    monkeypatch.setenv("GRADEST_DATA", folder)
    for name in MODELS:
        task = make(name, dataset=dataset)
        task.prepare()
        logits, f = task.problem()
        assert logits.isfinite().all() and f(sample(logits)).isfinite().all()


# objectives


def joint(task: Model, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log q(z | x) and log p(x, z) of all codes, [B, K^N] each, and the codes [K^N, N, K]."""
    networks = task._networks
    logits = task.problem_at(networks, x).logits.detach()
    z = enumerated_truth.all_codes(logits)
    prior = networks["prior"]().detach() if task.prior == "learned" else torch.zeros(2, 3).double()
    pixels = networks["decoder"](z.flatten(-2)).detach()
    likelihood = torch.distributions.Bernoulli(logits=pixels).log_prob(x.unsqueeze(1)).sum(-1)
    return log_prob(logits.unsqueeze(1), z), likelihood + log_prob(prior, z), z


def total(problem: Problem, task: Model) -> Tensor:
    value = enumerated_truth.exact_gradient(problem).value + analytic_terms(
        task, problem.logits, problem.f
    )
    return value.detach()


@pytest.mark.parametrize("prior", ["uniform", "learned"])
@pytest.mark.parametrize("kl", ["exact", "sampled", "relaxed"])
def test_the_objective_is_the_negative_elbo_however_the_divergence_enters(kl, prior):
    task = make("categorical_vae", categories=3, kl=kl, prior=prior, steps=20)
    log_q, log_p, _ = joint(task, digits(task))
    expected = (log_q.exp() * (log_q - log_p)).sum(1)
    assert torch.allclose(total(task.problem(digits(task)), task), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("prior", ["uniform", "learned"])
def test_the_bound_of_two_samples_is_its_definition(prior):
    task = make("categorical_vae", categories=3, kl="sampled", samples=2, prior=prior, steps=20)
    log_q, log_p, _ = joint(task, digits(task))
    log_w = log_p - log_q
    pair = torch.logaddexp(log_w.unsqueeze(1), log_w.unsqueeze(2)) - math.log(2)
    weight = (log_q.unsqueeze(1) + log_q.unsqueeze(2)).exp()
    expected = -(weight * pair).sum((1, 2))
    value = total(task.problem(digits(task)), task)
    assert torch.allclose(value, expected, rtol=0, atol=EXACT)
    one = make("categorical_vae", categories=3, prior=prior, steps=20)  # at the same networks
    assert (value < total(one.problem(digits(one)), one)).all()  # the bound is tighter


def test_networks_are_the_same_whatever_the_objective():
    states = [
        make("categorical_vae", categories=3, **knobs)._networks["encoder"][0].weight
        for knobs in ({}, {"kl": "sampled"}, {"kl": "sampled", "samples": 2}, {"kl": "relaxed"})
    ]
    assert all(torch.equal(states[0], other) for other in states[1:])


def test_the_bound_of_a_prediction_is_the_mean_likelihood_of_its_samples():
    task = make("structured_prediction", categories=3, samples=2)
    x = digits(task)
    logits, f = task.problem(x)
    z = enumerated_truth.all_codes(logits)
    pixels = task._networks["decoder"](z.flatten(-2))
    lower = torch.distributions.Bernoulli(logits=pixels).log_prob(x[:, None, 32:]).sum(-1)
    assert torch.allclose(f(z.expand(3, -1, -1, -1)), -lower, rtol=1e-12, atol=0)
    log_q = log_prob(logits.unsqueeze(1), z)
    pair = torch.logaddexp(lower.unsqueeze(1), lower.unsqueeze(2)) - math.log(2)
    expected = -((log_q.unsqueeze(1) + log_q.unsqueeze(2)).exp() * pair).sum((1, 2))
    assert torch.allclose(
        enumerated_truth.exact_gradient(Problem(logits, f)).value, expected, rtol=0, atol=EXACT
    )


def test_a_prediction_sees_the_upper_half_and_costs_the_lower():
    task = make("structured_prediction", categories=3)
    networks, x = task.networks(0), digits(task)
    changed = x.clone()
    changed[:, 32:] = 1 - x[:, 32:]
    assert torch.equal(
        task.problem_at(networks, x).logits, task.problem_at(networks, changed).logits
    )
    z = sample(task.problem_at(networks, x).logits)
    upper = x.clone()
    upper[:, :32] = 1 - x[:, :32]
    costs = [task.problem_at(networks, seen).f(z) for seen in (x, upper, changed)]
    assert torch.equal(costs[0], costs[1]) and not torch.equal(costs[0], costs[2])
    assert torch.equal(task.decode_images(networks, x, z)[:, :4].flatten(1), x[:, :32])


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("categorical_vae", {"categories": 3, "prior": "learned"}),
        ("bernoulli_vae", {"kl": "sampled", "samples": 3}),
        ("structured_prediction", {"categories": 2, "layers": 2}),
        ("vq", {"categories": 3}),
    ],
)
def test_training_lowers_the_objective(name, knobs):
    task = make(name, **knobs)
    networks = task.networks(0).float()
    estimator = gradest.make_estimator("rloo", samples=4)
    optimiser = torch.optim.Adam(networks.parameters(), lr=0.01)
    x = digits(task, 200, torch.float32)
    values = []
    with drawing_from(Draws.seeded(0)):
        for _ in range(50):
            logits, f = task.problem_at(networks, x)
            value = estimator(*problem_for(estimator, logits, f)) + analytic_terms(task, logits, f)
            optimiser.zero_grad()
            value.mean().backward()
            optimiser.step()
            values.append(float(value.detach().mean()))
    # Half of what is left to a decoder that has learnt the means of the pixels, and no code.
    mean = x.mean(0).clamp(0.01, 0.99)
    entropy = -(mean * mean.log() + (1 - mean) * (1 - mean).log())
    blind = float(entropy[32:].sum() if name == "structured_prediction" else entropy.sum())
    assert values[-1] < (values[0] + blind) / 2


# vector quantisation


def test_a_vector_of_the_codebook_is_the_likelier_the_closer_it_is():
    task = make("vq", categories=5, temperature=0.7)
    networks, x = task.networks(0), digits(task)
    e = networks["encoder"](x).unflatten(-1, (2, 2))  # [B, N, d]
    vectors = networks["decoder"][0].vectors
    distance = torch.cdist(e, vectors).square()  # [B, N, K]
    logits = task.problem_at(networks, x).logits
    assert torch.allclose(logits, -distance / 0.7, rtol=0, atol=EXACT)
    assert torch.equal(logits.argmax(-1), distance.argmin(-1))


def test_the_decoder_of_vq_reads_the_vectors_that_were_chosen():
    task = make("vq", categories=3)
    networks, x = task.networks(0), digits(task)
    logits, f = task.problem_at(networks, x)
    index = torch.tensor([[0, 2], [1, 1], [2, 0]])
    codebook, decoder = networks["decoder"]
    pixels = decoder(codebook.vectors[index].flatten(1))
    expected = -torch.distributions.Bernoulli(logits=pixels).log_prob(x).sum(-1)
    assert torch.allclose(f(one_hot(index, logits)), expected, rtol=1e-12, atol=0)
    # The prior is uniform: E f + KL is the negative ELBO.
    kl = (logits.softmax(-1) * logits.log_softmax(-1)).sum((1, 2)) + 2 * math.log(3)
    assert torch.allclose(analytic_terms(task, logits, f), kl, rtol=0, atol=EXACT)


# several layers of latents

TINY = {"categories": 2, "layers": 2, "points": 2, "steps": 5}


def stacked(layers: int = 2) -> tuple[Model, nn.ModuleDict, Tensor]:
    task = make("structured_prediction", **{**TINY, "layers": layers})
    networks = task.networks(0)
    for parameter in networks.parameters():  # far from uniform
        parameter.data.mul_(2.0)
    return task, networks, digits(task, 2)


def by_joint_sum(networks: nn.ModuleDict, x: Tensor, phi: Tensor | None = None) -> Tensor:
    """Σ p(z₁) p(z₂ | z₁) (−log p(lower | z₂)) of two layers of bits: [B].

    The first layer's units φ [B, 2] are the encoder's if they are not given.
    """
    bits = torch.cartesian_prod(*[torch.arange(2)] * 2).double()  # [4, 2]

    def law(phi: Tensor) -> Tensor:  # [..., 2] -> [..., 4]
        return torch.distributions.Bernoulli(logits=phi.unsqueeze(-2)).log_prob(bits).sum(-1).exp()

    first = law(networks["encoder"](x[:, :32]) if phi is None else phi)  # [B, 4]
    second = law(networks["between"][0](bits))  # [4, 4]
    pixels = torch.distributions.Bernoulli(logits=networks["decoder"](bits))
    cost = -pixels.log_prob(x[:, None, 32:]).sum(-1)  # [B, 4]
    return torch.einsum("bi,ij,bj->b", first, second, cost)


def gradients(value: Tensor, networks: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, [*networks.parameters()])])


def test_enumeration_inside_enumeration_is_the_joint_sum():
    task, networks, x = stacked()
    expected = by_joint_sum(networks, x)
    logits, f = task.problem_at(networks, x)
    estimator = gradest.make_estimator("exact")
    value = estimator(*problem_for(estimator, logits, f))
    assert torch.allclose(value, expected, rtol=0, atol=EXACT)
    found, right = (gradients(v.sum(), networks) for v in (value, by_joint_sum(networks, x)))
    assert torch.allclose(found, right, rtol=0, atol=EXACT) and right.abs().max() > 0.1
    assert f.evaluations == 16


def test_the_truth_of_several_layers_is_the_joint_sum():
    task, networks, x = stacked()
    logits, f = task.problem_at(networks, x)
    truth = enumerated_truth.exact_gradient(Problem(logits, f))
    own = logits.detach().requires_grad_()
    phi = own[..., 1] - own[..., 0]
    value = by_joint_sum(networks, x, phi)
    (gradient,) = torch.autograd.grad(value.sum(), own)
    assert torch.allclose(truth.value, value, rtol=0, atol=EXACT)
    assert torch.allclose(truth.gradient, gradient, rtol=0, atol=EXACT)


def test_three_layers_nest_too():
    task, networks, x = stacked(3)
    logits, f = task.problem_at(networks, x)
    estimator = gradest.make_estimator("exact")
    value = estimator(*problem_for(estimator, logits, f))
    assert torch.allclose(
        value, enumerated_truth.exact_gradient(Problem(logits, f)).value, rtol=0, atol=EXACT
    )
    assert f.evaluations == 64
    assert enumerated_truth.enumerable(Problem(logits, f))


class AllBits(Draws):
    """Row by row the draws of the joint outcome of that number; a row may draw side by side."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.number = torch.arange(rows)
        self.p = torch.ones(rows, dtype=torch.float64)
        self.left = rows

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        pi = logits.detach().softmax(-1).unflatten(0, (len(self.number), -1))  # [R, M, N, 2]
        shape = (*pi.shape[:2], samples, pi.shape[2])
        places = math.prod(shape[1:])
        bits = self.number.unsqueeze(1) >> torch.arange(places) & 1
        self.number, self.left = self.number >> places, self.left >> places
        bits = bits.reshape(shape)  # [R, M, S, N]
        chosen = pi.unsqueeze(2).expand(*shape, 2).gather(-1, bits.unsqueeze(-1))
        self.p = self.p * chosen.flatten(1).prod(1)
        return bits.flatten(0, 1)

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        raise AssertionError("all draws are bits")


# Outcomes of their draws: 2² of each code, of the outer ones and of the inner ones of each of them.
DRAWS = {"rloo": 4 ** (2 + 4), "reinforce": 4 ** (1 + 1), "straight_through": 4 ** (1 + 1)}


def mean_of(name: str) -> tuple[Tensor, Tensor]:
    """E of the estimator's gradients with respect to all networks, and the truth."""
    task, networks, x = stacked()
    x = x[:1]
    logits, f = task.problem_at(networks, x)
    estimator, source = gradest.make_estimator(name), AllBits(DRAWS[name])
    rows = logits.expand(DRAWS[name], -1, -1)
    with drawing_from(source):
        value = estimator(*problem_for(estimator, rows, f.replicated(1, rows)))
    assert source.left == 1 and float(source.p.sum()) == pytest.approx(1, abs=1e-12)
    found = gradients((source.p * value).sum(), networks)
    return found, gradients(by_joint_sum(networks, x).sum(), networks)


@pytest.mark.parametrize("name", ["rloo", "reinforce"])
def test_score_functions_are_unbiased_for_the_networks_of_all_layers(name):
    """Over all outcomes of all draws, the gradient of encoder, second layer and decoder."""
    found, right = mean_of(name)
    assert torch.allclose(found, right, rtol=0, atol=EXACT)


def test_straight_through_is_biased_in_a_curved_stack_of_layers():
    found, right = mean_of("straight_through")
    assert (found - right).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [("straight_through", 1, 1), ("rloo", 4, 0), ("muprop", 4, 2), ("gumbel_softmax", 1, 1)],
)
def test_evaluations_are_those_of_the_last_layer(name, forward, backward):
    task = make("structured_prediction", **TINY)
    found = gradest.measure(gradest.make_estimator(name), task, replicates=64)
    assert (found.evaluations, found.gradient_evaluations) == (forward, backward)
    assert found.exact is not None and math.isfinite(found.exact_value)


def test_evaluations_of_several_codes_count_for_each():
    task, networks, x = stacked()
    logits, f = task.problem_at(networks, x)
    estimator = gradest.make_estimator("straight_through")
    z = sample(logits, 3).requires_grad_()
    nested_cost(f, estimator)(z).sum().backward()
    assert (f.evaluations, f.gradient_evaluations) == (3, 3)


def test_called_as_it_is_a_deep_cost_draws_the_next_layer_once(assert_mean):
    task, networks, x = stacked()
    logits, f = task.problem_at(networks, x)
    estimator = gradest.make_estimator("exact")
    z = sample(logits)
    mean = nested_cost(f, estimator)(z).detach()
    many = f.replicated(None)
    with drawing_from(Draws.seeded(0)):
        costs = many(z.unsqueeze(1).expand(-1, 20_000, -1, -1)).detach()  # [B, S]
    assert many.evaluations == 20_000
    assert_mean(costs.T, mean, 0.05)
    assert costs.std(1).min() > 0.1


def test_a_frozen_deep_cost_has_gradients_to_z_alone():
    task, networks, x = stacked()
    logits, f = task.problem_at(networks, x)
    z = logits.detach().softmax(-1).requires_grad_()
    estimator = gradest.make_estimator("exact")
    frozen = nested_cost(f, estimator).frozen(z)
    (gradient,) = torch.autograd.grad(frozen.sum(), z, retain_graph=True)
    assert gradient.abs().max() > 0
    parameters = [*networks["between"].parameters(), *networks["decoder"].parameters()]
    found = torch.autograd.grad(frozen.sum(), parameters, allow_unused=True)
    assert all(g is None for g in found)
    live = torch.autograd.grad(nested_cost(f, estimator)(z).sum(), parameters)
    assert all(g.abs().max() > 0 for g in live)


@pytest.mark.parametrize(
    ("name", "knobs", "reason"),
    [
        ("rebar", {}, "rebar has a state for one layer of latents"),
        ("exact", {"latents": 10}, r"2\^10 · 2\^10 is more than 100,000"),
        ("arm", {"categories": 3}, "arm needs K = 2, structured_prediction has K = 3"),
    ],
)
def test_what_does_not_apply_to_several_layers_says_why(name, knobs, reason):
    task = make("structured_prediction", **{**TINY, **knobs})
    problem = task.problem_at(task.networks(0), digits(task))
    estimator = gradest.make_estimator(name)
    with pytest.raises(AssertionError, match=reason):
        assert not (told := inapplicable(estimator, task, problem)), told
    assert problem.f.evaluations == 0


def test_a_bound_of_several_layers_is_refused_and_evaluated():
    """By an estimator, but draws of all layers give its value."""
    task, networks, x = stacked()
    logits, f = task.problem_at(networks, x)
    two = Problem(logits, f.bounded(2))
    rloo = gradest.make_estimator("rloo")
    assert "a bound of several layers" in inapplicable(rloo, task, two)
    with pytest.raises(
        ValueError, match="expected one layer of latents for an objective of several samples"
    ):
        problem_for(rloo, *two)


@pytest.mark.parametrize("own", ["prior", "samples"])
def test_an_inner_layer_with_an_objective_of_its_own_is_refused(own):
    logits = torch.zeros(1, 2, 2)
    wrong = {"prior": {"prior": torch.zeros(2, 2)}, "samples": {"samples": 2}}[own]
    f = Cost(lambda z: Problem(z, Cost(lambda y: y.sum((-2, -1)), **wrong)), deep=True)
    with pytest.raises(ValueError, match="without a prior and a bound of its own"):
        f.next(logits.softmax(-1))


def test_a_suite_can_say_layers():
    """Words and lists of widths in one grid."""
    cls = gradest.all_tasks()["categorical_vae"]
    assert grid(cls, "encoder", [512, 256]) == [[512, 256]]
    assert grid(cls, "encoder", "linear") == ["linear"]
    assert grid(cls, "encoder", ["linear", [200]]) == ["linear", [200]]
    assert grid(cls, "encoder", [[200], [512, 256]]) == [[200], [512, 256]]
    assert grid(cls, "decoder", ["mirrored", "linear", [4]]) == ["mirrored", "linear", [4]]


def test_a_pixel_that_the_decoder_is_sure_of_keeps_its_small_cost():
    pixels = torch.tensor([[[40.0, -40.0], [40.0, 40.0]]])  # [B, S, D]
    cost = models.surprise(pixels, torch.tensor([[1, 0]]))  # [B, S]
    exact = torch.tensor([[2 * math.exp(-40), 40.0]])
    assert torch.allclose(cost, exact, rtol=1e-6, atol=0)  # float32 has seven digits
