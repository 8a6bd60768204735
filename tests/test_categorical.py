"""The vocabulary and the source of its draws."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Independent, OneHotCategorical

from gradest import Cost
from gradest.categorical import (
    conditional_gumbel,
    exponential_race,
    gains,
    gumbel,
    gumbel_max,
    kl_divergence,
    leave_one_out_mean,
    likeliest,
    log_prob,
    log_softmax,
    nabla,
    neighbours,
    perturbed,
    sample,
    softmax,
    straight_through,
    with_pullback,
    without_each,
)
from gradest.errors import ContractError
from gradest.randomness import BlockDraws, Draws, drawing_from, draws
from tests.support import EXACT, Repeated

pytestmark = pytest.mark.usefixtures("seeded")

INF = math.inf
EULER = 0.57721566490153286
PHI = torch.tensor([0.7, -0.9, 0.2, -2.0], dtype=torch.float64)  # skewed and unnormalised


def rows(logits: Tensor, count: int) -> Tensor:
    """[K] -> [R, 1, K]."""
    return logits.expand(count, 1, -1)


# nabla


def test_nabla_is_zero_in_value_and_x_in_gradient():
    x = torch.tensor([1.5, -2.0, 0.0], requires_grad=True)
    assert torch.equal(nabla(x), torch.zeros(3))
    (gradient,) = torch.autograd.grad(nabla(x.square()).sum(), x)
    assert torch.equal(gradient, 2 * x)


def test_a_weight_of_nabla_needs_no_detaching():
    x = torch.tensor([1.5, -2.0, 3.0], requires_grad=True)
    weight = x.exp()  # depends on x, yet adds no product-rule term
    (gradient,) = torch.autograd.grad((weight * nabla(x.square())).sum(), x)
    assert torch.equal(gradient, weight * 2 * x)


# sample


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "logits",
    [[0.7, -0.9, 0.2, -2.0], [-INF, 0.5, -INF, -1.0, -INF], [300.0, 301.0, -400.0]],
    ids=["skewed", "masked", "large"],
)
def test_samples_have_the_frequencies_of_the_softmax(logits, dtype, assert_frequencies):
    logits = torch.tensor(logits, dtype=dtype)
    z = sample(rows(logits, 50_000))  # [R, 1, K]
    assert z.dtype == dtype
    assert ((z == 0) | (z == 1)).all() and (z.sum(-1) == 1).all()
    p = logits.double().softmax(0)
    p[p < 1e-100] = 0.0  # e⁻⁷⁰⁰ is not drawn either
    assert_frequencies(z.sum((0, 1)), p)


def test_samples_have_no_gradient_and_the_documented_shape():
    logits = torch.zeros(5, 2, 3, requires_grad=True)
    assert sample(logits).shape == (5, 2, 3)
    assert sample(logits, 4).shape == (5, 4, 2, 3)
    assert sample(logits, 1).shape == (5, 1, 2, 3)
    assert not sample(logits).requires_grad


def test_rows_samples_and_latents_have_their_own_laws_and_are_independent(assert_frequencies):
    logits = torch.tensor([[[0.5, -0.5], [1.0, 0.0]], [[-1.0, 0.3], [0.2, 0.4]]])  # [2, N, K]
    z = sample(logits.repeat_interleave(10_000, 0), 2)[..., 1]  # [R, S, N], 1 for category 1
    outcome = z.unflatten(0, (2, -1)).transpose(0, 1).flatten(1)  # [10 000, 2·S·N], as 8 bits
    p_one = logits.softmax(-1)[..., 1].unsqueeze(1).expand(2, 2, 2).flatten()  # [8]
    number = (outcome @ (2.0 ** torch.arange(8))).long()
    bits = torch.arange(256).unsqueeze(1) >> torch.arange(8) & 1  # [256, 8]
    joint = torch.where(bits == 1, p_one, 1 - p_one).double().prod(1)
    likely = joint * len(number) >= 50
    counts = number.bincount(minlength=256)
    place = torch.where(likely, likely.cumsum(0), 0)  # rare outcomes are counted as one
    pooled = [torch.zeros(257).double().index_add(0, place, x.double()) for x in (counts, joint)]
    assert_frequencies(*(x[: int(place.max()) + 1] for x in pooled))


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53], ids=["least", "greatest"])
def test_a_category_of_probability_zero_is_not_drawn_at_either_end(u):
    logits = torch.tensor([-INF, -1.0, 0.3, 0.9, -INF, -INF], dtype=torch.float64)
    with drawing_from(Repeated(u)):
        index = int(sample(logits.expand(1, 1, -1)).argmax())
    assert index == (1 if u == 0 else 3)


def test_float32_logits_are_sampled_with_float64_resolution():
    # Category 1 has probability 10⁻⁹, far under the 2⁻²⁴ between float32 uniforms.
    logits = torch.tensor([[[0.0, math.log(1e-9)]]], dtype=torch.float32)
    with drawing_from(Repeated(1 - 1e-10)):
        assert sample(logits)[0, 0, 1] == 1
    with drawing_from(Repeated(1 - 1e-8)):
        assert sample(logits)[0, 0, 1] == 0


# softmax and log_prob


@pytest.mark.parametrize("logits", [PHI, 700 * PHI, PHI + 700, torch.zeros(3).double()])
@pytest.mark.parametrize("pair", [(softmax, torch.softmax), (log_softmax, torch.log_softmax)])
def test_softmax_agrees_with_torch_to_the_second_derivative(logits, pair):
    weight = torch.arange(len(logits), dtype=torch.float64)

    def first(x: Tensor, by: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad((by(x) * weight).sum(), x, create_graph=True)[0]

    for what in (
        lambda x, by: by(x),
        first,
        lambda x, by: torch.autograd.grad(first(x, by).square().sum(), x)[0],
    ):
        ours, theirs = (
            what(logits.clone().requires_grad_(), by) for by in (pair[0], lambda x: pair[1](x, -1))
        )
        assert torch.allclose(ours, theirs, rtol=0, atol=EXACT)


def test_softmax_of_masked_categories_is_finite_in_value_and_gradient():
    logits = torch.tensor([[0.3, -INF, 1.2], [-INF, -INF, 0.0]], dtype=torch.float64)
    logits.requires_grad_()
    y = softmax(logits)
    (gradient,) = torch.autograd.grad(y.square().sum(), logits)
    assert torch.equal(y == 0, logits.isinf())
    assert gradient.isfinite().all() and (gradient[logits.isinf()] == 0).all()


def test_kl_divergence_of_masked_categories_is_finite_in_value_and_gradient():
    logits = torch.tensor([[0.3, -INF, 1.2], [-INF, -INF, 0.0]], dtype=torch.float64)
    logits.requires_grad_()
    kl = kl_divergence(logits, torch.zeros(3).double())
    p = torch.sigmoid(torch.tensor(0.9, dtype=torch.float64))  # of 1.2 next to 0.3
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    assert torch.allclose(kl, math.log(3) - torch.stack([entropy, 0 * p]), rtol=0, atol=EXACT)
    (gradient,) = torch.autograd.grad(kl.sum(), logits)
    assert gradient.isfinite().all() and (gradient[logits.isinf()] == 0).all()


def test_log_prob_agrees_with_torch_distributions():
    logits = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    z = sample(logits)
    reference = Independent(OneHotCategorical(logits=logits), 1).log_prob(z)
    assert torch.allclose(log_prob(logits, z), reference, rtol=0, atol=EXACT)


def test_log_prob_broadcasts_logits_over_samples_and_has_the_score_as_gradient():
    logits = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    logits.requires_grad_()
    z = sample(logits, 5)  # [R, S, N, K]
    log_p = log_prob(logits.unsqueeze(1), z)
    assert log_p.shape == (6, 5)
    (gradient,) = torch.autograd.grad(log_p.sum(), logits)
    score = (z - logits.softmax(-1).unsqueeze(1)).sum(1)  # Σₛ zₛ − π
    assert torch.allclose(gradient, score, rtol=0, atol=EXACT)


def test_log_prob_with_masked_categories_is_finite_in_value_and_gradient():
    logits = torch.tensor([[[0.3, -INF, 1.2], [-INF, -INF, 0.0]]], dtype=torch.float64)
    logits.requires_grad_()
    z = sample(logits)
    log_p = log_prob(logits, z)
    (gradient,) = torch.autograd.grad(log_p.sum(), logits)
    assert log_p.isfinite().all()
    assert torch.allclose(gradient, z - logits.softmax(-1), rtol=0, atol=EXACT)


# Gumbels


def test_gumbel_noise_follows_its_law():
    noise = gumbel(torch.empty(20_000, dtype=torch.float64))
    assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > 1e-4


def test_gumbel_noise_is_minus_the_log_of_an_exponential():
    with drawing_from(Repeated(e=torch.tensor(0.25))):
        assert gumbel(torch.empty(1)).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("u", [0.0, 1 - 2**-53], ids=["least", "greatest"])
def test_no_uniform_makes_an_infinite_gumbel_and_float32_has_the_tails(u, dtype):
    # −log(−log u) of a float32 uniform would end at 16.64, and be infinite at 0.
    with drawing_from(Repeated(u)):
        noise = gumbel(torch.empty(1, dtype=dtype))
    assert noise.isfinite().all()
    assert noise.item() > 35 if u == 0 else noise.item() < -3.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gumbel_max_has_the_frequencies_of_the_softmax(dtype, assert_frequencies):
    logits = PHI.to(dtype)
    b, z = gumbel_max(rows(logits, 50_000))
    assert b.dtype == z.dtype == dtype
    assert torch.equal(b.argmax(-1), z.argmax(-1)) and (b.sum(-1) == 1).all()
    assert_frequencies(b.sum((0, 1)), logits.softmax(0))


def test_the_maximum_is_gumbel_and_independent_of_its_place():
    b, z = gumbel_max(rows(PHI, 20_000))
    top = z.amax(-1)[:, 0] - PHI.logsumexp(0)  # [R], Gumbel(0) whatever the argmax
    place = b.argmax(-1)[:, 0]
    for k in range(len(PHI)):
        assert stats.kstest(top[place == k], stats.gumbel_r.cdf).pvalue > 1e-4 / len(PHI)


def test_gumbel_max_draws_samples_and_passes_the_gradient_to_the_logits():
    logits = torch.zeros(5, 2, 3, requires_grad=True)
    b, z = gumbel_max(logits, 4)
    assert b.shape == z.shape == (5, 4, 2, 3)
    assert not b.requires_grad
    (gradient,) = torch.autograd.grad(z.sum(), logits)
    assert torch.equal(gradient, torch.full_like(logits, 4.0))
    assert not torch.equal(z[:, 0], z[:, 1])


# exponential_race


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize(
    "logits",
    [[0.7, -0.9, 0.2, -2.0], [-INF, 0.5, -INF, -1.0], [80.0, 79.0, -80.0, 77.0]],
    ids=["skewed", "masked", "large"],
)
def test_the_race_and_the_gumbel_max_trick_agree_draw_by_draw(logits, samples):
    """The same exponentials give the same index, since −log is decreasing."""
    logits = rows(torch.tensor(logits, dtype=torch.float64), 20_000)
    with drawing_from(Draws.seeded(3)):
        z = exponential_race(logits, samples)
    with drawing_from(Draws.seeded(3)):
        b, _ = gumbel_max(logits, samples)
    assert torch.equal(z, b)
    assert z.flatten(0, -2).any(0).sum() >= 2  # not one category alone


def test_the_race_has_no_gradient_and_keeps_the_dtype():
    z = exponential_race(torch.zeros(5, 2, 3, requires_grad=True), 4)
    assert z.shape == (5, 4, 2, 3) and z.dtype == torch.float32 and not z.requires_grad


# conditional_gumbel


def outcomes(categories: int, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Every one-hot b, each `count` times: [K · count, 1, K]."""
    return torch.eye(categories, dtype=dtype).repeat_interleave(count, 0).unsqueeze(1)


