"""Formulas of claims: what they give, what they refuse, how they are shown."""

import pytest

import gradest
from gradest.checks.problems import battery
from gradest.contracts import inapplicable
from gradest.errors import KnobError, PluginError
from gradest.knobs import build, knob_defaults
from gradest.measurement.replicator import Replicator
from gradest.plugins import formula
from gradest.randomness import Draws, drawing_from

SIZES = {"N": 3, "K": 4, "m": 2, "samples": 5}


@pytest.mark.parametrize(
    ("text", "value", "notation"),
    [
        ("1", 1, "1"),
        ("samples", 5, "samples"),
        ("m * samples", 10, "m samples"),
        ("1 + N * (K - 1)", 10, "1 + N (K − 1)"),
        ("samples * (1 + N * (K - 1))", 50, "samples (1 + N (K − 1))"),
        ("1 + K * (K - 1) / 2", 7, "1 + K (K − 1)/2"),
        ("2 * N * K", 24, "2 N K"),
        ("K ** N", 64, "K^N"),
        ("min(samples + 1, K ** N)", 6, "min(samples + 1, K^N)"),
        ("min(K ** N, N, 9)", 3, "min(K^N, N, 9)"),
        ("K - (N - 1)", 2, "K − (N − 1)"),
        ("K - N - 1", 0, "K − N − 1"),
        ("K * (N * 2)", 24, "K (N × 2)"),
        ("K / (2 * 2)", 1, "K/(2 × 2)"),
        ("K ** (N + 1)", 256, "K^(N + 1)"),
        ("(K ** N) ** 2", 4096, "(K^N)^2"),
        ("2 ** 2 ** N", 256, "2^2^N"),
        ("K / 3 * N", 4, "K/3 N"),  # exactly: in floating point it need not be whole
    ],
)
def test_a_formula_is_computed_exactly_and_written_as_mathematics(text, value, notation):
    assert formula.value(text, SIZES, "Mine") == value
    assert formula.notation(text, "Mine") == notation


@pytest.mark.parametrize(
    "text",
    [
        *("", "N +", "N; K", "-N", "N % 2", "N // 2", "1.5 * N", "True", "'1'", "N if K else 1"),
        *(
            "max(N, K)",
            "min(N)",
            "min",
            "min(*N, K)",
            "min(N, K, key=K)",
            "N.real",
            "N[0]",
            "N < K",
        ),
        *("__import__('os').getcwd()", "(lambda: 1)()", "(N := 2)", "[1]", 3, None),
    ],
)
def test_anything_else_is_refused_with_class_and_formula(text):
    for refuse in (
        lambda: formula.value(text, SIZES, "Mine"),
        lambda: formula.notation(text, "Mine"),
        lambda: formula.examine(text, ["samples"], "Mine"),
    ):
        with pytest.raises(PluginError) as error:
            refuse()
        assert "Mine" in str(error.value) and repr(text) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "values", "why"),
    [
        ("K / 3", {"K": 4}, "expected an integer, got 4/3"),
        ("1 / (K - 4)", {"K": 4}, "ZeroDivisionError"),
        ("2 ** (1 / K)", {"K": 4}, "expected an integer, got 1.18"),
        ("samples", {"K": 4}, "samples"),
        ("gap", {"gap": "adaptive"}, "expected a number for gap, got 'adaptive'"),
        ("tuned", {"tuned": True}, "expected a number for tuned, got True"),
    ],
)
def test_a_result_that_is_not_an_integer_is_refused(text, values, why):
    with pytest.raises(PluginError, match="Mine") as error:
        formula.value(text, values, "Mine")
    assert why in str(error.value)


def test_an_unknown_name_is_found_before_anything_is_computed():
    formula.examine("min(samples, K ** N)", ["samples"], "Mine")
    with pytest.raises(PluginError, match="unknown name 'sample'; available: K, N, m, samples"):
        formula.examine("sample", ["samples"], "Mine")


@pytest.mark.parametrize("name", sorted(gradest.all_estimators()))
def test_the_claimed_evaluations_follow_the_knobs(name):
    """The battery asks with the defaults, where 2 and `samples` may be the same."""
    cls = gradest.all_estimators()[name]
    assert cls.evaluations
    counted = 0
    for knob, default in [(None, None), *knob_defaults(cls).items()]:
        if knob is not None and type(default) is not int:
            continue
        for step in (1, 30):
            try:
                estimator = build(cls, {} if knob is None else {knob: default + step})
            except KnobError:
                continue
            for task in battery(cls):
                problem = task.problem()
                if inapplicable(estimator, task, problem):
                    continue
                with drawing_from(Draws.seeded(0)):
                    replicator = Replicator(estimator, task)
                    replicator(2)
                _, latents, categories = problem.logits.shape
                sizes = {"N": latents, "K": categories, "m": problem.f.samples}
                claimed = formula.value(cls.evaluations, estimator.knobs | sizes, name)
                assert claimed == replicator.evaluations, (task.name, knob, step)
                counted += 1
    assert counted
