"""Objectives with a prior, and multi-sample bounds: every way to their gradients agrees.

What is enumerated is held against sums written down here, in another way than the package's.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import kl_divergence, log_prob
from gradest.checks.problems import SeveralSamples
from gradest.contracts import inapplicable
from gradest.costs import KL
from gradest.errors import Inapplicable
from gradest.measurement.enumerated_moments import exact_moments
from gradest.measurement.enumerated_truth import all_codes, exact_gradient
from gradest.measurement.objectives import analytic_terms, problem_for
from gradest.measurement.replicator import Replicator
from gradest.plugins.registry import load_plugin
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT, run_suite

DOUBLE = torch.float64
LOGITS = [[[0.8, -0.3], [-0.4, 0.1], [0.2, 1.2], [0.1, -0.6]]] * 2
LOGITS[1] = [[-1.1, 0.5], [0.3, 0.0], [0.7, -0.2], [-0.9, 0.4]]
PRIOR = [[0.5, -0.5], [-0.2, 0.9], [0.0, 0.3], [1.0, 0.2]]


class Bits(Task):
    """A model of 4 bits and 5 pixels: f(z) = −log p(x | z), and a prior that is not uniform."""

    name: ClassVar[str] = "bits"
    parameters = ("encoder",)

    def __init__(self, kl: KL = "exact", samples: int = 1, prior: bool = True) -> None:
        draws = torch.Generator().manual_seed(3)
        self.logits = torch.tensor(LOGITS, dtype=DOUBLE, requires_grad=True)  # [B, N, K]
        self.prior = torch.tensor(PRIOR, dtype=DOUBLE, requires_grad=True) if prior else None
        self.kl = kl if prior else None
        self.samples = samples
        self.decoder = nn.Linear(8, 5, dtype=DOUBLE)
        for parameter in self.decoder.parameters():
            nn.init.normal_(parameter, generator=draws)
        self.x = torch.rand(2, 5, generator=draws, dtype=DOUBLE).round()  # [B, D]

    def pixels(self, z: Tensor, decoder: Callable[[Tensor], Tensor]) -> Tensor:
        """−log p(x | z): [B, ..., N, K] -> [B, ...]."""
        out = decoder(z.flatten(-2))  # [B, ..., D]
        x = self.x.to(z).reshape(2, *(1,) * (out.ndim - 2), 5)
        return nn.functional.binary_cross_entropy_with_logits(
            out, x.expand(out.shape), reduction="none"
        ).sum(-1)

    def problem(self, batch: Any = None) -> Problem:
        f = Cost(self.pixels, self.decoder, prior=self.prior, kl=self.kl, logits=self.logits)
        return Problem(self.logits, f.bounded(self.samples) if self.samples > 1 else f)

    def group(self, name: str) -> tuple[Tensor, ...]:
        return (self.logits,)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """All that is learnt: the logits, the prior and the decoder's parameters."""
        prior = () if self.prior is None else (self.prior,)
        return (self.logits, *prior, *self.decoder.parameters())

    def objective(self) -> Tensor:
        """Σ p(z₁ … z_m) F(z₁, …, z_m) over all m-tuples of codes, differentiable: [B]."""
        bits = torch.cartesian_prod(*[torch.arange(2)] * 4)  # [C, N]
        z = torch.eye(2, dtype=DOUBLE)[bits]  # [C, N, K]
        q = self.logits.softmax(-1)[:, torch.arange(4), bits].prod(-1)  # [B, C]
        w = (-self.pixels(z.expand(2, *z.shape), self.decoder)).exp()  # p(x | z), [B, C]
        if self.prior is not None:
            w = w * self.prior.softmax(-1)[torch.arange(4), bits].prod(-1) / q
        tuples = torch.cartesian_prod(*[torch.arange(len(z))] * self.samples)
        tuples = tuples.reshape(-1, self.samples)  # [C^m, m]
        bound = -w[:, tuples].mean(-1).log()  # [B, C^m]
        return (q[:, tuples].prod(-1) * bound).sum(1)


def derivatives(objective: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    result = torch.autograd.grad(objective.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, result, strict=True)]


