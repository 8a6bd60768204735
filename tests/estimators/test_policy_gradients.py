"""Group-relative advantages, estimated baselines and samples of an older policy, exactly.

Every outcome of the draws is enumerated; the printed figures were computed independently.
"""

import itertools
import math

import pytest
import torch

import gradest
from gradest import Task
from gradest.categorical import sample
from gradest.measurement.enumerated_truth import exact_gradient
from gradest.randomness import Draws, drawing_from
from tests.estimators.toys import (
    Given,
    affine,
    close,
    cosine,
    doubles,
    enumerated,
    estimates,
    pair,
    relative_bias,
    table,
    trace,
    truth,
)
from tests.support import EXACT, Prescribed

DEFAULT = gradest.make_task("categorical")
TABLES = [table(n, k, seed) for n, k in ((1, 3), (2, 3), (3, 2)) for seed in range(2)]
WRONG_WAY = affine(doubles([[0.15, 0.83, 0.02]]).log(), doubles([[0.0, 0.07, 16.0]]))


def same_draws(task: Task, samples: int, *estimators) -> list[torch.Tensor]:
    """The estimates of each estimator for the same categories [R, S, N]."""
    latents, categories = task.problem().logits.shape[1:]
    draws = torch.Generator().manual_seed(0)
    index = torch.randint(categories, (40, samples, latents), generator=draws)
    return [estimates(each, task, 40, Prescribed(index=index)) for each in estimators]


# Relative to the group.


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_without_a_scale_the_mean_is_a_shorter_gradient(samples):
    for task in TABLES:
        mean = enumerated("grpo", task, samples=samples, scale="none").mean[0]
        assert close(mean, (samples - 1) / samples * truth(task))


@pytest.mark.parametrize("samples", [2, 5])
def test_without_a_scale_an_estimate_is_a_multiple_of_leave_one_out(samples):
    ours, rloo = same_draws(
        pair(),
        samples,
        gradest.make_estimator("grpo", samples=samples, scale="none"),
        gradest.make_estimator("rloo", samples=samples),
    )
    assert close(ours, (samples - 1) / samples * rloo)
    assert rloo.abs().max() > 0.1


@pytest.mark.parametrize(
    ("scale", "samples", "bias", "cosine_", "residual", "variance"),
    [
        ("none", 2, 0.5, 1.0, 0.0, 0.632),
        ("none", 4, 0.25, 1.0, 0.0, 0.167),
        ("none", 8, 0.125, 1.0, 0.0, 0.062),
        ("std", 2, 0.6414, 0.9493, 0.3143, 0.664),
        ("std", 4, 0.3277, 0.9837, 0.1799, 0.176),
        ("std", 8, 0.1417, 0.9985, 0.0539, 0.049),
    ],
)
def test_figures_of_the_default_task(scale, samples, bias, cosine_, residual, variance):
    moments = enumerated("grpo", DEFAULT, samples=samples, scale=scale)
    mean, g = moments.mean[0], truth(DEFAULT)
    assert relative_bias(mean, DEFAULT) == pytest.approx(bias, abs=0.51e-4)
    assert cosine(mean, DEFAULT) == pytest.approx(cosine_, abs=0.51e-4)
    left = math.sqrt(max(1 - cosine(mean, DEFAULT) ** 2, 0.0))
    assert left == pytest.approx(residual, abs=0.51e-4)
    best_scale = float((mean * g).sum() / g.square().sum())
    assert trace(moments.variance) / best_scale**2 == pytest.approx(variance, abs=0.51e-3)
    assert float(moments.value) == pytest.approx(float(exact_gradient(DEFAULT.problem()).value))


def test_a_scale_turns_the_gradient_of_the_default_task():
    mean = enumerated("grpo", DEFAULT, samples=2).mean
    assert close(mean, [-0.173, 0.029, 0.144], 0.51e-3)  # the middle one has the other sign
    assert truth(DEFAULT)[0, 1] < 0


