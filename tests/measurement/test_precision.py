"""How many replicates a precision takes: planned beforehand, within the budget, told afterwards."""

import re

import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Precision
from gradest.categorical import gumbel_max
from gradest.cli import main
from gradest.errors import SuiteError
from gradest.measurement import measurement, precision
from gradest.measurement.precision import plan_replicates, shortfall
from gradest.measurement.replicator import Replicator
from gradest.measurement.truth import exact_truth
from gradest.plugins.registry import Registry
from gradest.randomness import Draws, drawing_from
from gradest.runs.suite import load_suite
from tests.support import LEVEL

PILOT = 4096


def drawn(asked: Precision | None, name: str = "concrete", **options):
    task = gradest.make_task("bernoulli")
    options = {"adapt_steps": 0, **options}
    return gradest.measure(gradest.make_estimator(name), task, precision=asked, **options)


@pytest.fixture
def asked_for(monkeypatch):
    """What `plan_replicates` asks of the intervals: [(pilot, what else)], answered by `needs`."""
    seen, answers = [], [5000]

    def replicates_needed(pilot, exact, weight, peak, **rest):
        seen.append({"pilot": pilot, "exact": exact, "weight": weight, "peak": peak, **rest})
        return answers[-1]

    monkeypatch.setattr(precision, "replicates_needed", replicates_needed)

    class Asked:
        calls = seen

        @staticmethod
        def answer(number):
            answers.append(number)

    return Asked


@pytest.mark.parametrize(
    ("needed", "limits", "replicates"),
    [
        (5000, {}, 5000),
        (700, {}, 700),
        (3, {}, 512),  # never fewer than give as many batches as were planned with
        (5000, {"max_replicates": 700}, 700),
        (5000, {"max_replicates": 64}, 64),
        (5000, {"max_replicates": 10**9, "max_seconds": 1e-9}, 64),
        (600, {"max_seconds": 1e6}, 600),
    ],
)
def test_as_many_as_are_needed_within_the_budget(needed, limits, replicates, asked_for):
    asked_for.answer(needed)
    found = drawn(Precision(variance=0.1, **limits))
    assert found.replicates == found.row()["replicates"] == replicates
    assert float(found.objective.count.sum()) == replicates


def test_the_plan_knows_the_pilot_and_the_truth_alone(asked_for):
    found = drawn(Precision(variance=0.3, bias=0.2))
    (call,) = asked_for.calls
    assert (call["variance"], call["bias"], call["reference"]) == (0.3, 0.2, None)
    assert float(call["pilot"].count.sum()) == PILOT
    assert torch.equal(call["exact"], found.exact.flatten())
    assert torch.equal(call["weight"], torch.ones(6, dtype=torch.float64))
    assert 0 < call["peak"] <= found.truth.spread  # of the estimates that the pilot saw


def test_a_small_budget_makes_a_small_pilot(asked_for):
    drawn(Precision(variance=0.3, max_replicates=100))
    assert float(asked_for.calls[0]["pilot"].count.sum()) == 100


class Tagged(Estimator):
    """Continuous, so that no estimate comes twice; keeps them all."""

    name = "tagged"

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        logits.register_hook(lambda g: self.seen.append(g.detach().flatten(1).clone()))
        return f(gumbel_max(logits)[1].softmax(-1))


def test_the_draws_of_the_pilot_are_not_used_again(asked_for):
    """The measurement counts fresh estimates alone, so that given the plan it is of fixed size."""
    asked_for.answer(600)
    estimator = Tagged()
    found = gradest.measure(
        estimator,
        gradest.make_task("bernoulli"),
        precision=Precision(variance=0.1, max_replicates=2000),
    )
    rows = torch.cat(estimator.seen)
    measured, before = rows[-600:], rows[:-600]
    assert len(before) >= 2000
    assert torch.allclose(found.mean.flatten(), measured.mean(0), rtol=0, atol=1e-12)
    assert torch.allclose(found.variance.flatten(), measured.var(0), rtol=1e-9, atol=0)
    again = {tuple(row) for row in before.tolist()} & {tuple(row) for row in measured.tolist()}
    assert not again
    pilot = asked_for.calls[0]["pilot"].pooled
    assert not torch.allclose(pilot.mean[0], measured.mean(0), rtol=0, atol=1e-6)


