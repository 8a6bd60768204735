"""Estimators that sum latents out, and baselines of REINFORCE, against closed forms and laws.

Moments are exact: every outcome of every draw is prescribed once and weighted by its probability.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.randomness import Draws, drawing_from
from tests.estimators.toys import PI, VALUES
from tests.support import EXACT, Prescribed


class Asked(Draws):
    """Pseudo-random draws that remember the shape [S, N, K] of every request."""

    def __init__(self) -> None:
        super().__init__(torch.Generator().manual_seed(0))
        self.shapes: list[tuple[int, int, int]] = []

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        self.shapes.append((samples, *logits.shape[1:]))
        return super().categories(logits, samples)


class Law(NamedTuple):
    """The distribution of an estimate over its draws."""

    p: Tensor  # [R]
    gradient: Tensor  # [R, N, K]
    value: Tensor  # [R]
    index: Tensor  # [R, S, N], the first draws

    @property
    def mean(self) -> Tensor:
        return torch.einsum("r,rnk->nk", self.p, self.gradient)

    @property
    def second_moment(self) -> Tensor:
        return torch.einsum("r,rnk->nk", self.p, self.gradient.square())

    @property
    def variance(self) -> Tensor:
        return torch.einsum("r,rnk->nk", self.p, (self.gradient - self.mean).square())


def called(estimator: Estimator, task: Task, rows: int, source: Draws) -> tuple[Tensor, Tensor]:
    """The objective [R] and ĝ [R, N, K] of that many rows on a task with one data point."""
    problem = task.problem()
    logits = problem.logits.detach().expand(rows, -1, -1).clone().requires_grad_()
    with drawing_from(source):
        objective = estimator(logits, problem.f.replicated(1))
    (gradient,) = torch.autograd.grad(objective.sum(), logits, retain_graph=True)
    return objective, gradient


def outcomes(estimator: Estimator, task: Task) -> list[Tensor]:
    """Every combination of answers to the estimator's requests: for each an index [R, S, N]."""
    asked = Asked()
    called(estimator, task, 1, asked)
    sizes = [k for samples, places, k in asked.shapes for _ in range(samples * places)]
    digits = torch.cartesian_prod(*(torch.arange(k) for k in sizes)).reshape(-1, len(sizes))
    parts = digits.split([samples * places for samples, places, _ in asked.shapes], 1)
    return [
        part.unflatten(1, (samples, places))
        for part, (samples, places, _) in zip(parts, asked.shapes, strict=True)
    ]


def law(estimator: Estimator, task: Task) -> Law:
    index = outcomes(estimator, task)
    source = Prescribed(*index)
    objective, gradient = called(estimator, task, len(index[0]), source)
    assert source.count == len(index)
    p = source.log_p.exp()
    assert float(p.sum()) == pytest.approx(1, abs=EXACT)
    drawn = p > 0  # not answered with a masked category
    return Law(p[drawn], gradient[drawn], objective.detach()[drawn], index[0][drawn])


def law_of(name: str, task: Task, **knobs) -> Law:
    return law(prepared(name, task, **knobs), task)


def prepared(name: str, task: Task, steps: int = 3, **knobs) -> Estimator:
    """As a measurement would prepare it, in brief."""
    estimator, problem = gradest.make_estimator(name, **knobs), task.problem()
    logits = problem.logits.detach()
    with drawing_from(Draws.seeded(0)):
        estimator.reset(logits)
        for _ in range(min(steps, estimator.adapt_steps)):
            f = problem.f.replicated(len(logits))
            estimator.adapt(logits.repeat_interleave(64, 0), f)
    return estimator


def truth(task: Task) -> tuple[Tensor, Tensor]:
    """E f and its gradient [N, K]."""
    objective, gradient = called(gradest.make_estimator("exact"), task, 1, Draws())
    return objective.detach().squeeze(0), gradient.squeeze(0)


def assert_exactly(actual: Tensor, expected: Tensor | Sequence[float], atol: float = EXACT) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert torch.allclose(actual.squeeze(), expected.squeeze(), rtol=0, atol=atol)