@pytest.mark.parametrize(
    ("dtype", "largest"), [(torch.float64, 700.0), (torch.float32, 80.0)], ids=["double", "single"]
)
def test_conditional_gumbel_is_finite_with_argmax_b_at_any_magnitude(dtype, largest):
    logits = torch.tensor([-largest, largest, 0.3, -1.0], dtype=dtype)
    b = outcomes(4, 500, dtype)
    leaf = rows(logits, len(b)).clone().requires_grad_()
    z = conditional_gumbel(leaf, b)
    (gradient,) = torch.autograd.grad(z.square().sum(), leaf)
    assert z.dtype == dtype
    assert z.isfinite().all() and gradient.isfinite().all()
    assert torch.equal(z.argmax(-1), b.argmax(-1))


def test_mixed_over_b_conditional_gumbels_are_independent_gumbels(assert_mean):
    logits = rows(PHI, 200_000)
    noise = (conditional_gumbel(logits, sample(logits)) - PHI - EULER).squeeze(1)  # [R, K]
    assert_mean(noise, 0.0, precision=0.01)
    second = torch.einsum("ri,rj->rij", noise, noise)
    assert_mean(second, math.pi**2 / 6 * torch.eye(4), precision=0.02)
    for k in range(4):
        assert stats.kstest(noise[:20_000, k] + EULER, stats.gumbel_r.cdf).pvalue > 1e-4 / 4


