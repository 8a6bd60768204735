"""Gradients of what the logits depend on: the same numbers as in the space of all parameters."""

import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import log_prob
from gradest.errors import UsageError
from gradest.measurement import parameters
from gradest.measurement.objectives import analytic_terms
from gradest.measurement.parameters import LOG_ALPHA, SCALES, parameter_gradients, projections
from gradest.statistics import squared_bias, total_variance
from gradest.statistics.moments import Moments
from tests.support import EXACT, LEVEL

SMALL = {"latents": 2, "categories": 3, "steps": 5, "points": 3}


def vae(**knobs) -> Task:
    return gradest.make_task("categorical_vae", **{**SMALL, **knobs})


def jacobian(task: Task, name: str) -> Tensor:
    """∂ (mean over the data points of what has the gradient ĝ)/∂φ: [D, P], one row a logit."""
    logits = task.problem().logits
    group = tuple(task.group(name))
    rows = []
    for x in logits.flatten():
        parts = torch.autograd.grad(x, group, retain_graph=True)
        rows.append(torch.cat([p.flatten() for p in parts]))
    return torch.stack(rows) / len(logits)


class Recording(Estimator):
    """Keeps each gradient that flows back, with the penalty left out: [R, B·N·K]."""

    name = "recording"

    def __init__(self, inner: Estimator) -> None:
        super().__init__()
        self.inner, self.seen = inner, []
        self.name = inner.name

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        logits.register_hook(lambda g: self.seen.append(g.detach().clone()))
        return self.inner(logits, f)


def recorded(name: str, task: Task, replicates: int) -> tuple[Tensor, gradest.Measurement]:
    """Every estimate with its penalty [R, D], and the measurement made of them."""
    estimator = Recording(gradest.make_estimator(name))
    found = gradest.measure(estimator, task, replicates=replicates, enumerate_draws=False)
    points = len(found.logits)
    blocks = [g.flatten(1).unflatten(0, (points, -1)).transpose(0, 1) for g in estimator.seen]
    logits = found.logits.clone().requires_grad_()
    (penalty,) = torch.autograd.grad(analytic_terms(task, logits, task.problem().f).sum(), logits)
    return torch.cat(blocks).flatten(1)[-replicates:] + penalty.flatten(), found


@pytest.mark.parametrize("name", ["rloo", "straight_through"])
def test_a_row_of_the_encoder_is_that_of_all_its_parameters(name):
    """The P-dimensional space, with no projection: Jᵀ of every single estimate."""
    task = vae()
    x, found = recorded(name, task, 1000)
    at = jacobian(task, "encoder")  # [D, P]
    assert at.shape[1] > 4000 > 10 * at.shape[0]
    estimate, exact = x @ at, found.exact.flatten() @ at  # [R, P], [P]
    row = found.row("encoder")
    assert row["gradient_norm"] == pytest.approx(float(exact.norm()), rel=EXACT)
    assert row["variance"] == pytest.approx(float(estimate.var(0).sum()), rel=1e-9)
    deviation = (estimate.mean(0) - exact).square().sum()
    noise = estimate.var(0).sum() / 1000
    scale = float(noise)
    assert row["bias_sq"] == pytest.approx(float(deviation - noise), abs=1e-9 * scale)
    cosine = torch.nn.functional.cosine_similarity(estimate, exact.unsqueeze(0), dim=1)
    assert row["cosine"] == pytest.approx(float(cosine.mean()), abs=1e-9)
    assert row["cosine_se"] == pytest.approx(float(cosine.std()) / 1000**0.5, rel=1e-6)
    assert row["coordinates"] <= at.shape[0]
    # The intervals too: the batches of the schedule, in all P coordinates, but for a term of second
    # order, 1/R of the rest, that depends on the axes.
    sizes = [int(c) for c in found.gradient.count]
    batches = [Moments.of(part.unsqueeze(0)) for part in estimate.split(sizes)]
    whole = Moments.stacked(batches)
    variance, bias = total_variance(whole), squared_bias(whole, exact)
    assert row["variance_low"] == pytest.approx(variance.low, rel=1e-4)
    assert row["variance_high"] == pytest.approx(variance.high, rel=1e-4)
    # Variances are those of all replicates, correlations of the batches: which is which hangs on
    # the axes, by the noise of a correlation from 64 batches, 1/√64.
    assert row["bias_sq_high"] == pytest.approx(bias.high, rel=0.125)