def assert_at_most(lesser: Tensor, greater: Tensor) -> None:
    """In every coordinate, and strictly in some: else nothing was compared."""
    assert (lesser <= greater + EXACT).all()
    assert (lesser < greater - 1e-6).any()


# Costs


class Network(Task):
    """f(z) = 3 + tanh(z W) w: coupled, curved, far from zero, with parameters of its own."""

    def __init__(self, latents: int, categories: int, seed: int = 0) -> None:
        draws = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=draws, dtype=torch.float64)

        self.logits = normal(1, latents, categories)
        self.module = nn.Sequential(
            nn.Linear(latents * categories, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(-2)
        ).double()
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(1.5 * normal(*parameter.shape))

    def problem(self, batch=None) -> Problem:
        return Problem(self.logits, Cost(lambda z, net: 3 + net(z.flatten(-2)), self.module))


class Table(Task):
    """One number for each outcome; off the vertices multilinear."""

    def __init__(self, table: Tensor, logits: Tensor) -> None:
        self.table, self.logits = table.double(), logits.double().unsqueeze(0)

    @classmethod
    def random(cls, latents: int, categories: int, seed: int) -> "Table":
        draws = torch.Generator().manual_seed(seed)
        table = torch.randn((categories,) * latents, generator=draws)
        return cls(table + 1, torch.randn(latents, categories, generator=draws))

    def problem(self, batch=None) -> Problem:
        def cost(z: Tensor) -> Tensor:
            total = self.table.to(z).expand(*z.shape[:-2], *self.table.shape)
            for n in range(z.shape[-2]):
                rest = (1,) * (z.shape[-2] - n - 1)
                total = (total * z[..., n, :].unflatten(-1, (-1, *rest))).sum(z.ndim - 2)
            return total

        return Problem(self.logits, Cost(cost))


class Affine(Task):
    """f(z) = w · z + 2 over all latents: a sum over latents, too."""

    def problem(self, batch=None) -> Problem:
        weight = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.1, -0.7]], dtype=torch.float64)
        logits = torch.tensor([[[0.2, -0.5, 1.0], [0.0, 0.7, -0.3]]], dtype=torch.float64)
        return Problem(logits, Cost(lambda z: (z * weight.to(z)).sum((-2, -1)) + 2))


SHAPES = [(1, 3), (2, 3), (3, 2)]
tables = [Table.random(*shape, seed=seed) for shape in SHAPES for seed in range(5)]
bit_tables = [Table.random(n, 2, seed=seed) for n in (1, 2, 3) for seed in range(5)]
bits = pytest.mark.parametrize(
    ("theta", "t", "g"),
    [(0.3, 0.45, 0.021), (0.8, 0.45, 0.016), (0.5, 0.499, 0.0005), (0.1, 0.1, 0.072)],
)
thirds = pytest.mark.parametrize("t", [0.45, 1.2])

# name, knobs
CATALOGUE = [
    ("local_expectation", {}),
    ("indecater", {"samples": 1}),
    ("indecater", {"samples": 2}),
    ("sum_and_sample", {"k": 0}),
    ("sum_and_sample", {"k": 1}),
    ("sum_and_sample", {"k": 3}),
    ("sum_and_sample", {"k": 100}),
    ("measure_valued", {}),
    ("bitflip", {}),
    ("category_flip", {}),
    ("stochastic_derivative", {"neighbours": 1}),
    ("stochastic_derivative", {"neighbours": 100}),
    ("optimal_baseline", {"kind": "scalar"}),
    ("optimal_baseline", {"kind": "coordinate"}),
    ("opo", {"samples": 3}),
    ("self_critical", {}),
    ("nvil", {}),
    ("muprop", {}),
]
everything = pytest.mark.parametrize(
    ("name", "knobs"), CATALOGUE, ids=[" ".join([n, *map(str, k.values())]) for n, k in CATALOGUE]
)


def applicable(name: str, shapes: Sequence[tuple[int, int]] = SHAPES) -> list[tuple[int, int]]:
    return [(n, k) for n, k in shapes if name != "bitflip" or k == 2]


# All: unbiased in gradient, in value, and in the gradient of the task's own parameters.