def close(result: Tensor, expected: Tensor) -> bool:
    result, expected = result.detach(), expected.detach()
    assert expected.abs().max() > 1e-3  # else there was nothing to compare
    return torch.allclose(
        result, expected, rtol=0, atol=EXACT * max(1, float(expected.abs().max()))
    )


# The truth


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_truth_of_a_bound_is_the_derivative_of_its_expectation(samples, prior):
    task = Bits(samples=samples, prior=prior)
    problem = task.problem()
    assert problem.f.depends == (prior and samples > 1)
    truth = exact_gradient(problem)
    (gradient,) = derivatives(task.objective(), [task.logits])
    besides = analytic_terms(task, task.logits, problem.f)
    assert close(truth.value + besides, task.objective())
    penalty = derivatives(besides, [task.logits])[0] if besides.requires_grad else 0.0
    assert close(truth.gradient + penalty, gradient)


class Penalised(Bits):
    def penalty(self, logits: Tensor) -> Tensor:
        return logits.square().sum((-2, -1))


@pytest.mark.parametrize("samples", [1, 2])
def test_what_is_measured_against_holds_the_penalty_once(samples):
    task = Penalised(samples=samples)
    result = gradest.measure(gradest.make_estimator("exact"), task)
    objective = task.objective() + task.penalty(task.logits)
    (gradient,) = derivatives(objective, [task.logits])
    assert close(result.exact, gradient) and close(result.mean, gradient)
    assert result.exact_value == pytest.approx(float(objective.detach().mean()), rel=EXACT)
    assert result.value == pytest.approx(float(objective.detach().mean()), rel=EXACT)
    assert result.row("encoder")["relative_bias"] < EXACT


def test_a_bound_of_more_samples_is_tighter():
    values = [float(Bits(samples=m).objective().sum().detach()) for m in (1, 2, 3)]
    assert values[0] > values[1] > values[2]


# Every estimator's mean


UNBIASED = {"exact": {}, "reinforce": {"baseline": 3.0}, "rloo": {"samples": 2}, "vimco": {}}


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("name", UNBIASED)
def test_vimco_exact_and_the_score_function_agree_in_mean_on_a_model_of_four_bits(name, prior):
    task = Bits(samples=2, prior=prior)
    result = exact_moments(Replicator(gradest.make_estimator(name, **UNBIASED[name]), task))
    (gradient,) = derivatives(task.objective(), [task.logits])
    assert close(result.mean, gradient) and close(result.value, task.objective())
    assert result.outcomes == {"exact": 1, "rloo": 2**16}.get(name, 2**8)


def test_vimco_has_less_variance_than_the_score_function_of_the_whole_bound():
    total = {
        name: float(
            exact_moments(Replicator(gradest.make_estimator(name), Bits(samples=2))).variance.sum()
        )
        for name in ("vimco", "reinforce")
    }
    assert total["vimco"] < total["reinforce"] / 2


class Listed(Draws):
    """Every row is given the index of its draws: [R, places]."""

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.index = index

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        return self.index.reshape(len(logits), samples, *logits.shape[1:-1])


def expected(estimator: Estimator, task: Bits, draws: int) -> Tensor:
    """The mean objective over every outcome of so many draws of all bits, with its graph: [B]."""
    logits, f = task.problem()
    codes = all_codes(logits.repeat(1, draws, 1))  # [C, S · N, K]
    rows = logits.repeat_interleave(len(codes), 0)  # [B · C, N, K]
    index = codes.argmax(-1).repeat(2, 1)
    with drawing_from(Listed(index)):
        each = estimator(*problem_for(estimator, rows, f.replicated(2, rows))).unflatten(0, (2, -1))
    p = log_prob(logits.repeat(1, draws, 1).unsqueeze(1), codes).exp().detach()
    return (p * each).sum(1) + analytic_terms(task, logits, f)


