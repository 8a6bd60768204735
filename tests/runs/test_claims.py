"""The language of claims: what it reads, and a line about everything that it refuses."""

import pytest

from gradest.errors import SuiteError
from gradest.plugins.registry import Registry
from gradest.runs.claims import (
    ClaimError,
    Median,
    Operation,
    Quantity,
    Share,
    Tolerance,
    parse_claim,
    refuse_mixture,
)
from gradest.runs.suite import load_suite


def test_a_relation_of_two_quantities_is_read_with_its_knobs() -> None:
    claim = parse_claim("variance(rloo, samples=2) <= 0.5 * variance(reinforce)")
    assert claim.symbol == "<=" and claim.tolerance is None
    assert claim.left == Quantity("variance", "rloo", {"samples": 2})
    assert isinstance(claim.right, Operation) and claim.right.symbol == "*"
    assert [str(q) for q in claim.quantities()] == [
        "variance(rloo, samples=2)",
        "variance(reinforce)",
    ]


@pytest.mark.parametrize(
    ("text", "size", "relative"),
    [
        ("variance(rloo) == 7.275e-3 +- 1%", 0.01, True),
        ("variance(rloo) == 7.275e-3 ± 2.5 %", 0.025, True),
        ("bias(rloo) == 0 +- 1e-3", 1e-3, False),
    ],
)
def test_a_tolerance_is_a_number_or_a_percentage(text: str, size: float, relative: bool) -> None:
    assert parse_claim(text).tolerance == Tolerance(size, relative)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("adaptive", "adaptive"), ("'adaptive'", "adaptive"), ("true", True), ("-1.5", -1.5)],
)
def test_values_of_knobs_are_written_as_in_a_suite(value: str, expected: object) -> None:
    claim = parse_claim(f"variance(mine, gap={value}) < 1")
    assert claim.left.settings == {"gap": expected}


def test_numbers_alone_are_computed() -> None:
    assert parse_claim("variance(rloo) <= 2 / 4 + 1").right.value == 1.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot parse"),
        ("variance(rloo", "cannot parse"),
        ("variance(rloo)", "expected a comparison"),
        ("1 <= variance(rloo) <= 2", "expected one comparison, got 2"),
        ("variance(rloo) != 1", "expected a comparison by <=, <, >=, > or =="),
        ("variance(rloo) is 1", "expected a comparison by <=, <, >=, > or =="),
        ("1 < 2", "expected a quantity such as variance"),
        ("varianse(rloo) < 1", "unknown quantity 'varianse'; did you mean 'variance'"),
        ("__import__('os').system('x') < 1", "unknown quantity"),
        ("(lambda: 1)() < 1", "unknown quantity"),
        ("variance('rloo') < 1", "expected the name of one estimator"),
        ("variance(rloo, arm) < 1", "expected the name of one estimator"),
        ("variance() < 1", "expected the name of one estimator, got nothing"),
        ("variance(rloo, **{}) < 1", "expected settings as knob=value"),
        ("variance(rloo, samples=f(1)) < 1", "samples: expected a plain value"),
        ("bias(rloo) < variance(arm)", "have different units and cannot be compared"),
        ("variance(rloo) + bias(arm) < 1", "have different units and cannot be added"),
        ("work_variance(rloo) < variance(arm)", "have different units"),
        ("variance(rloo) * variance(arm) < 1", "got two quantities"),
        ("1 / variance(rloo) < 1", "expected a quantity in the numerator"),
        ("variance(rloo) / 0 < 1", "expected a denominator that is not 0"),
        ("variance(rloo) ** 2 < 1", "expected a number, a quantity"),
        ("variance(rloo) < True", "expected a number, a quantity"),
        ("variance(rloo) < 1e999", "expected a finite number"),
        ("variance(rloo) < 1 +- 1%", "a tolerance is allowed only with ==, got one with <"),
        ("variance(rloo) == 1 +- 0%", "expected a positive tolerance"),
        ("variance(rloo) == 1 +- -1%", "expected a positive tolerance"),
        ("variance(rloo) == 1 +- much", "expected a positive tolerance"),
        ("variance(rloo) == 1 +- nan", "expected a positive tolerance"),
        ("variance(rloo) == 1 +- 150%", "expected a tolerance below 100 %"),
        ("bias(rloo) == 0 +- 1%", "a percentage of 0 is 0"),
        ("(" * 400 + "1" + ")" * 400 + " < variance(rloo)", "cannot parse"),
        ("variance(rloo) < 1" + " " * 1000, "expected at most 1,000 characters"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(ClaimError) as error:
        parse_claim(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("holds: variance(rlo) < 1", "'rlo' is not an estimator of this suite; did you mean"),
        ("holds: variance(arm) < 1", "'arm' is not an estimator of this suite"),
        ("holds: variance(rloo) < 1", "does not identify one estimator"),
        ("holds: 'variance(rloo, samples=5) < 1'", "is not in this suite, which has samples"),
        ("holds: 'variance(rloo, sample=2) < 1'", "rloo has no knob 'sample'; did you mean"),
        ("holds: bias(exact) < variance(exact)", "different units"),
        ("holds: negative_elbo(exact) < 1", "not known in a suite that measures gradients"),
        ("holds: variance(exact) < 1\n    on: [bernouli]", "'bernouli' is not a task of this"),
        ("holds: variance(exact) < 1\n    on: [{bernoulli: {t: 1}}]", "bernoulli has no knob 't'"),
        ("holds: variance(exact) < 1\n    parameter: beta", "'beta' is not a parameter"),
        ("hold: variance(exact) < 1", "unknown key 'hold'; did you mean 'holds'"),
        ("says: nothing", "the key 'holds' is missing"),
    ],
)
def test_a_bad_claim_of_a_suite_is_named_with_its_line(tmp_path, entry: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "tasks: [bernoulli]\nestimators: [exact, {rloo: {samples: [2, 3]}}]\nclaims:\n"
        f"  - {entry}\n"
    )
    with pytest.raises(SuiteError) as error:
        load_suite(str(path), Registry.load([]))
    line = 5 if "\n" in entry else 4
    assert str(error.value).startswith(f"{path}:{line}: ") or "missing" in message
    assert message in str(error.value) and "\n" not in str(error.value)