@pytest.mark.parametrize(
    ("task", "samples", "expected"),
    [
        (WRONG_WAY, 2, -0.21),
        (WRONG_WAY, 4, -0.20),
        (WRONG_WAY, 8, -0.16),
        (affine(doubles([[0.2, 0.75, 0.05]]).log(), doubles([[0.9, 1.0, 100.0]])), 2, -0.03),
    ],
)
def test_a_scale_can_turn_the_gradient_of_an_affine_cost_around(task, samples, expected):
    mean = enumerated("grpo", task, samples=samples).mean[0]
    assert cosine(mean, task) == pytest.approx(expected, abs=0.51e-2)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_for_two_values_the_direction_is_right_and_the_step_depends_on_their_probability(samples):
    for seed, (low, high) in itertools.product(range(3), [(0.0, 1.0), (2.0, -1.0)]):
        draws = torch.Generator().manual_seed(seed)
        logits = torch.randn(2, 3, generator=draws).double()
        wins = torch.rand(3, 3, generator=draws).double() < 0.5

        def cost(z, wins=wins, low=low, high=high):
            won = torch.einsum("...i,ij,...j->...", z[..., 0, :], wins.to(z), z[..., 1, :])
            return low + (high - low) * won

        task = Given(logits, cost)
        p = (float(exact_gradient(task.problem()).value) - low) / (high - low)
        count = torch.arange(samples + 1).double()
        chance = doubles([math.comb(samples, i) for i in range(samples + 1)])
        chance = chance * p**count * (1 - p) ** (samples - count)
        deviation = chance @ (count / samples * (1 - count / samples)).sqrt()  # E σ, divisor S
        factor = deviation * ((samples - 1) / samples) ** 0.5 / (p * (1 - p)) / abs(high - low)
        mean = enumerated("grpo", task, samples=samples, eps=1e-13).mean[0]
        assert close(mean, factor * truth(task))


def test_for_two_samples_only_the_order_of_the_costs_counts():
    plain, bent = Given(pair().logits, pair().cost), Given(pair().logits, pair().cost)
    bent.cost = lambda z: plain.cost(z).exp()
    grpo = gradest.make_estimator("grpo", samples=2, eps=1e-14)
    (a,), (b,) = same_draws(plain, 2, grpo), same_draws(bent, 2, grpo)
    assert close(a, b) and a.abs().max() > 0.1