@pytest.mark.parametrize(
    ("name", "knobs", "kl", "samples", "draws"),
    [
        *(("reinforce", {}, kl, 1, 1) for kl in ("exact", "sampled", "relaxed")),
        *(("rloo", {"samples": 2}, kl, 1, 2) for kl in ("exact", "sampled", "relaxed")),
        ("reinforce", {}, "exact", 2, 2),
        ("vimco", {}, "exact", 2, 2),
        ("vimco", {}, "exact", 3, 3),
    ],
)
def test_the_decoder_and_a_learned_prior_get_their_gradients(name, knobs, kl, samples, draws):
    task = Bits(kl, samples)
    mean = expected(gradest.make_estimator(name, **knobs), task, draws)
    assert close(mean, task.objective())
    for result, wanted in zip(
        derivatives(mean, task.leaves), derivatives(task.objective(), task.leaves), strict=True
    ):
        assert close(result, wanted)


@pytest.mark.parametrize("samples", [2, 3, 8])
def test_the_same_construction_on_the_mean_of_the_costs_is_leave_one_out(samples, tmp_path):
    text = inspect.getsource(inspect.getmodule(gradest.all_estimators()["vimco"]))
    for dim in (1, 2):
        bound = f".logsumexp({dim}) - math.log(m)"
        assert text.count(bound) == 1
        text = text.replace(bound, f".mean({dim})")
    (tmp_path / "averaged.py").write_text(text, encoding="utf-8")
    (averaged,) = load_plugin(tmp_path / "averaged.py")
    task = Bits(prior=False)
    logits, f = task.problem()
    rows = logits.detach().repeat_interleave(50, 0).requires_grad_()
    result = []
    for estimator, cost in (
        (averaged(), f.bounded(samples)),
        (gradest.make_estimator("rloo", samples=samples), f),
    ):
        with drawing_from(Draws.seeded(0)):
            value = estimator(rows, cost.replicated(2, rows))
        result.append(torch.autograd.grad(value.sum(), rows)[0])
    assert close(*result)


def test_vimco_stays_in_log_space_where_weights_underflow():
    task = Bits(samples=3)
    logits, f = task.problem()
    far = f.changed(lambda z, decoder: task.pixels(z, decoder) + 1e5)
    values = []
    for cost in (f, far):
        with drawing_from(Draws.seeded(0)):
            values.append(gradest.make_estimator("vimco")(logits, cost))
    gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in values]
    # A constant is 10⁵ times what it is added to, and rounds away that many of its digits.
    assert torch.allclose(values[1] - 1e5, values[0], rtol=0, atol=1e5 * EXACT)
    assert torch.allclose(*gradients, rtol=0, atol=1e5 * EXACT)


@pytest.mark.parametrize(
    "name",
    sorted(n for n, cls in gradest.all_estimators().items() if cls.objective in (None, "bound")),
)
def test_every_family_takes_a_bound(name):
    estimator, task = gradest.make_estimator(name), Bits(samples=2)
    estimator.adapt_steps = min(estimator.adapt_steps, 2)
    with drawing_from(Draws.seeded(0)):
        replicator = Replicator(estimator, task)
        replicator.adapt(estimator.adapt_steps)
        gradient, value = replicator.each(3)
    assert gradient.shape == (2, 3, 8) and value.shape == (2, 3)
    assert gradient.isfinite().all() and value.isfinite().all() and gradient.abs().max() > 0
    assert replicator.evaluations % 2 == 0 and replicator.evaluations > 0


# The divergence from the prior


@pytest.mark.parametrize("kl", ["exact", "sampled", "relaxed"])
def test_every_kind_of_divergence_has_the_gradient_of_the_discrete_one(kl):
    task = Bits(kl)
    objective = task.objective()
    (gradient,) = derivatives(objective, [task.logits])
    for name in ("exact", "rloo", "reinforce"):
        result = gradest.measure(gradest.make_estimator(name), task, replicates=64)
        assert result.method == "enumerated"
        assert close(result.exact, gradient) and close(result.mean, gradient)
        assert result.value == pytest.approx(float(objective.detach().mean()), rel=EXACT)


class Noise(Draws):
    """Every row is given its exponentials: [R, N, K]."""

    def __init__(self, exponentials: Tensor) -> None:
        super().__init__()
        self.given = exponentials

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        assert self.given.shape == tuple(shape)
        return self.given


