"""The tasks whose expectation is exact at any size: digit sums, sudoku and verifiable rewards."""

import importlib
import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import gradest
from gradest import Task
from gradest.categorical import one_hot
from gradest.contracts import inapplicable
from gradest.errors import KnobError
from gradest.measurement.enumerated_truth import all_codes, exact_gradient
from tests.support import EXACT, LEVEL, SMALL_TASKS

digits = importlib.import_module("gradest.tasks._digits")

BLANK = "." * 81
SMALL_PUZZLE = SMALL_TASKS["sudoku"]["puzzle"]
LARGE: list[tuple[str, dict[str, Any]]] = [
    ("digit_sum", {"latents": 32, "points": 4}),
    ("digit_sum", {"latents": 32, "points": 4, "cost": "wrong"}),
    ("sudoku", {"puzzle": BLANK}),
    ("sudoku", {}),
    ("verifiable_reward", {"tokens": 16, "words": 32}),
    ("verifiable_reward", {"tokens": 16, "words": 32, "reward": "prefix"}),
]
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("digit_sum", {"cost": "wrong"}),
    ("digit_sum", {"latents": 1, "cost": "wrong"}),
    ("digit_sum", {"latents": 4, "points": 1, "steps": 3}),
    ("sudoku", {"puzzle": SMALL_PUZZLE}),
    ("sudoku", {"puzzle": ".3..1...4.2.2134", "hint": 0.5, "seed": 3}),
    ("verifiable_reward", {"reward": "prefix"}),
    ("verifiable_reward", {"pass_rates": [0.999, 1e-9], "words": 2}),
]


def exact(task: Task) -> tuple[Tensor, Tensor]:
    """E f [B] and its gradient [B, N, K] by the task's closed form."""
    logits = task.problem().logits.clone().requires_grad_()
    value = task.expectation(logits)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


def code(*index: list[int], categories: int) -> Tensor:
    """Codes [1, S, N, K] of these categories."""
    return one_hot(torch.tensor([index]), torch.empty(categories, dtype=torch.float64))


@pytest.mark.parametrize(("name", "knobs"), SMALL)
def test_the_closed_form_is_the_sum_over_all_outcomes(name, knobs):
    task = gradest.make_task(name, **knobs)
    value, gradient = exact(task)
    truth = exact_gradient(task.problem())
    scale = float(truth.gradient.abs().max())
    assert torch.allclose(value, truth.value, rtol=EXACT, atol=0)
    assert torch.allclose(gradient, truth.gradient, rtol=0, atol=EXACT * scale)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "knobs"), LARGE)
def test_the_closed_form_is_the_mean_of_replicates_at_full_size(name, knobs):
    """In all coordinates together, along the gradient, and in the value."""
    task = gradest.make_task(name, **knobs)
    estimator = gradest.make_estimator("rloo", samples=4)
    row = gradest.measure(estimator, task, replicates=3000).row()
    assert row["reference"] == "closed_form" and row["p_value"] > LEVEL
    assert row["best_scale_low"] < 1 < row["best_scale_high"]
    k = stats.norm.isf(LEVEL / 2)
    assert abs(row["value"] - row["exact_value"]) <= k * row["value_se"]
    # Power: a value that is wrong by a twentieth, or a gradient that is halved, would be noticed.
    assert k * row["value_se"] < 0.05 * row["exact_value"]
    assert row["best_scale_high"] - row["best_scale_low"] < 1


@pytest.mark.slow
def test_reinmax_is_unbiased_on_a_sudoku_and_straight_through_is_not():
    """f is quadratic: ReinMax is exact for it, and straight-through only for an affine one."""
    task = gradest.make_task("sudoku")
    reinmax, straight = (
        gradest.measure(gradest.make_estimator(name), task, replicates=replicates).row()
        for name, replicates in (("reinmax", 30_000), ("straight_through", 2000))
    )
    assert reinmax["verdict"] == "unbiased" and straight["verdict"] == "biased"
    assert straight["relative_bias_rescaled_low"] > 0.5


# digit sums