def test_other_draws_to_be_measured_change_no_plan(monkeypatch):
    """The plan is made before them."""
    task, estimator = gradest.make_task("bernoulli"), gradest.make_estimator("concrete")
    asked = Precision(variance=0.05, max_replicates=20_000)
    plain = gradest.measure(estimator, task, precision=asked)

    def then_reseeded(*arguments):
        number = plan_replicates(*arguments)
        source = gradest.randomness.draws()
        source.generator.manual_seed(123)
        return number

    monkeypatch.setattr(measurement, "plan_replicates", then_reseeded)
    other = gradest.measure(estimator, task, precision=asked)
    assert other.replicates == plain.replicates
    assert not torch.equal(other.mean, plain.mean)


def test_numbers_are_reproducible():
    asked = Precision(variance=0.1, max_replicates=20_000)
    first, again, other = (drawn(asked, seed=seed) for seed in (0, 0, 1))
    assert first.replicates == again.replicates
    assert torch.equal(first.mean, again.mean) and torch.equal(first.variance, again.variance)
    assert not torch.equal(first.mean, other.mean)


def test_the_precision_asked_for_is_reached_most_of_the_time():
    """Half-widths of a planned size scatter about what was planned for."""
    asked, name = Precision(variance=0.1, max_replicates=200_000), "reinforce"
    rows = [drawn(asked, name, enumerate_draws=False, seed=s).row() for s in range(10)]
    assert all(row["replicates"] < 200_000 for row in rows)
    reached = sum(row["variance_high"] / row["variance"] - 1 <= 0.1 for row in rows)
    assert reached >= 8
    assert all(row["variance_high"] / row["variance"] - 1 <= 0.15 for row in rows)


def test_an_unbiased_estimator_stays_unbiased_under_a_plan():
    """Optional stopping would show: the mean of twenty measurements against the truth."""
    asked = Precision(variance=0.2, max_replicates=5000)
    z = []
    for seed in range(20):
        found = drawn(asked, "reinforce", enumerate_draws=False, seed=seed)
        z.append(((found.mean - found.exact) / found.standard_error).flatten())
    z = torch.stack(z)  # [20, 6]
    total = z.sum(0) / 20**0.5
    assert total.abs().max() <= stats.norm.isf(LEVEL / (2 * 6))
    assert 0.6 <= float(z.std()) <= 1.5


def test_what_is_enumerated_needs_no_plan(asked_for):
    found = drawn(Precision(variance=1e-9, bias=1e-9), "reinforce")
    assert found.method == "enumerated" and found.replicates == 0
    assert not asked_for.calls
    assert found.precision == Precision(variance=1e-9, bias=1e-9)


def test_the_plan_counts_the_noise_of_a_reference(asked_for):
    task = gradest.make_task("bernoulli")
    with drawing_from(Draws.seeded(0)):
        replicator = Replicator(gradest.make_estimator("concrete"), task)
        truth = exact_truth(replicator, {})
        noise = replicator.moments(64, 64)
        plan_replicates(
            Precision(bias=0.1),
            replicator,
            64,
            truth._replace(noise={"log_alpha": noise}),
        )
    assert asked_for.calls[0]["reference"] is noise
    with drawing_from(Draws.seeded(0)):
        plan_replicates(Precision(variance=0.1), replicator, 64, None)
    assert asked_for.calls[1]["exact"] is None and asked_for.calls[1]["bias"] is None


# what is told