class OneBit(Task):
    """One bit with a prior, and a cost that curves on the simplex."""

    name: ClassVar[str] = "one bit"

    def __init__(self, log_odds: float, prior: float, kl: KL = "relaxed", size: float = 1.0):
        self.logits = torch.tensor([[[0.0, log_odds]]], dtype=DOUBLE, requires_grad=True)
        self.prior = torch.tensor([[0.0, prior]], dtype=DOUBLE, requires_grad=True)
        self.kl, self.size = kl, size

    def cost(self, share: Tensor) -> Tensor:
        return self.size * (1 + (share - 0.3) ** 3)

    def problem(self, batch: Any = None) -> Problem:
        f = Cost(lambda z: self.cost(z[..., 0, 1]), prior=self.prior, kl=self.kl)
        return Problem(self.logits, f)

    def divergence(self) -> Tensor:
        return kl_divergence(self.logits[0, 0], self.prior[0]).detach()


def nodes() -> tuple[Tensor, Tensor]:
    """Logistic noise and its probability: the trapezoidal rule, exact for what is so smooth."""
    x = torch.arange(-40, 40, 1 / 32, dtype=DOUBLE)
    return x, x.sigmoid() * (-x).sigmoid() / 32


def concrete_mean(task: OneBit, **knobs: float) -> Tensor:
    """The mean value of concrete over all of its noise, with its graph."""
    x, p = nodes()
    logits, f = task.problem()
    rows = logits.expand(len(x), 1, 2)
    # G₁ − G₀ = log E₀ − log E₁ = x.
    exponentials = torch.stack([x.sigmoid(), (-x).sigmoid()], -1).unsqueeze(1)
    with drawing_from(Noise(exponentials)):
        value = gradest.make_estimator("concrete", **knobs)(rows, f.replicated(1, rows))
    return (p * value).sum()


TEMPERATURES = [(0.5, None), (0.5, 0.8), (1.3, 0.4)]


@pytest.mark.parametrize(("temperature", "prior_temperature"), TEMPERATURES)
def test_concrete_has_the_value_and_the_gradients_of_the_relaxed_bound(
    temperature, prior_temperature
):
    """Against densities of log-odds, which torch has in another form."""
    task = OneBit(0.7, -0.9)
    x, p = nodes()
    log_odds, prior = task.logits[0, 0] @ SIGNS, task.prior[0] @ SIGNS
    y = (log_odds + x) / temperature
    scales = temperature, prior_temperature or temperature
    log_q, log_p = (
        LogitRelaxedBernoulli(torch.tensor(t, dtype=DOUBLE), logits=a).log_prob(y)
        for t, a in zip(scales, (log_odds, prior), strict=True)
    )
    wanted = (p * (task.cost(y.sigmoid()) + log_q - log_p)).sum()
    result = concrete_mean(task, temperature=temperature, prior_temperature=prior_temperature)
    # torch clamps probabilities to 1 − 2⁻⁵², which the tails of the noise reach.
    assert float(result.detach()) == pytest.approx(float(wanted.detach()), abs=1e-9)
    leaves = (task.logits, task.prior)
    for ours, other in zip(derivatives(result, leaves), derivatives(wanted, leaves), strict=True):
        assert torch.allclose(ours, other, rtol=0, atol=1e-9) and other.abs().max() > 0.01


SIGNS = torch.tensor([-1.0, 1.0], dtype=DOUBLE)


@pytest.mark.parametrize(("temperature", "prior_temperature"), TEMPERATURES)
@pytest.mark.parametrize(("log_odds", "prior"), [(0.7, -0.9), (3.0, 0.0), (0.2, 0.2), (-2.0, 1.5)])
def test_the_relaxed_divergence_is_never_less_than_that_of_the_rounded_samples(
    log_odds, prior, temperature, prior_temperature
):
    task = OneBit(log_odds, prior, size=0.0)
    knobs = {"temperature": temperature, "prior_temperature": prior_temperature}
    result = concrete_mean(task, **knobs).detach()
    least = task.divergence()
    if log_odds == prior and prior_temperature is None:
        assert float(result) == pytest.approx(0, abs=EXACT)
    else:
        assert result > least + 1e-3
    if prior_temperature is None:  # its law is then that of the noise alone
        cold = concrete_mean(task, temperature=temperature / 4).detach()
        assert float(result) == pytest.approx(float(cold), abs=EXACT)