def test_the_classifier_is_sure_of_some_digits_and_unsure_of_others():
    logits = gradest.make_task("digit_sum", latents=297, points=1).problem().logits
    pi = logits.softmax(-1)[0]
    labels = digits.labelled_digits("test").labels
    right = (pi.argmax(-1) == labels).double().mean()
    assert 0.8 < right < 0.99  # of images that it was not trained on
    assert pi.max(-1).values.min() < 0.4 < 0.9 < pi.max(-1).values.max()
    early = gradest.make_task("digit_sum", latents=297, points=1, steps=1).problem().logits
    assert early.softmax(-1).max(-1).values.mean() < pi.max(-1).values.mean()


def test_the_sum_of_the_true_digits_costs_nothing():
    labels = digits.labelled_digits("test").labels
    first = labels[:3].tolist()
    other = [first[0], first[1], (first[2] + 3) % 10]
    z = code(first, first[::-1], other, categories=10).expand(2, -1, -1, -1)
    own = gradest.make_task("digit_sum", points=2)
    error = (sum(other) - sum(first)) ** 2
    assert own.problem().f(z)[0].tolist() == [0, 0, error]
    wrong = gradest.make_task("digit_sum", points=2, cost="wrong").problem().f(z)
    assert wrong[0].tolist() == [0, 0, 1]
    # The second data point has other images, with a sum of its own.
    assert labels[3:6].sum() != labels[:3].sum() and wrong[1, 0] == 1


def test_a_wrong_sum_is_a_black_box_and_a_squared_error_takes_all_methods():
    reinmax = gradest.make_estimator("reinmax")
    for cost, applies in (("squared", True), ("wrong", False)):
        task = gradest.make_task("digit_sum", cost=cost)
        assert (inapplicable(reinmax, task, task.problem()) is None) == applies


def test_the_law_of_a_sum_is_that_of_known_numbers():
    task = importlib.import_module("gradest.tasks.digit_sum")
    p = torch.tensor([0.7, 0.3], dtype=torch.float64)
    binomial = torch.from_numpy(stats.binom.pmf(range(33), 32, 0.3))
    assert torch.allclose(
        task._distribution_of_sum(p.expand(1, 32, 2))[0], binomial, rtol=1e-12, atol=0
    )
    certain = one_hot(torch.tensor([[3, 9, 0]]), torch.empty(10, dtype=torch.float64))
    assert task._distribution_of_sum(certain)[0].argmax() == 12


def test_a_sure_classifier_leaves_a_small_probability_with_all_its_digits():
    """1 − P(right) would be rounded to multiples of 10⁻¹⁶."""
    task = gradest.make_task("digit_sum", points=1, latents=2, cost="wrong")
    labels = digits.labelled_digits("test").labels[:2]
    logits = 45 * one_hot(labels, torch.empty(10, dtype=torch.float64)).unsqueeze(0)
    # To first order one of the two digits is one of nine wrong ones, at e⁻⁴⁵ each.
    assert float(task.expectation(logits)) == pytest.approx(18 * math.exp(-45), rel=1e-12)


# sudoku


SOLUTION = "254367198376189425189542673492736581617895342538214769763921854941658237825473916"


def test_a_solution_costs_nothing_and_a_mistake_costs_what_it_breaks():
    task = gradest.make_task("sudoku", puzzle=BLANK)
    digit = [int(text) - 1 for text in SOLUTION]
    swapped = [digit[1], digit[0], *digit[2:]]  # in one row and box, and two columns
    z = code(digit, swapped, categories=9)
    assert task.problem().f(z)[0].tolist() == [0, 4]


def test_given_cells_are_constants_of_the_cost():
    """The cost of the empty cells alone is that of all cells, with the given ones as they are."""
    puzzle = gradest.make_task("sudoku").puzzle
    assert all(a in (".", b) for a, b in zip(puzzle, SOLUTION, strict=True))
    empty = [place for place, text in enumerate(puzzle) if text == "."]
    logits, f = gradest.make_task("sudoku").problem()
    assert logits.shape == (1, len(empty), 9) and len(empty) == 51
    draws = torch.Generator().manual_seed(0)
    some = torch.randint(9, (5, 51), generator=draws)
    whole = torch.tensor([int(text) - 1 for text in SOLUTION]).repeat(5, 1)
    whole[:, empty] = some
    every = gradest.make_task("sudoku", puzzle=BLANK).problem().f
    found = f(code(*some.tolist(), categories=9))
    assert torch.equal(found, every(code(*whole.tolist(), categories=9)))
    assert f(code([int(SOLUTION[n]) - 1 for n in empty], categories=9)).item() == 0