@everything
def test_the_mean_is_exact_in_gradient_and_value(name, knobs):
    for shape in applicable(name):
        task = Network(*shape)
        result = law_of(name, task, **knobs)
        value, gradient = truth(task)
        assert_exactly(result.mean, gradient)
        assert_exactly(result.p @ result.value, value)
        assert gradient.abs().max() > 0.1


@everything
def test_the_parameters_of_the_task_get_the_gradient_of_the_expectation(name, knobs):
    """Control variates have mean zero in the logits, not in these: they must hold them frozen."""
    for shape in applicable(name):
        task = Network(*shape)
        estimator = prepared(name, task, **knobs)
        index = outcomes(estimator, task)
        source = Prescribed(*index)
        objective, _ = called(estimator, task, len(index[0]), source)
        exact, _ = called(gradest.make_estimator("exact"), task, 1, Draws())
        parameters = list(task.module.parameters())
        result = torch.autograd.grad(source.log_p.exp() @ objective, parameters)
        for a, b in zip(result, torch.autograd.grad(exact.sum(), parameters), strict=True):
            assert_exactly(a, b)


@everything
def test_estimates_sum_to_zero_over_three_categories_and_ignore_a_shift(name, knobs):
    no_sum = name == "measure_valued" or knobs == {"kind": "coordinate"}
    for shape in applicable(name):
        task, shifted = Network(*shape), Network(*shape)
        shifted.logits = task.logits + torch.tensor([[3.0], [-2.0], [0.5]])[: shape[0]]
        estimator = prepared(name, task, **knobs)
        result, other = law(estimator, task), law(estimator, shifted)
        total = result.gradient.sum(-1).abs().max()
        jumps = name == "stochastic_derivative"  # between two categories as well
        no_sum_here = jumps or (no_sum and shape[1] > 2)
        assert (total > 0.01) if no_sum_here else (total <= EXACT)
        if name != "nvil":  # whose baseline reads the logits
            assert_exactly(other.gradient, result.gradient)


EVALUATIONS = {  # for N = 3 and K = 4, or two where binary
    "local_expectation": 3 * 3 + 1,
    "indecater": 2 * (3 * 3 + 1),
    "sum_and_sample": 2,
    "measure_valued": 3 * 3 + 1,
    "bitflip": 2,
    "category_flip": 2,
    "stochastic_derivative": 2,
    "opo": 4,
    "optimal_baseline": 4**3 + 1,
    "self_critical": 2,
    "nvil": 1,
    "muprop": 2,
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_the_cost_is_what_the_docstring_says(name):
    task = Network(3, 2 if name == "bitflip" else 4)
    estimator = prepared(name, task)
    assert gradest.measure(estimator, task, replicates=64).evaluations == EVALUATIONS[name]


@pytest.mark.parametrize("name", ["local_expectation", "indecater", "measure_valued", "bitflip"])
def test_saturated_probabilities_keep_their_relative_precision_in_float32(name):
    """π(1 − π) = e⁻³⁰ is far below the rounding of 1 − π, and so is the gradient."""
    categories = 2 if name == "bitflip" else 3
    logits = torch.tensor([[15.0, -15.0, -14.0], [-16.0, 14.0, 13.0]], dtype=torch.float64)
    index = torch.tensor([[[0, 1]]])  # the likeliest code
    result = []
    for dtype in (torch.float32, torch.float64):
        task = Network(2, categories)
        x = logits[None, :, :categories].to(dtype).requires_grad_()
        source = Prescribed(
            index, torch.zeros(1, 1, 1 if name == "bitflip" else 6, dtype=torch.long)
        )
        if name == "measure_valued":  # j' is the next category
            source.index = (index, torch.tensor([[[1, 2, 0, 1, 2, 0]]]))
        with drawing_from(source):
            estimator = prepared(name, task, **({"samples": 1} if name == "indecater" else {}))
            objective = estimator(x, task.problem().f)
        (gradient,) = torch.autograd.grad(objective.sum(), x)
        result.append(gradient.double())
    single, double = result
    assert 0 < double.abs()[double != 0].min() < 1e-11
    error = (single - double).abs() / double.abs().clamp(min=1e-300)
    assert error.max() <= 1e-4  # f's differences themselves lose some of the seven digits


# One bit, f(b) = (b − t)², A = θ(1 − θ), g = A(1 − 2t).  With K = 2 the gradient is (−g, g): each
# of the two coordinates has the variance of the one logit.


def on_one_bit(name: str, theta: float, t: float, **knobs) -> Law:
    return law_of(name, gradest.make_task("bernoulli", theta=(theta,), target=t), **knobs)


@bits
@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("local_expectation", {}),
        ("indecater", {}),
        ("measure_valued", {}),
        ("bitflip", {}),
        ("optimal_baseline", {"kind": "scalar"}),
        ("optimal_baseline", {"kind": "coordinate"}),
        ("sum_and_sample", {"k": 1}),
    ],
)
def test_these_have_no_variance_on_one_bit(theta, t, g, name, knobs):
    result = on_one_bit(name, theta, t, **knobs)
    assert_exactly(result.mean, [-g, g])
    assert_exactly(result.variance, [0.0, 0.0])