def test_conditional_gumbel_follows_its_formula_with_the_same_noise():
    e = torch.tensor([0.4, 1.7, 0.02, 2.5], dtype=torch.float64)
    alpha = PHI.exp()
    for k in range(4):
        with drawing_from(Repeated(e=e)):
            z = conditional_gumbel(PHI, torch.eye(4, dtype=torch.float64)[k])
        expected = -(e / alpha + e[k] / alpha.sum()).log()
        expected[k] = alpha.sum().log() - e[k].log()
        assert torch.allclose(z, expected, rtol=0, atol=EXACT)


def test_conditional_gumbel_has_the_reparameterised_derivatives():
    """∂z_b/∂φ_k = π_k and ∂z_i/∂φ_k = ω_i δ_ik + (1 − ω_i) π_k, with E fixed."""
    e = torch.tensor([0.4, 1.7, 0.02, 2.5], dtype=torch.float64)
    pi = PHI.softmax(0)
    for k in range(4):
        b = torch.eye(4, dtype=torch.float64)[k]
        with drawing_from(Repeated(e=e)):
            jacobian = torch.autograd.functional.jacobian(
                lambda x, b=b: conditional_gumbel(x, b), PHI
            )
        own, top = e / PHI.exp(), e[k] / PHI.exp().sum()
        omega = (own / (own + top)).unsqueeze(1)
        expected = omega * torch.eye(4) + (1 - omega) * pi
        expected[k] = pi
        assert torch.allclose(jacobian, expected, rtol=0, atol=EXACT)