def test_a_hint_lowers_what_the_givens_rule_out_and_nothing_else():
    puzzle = "1" + "." * 80
    plain = gradest.make_task("sudoku", puzzle=puzzle, hint=0.0).problem().logits
    hinted = gradest.make_task("sudoku", puzzle=puzzle, hint=1.5).problem().logits
    lower = (plain - hinted)[0]
    ruled_out = {
        n - 1 for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 18, 19, 20, 27, 36, 45, 54, 63, 72)
    }
    for cell in range(80):
        expected = [1.5 if cell in ruled_out else 0.0, *[0.0] * 8]
        assert lower[cell].tolist() == pytest.approx(expected, abs=1e-12)
    blank = gradest.make_task("sudoku", puzzle=BLANK).problem().logits
    assert torch.equal(blank[0, 1:], plain[0])  # a given changes no other draw


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("sudoku", {"puzzle": "123"}, "puzzle has 3 characters; expected 81, or 16"),
        ("sudoku", {"puzzle": "x" + "." * 80}, "puzzle has 'x' in row 1, column 1; expected a"),
        (
            "sudoku",
            {"puzzle": "." * 15 + "5"},
            "'5' in row 4, column 4; expected a digit from 1 to 4",
        ),
        ("sudoku", {"puzzle": "1..1" + "." * 12}, "1 in both row 1, column 1 and row 1, column 4"),
        ("sudoku", {"puzzle": "1....1" + "." * 10}, "row 1, column 1 and row 2, column 2"),
        ("sudoku", {"puzzle": "1234341221434321"}, "puzzle leaves no cell empty"),
        ("digit_sum", {"latents": 100, "points": 3}, "points · latents of at most 297"),
        ("digit_sum", {"cost": "cubed"}, "digit_sum: cost = 'cubed'"),
        ("verifiable_reward", {"pass_rates": []}, "expected a pass rate for each context"),
        ("verifiable_reward", {"pass_rates": [0.5, 1.0]}, r"pass_rates\[1\] = 1.0"),
        ("vq", {"temperature": 0.0}, "vq: temperature = 0.0"),
        ("vq", {"samples": 2}, "vq: expected kl = 'sampled' for samples = 2, got 'exact'"),
    ],
)
def test_knobs_that_make_no_task_are_refused(name, knobs, message):
    with pytest.raises(KnobError, match=message):
        gradest.make_task(name, **knobs)


# verifiable rewards


def test_the_right_answer_is_given_with_the_pass_rate_of_its_context():
    rates = (0.9, 0.3, 1e-4)
    task = gradest.make_task("verifiable_reward", pass_rates=rates, tokens=20, words=50)
    logits = task.problem().logits
    pi = logits.exp()
    assert torch.allclose(pi.sum(-1), torch.ones(3, 20).double(), rtol=0, atol=EXACT)
    value = task.expectation(logits)
    assert torch.allclose(
        1 - value, torch.tensor(rates, dtype=torch.float64), rtol=1e-9, atol=EXACT
    )


@pytest.mark.parametrize(
    ("reward", "expected"), [("correct", [0, 1, 1]), ("prefix", [0, 1 / 3, 1])]
)
def test_a_reward_ends_at_the_first_mistake(reward, expected):
    task = gradest.make_task("verifiable_reward", pass_rates=[0.5], reward=reward)
    logits, f = task.problem()
    z = all_codes(logits)
    (answer,) = (z[n] for n in (f(z.unsqueeze(0))[0] == 0).nonzero().flatten().tolist())
    right = answer.argmax(-1).tolist()
    late = [right[0], right[1], (right[2] + 1) % 4]
    early = [(right[0] + 1) % 4, right[1], right[2]]
    cost = f(code(right, late, early, categories=4))[0].tolist()
    assert cost == pytest.approx(expected, abs=1e-12)