def test_concrete_is_measured_with_its_own_divergence_and_no_other():
    task, replicates = OneBit(0.7, -0.9), 200_000
    wanted = float(concrete_mean(task).detach())
    for name, kl, expected in (
        ("concrete", "relaxed", wanted),
        ("concrete", "exact", float(concrete_mean(OneBit(0.7, -0.9, "exact")).detach())),
        ("gumbel_softmax", "relaxed", float(concrete_mean(OneBit(0.7, -0.9, "exact")).detach())),
    ):
        beside_it = 0.0 if (name, kl) == ("concrete", "relaxed") else float(task.divergence())
        with drawing_from(Draws.seeded(1)):
            replicator = Replicator(gradest.make_estimator(name), OneBit(0.7, -0.9, kl))
            _, value = replicator.each(replicates)
        error = float(value.std()) / replicates**0.5
        assert error < 0.02 * float(task.divergence())  # else it would not show
        # Four standard errors are exceeded by chance once in 5000 seeds, of three comparisons.
        assert abs(float(value.mean()) - expected - beside_it) < 4 * error


def test_without_a_divergence_of_its_own_concrete_is_gumbel_softmax_draw_by_draw():
    result = []
    for name, kl in (
        ("concrete", "exact"),
        ("gumbel_softmax", "exact"),
        ("gumbel_softmax", "relaxed"),
    ):
        with drawing_from(Draws.seeded(0)):
            result.append(Replicator(gradest.make_estimator(name), Bits(kl)).each(20))
    for gradient, value in result[1:]:
        assert torch.equal(gradient, result[0][0]) and torch.equal(value, result[0][1])
    with drawing_from(Draws.seeded(0)):
        gradient, _ = Replicator(gradest.make_estimator("concrete"), Bits("relaxed")).each(20)
    assert (gradient - result[0][0]).abs().max() > 0.01


# What cannot be


def test_a_sampled_divergence_without_logits_is_refused():
    f = Cost(lambda z: z[..., 0].sum(-1), prior=torch.zeros(1, 2, dtype=DOUBLE), kl="sampled")
    with pytest.raises(
        ValueError, match=r"expected the logits of q .* pass Cost\(..., logits=logits\)"
    ):
        f(torch.tensor([[[1.0, 0.0]]], dtype=DOUBLE))


@pytest.mark.parametrize("kl", ["exact", "sampled", "relaxed"])
def test_a_divergence_from_no_prior_is_refused(kl):
    with pytest.raises(ValueError, match=f"expected a prior with kl = '{kl}', got none"):
        Cost(lambda z: z.sum((-2, -1)), kl=kl)


@pytest.mark.parametrize("kl", [None, "exact", "relaxed"])
def test_a_bound_with_a_divergence_beside_it_is_refused(kl):
    with pytest.raises(
        ValueError, match="expected kl = 'sampled' for a bound of 2 samples with a prior"
    ):
        Cost(lambda z: z.sum((-2, -1)), prior=torch.zeros(1, 2), kl=kl, samples=2)


def test_vimco_is_skipped_with_the_reason_where_there_is_one_sample(tmp_path):
    reason = "vimco needs a multi-sample bound, bernoulli has one sample"
    estimator, task = gradest.make_estimator("vimco"), gradest.make_task("bernoulli")
    assert inapplicable(estimator, task, task.problem()) == reason
    bounded = SeveralSamples(task)
    assert inapplicable(estimator, bounded, bounded.problem()) is None
    with pytest.raises(Inapplicable, match=reason):
        gradest.measure(estimator, task)
    suite = "replicates: 64\ntasks: [bernoulli]\nestimators: [vimco, rloo]\n"
    folder = run_suite(tmp_path, suite)
    rows = pd.read_parquet(folder / "measurements.parquet").set_index("estimator")
    assert (rows.loc["vimco"].status == "skipped").all()
    assert (rows.loc["vimco"].reason == reason).all()
    assert (rows.loc["rloo"].status == "ok").all()