def test_conditional_gumbel_moves_with_a_shift_of_the_logits():
    # The printed REBAR formula holds for Σα = 1 alone and fails here.
    b = outcomes(4, 10)
    z = []
    for shift in (0.0, 5.0):
        with drawing_from(Draws.seeded(3)):
            z.append(conditional_gumbel(rows(PHI, len(b)) + shift, b) - shift)
    assert torch.allclose(z[0], z[1], rtol=0, atol=EXACT)


def test_conditional_gumbel_broadcasts_logits_over_samples():
    logits = torch.randn(5, 1, 2, 3)
    b = sample(logits.squeeze(1), 4)  # [R, S, N, K]
    z = conditional_gumbel(logits, b)
    assert z.shape == b.shape
    assert torch.equal(z.argmax(-1), b.argmax(-1))
    assert not torch.equal(z[:, 0], z[:, 1])


def test_conditional_gumbel_draws_several_for_one_b():
    logits = torch.randn(5, 2, 3)
    b = sample(logits)  # [R, N, K]
    z = []
    for given in ((logits, b, 4), (logits.unsqueeze(1), b.unsqueeze(1).expand(-1, 4, -1, -1))):
        with drawing_from(Draws.seeded(3)):
            z.append(conditional_gumbel(*given))  # [R, S, N, K]
    assert z[0].shape == (5, 4, 2, 3) and torch.equal(*z)