@bits
def test_self_critical_on_one_bit(theta, t, g):
    """A (b* − b)² with the optimal baseline b* = (1 − θ) f(1) + θ f(0) and b = f(mode)."""
    result = on_one_bit("self_critical", theta, t)
    best = (1 - theta) * (1 - t) ** 2 + theta * t**2
    greedy = ((theta > 0.5) - t) ** 2
    assert_exactly(result.mean, [-g, g])
    assert_exactly(result.variance, [theta * (1 - theta) * (best - greedy) ** 2] * 2)


@bits
def test_muprop_on_one_bit(theta, t, g):
    """REINFORCE of the remainder (b − θ)²: A [(1 − θ)³ + θ³]², whatever t is."""
    result = on_one_bit("muprop", theta, t)
    assert_exactly(result.mean, [-g, g])
    assert_exactly(result.variance, [theta * (1 - theta) * ((1 - theta) ** 3 + theta**3) ** 2] * 2)


# Three categories, α = (2, ½, 1), f_k = (k − t)².

# The printed variances, to seven decimals, and their sum to eight.
PRINTED = {
    ("scalar", 0.45): [0.1403415, 0.0934944, 0.0749688, 0.30880466],
    ("scalar", 1.2): [0.0183923, 0.0325198, 0.0199917, 0.07090379],
    ("coordinate", 0.45): [0.1371429, 0.0188144, 0.0000933, 0.15605053],
    ("coordinate", 1.2): [0.0111953, 0.0024879, 0.0182857, 0.03196890],
    ("self_critical", 0.45): [0.3170679, 0.0232570, 0.5077218, 0.84804665],
    ("self_critical", 1.2): [0.0911620, 0.1901874, 0.1048896, 0.38623907],
    ("sum_and_sample", 0.45): [0.0587755, 0.0148166, 0.1326125, 0.20620459],
    ("sum_and_sample", 1.2): [0.0047980, 0.0006451, 0.0089616, 0.01440466],
    ("measure_valued", 0.45): [0.0587755, 0.0161266, 0.0000666, 0.07496876],
    ("measure_valued", 1.2): [0.0047980, 0.0021324, 0.0130612, 0.01999167],
    ("local_expectation", 0.45): [0.0, 0.0, 0.0, 0.0],
    ("local_expectation", 1.2): [0.0, 0.0, 0.0, 0.0],
}


def reinforce_variance(f: Tensor) -> Tensor:
    """Of the three coordinates, for the costs f less their baseline."""
    g = PI * (f - PI @ f)
    return PI * (1 - PI) ** 2 * f**2 + PI**2 * (PI @ f**2 - PI * f**2) - g**2


def variance_elsewhere(f: Tensor) -> Tensor:
    """Var(f | z ≠ k) for each k."""
    others = (PI.expand(3, 3) * (1 - torch.eye(3))) / (1 - PI).unsqueeze(1)
    return others @ f**2 - (others @ f) ** 2


