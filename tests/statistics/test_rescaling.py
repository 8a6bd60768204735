"""The best scale of an estimator, and the relative bias that no rescaling removes."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator
from gradest.categorical import log_prob, nabla, sample
from gradest.statistics import Moments, best_rescaling
from tests.support import EXACT

REPLICATES, BATCHES = 512, 64


class OwnSampleInTheMean(Estimator):
    """A group mean that contains the own sample: E ĝ = (1 − 1/S) g."""

    unbiased = False
    samples = 4

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, self.samples)  # [R, S, N, K]
        cost = f(z)  # [R, S]
        advantage = cost - cost.mean(1, keepdim=True)
        return (cost + advantage * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


class Reversed(OwnSampleInTheMean):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        value = super().__call__(logits, f)
        return value.detach() - nabla(value)


class Zero(Estimator):
    unbiased = False

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(sample(logits)) + 0 * logits.sum((-2, -1))


class Turned(Estimator):
    """The exact gradient of the first category of each latent, and nothing of the others."""

    unbiased = False

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        pi = logits.softmax(-1)
        every = torch.eye(logits.shape[-1], dtype=logits.dtype).unsqueeze(1)  # [K, 1, K]
        value = (pi[:, 0] * f(every.expand(len(logits), -1, -1, -1))).sum(1)
        first = torch.zeros_like(logits)
        first[..., 0] = 1
        (g,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        return value.detach() + ((g * first).detach() * nabla(logits)).sum((-2, -1))


def row(estimator: Estimator, task: str = "categorical", **options: object) -> dict:
    return gradest.measure(estimator, gradest.make_task(task), **options).row()


def interval(row: dict, name: str) -> tuple[float, float, float]:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


@pytest.mark.parametrize("parameter", ["log_alpha", "alpha"])
@pytest.mark.parametrize(("cls", "scale"), [(OwnSampleInTheMean, 0.75), (Reversed, -0.75)])
def test_a_bias_of_the_step_size_alone_is_a_scale_and_leaves_nothing(cls, scale, parameter):
    result = gradest.measure(cls(), gradest.make_task("categorical")).row(parameter)
    assert result["method"] == "enumerated" and result["relative_bias"] > 0.2
    assert interval(result, "best_scale") == pytest.approx([scale] * 3, abs=EXACT)
    assert interval(result, "relative_bias_rescaled") == (0.0, 0.0, 0.0)


def test_a_bias_of_direction_is_the_sine_of_the_angle():
    task = gradest.make_task("categorical")
    g = gradest.measure(gradest.make_estimator("exact"), task).exact.flatten()
    result = row(Turned())
    assert result["best_scale"] == pytest.approx(float(g[0] ** 2 / (g @ g)), abs=EXACT)
    cosine = float(g[0].abs() / g.norm())
    expected = (1 - cosine**2) ** 0.5
    assert expected > 0.1  # it would be zero for a g that the estimator leaves as it is
    assert interval(result, "relative_bias_rescaled") == pytest.approx([expected] * 3, abs=EXACT)


def test_a_mean_of_zero_has_no_direction_and_a_gradient_of_zero_no_scale():
    result = row(Zero())
    assert interval(result, "best_scale") == (0.0, 0.0, 0.0)
    assert interval(result, "relative_bias_rescaled") == (1.0, 1.0, 1.0)
    flat = gradest.make_task("extreme", cost="constant")
    for choice in (None, False):
        result = gradest.measure(
            gradest.make_estimator("rloo"), flat, replicates=64, enumerate_draws=choice
        ).row()
        for name in ("best_scale", "relative_bias_rescaled"):
            assert all(map(math.isnan, interval(result, name)))


def test_two_categories_leave_no_angle_however_noisy_the_estimates_are():
    """The gradient of a bit has one direction, up to the sign."""
    bit = gradest.make_task("bernoulli", theta=[0.3])
    estimator = gradest.make_estimator("straight_through")
    result = gradest.measure(estimator, bit, enumerate_draws=False).row()
    estimate, low, high = interval(result, "best_scale")
    assert low < estimate < high
    assert interval(result, "relative_bias_rescaled") == pytest.approx([0.0] * 3, abs=EXACT)


def test_an_unresolved_mean_has_an_unknown_direction():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCHES, 8, 5, generator=generator, dtype=torch.float64)
    result = best_rescaling(Moments.of(x), torch.full((5,), 1e-4, dtype=torch.float64))
    assert result.residual.low < 0.5 and result.residual.high == 1
    assert result.scale.low < 1 < result.scale.high


Draw = Callable[[int], Tensor]  # R -> [R, D]


def repeated(draw: Draw, g: Tensor, truth: Draw | None, repetitions: int) -> list:
    """Rescalings of independent measurements, with a reference of its own for each if requested."""
    results = []
    for _ in range(repetitions):
        moments = Moments.of(draw(REPLICATES).unflatten(0, (BATCHES, -1)))
        reference = None
        if truth is not None:
            reference = Moments.of(truth(4 * REPLICATES).unflatten(0, (BATCHES, -1)))
        exact = g if reference is None else reference.pooled.mean[0]
        results.append(best_rescaling(moments, exact, reference))
    return results


@pytest.mark.weekly
@pytest.mark.parametrize(
    ("coordinates", "scale", "tangent", "size", "estimated"),
    [
        (3, 1.0, 0.0, 50.0, False),
        (3, 1.0, 0.5, 1.5, False),  # no longer than the noise
        (50, 0.6, 0.3, 10.0, True),
    ],
)
def test_both_intervals_cover_in_95_percent(coordinates, scale, tangent, size, estimated):
    """`size` is ‖g‖ in units of the noise of the mean, `tangent` ‖r‖ in units of |c| ‖g‖."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    g = torch.linspace(1, 3, coordinates, dtype=torch.float64)
    g *= size * (coordinates / REPLICATES) ** 0.5 / g.norm()
    e = normal(coordinates)
    e -= (e @ g) / (g @ g) * g
    mean = scale * (g + tangent * g.norm() * e / e.norm())
    sine = tangent / math.hypot(1, tangent)
    results = repeated(
        lambda replicates: mean + normal(replicates, coordinates),
        g,
        (lambda replicates: g + normal(replicates, coordinates)) if estimated else None,
        repetitions := 400,
    )
    for name, truth in (("scale", scale), ("residual", sine)):
        intervals = [getattr(result, name) for result in results]
        assert all(each.low <= each.estimate <= each.high for each in intervals)
        hits = sum(each.low - 1e-12 <= truth <= each.high for each in intervals)
        # A rate of 93 % would give this few in one of a thousand tests, one of 97 % this many.
        assert stats.binom.ppf(1e-3, repetitions, 0.93) <= hits, name
        assert hits <= stats.binom.isf(1e-3, repetitions, 0.97), name