@pytest.mark.parametrize("name", ["reinforce", "straight_through", "rloo"])
def test_enumerated_moments_of_the_encoder_are_those_of_all_its_parameters(name):
    """Data points draw alone: the covariance of the logits is block-diagonal, that of φ is not."""
    task = vae(latents=1)
    found = gradest.measure(gradest.make_estimator(name), task)
    assert found.method == "enumerated"
    drawn = gradest.measure(
        gradest.make_estimator(name), task, replicates=20_000, enumerate_draws=False
    )
    a, b = found.row("encoder"), drawn.row("encoder")
    k = stats.norm.isf(LEVEL / 2)
    half = (b["variance_high"] - b["variance_low"]) / 2
    assert half <= 0.1 * a["variance"], "inconclusive"
    assert abs(a["variance"] - b["variance"]) <= k / 1.96 * half
    assert abs(a["cosine"] - b["cosine"]) <= k * (a["cosine_se"] ** 2 + b["cosine_se"] ** 2) ** 0.5
    at = jacobian(task, "encoder")
    bias = ((found.mean - found.exact).flatten() @ at).square().sum()
    assert a["bias_sq"] == pytest.approx(float(bias), abs=1e-12)


def test_rows_of_the_logits_do_not_know_of_parameters(monkeypatch):
    estimator = gradest.make_estimator("rloo")
    with_group = gradest.measure(estimator, vae(), replicates=200)
    monkeypatch.setattr(type(vae()), "parameters", ())
    without = gradest.measure(estimator, vae(), replicates=200)
    assert with_group.parameters == ("alpha", LOG_ALPHA, "encoder")
    assert without.parameters == ("alpha", LOG_ALPHA)
    for parameter in SCALES:
        a, b = with_group.row(parameter), without.row(parameter)
        for column in ("gradient_norm", "variance", "variance_high", "cosine", "mse", "value"):
            assert a[column] == pytest.approx(b[column], rel=1e-12), (parameter, column)
    with pytest.raises(UsageError, match="'encoder'; expected one of alpha, log_alpha"):
        without.row("encoder")


class TwoGroups(Task):
    """log α = A φ + b ψ, with a redundant φ and a ψ that moves the first latent alone."""

    parameters = ("phi", "psi")
    name = "two_groups"

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(3)
        normal = {"generator": draws, "dtype": torch.float64}
        # Of rank 5, with singular values from 1 to 10⁻³.
        size = torch.logspace(0, -3, 5, dtype=torch.float64)
        self.a = torch.randn(12, 5, **normal) * size @ torch.randn(5, 20, **normal)
        self.b = torch.zeros(12, 1, dtype=torch.float64)
        self.b[:3] = torch.randn(3, 1, **normal)
        self.phi = (0.1 * torch.randn(4, 5, **normal)).requires_grad_()
        self.psi = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def problem(self, batch=None) -> Problem:
        logits = (self.a @ self.phi.flatten() + self.b @ self.psi).reshape(2, 2, 3)
        weight = torch.arange(6, dtype=torch.float64).reshape(2, 3).sin()
        return Problem(logits, Cost(lambda z: (z * weight.to(z)).sum((-2, -1)).square()))

    def group(self, name: str):
        return iter([getattr(self, name)])  # may come but once