def test_conditional_gumbel_keeps_masked_categories_out():
    logits = torch.tensor([[[0.3, -INF, 1.2]]], dtype=torch.float64, requires_grad=True)
    z = conditional_gumbel(logits, torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64))
    assert z[0, 0, 1] == -INF
    (gradient,) = torch.autograd.grad((z.softmax(-1) * PHI[:3]).sum(), logits)
    assert gradient.isfinite().all() and gradient[0, 0, 1] == 0


# one latent at a time


def test_without_each_category_is_the_law_of_the_others():
    """∂π/∂log α_k = π_k (1 − π_k) [e_k − π(· | ≠ k)], with log(1 − π_k) as the logsumexp."""
    log_pi = PHI.log_softmax(0)
    others, pi = without_each(log_pi), PHI.softmax(0)
    assert torch.equal(others.isinf(), torch.eye(4, dtype=torch.bool))
    assert torch.allclose(others.logsumexp(-1).exp(), 1 - pi, rtol=0, atol=EXACT)
    difference = torch.eye(4) - softmax(others)  # [k, ...]
    jacobian = torch.autograd.functional.jacobian(softmax, PHI)
    assert torch.allclose((pi * (1 - pi)).unsqueeze(1) * difference, jacobian, rtol=0, atol=EXACT)
    assert without_each(torch.zeros(5, 2, 3)).shape == (5, 2, 3, 3)


def test_without_each_does_not_round_what_the_likeliest_category_leaves():
    log_pi = torch.tensor([80.0, 0.0, 1.0]).log_softmax(0)
    left = without_each(log_pi).logsumexp(-1)[0]
    assert left.item() == pytest.approx(math.log(1 + math.e) - 80, rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 3), (3, 2), (2, 4), (2, 1)])
def test_neighbours_are_all_codes_that_differ_in_one_latent(shape):
    latents, categories = shape
    z = sample(torch.zeros(5, 6, *shape).flatten(0, 1)).unflatten(0, (5, 6))  # [R, S, N, K]
    near = neighbours(z)
    assert near.shape == (5, 6, latents, categories - 1, latents, categories)
    index = z.argmax(-1)
    for n, j in itertools.product(range(latents), range(categories - 1)):
        expected = index.clone()
        expected[..., n] = (index[..., n] + j + 1) % categories
        assert torch.equal(near[:, :, n, j], torch.eye(categories)[expected])


@pytest.mark.parametrize("shape", [(1, 3), (3, 2), (2, 4), (2, 1)])
def test_gains_are_differences_of_costs_each_evaluated_once(shape):
    latents, categories = shape
    draws = torch.Generator().manual_seed(1)
    weight = torch.randn(latents * categories, generator=draws, dtype=torch.float64)
    f = Cost(lambda z: (z.flatten(-2) @ weight).exp())  # coupled
    z = sample(torch.zeros(5, *shape).double(), 6)  # [R, S, N, K]
    cost = f.fn(z)
    result = gains(f, z, cost)
    assert f.evaluations == 6 * latents * (categories - 1)
    for n, k in itertools.product(range(latents), range(categories)):
        changed = z.clone()
        changed[..., n, :] = torch.eye(categories, dtype=torch.float64)[k]
        assert torch.allclose(result[..., n, k], f.fn(changed) - cost, rtol=0, atol=EXACT)
    assert (result[z > 0] == 0).all()