def test_noise_that_multiplies_all_coordinates_changes_no_angle():
    generator = torch.Generator().manual_seed(0)
    g = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    mean = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    x = (1 + torch.randn(BATCHES, 8, 1, generator=generator, dtype=torch.float64)) * mean
    scale, residual = best_rescaling(Moments.of(x), g)
    cosine = float(torch.nn.functional.cosine_similarity(mean, g, 0))
    assert residual.ends == pytest.approx([(1 - cosine**2) ** 0.5] * 3, abs=1e-6)
    assert scale.high - scale.low > 0.05


def test_the_noise_of_the_mean_is_no_bias_of_direction():
    """Of a thousand coordinates the plain sine would be far above its true value, zero."""
    generator = torch.Generator().manual_seed(0)
    g = torch.ones(1000, dtype=torch.float64)
    x = g + 10 * torch.randn(BATCHES, 8, 1000, generator=generator, dtype=torch.float64)
    moments = Moments.of(x)
    mean = moments.pooled.mean[0]
    plain = (1 - float(torch.nn.functional.cosine_similarity(mean, g, 0)) ** 2) ** 0.5
    _, residual = best_rescaling(moments, g)
    assert plain > 0.3 and residual.low == 0 and residual.estimate < 0.15 > residual.high - 0.05