def closed_form(name: str, t: float) -> Tensor:
    f = (VALUES - t).square()
    if name == "scalar":
        norm = PI @ PI
        return reinforce_variance(f - (PI * (1 - 2 * PI + norm)) @ f / (1 - norm))
    if name == "coordinate":
        return PI**2 * (1 - PI) * variance_elsewhere(f)
    if name == "self_critical":
        return reinforce_variance(f - f[0])
    if name == "measure_valued":
        return PI**2 * (1 - PI) ** 2 * variance_elsewhere(f)
    if name == "local_expectation":
        return torch.zeros(3)
    outside = PI[1:] / PI[1:].sum()  # category 0 is summed
    base = (f.unsqueeze(1) * (torch.eye(3) - PI))[1:]  # f(z) s(z), [z, k]
    return (1 - PI[0]) ** 2 * outside @ (base - outside @ base).square()


@thirds
@pytest.mark.parametrize("name", sorted({name for name, _ in PRINTED}))
def test_three_categories(name, t):
    task = gradest.make_task("categorical", target=t)
    kind = {"kind": name} if name in ("scalar", "coordinate") else {}
    result = law_of("optimal_baseline" if kind else name, task, **kind)
    f = (VALUES - t).square()
    assert_exactly(result.mean, PI * (f - PI @ f))
    assert_exactly(result.variance, closed_form(name, t))
    *coordinates, trace = PRINTED[name, t]
    assert_exactly(result.variance, coordinates, atol=0.51e-7)
    assert_exactly(result.variance.sum(), trace, atol=0.51e-8)


@thirds
def test_measure_valued_is_the_optimal_coordinate_baseline_times_one_minus_pi(t):
    task = gradest.make_task("categorical", target=t)
    optimal = law_of("optimal_baseline", task, kind="coordinate").variance
    assert_exactly(law_of("measure_valued", task).variance, (1 - PI) * optimal)


# Local expectation


def test_local_expectation_is_the_mean_of_reinforce_given_the_other_latents():
    for task in tables:
        reinforce, local = law_of("reinforce", task), law_of("local_expectation", task)
        for n in range(task.logits.shape[1]):
            others = [i for i in range(task.logits.shape[1]) if i != n]
            same = (reinforce.index[:, 0, None, others] == reinforce.index[None, :, 0, others]).all(
                -1
            )
            weight = same * reinforce.p  # [R, R]
            weight = weight / weight.sum(1, keepdim=True)
            assert_exactly(local.gradient[:, n], weight @ reinforce.gradient[:, n])


def test_local_expectation_varies_no_more_than_reinforce_with_a_baseline_of_the_other_latents():
    """Var ĝₙ for b(z₋ₙ), in every coordinate of latent n."""
    draws = torch.Generator().manual_seed(0)
    for task in tables:
        local = law_of("local_expectation", task)
        index, pi = local.index[:, 0], task.logits[0].softmax(-1)
        f = task.table[tuple(index.T)]
        assert_at_most(local.variance, law_of("reinforce", task).variance)
        for n in range(index.shape[1]):
            for _ in range(10):
                arbitrary = torch.randn(task.table.shape, generator=draws, dtype=torch.float64)
                held = index.clone()
                held[:, n] = 0  # so that the baseline reads the others alone
                score = torch.eye(pi.shape[1])[index[:, n]] - pi[n]
                estimate = (f - arbitrary[tuple(held.T)]).unsqueeze(1) * score
                mean = local.p @ estimate
                assert_exactly(mean, local.mean[n])
                variance = local.p @ (estimate - mean).square()
                assert (local.variance[n] <= variance + EXACT).all()


def test_local_expectation_has_no_variance_where_the_cost_is_a_sum_over_latents():
    for task in (Affine(), gradest.make_task("bernoulli")):
        result = law_of("local_expectation", task)
        assert_exactly(result.variance, torch.zeros_like(result.variance))
        assert law_of("reinforce", task).variance.min() > 1e-3
        assert law_of("rloo", task).variance.min() > 1e-5


def test_local_expectation_is_straight_through_on_the_multilinear_extension():
    for task in tables:
        local, through = law_of("local_expectation", task), law_of("straight_through", task)
        assert_exactly(local.gradient, through.gradient)