def test_the_map_of_each_group_keeps_lengths_and_angles_of_a_deficient_jacobian():
    task = TwoGroups()
    maps = projections(task, task.problem().logits)
    assert {name: tuple(m.shape) for name, m in maps.items()} == {"phi": (12, 5), "psi": (12, 1)}
    for name, matrix in (("phi", task.a), ("psi", task.b)):
        gram = (matrix / 2) @ (matrix / 2).T  # B = 2
        assert torch.allclose(maps[name] @ maps[name].T, gram, rtol=0, atol=EXACT)
    found = gradest.measure(gradest.make_estimator("straight_through"), task, replicates=64)
    gap = (found.mean - found.exact).flatten()
    for name, matrix in (("phi", task.a), ("psi", task.b)):
        row = found.row(name)
        bias = (matrix.T @ gap / 2).square().sum()
        norm = (matrix.T @ found.exact.flatten() / 2).norm()
        assert row["bias_sq"] == pytest.approx(float(bias), abs=EXACT)
        assert row["gradient_norm"] == pytest.approx(float(norm), rel=EXACT)


def test_the_mean_of_a_group_is_the_gradient_of_the_mean_over_the_data_points():
    task = TwoGroups()
    found = gradest.measure(gradest.make_estimator("exact"), task)
    for name, matrix in (("phi", task.a), ("psi", task.b)):
        expected = matrix.T @ found.exact.flatten() / 2
        assert torch.allclose(found.means[name], expected, rtol=0, atol=EXACT)


def test_the_truth_of_the_encoder_is_the_derivative_of_the_mean_objective():
    """By autograd through encoder, enumeration and penalty at once, without any projection."""
    task = vae(latents=1)
    logits, f = task.problem()
    z = torch.eye(3, dtype=torch.float64)[:, None].expand(len(logits), 3, 1, 3)
    p = log_prob(logits.unsqueeze(1), z).exp()
    objective = ((p * f(z)).sum(1) + analytic_terms(task, logits, f)).mean()
    gradients = torch.autograd.grad(objective, tuple(task.group("encoder")))
    expected = torch.cat([g.flatten() for g in gradients])
    found = gradest.measure(gradest.make_estimator("exact"), vae(latents=1))
    assert torch.allclose(found.means["encoder"], expected, rtol=0, atol=EXACT)
    assert found.row("encoder")["gradient_norm"] == pytest.approx(float(expected.norm()))


def test_the_mean_of_replicates_is_pulled_back_not_the_truth():
    task = TwoGroups()
    biased = gradest.measure(gradest.make_estimator("straight_through"), task, replicates=64)
    expected = task.a.T @ biased.mean.flatten() / 2
    assert torch.allclose(biased.means["phi"], expected, rtol=0, atol=EXACT)
    truth = task.a.T @ biased.exact.flatten() / 2
    assert (biased.means["phi"] - truth).abs().max() > 0.01


def test_a_map_that_would_be_too_large_is_not_made(monkeypatch):
    task = TwoGroups()
    logits = task.problem().logits
    monkeypatch.setattr(parameters, "LARGEST", 11)
    assert projections(task, logits) == {}
    found = gradest.measure(gradest.make_estimator("exact"), task)
    assert found.parameters == ("alpha", LOG_ALPHA)
    monkeypatch.setattr(parameters, "LARGEST", 12)
    assert projections(task, logits).keys() == {"phi", "psi"}
    monkeypatch.setattr(parameters, "MOST", 19)
    assert parameter_gradients(task, logits, torch.ones_like(logits)).keys() == {"psi"}


def test_json_keeps_the_groups():
    reinforce = gradest.make_estimator("reinforce")
    found = gradest.measure(reinforce, TwoGroups(), replicates=100, enumerate_draws=False)
    back = type(found).from_json(found.to_json())
    for name in ("phi", "psi"):
        assert repr(found.identity | back.row(name)) == repr(found.row(name))
        assert torch.equal(back.means[name], found.means[name])


def test_narrow_dtypes_measure_the_groups_too():
    single, double = (
        gradest.measure(gradest.make_estimator("rloo"), vae(latents=1), dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    a, b = single.row("encoder"), double.row("encoder")
    assert a["variance"] == pytest.approx(b["variance"], rel=1e-4)
    assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=EXACT)
    assert torch.allclose(single.means["encoder"], double.means["encoder"], atol=1e-4)