@pytest.mark.parametrize(
    ("asked", "row", "told"),
    [
        (None, {}, ""),
        ({"variance": 0.1}, {"variance_precision": 0.1}, "reached"),
        (
            {"variance": 0.1},
            {"variance_precision": 0.1234},
            "variance within 12.3 % instead of 10 %",
        ),
        ({"bias": 0.005}, {"bias_precision": 0.004, "variance_precision": 9}, "reached"),
        (
            {"variance": 0.02, "bias": 0.005},
            {"variance_precision": 0.5, "bias_precision": 0.0061},
            "variance within 50 % instead of 2 %, "
            "bias within 0.61 % of max(‖g‖, ‖bias‖) instead of 0.5 %",
        ),
        (
            {"variance": 0.02, "bias": 0.005},
            {"variance_precision": 0.01, "bias_precision": 0.25},
            "bias within 25 % of max(‖g‖, ‖bias‖) instead of 0.5 %",
        ),
        ({"bias": 0.005}, {"bias_precision": float("nan")}, "reached"),  # no truth
    ],
)
def test_the_shortfall_says_what_was_missed_and_by_how_much(asked, row, told):
    assert shortfall(None if asked is None else Precision(**asked), row) == told


def test_the_row_of_a_budget_that_was_too_small_says_so():
    row = drawn(Precision(variance=0.001, max_replicates=500)).row()
    assert re.fullmatch(r"variance within \d+\.\d+ % instead of 0\.1 %", row["precision"])
    assert drawn(None, replicates=500).row()["precision"] == ""
    assert drawn(Precision(variance=0.9)).row()["precision"] == "reached"


@pytest.mark.parametrize(
    "bad",
    [
        {"variance": 0},
        {"variance": -0.1},
        {"variance": float("nan")},
        {"bias": "0.1"},
        {"max_replicates": 31},
        {"max_replicates": 100.5},
        {"max_seconds": 0},
        {},
        {"max_replicates": 1000},
        {"max_seconds": 1.0},
        {"varience": 0.1},
    ],
)
def test_a_precision_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValidationError):
        Precision(**bad)


# suites and the command line


SUITE = """\
timed: false
tasks: [bernoulli]
estimators: [concrete]
precision: {variance: 0.2, max_replicates: 400}
"""


@pytest.fixture
def load(tmp_path):
    def load(text, **overrides):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return load_suite(str(path), Registry.load(), **overrides)

    return load


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("precision: {variance: 0}", r"precision.variance = 0: .*greater than 0"),
        ("precision: {variance: x}", r"precision.variance = 'x'"),
        ("precision: {varience: 0.1}", "unknown key 'varience'"),
        ("precision: {max_replicates: 63}", r"max_replicates = 63: .*64"),
        ("precision: {max_seconds: -1}", "max_seconds = -1"),
        ("precision: 0.1", r"precision = 0.1"),
        ("replicates: [64]", "expected either replicates or precision, got both"),
        ("precision: {max_replicates: 1000}", "expected a target, variance or bias"),
        ("precision: {}", "expected a target, variance or bias"),
        ("reference: {standard_error: 0}", "reference.standard_error = 0"),
        ("reference: {max_evaluations: 1.5}", "max_evaluations = 1.5"),
        ("reference: {error: 1}", "unknown key 'error'"),
        ("enumerate_draws: maybe", "enumerate_draws = 'maybe'"),
        ("nonfinite: ignore", "nonfinite = 'ignore'"),
        ("timed: 3", "timed = 3"),
        ("dtype: [float64, float8]", "dtype.*'float8'"),
        ("dtype: []", "dtype"),
        ("nested: [target]", "nested"),
        ("nested: [target, thet]", "no task of this suite has the knob 'thet'; did you mean"),
        ("nested: [target, target]", "the knob 'target' is listed twice"),
        (
            "nested: [theta, target]",
            "at least 3 values of the outermost knob 'theta' in bernoulli, got 1",
        ),
    ],
)
def test_what_a_suite_cannot_mean_is_named_with_file_and_line(line, message, load):
    key = line.partition(":")[0]
    lines = [each for each in SUITE.splitlines() if not each.startswith(f"{key}:")]
    text = "\n".join([*lines, line]) + "\n"
    with pytest.raises(SuiteError, match=message) as caught:
        load(text)
    where, _, said = str(caught.value).partition(": ")
    assert where.endswith(f"mine.yaml:{len(lines) + 1}"), caught.value
    assert "\n" not in said