# IndeCateR


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_indecater_is_the_mean_of_local_expectations(samples):
    for task in (Table.random(2, 2, seed=1), Table.random(2, 3, seed=2)):
        many, one = law_of("indecater", task, samples=samples), law_of("local_expectation", task)
        assert_exactly(many.variance, one.variance / samples)
        assert one.variance.min() > 1e-4
        rows = len(many.index)
        parts = [
            called(gradest.make_estimator("local_expectation"), task, rows, Prescribed(part))[1]
            for part in many.index.split(1, dim=1)
        ]
        assert_exactly(many.gradient, torch.stack(parts).mean(0))


# Equalities under one seed, for who asks for the same draws


@pytest.mark.parametrize(
    ("shape", "first", "second"),
    [
        ((2, 3), ("indecater", {"samples": 1}), ("local_expectation", {})),
        ((3, 2), ("measure_valued", {}), ("local_expectation", {})),
        ((1, 4), ("sum_and_sample", {"k": 0}), ("reinforce", {})),
        ((1, 4), ("sum_and_sample", {"k": 3}), ("exact", {})),
        ((1, 4), ("sum_and_sample", {"k": 100}), ("exact", {})),
        ((2, 3), ("sum_and_sample", {"k": 8}), ("exact", {})),
        ((1, 4), ("local_expectation", {}), ("exact", {})),
        ((1, 2), ("bitflip", {}), ("exact", {})),
    ],
    ids=lambda x: " ".join(map(str, (x[0], *x[1].values()))) if isinstance(x[0], str) else str(x),
)
def test_the_same_under_one_seed(shape, first, second):
    task = Network(*shape)
    a, b = (
        called(gradest.make_estimator(name, **knobs), task, 50, Draws.seeded(3))[1]
        for name, knobs in (first, second)
    )
    assert_exactly(a, b)
    assert b.abs().max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_nvil_starts_as_reinforce(shape):
    task = Network(*shape)
    a, b = (
        called(prepared(name, task, steps=0), task, 50, Draws.seeded(3))[1]
        for name in ("nvil", "reinforce")
    )
    assert torch.equal(a, b)


@pytest.mark.parametrize("shape", SHAPES)
def test_self_critical_is_reinforce_with_the_cost_of_the_mode(shape):
    task = Network(*shape)
    mode = nn.functional.one_hot(task.logits.argmax(-1), shape[1]).double()
    baseline = float(task.problem().f.frozen(mode.unsqueeze(1)))
    a, b = (
        called(gradest.make_estimator(name, **knobs), task, 50, Draws.seeded(3))[1]
        for name, knobs in (("self_critical", {}), ("reinforce", {"baseline": baseline}))
    )
    assert_exactly(a, b)


# Sum and sample


def likeliest(task: Task, k: int) -> float:
    """p(C), of the k likeliest outcomes."""
    joint = law_of("reinforce", task).p
    return float(joint.sort(descending=True).values[:k].sum())


@pytest.mark.parametrize("k", [0, 1, 2, 5])
def test_sum_and_sample_varies_by_at_most_what_is_left_over(k):
    for task in tables:
        base = law_of("reinforce", task).variance
        result, left = law_of("sum_and_sample", task, k=k), 1 - likeliest(task, k)
        assert (result.variance <= left * base + EXACT).all()
        if k == 0:
            assert_exactly(result.variance, base)
        if k >= task.table.numel() - 1:
            assert_exactly(result.variance, torch.zeros_like(base))


def test_sum_and_sample_beats_k_plus_1_averaged_samples_for_sure_only_if_little_is_left_over():
    """For 1 − p(C) ≤ 1/(k + 1); with as good as uniform probabilities it can lose."""
    safe = [(task, k) for task in tables for k in (1, 2) if 1 - likeliest(task, k) <= 1 / (k + 1)]
    assert len(safe) >= 5
    for task, k in safe:
        averaged = law_of("reinforce", task).variance / (k + 1)
        assert (law_of("sum_and_sample", task, k=k).variance <= averaged + EXACT).all()
    flat = Table(torch.tensor([0.0, 1.0, -1.0, 1.0, -1.0]), torch.tensor([[0.1, 0, 0, 0, 0]]))
    averaged = law_of("reinforce", flat).variance.sum() / 2
    assert law_of("sum_and_sample", flat, k=1).variance.sum() > 1.1 * averaged