@pytest.mark.parametrize("name", ["grpo", "grpo_leave_one_out"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_costs_have_no_advantage(name, dtype):
    """In float32 the mean of seven times 0.1 is not 0.1."""
    cost = torch.full((3, 7), 0.1, dtype=dtype)
    estimator = gradest.make_estimator(name, samples=7, eps=1e-12)
    assert float(estimator.advantages(cost).abs().max()) <= 1e-3
    assert estimator.advantages(cost).dtype is dtype


@pytest.mark.parametrize("samples", [3, 4])
def test_the_others_alone_give_the_direction_of_the_gradient(samples):
    for task in (*TABLES, WRONG_WAY):
        mean = enumerated("grpo_leave_one_out", task, samples=samples, eps=0.1).mean[0]
        assert close(mean, weight_of_the_others(task, samples, 0.1) * truth(task))


def weight_of_the_others(task: Task, samples: int, eps: float) -> torch.Tensor:
    """E[1/(σ + ε)] over the S − 1 other costs."""
    logits = task.problem().logits
    digits = torch.cartesian_prod(*[torch.arange(logits.shape[2])] * logits.shape[1])
    z = torch.nn.functional.one_hot(digits.view(-1, logits.shape[1]), logits.shape[2]).double()
    cost = task.problem().f(z.unsqueeze(0))[0]  # [C]
    p = (logits.log_softmax(-1) * z).sum((-2, -1)).exp()  # [C]
    others = torch.cartesian_prod(*[torch.arange(len(p))] * (samples - 1))
    return (p[others].prod(1) / (cost[others].std(1) + eps)).sum()


# The optimal baseline, estimated.


@pytest.mark.parametrize("samples", [2, 3])
def test_a_baseline_of_the_other_samples_leaves_the_mean_alone(samples):
    for task in TABLES:
        moments = enumerated("opo", task, samples=samples)
        assert close(moments.mean[0], truth(task))
        assert close(moments.value, exact_gradient(task.problem()).value)


def test_two_samples_give_leave_one_out():
    ours, rloo = same_draws(
        pair(), 2, gradest.make_estimator("opo", samples=2), gradest.make_estimator("rloo")
    )
    assert close(ours, rloo)


@pytest.mark.parametrize(
    ("name", "samples", "variance"),
    [("opo", 4, 0.1950), ("rloo", 4, 0.1671), ("opo", 8, 0.0631), ("rloo", 8, 0.0623)],
)
def test_the_noise_of_the_weights_can_cost_more_than_they_gain(name, samples, variance):
    moments = enumerated(name, DEFAULT, samples=samples)
    assert trace(moments.variance) == pytest.approx(variance, abs=0.51e-4)


def test_the_weights_are_the_squared_norms_of_the_scores():
    logits = pair().problem().logits + torch.linspace(-1, 2, 6).view(1, 2, 3)
    with drawing_from(Draws.seeded(0)):
        z = sample(logits, 50)
    log_w = gradest.make_estimator("opo")._log_weights(logits, z)
    assert close(log_w.exp(), (z - logits.softmax(-1)).square().sum((-2, -1)))


# Samples of an older policy.

WEIGHTINGS = (
    *("none", "sequence", "token", "geometric"),
    *("sequence_truncate", "sequence_mask", "token_truncate", "token_mask"),
)


@pytest.mark.parametrize("lag", [0.5, -0.5])
def test_the_weight_of_the_whole_code_is_unbiased(lag):
    for task in TABLES:
        moments = enumerated("importance_weighted", task, weighting="sequence", lag=lag)
        assert close(moments.mean[0], truth(task))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_value_is_that_of_the_present_policy(weighting):
    moments = enumerated("importance_weighted", pair(), weighting=weighting, lag=0.7, cap=1.1)
    assert close(moments.value, exact_gradient(pair().problem()).value)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_without_a_lag_all_weights_are_one(weighting):
    ours, reinforce = same_draws(
        pair(),
        1,
        gradest.make_estimator("importance_weighted", weighting=weighting, lag=0.0),
        gradest.make_estimator("reinforce"),
    )
    assert close(ours, reinforce)


def test_for_one_latent_there_is_one_weight():
    sequence, token, geometric = (
        enumerated("importance_weighted", DEFAULT, weighting=w).mean
        for w in ("sequence", "token", "geometric")
    )
    assert close(sequence, token) and close(sequence, geometric)


def test_weights_of_tokens_are_exact_for_a_sum_over_latents():
    task = affine(pair().logits, doubles([[0.3, -1.0, 2.0], [1.5, 0.1, -0.7]]))
    assert close(enumerated("importance_weighted", task, weighting="token").mean[0], truth(task))
    assert relative_bias(
        enumerated("importance_weighted", pair(), weighting="token").mean[0], pair()
    )


# lag, then the relative bias of each weighting at a cap of 1.25, to four decimals
LAGS = [
    (0.10, 0.0759, 0.0253, 0.0371, 0.0, 0.0, 0.0253, 0.0253),
    (0.25, 0.1931, 0.0630, 0.0909, 0.0, 0.0, 0.0630, 0.0630),
    (0.50, 0.3931, 0.1241, 0.1739, 0.0056, 0.0260, 0.1259, 0.3310),
    (0.75, 0.5918, 0.1811, 0.2453, 0.0101, 0.1432, 0.2107, 0.3933),
]
COLUMNS = ("none", "token", "geometric", *WEIGHTINGS[4:])


@pytest.mark.parametrize(
    ("lag", "weighting", "bias"),
    [(lag, w, b) for lag, *row in LAGS for w, b in zip(COLUMNS, row, strict=True)],
)
def test_bias_of_each_weighting_by_the_lag(lag, weighting, bias):
    mean = enumerated("importance_weighted", pair(), weighting=weighting, lag=lag, cap=1.25).mean
    assert relative_bias(mean[0], pair()) == pytest.approx(bias, abs=0.51e-4)
    assert cosine(mean[0], pair()) >= 0.9789


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_constant_leaves_the_mean_alone_for_two_of_the_weightings(weighting):
    means = []
    for offset in (0.0, 3.0):
        task = Given(pair().logits, lambda z, c=offset: pair().cost(z) + c)
        knobs = {"weighting": weighting, "lag": 0.7, "cap": 1.1}
        means.append(enumerated("importance_weighted", task, **knobs).mean)
    moves = (means[0] - means[1]).abs().max()
    assert (moves <= EXACT) if weighting in ("sequence", "token") else (moves > 1e-3)


def test_a_flatter_policy_can_lower_the_variance():
    older, present = (
        trace(enumerated("importance_weighted", pair(), weighting="sequence", lag=lag).variance)
        for lag in (0.5, 0.0)
    )
    assert (older, present) == (pytest.approx(20.4, abs=0.051), pytest.approx(27.9, abs=0.051))