# the small words


def test_straight_through_is_hard_in_value_and_soft_in_gradient():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    soft, hard = x.softmax(-1), torch.eye(3, dtype=torch.float64)[[0, 2, 1, 1]]
    weight = torch.randn(4, 3, dtype=torch.float64)
    y = straight_through(hard, soft)
    assert torch.equal(y, hard)
    (actual,) = torch.autograd.grad((y * weight).sum(), x, retain_graph=True)
    (expected,) = torch.autograd.grad((soft * weight).sum(), x)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_leave_one_out_mean_agrees_with_a_loop(dim):
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    slices = x.unbind(dim)
    expected = [
        torch.stack(slices[:i] + slices[i + 1 :]).mean(0) for i in range(len(slices))
    ]  # fmt: skip
    actual = leave_one_out_mean(x, dim)
    assert torch.allclose(actual, torch.stack(expected, dim), rtol=0, atol=EXACT)


# the source


def some_draws() -> list[Tensor]:
    logits = rows(PHI, 3)
    return [
        sample(logits, 2),
        gumbel(logits),
        *gumbel_max(logits),
        conditional_gumbel(logits, sample(logits)),
    ]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_seed_fixes_every_draw():
    def seeded_draws(seed: int) -> list[Tensor]:
        with drawing_from(Draws.seeded(seed)):
            return some_draws()

    assert same(seeded_draws(5), seeded_draws(5))
    assert not any(torch.equal(x, y) for x, y in zip(seeded_draws(5), seeded_draws(6), strict=True))


def test_draws_from_a_source_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    with drawing_from(Draws.seeded(5)):
        some_draws()
    assert torch.equal(torch.get_rng_state(), before)


def test_outside_of_a_source_draws_come_from_the_global_generator():
    with drawing_from(Draws()), torch.random.fork_rng():
        torch.manual_seed(8)
        first = some_draws()
        torch.manual_seed(8)
        assert same(first, some_draws())


def test_sources_nest_and_come_back_also_after_an_error():
    outer, inner = Draws.seeded(1), Draws.seeded(2)
    with drawing_from(outer):
        with drawing_from(inner) as given:
            assert draws() is inner is given
        assert draws() is outer
        with pytest.raises(ZeroDivisionError), drawing_from(inner):
            raise ZeroDivisionError
        assert draws() is outer
    assert (outer.count, inner.count) == (0, 0)


def test_a_source_counts_its_requests(seeded):
    sample(rows(PHI, 3), 2)
    assert seeded.count == 1
    gumbel_max(rows(PHI, 3))
    assert seeded.count == 2


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_logits_get_noise_of_single_precision(half, seeded):
    like = torch.zeros(2, 1, 3, dtype=half)
    assert seeded.exponential((4,), like).dtype == torch.float32
    assert seeded.uniform((4,), like).dtype == torch.float32
    assert seeded.normal((4,), like).dtype == torch.float32
    assert gumbel(like).dtype == sample(like).dtype == half
    b, z = gumbel_max(like)
    assert b.dtype == z.dtype == conditional_gumbel(like, b).dtype == half


@pytest.mark.parametrize(
    ("law", "cdf"),
    [("exponential", stats.expon.cdf), ("uniform", stats.uniform.cdf), ("normal", stats.norm.cdf)],
)
def test_noise_follows_its_law(law, cdf, seeded):
    noise = getattr(seeded, law)((20_000,), torch.empty(0, dtype=torch.float64))
    assert stats.kstest(noise, cdf).pvalue > 1e-4


# samples with a derivative


def test_perturbed_logits_are_those_of_the_gumbel_max_trick():
    logits = rows(PHI, 50).clone().requires_grad_()
    with drawing_from(Draws.seeded(1)):
        z = perturbed(logits)
    with drawing_from(Draws.seeded(1)):
        b, other = gumbel_max(logits)
    with drawing_from(Draws.seeded(1)):
        assert torch.equal(z, logits + gumbel(logits))
    assert torch.equal(z, other) and torch.equal(b, likeliest(z.detach()))
    assert torch.equal(torch.autograd.grad(z.sum(), logits)[0], torch.ones_like(logits))