def test_shares_and_medians_are_over_the_seeds_of_a_metric() -> None:
    claim = parse_claim("share(0.1 > probability(relax, step=50, width=3)) >= 0.9")
    metric = Quantity("probability", "relax", {"step": 50, "width": 3}, trained=True)
    assert claim.left == Share(metric, "<", 0.1)
    assert metric.options == {"step": 50} and metric.knobs == {"width": 3}
    claim = parse_claim("median(log_variance(relax)) - median(log_variance(rebar)) <= -5")
    assert [str(q) for q in claim.quantities()] == ["log_variance(relax)", "log_variance(rebar)"]
    assert claim.left.left == Median(Quantity("log_variance", "relax", {}, trained=True))


def test_a_name_that_measurements_have_too_is_a_metric_in_a_suite_that_trains() -> None:
    text = "value(relax, learning_rate=0.1, step=5) < 1"
    measured, trained = (parse_claim(text, each).left for each in (False, True))
    assert measured.knobs == {"learning_rate": 0.1, "step": 5} and measured.options == {}
    assert trained.options == {"learning_rate": 0.1, "step": 5} and trained.knobs == {}
    refuse_mixture([measured])
    with pytest.raises(ClaimError, match="over the seeds of training runs"):
        refuse_mixture(parse_claim("median(value(relax)) < 1").quantities())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("share(probability(relax)) < 1", "share: expected a form such as share(probability"),
        ("share(probability(relax) == 1) < 1", "share: expected a form such as"),
        ("share(0.1 < probability(relax) < 1) < 1", "share: expected a form such as"),
        ("share(probability(a) < probability(b)) < 1", "share: expected a form such as"),
        ("share(probability(a) < 1, 2) < 1", "share: expected a form such as"),
        ("share(2 * probability(a) < 1) < 1", "share: expected a form such as"),
        ("median(log_variance(a) < 1) < 1", "expected a number, a quantity"),
        ("median(3) < 1", "median: expected a form such as median(log_variance"),
        ("median(gap(a), step=3) < 1", "median: expected a form such as"),
        ("median(value(a)) < share(value(a) < 1)", "have different units"),
    ],
)
def test_a_bad_statement_about_seeds_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(ClaimError) as error:
        parse_claim(text)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "holds", "message"),
    [
        ("bernoulli", "negative_elbo(exact) < 1", "in a suite that descends; available: value"),
        ("categorical_vae", "value(exact) < 1", "in a suite that trains models; available: obj"),
        ("bernoulli", "variance(exact) < 1", "variance is not known in a suite that descends"),
        ("bernoulli", "value(exact, split=test) < 1", "exact has no knob 'split'"),
    ],
)
def test_a_metric_that_the_suite_does_not_have_is_named(
    tmp_path, task: str, holds: str, message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"training: {{steps: 1}}\ntasks: [{task}]\nestimators: [exact]\nclaims:\n"
        f"  - holds: '{holds}'\n"
    )
    with pytest.raises(SuiteError) as error:
        load_suite(str(path), Registry.load([]))
    assert str(error.value).startswith(f"{path}:5: ") and message in str(error.value)