# Measure-valued derivative and BitFlip


def test_local_expectation_varies_no_more_than_measure_valued():
    for task in tables:
        local, weak = law_of("local_expectation", task), law_of("measure_valued", task)
        if task.logits.shape[-1] == 2:
            assert_exactly(local.variance, weak.variance)
        else:
            assert_at_most(local.variance, weak.variance)


def test_measure_valued_on_one_categorical():
    for task in tables[:5]:
        pi, f = task.logits[0, 0].softmax(-1), task.table
        others = pi.expand(3, 3) * (1 - torch.eye(3)) / (1 - pi).unsqueeze(1)
        elsewhere = others @ f**2 - (others @ f) ** 2
        result = law_of("measure_valued", task)
        assert_exactly(result.variance, pi**2 * (1 - pi) ** 2 * elsewhere)


def test_bitflip_has_n_times_the_second_moment_of_local_expectation():
    for task in bit_tables:
        flip, local = law_of("bitflip", task), law_of("local_expectation", task)
        assert_exactly(flip.second_moment, task.logits.shape[1] * local.second_moment)


def test_bitflip_moves_one_bit_at_a_time():
    result = law_of("bitflip", Table.random(3, 2, seed=0))
    assert ((result.gradient != 0).any(-1).sum(-1) == 1).all()


def test_bitflip_on_the_exclusive_or():
    """The counterexample to its being better than DisARM, whose ĝ₁ is zero here."""
    theta = torch.tensor([0.1, 0.5], dtype=torch.float64)
    task = Table(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.stack([1 - theta, theta], 1).log())
    assert_exactly(law_of("bitflip", task).second_moment[0], [0.0162, 0.0162])


# Baselines


@pytest.mark.parametrize("task", tables, ids=lambda t: "x".join(map(str, t.table.shape)))
def test_the_optimal_baselines_are_those_of_their_definition_and_of_least_variance(task):
    scalar, coordinate = (
        law_of("optimal_baseline", task, kind=kind) for kind in ("scalar", "coordinate")
    )
    p, index, pi = scalar.p, scalar.index[:, 0], task.logits[0].softmax(-1)
    f = task.table[tuple(index.T)][:, None, None]  # [R, 1, 1]
    score = torch.eye(pi.shape[1])[index] - pi  # [R, N, K]
    weight = p[:, None, None] * score.square()
    best = (weight * f).sum(0) / weight.sum(0)
    assert_exactly(coordinate.gradient, (f - best) * score)
    best = (weight * f).sum() / weight.sum()
    assert_exactly(scalar.gradient, (f - best) * score)
    for shift in (-1.0, -0.01, 0.0, 0.01, 1.0):
        constant = law_of("reinforce", task, baseline=float(best) + shift).variance
        assert (coordinate.variance <= constant + EXACT).all()
        extra = shift**2 * weight.sum()  # Var is quadratic in b around its least value
        assert_exactly(constant.sum(), scalar.variance.sum() + extra)
    # The order of the traces; the mean of the costs is one of the constants.
    mean = law_of("reinforce", task, baseline=float(p @ f.flatten())).variance.sum()
    assert coordinate.variance.sum() <= scalar.variance.sum() + EXACT <= mean + 2 * EXACT


def test_the_score_has_the_covariance_of_the_softmax():
    """E s sᵀ = J(π), so that E s_k² = π_k (1 − π_k), from ĝ = f s with f = 1."""
    task = Table(torch.ones(3, 3), torch.tensor([[0.2, -0.5, 1.0], [0.0, 0.7, -0.3]]))
    result, pi = law_of("reinforce", task), task.logits[0].softmax(-1)
    second = torch.einsum("r,rni,rnj->nij", result.p, result.gradient, result.gradient)
    assert_exactly(second, torch.diag_embed(pi) - pi.unsqueeze(1) * pi.unsqueeze(2))
    assert_exactly(result.second_moment, pi * (1 - pi))