@pytest.mark.parametrize("lean", [True, False])  # torch's global source, and one of a measurement
def test_a_temperature_divides_perturbed_logits_and_their_gradient(lean):
    logits = rows(PHI, 50).clone().requires_grad_()

    def at(temperature):
        source = Draws.seeded(1)
        source.lean = lean
        with drawing_from(source):
            z = perturbed(logits, temperature)
        return z, torch.autograd.grad(z.sum(), logits)[0]

    (z, slope), (hot, hot_slope) = at(1.0), at(0.4)
    rounding = 1e-14 if lean else 0.0  # divided before the sum, where that is faster
    torch.testing.assert_close(hot, z / 0.4, rtol=rounding, atol=rounding)
    torch.testing.assert_close(hot_slope, slope / 0.4, rtol=rounding, atol=0.0)


def test_a_pullback_takes_the_place_of_the_derivative():
    logits, z = PHI.clone().requires_grad_(), torch.tensor([0.0, 1.0, 0.0, 0.0]).double()
    drawn = with_pullback(z, logits, lambda g: g.flip(-1) * 3)
    assert torch.equal(drawn, z)
    (gradient,) = torch.autograd.grad((drawn * torch.arange(4)).sum(), logits)
    assert gradient.tolist() == [9.0, 6.0, 3.0, 0.0]


@pytest.mark.parametrize("lean", [True, False])  # torch's global source, and one of a measurement
def test_a_straight_through_sample_is_exact_in_value_and_soft_in_gradient(lean):
    logits, hard = PHI.clone().requires_grad_(), torch.tensor([0.0, 1.0, 0.0, 0.0]).double()
    source, slope = Draws.seeded(0), torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    source.lean = lean
    with drawing_from(source):
        z = straight_through(hard, softmax(logits))
    assert torch.equal(z, hard)
    expected = torch.autograd.grad(logits.softmax(-1), logits, slope)[0]
    torch.testing.assert_close(torch.autograd.grad(z, logits, slope)[0], expected)


@pytest.mark.parametrize(
    "draw",
    [
        lambda logits: sample(logits, 2),
        lambda logits: gumbel_max(logits)[1],
        lambda logits: draws().normal((len(logits), 5), logits),
        lambda logits: draws().uniform((2 * len(logits), 3), logits),
    ],
)
def test_a_block_of_rows_draws_the_same_numbers_alone_and_next_to_others(draw) -> None:
    logits = torch.linspace(-1, 1, 6, dtype=torch.float64).view(1, 2, 3).repeat(4, 1, 1)
    together = BlockDraws([5, 6, 7])
    alone = [BlockDraws([seed]) for seed in (5, 6, 7)]
    for _ in range(2):  # each continues its own sequence
        with drawing_from(together):
            blocks = draw(logits.repeat(3, 1, 1)).chunk(3)
        for block, source in zip(blocks, alone, strict=True):
            with drawing_from(source):
                assert torch.equal(draw(logits), block)
        assert not torch.equal(blocks[0], blocks[1])
    with drawing_from(Draws.seeded(5)):  # one block is an ordinary source
        assert torch.equal(draw(logits), with_source(BlockDraws([5]), draw, logits))


def with_source(source: Draws, draw, logits: Tensor) -> Tensor:
    with drawing_from(source):
        return draw(logits)


def test_draws_that_do_not_come_row_by_row_are_refused_for_several_blocks() -> None:
    source = BlockDraws([1, 2, 3])
    like = torch.zeros(1)
    for shape in ((4, 3), ()):
        with pytest.raises(ContractError, match="expected draws for rows in 3 equal blocks"):
            source.normal(shape, like)
    with pytest.raises(ContractError, match="no common generator"):
        _ = source.generator
    assert BlockDraws([1]).generator.initial_seed() == 1
