"""Two codes that differ in one latent, and codes that share the bits of a tree, exactly.

Categories are enumerated; uniforms matter only through the cell of a grid they fall in.
"""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Task
from gradest.measurement.enumerated_truth import exact_gradient
from gradest.randomness import Draws
from tests.estimators.quadrature import Moments, assert_close, assert_unbiased, moments, product
from tests.estimators.toys import (
    Given,
    bit,
    bits,
    close,
    doubles,
    enumerated,
    estimates,
    pair,
    table,
    trace,
    truth,
)
from tests.support import Prescribed

DEFAULT = gradest.make_task("categorical")

# One latent moved to one other category.


@pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3, 2)])
def test_a_flip_of_a_category_is_unbiased(shape):
    for seed in range(3):
        task = table(*shape, seed)
        result = enumerated("category_flip", task)
        assert close(result.mean[0], truth(task))
        assert close(result.value, exact_gradient(task.problem()).value)


def test_for_bits_it_is_bitflip():
    task, rows = table(3, 2, seed=0), 30
    draws = torch.Generator().manual_seed(0)
    b = torch.randint(2, (rows, 1, 3), generator=draws)
    n = torch.randint(3, (rows, 1, 1), generator=draws)
    other = 1 - b.gather(2, n)
    ours = gradest.make_estimator("category_flip")
    theirs = gradest.make_estimator("bitflip")
    assert close(
        estimates(ours, task, rows, Prescribed(b, n, other)),
        estimates(theirs, task, rows, Prescribed(b, n)),
    )


def test_for_one_latent_it_is_the_unordered_set_of_two():
    ours = set()
    for k, j in itertools.permutations(range(3), 2):
        draws = (torch.full((1, 1, 1), x) for x in (k, 0, j))
        ours.add(
            rounded(
                estimates(gradest.make_estimator("category_flip"), DEFAULT, 1, Prescribed(*draws))[
                    0
                ]
            )
        )
    theirs = estimates(gradest.make_estimator("unordered_set"), DEFAULT, 500, Draws.seeded(0))
    assert {rounded(row) for row in theirs} == ours
    assert len(ours) == 3  # one for each pair, in either order


def rounded(x: Tensor) -> tuple[float, ...]:
    return tuple((x.flatten().round(decimals=9) + 0.0).tolist())


@pytest.mark.parametrize(
    ("name", "knobs", "default", "of_pair"),
    [
        ("category_flip", {}, 0.2252, 12.59),
        ("stochastic_derivative", {"neighbours": 100}, 1.389, 13.66),
        ("stochastic_derivative", {"neighbours": 1}, 2.68, 47.13),
        ("measure_valued", {}, 0.075, 2.62),
        ("rloo", {}, 0.632, 16.4),
    ],
)
def test_variances_as_printed(name, knobs, default, of_pair):
    def digits(x: float) -> float:
        return 0.51 * 10.0 ** -len(str(x).partition(".")[2])

    for task, printed in ((DEFAULT, default), (pair(), of_pair)):
        variance = trace(enumerated(name, task, **knobs).variance)
        assert variance == pytest.approx(printed, abs=digits(printed))


# A jump to a neighbouring category.


@pytest.mark.parametrize("neighbours", [1, 2, 3, 100])
def test_jumps_are_unbiased_however_many_are_evaluated(neighbours):
    for shape in ((1, 4), (2, 3), (3, 2)):
        task = table(*shape, seed=1)
        assert close(
            enumerated("stochastic_derivative", task, neighbours=neighbours).mean[0], truth(task)
        )


@bits
def test_a_jump_on_one_bit(theta, t):
    """θ Δ at b = 0 and nothing at b = 1, for the logit of b = 1."""
    result = enumerated("stochastic_derivative", bit(theta, t), neighbours=2)
    difference = (1 - t) ** 2 - t**2
    assert close(result.variance[0, 0, 1], theta * (1 - theta) * (difference * theta) ** 2)


def test_a_rare_category_between_two_others_makes_jumps_vary():
    """As 1/π of that category, where `local_expectation` does not vary at all."""
    variances = []
    for size in (1e-3, 1e-4):
        pi = doubles([[0.5 - size / 2, size, 0.5 - size / 2]])
        task = Given(pi.log(), DEFAULT.problem().f.fn)
        variances.append(trace(enumerated("stochastic_derivative", task, neighbours=2).variance))
        assert trace(enumerated("local_expectation", task).variance) <= 1e-20
    assert variances[1] / variances[0] == pytest.approx(10, rel=0.02)


def test_jumps_pass_over_a_masked_category():
    task = table(2, 3, seed=0)
    task.logits = task.logits.index_fill(1, torch.tensor([1]), -torch.inf)
    for neighbours in (1, 4):
        mean = enumerated("stochastic_derivative", task, neighbours=neighbours).mean[0]
        assert close(mean, truth(task)) and truth(task).abs().max() > 0.01


# The bits of a tree.


def splits(start: int, end: int, halves: bool) -> Iterator[tuple[int, int, int]]:
    if end - start > 1:
        middle = (start + end) // 2 if halves else start + 1
        yield start, middle, end
        yield from splits(start, middle, halves)
        yield from splits(middle, end, halves)


def over_cells(task: Task, coding: str) -> Moments:
    """Exact, as an estimate changes only where a uniform passes θ or 1 − θ of its node."""
    pi = task.problem().logits[0].softmax(-1)  # [N, K]
    latents, categories = pi.shape
    parts = []
    for p in pi:
        for start, middle, end in splits(0, categories, coding == "tree"):
            theta = float(p[middle:end].sum() / p[start:end].sum())
            ends = torch.tensor(sorted({0.0, theta, 1 - theta, 1.0}), dtype=torch.float64)
            parts.append(((ends[1:] + ends[:-1]) / 2, ends.diff()))
    u, weight = product(parts)
    estimator = gradest.make_estimator("disarm_categorical", coding=coding)
    return moments(estimator, task, weight, u.unflatten(1, (latents, categories - 1)))


@pytest.mark.parametrize("coding", ["stick-breaking", "tree"])
@pytest.mark.parametrize("shape", [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4)])
def test_shared_bits_are_unbiased_in_gradient_and_value(coding, shape):
    """For K no power of two as well, where complete trees would lose categories."""
    task = table(*shape, seed=2)
    result = over_cells(task, coding)
    assert_unbiased(result, task)
    assert result.value == pytest.approx(float(exact_gradient(task.problem()).value), abs=1e-10)


@pytest.mark.parametrize("coding", ["stick-breaking", "tree"])
def test_variances_of_shared_bits_as_printed(coding):
    assert over_cells(DEFAULT, coding).trace == pytest.approx(0.2546, abs=0.51e-4)
    assert over_cells(pair(), coding).trace == pytest.approx(10.95, abs=0.51e-2)


def test_the_codings_differ_for_four_categories():
    task = table(1, 4, seed=2)
    stick, tree = (over_cells(task, coding).trace for coding in ("stick-breaking", "tree"))
    assert abs(stick / tree - 1) > 0.01


@pytest.mark.parametrize("coding", ["stick-breaking", "tree"])
def test_for_two_categories_it_is_disarm(coding):
    task, rows = table(3, 2, seed=0), 50
    u = torch.rand(rows, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = gradest.make_estimator("disarm_categorical", coding=coding)
    result = estimates(ours, task, rows, Prescribed(u.unsqueeze(-1)))
    assert_close(result, estimates(gradest.make_estimator("disarm"), task, rows, Prescribed(u)))
    assert result.abs().max() > 0.01