def test_self_critical_and_no_baseline_have_no_order():
    """At t = 1.2 the mode is the costliest category, at t = 0.45 the cheapest."""
    worse, better = (gradest.make_task("categorical", target=t) for t in (1.2, 0.45))

    def trace(name, task):
        return law_of(name, task).variance.sum()

    assert trace("self_critical", worse) > 1.1 * trace("reinforce", worse)
    assert trace("self_critical", better) < 0.9 * trace("reinforce", better)


class TwoPoints(Task):
    """The same categorical at two data points, whose costs lie far apart."""

    def problem(self, batch=None) -> Problem:
        logits = torch.tensor([[[0.5, -0.5, 0.0]], [[-0.5, 0.0, 0.5]]], dtype=torch.float64)
        level = torch.tensor([-3.0, 5.0], dtype=torch.float64)

        def cost(z: Tensor) -> Tensor:
            return z.squeeze(-2) @ VALUES.to(z) + level.to(z).reshape(-1, *(1,) * (z.ndim - 3))

        return Problem(logits, Cost(cost))


def test_nvil_learns_the_expected_cost_of_each_input():
    """The least squares are those of E[f | x]; ĝ = (f − b) s shows b."""
    task = TwoPoints()
    estimator = prepared("nvil", task, steps=1000)
    logits = task.problem().logits.requires_grad_()
    with drawing_from(Prescribed(torch.zeros(2, 1, 1, dtype=torch.long))):
        objective = estimator(logits, task.problem().f)
    (gradient,) = torch.autograd.grad(objective.sum(), logits)
    pi = logits.detach().softmax(-1)
    baseline = objective.detach() - gradient[:, 0, 0] / (1 - pi[:, 0, 0])
    mean = pi.squeeze(1) @ VALUES + torch.tensor([-3.0, 5.0])
    deviation = (pi.squeeze(1) @ VALUES**2 - (pi.squeeze(1) @ VALUES) ** 2).sqrt()
    # A sixteenth of the variance at most is then the baseline's.
    assert ((baseline - mean).abs() <= deviation / 4).all()


def test_nvil_draws_its_weights_from_the_source():
    task = Network(2, 3)
    problem, first = task.problem(), []
    for seed in (0, 0, 1):
        estimator = gradest.make_estimator("nvil")
        with drawing_from(Draws.seeded(seed)):
            estimator.reset(problem.logits)
        with drawing_from(Draws.seeded(5)):
            estimator.adapt(problem.logits, problem.f)
            estimator.adapt(problem.logits, problem.f)
        first.append(called(estimator, task, 5, Draws.seeded(7))[1])
    assert torch.equal(first[0], first[1])
    assert not torch.allclose(first[0], first[2], rtol=1e-6)


# MuProp


def test_muprop_has_no_variance_on_an_affine_cost():
    result = law_of("muprop", Affine())
    assert_exactly(result.variance, torch.zeros(2, 3))
    assert_exactly(result.mean, truth(Affine())[1])
    assert law_of("reinforce", Affine()).variance.min() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_muprop_is_reinforce_of_the_remainder_plus_the_gradient_of_the_expansion(shape):
    task = Network(*shape)
    problem, result = task.problem(), law_of("muprop", task)
    pi = task.logits.softmax(-1)
    jacobian = torch.autograd.functional.jacobian(lambda x: problem.f(x), pi)
    slope = jacobian.reshape(shape)  # f'(π)
    pi = pi[0]
    for row, index in enumerate(result.index[:, 0]):
        z = torch.eye(shape[1], dtype=torch.float64)[index]
        h = problem.f(pi.unsqueeze(0)) + (slope * (z - pi)).sum()
        remainder = problem.f(z.unsqueeze(0)) - h
        mean = pi * (slope - (pi * slope).sum(-1, keepdim=True))  # J(π) f'(π)
        assert_exactly(result.gradient[row], (remainder * (z - pi) + mean).detach())