def test_the_line_of_an_inner_key_is_its_own(load):
    text = "precision:\n  variance: 0.1\n  bias: none\n" + SUITE.rpartition("precision")[0]
    with pytest.raises(SuiteError, match=r"mine.yaml:3: precision.bias = 'none'"):
        load(text)


def test_a_precision_takes_the_place_of_replicates(load):
    plain = load(SUITE)
    assert [(c.replicates, c.precision["variance"]) for c in plain.cells] == [(None, 0.2)]
    by_number = load(SUITE, replicates=64)
    assert [(c.replicates, c.precision) for c in by_number.cells] == [(64, None)]
    other = load(SUITE, precision=Precision(bias=0.1))
    assert [c.precision["bias"] for c in other.cells] == [0.1]
    assert other.cells[0].key != plain.cells[0].key


def test_dtypes_are_a_grid_and_settings_reach_the_cells(load):
    text = SUITE + "dtype: [float64, float16]\nenumerate_draws: false\nnonfinite: count\n"
    cells = load(text).cells
    assert [c.dtype for c in cells] == ["float64", "float16"]
    assert all(c.enumerate_draws is False and c.tolerant for c in cells)
    plain = load(SUITE).cells[0]
    assert plain.dtype == "float64" and plain.enumerate_draws is None and not plain.tolerant


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command line in an empty folder: exit status, standard output and error."""

    def call(*arguments):
        monkeypatch.chdir(tmp_path)
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("variance=x", "variance: input should be a valid number"),
        ("variance=0", "variance: input should be greater than 0"),
        ("variance=-1,bias=0.1", "variance: input should be greater than 0"),
        ("varience=0.1", "unknown key 'varience'; available: variance"),
        ("max_replicates=3", "max_replicates: input should be greater than or equal to 64"),
        ("variance", "variance: input should be a valid number"),
        ("", "available: variance, bias, max_replicates, max_seconds"),
        ("0.1", "available: variance, bias, max_replicates, max_seconds"),
        ("variance=0.1,variance=0.2", "expected each key at most once, got 'variance' twice"),
        (
            "max_replicates=1000",
            "--precision: expected a target, variance or bias; available",
        ),
    ],
)
def test_a_bad_precision_is_one_line_and_exit_status_2(text, told, call, tmp_path):
    status, out, err = call("--suite", "smoke", "--precision", text)
    assert (status, out) == (2, "")
    assert told in err and err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_number_and_a_precision_exclude_each_other(call):
    status, _, err = call("--suite", "smoke", "--replicates", 64, "--precision", "variance=0.1")
    assert status == 2 and "not allowed with argument" in err and err.count("\n") == 1


def test_the_command_line_plans_and_tells(call, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(SUITE)
    options = ("--suite", "mine.yaml", "--out", "out", "--jobs", 1)
    status, out, _ = call(*options, "--precision", "variance=0.0001,max_replicates=64")
    assert status == 0 and "1 ok" in out
    rows = pd.read_parquet(tmp_path / "out" / "measurements.parquet")
    assert set(rows.replicates) == {64}
    assert rows.precision.str.contains("instead of 0.01 %").all()
    status, _, _ = call(*options)
    assert status == 0
    rows = pd.read_parquet(tmp_path / "out" / "measurements.parquet")
    assert set(rows.replicates) == {400}
    call(*options, "--replicates", 70)
    rows = pd.read_parquet(tmp_path / "out" / "measurements.parquet")
    assert set(rows.replicates) == {70}
    assert rows.precision.eq("").all() or rows.precision.isna().all()
