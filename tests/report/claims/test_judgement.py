"""Verdicts on claims: sixteen with known answers, and the pieces of a judgement by hand."""

import math
import shutil

import pandas as pd
import pytest
from scipy import stats

from gradest.cli import main
from gradest.report.claims.evaluation import Value, evaluate, evidence, metric
from gradest.report.claims.judgement import REFUTED, REPRODUCED, UNDECIDED, judge
from gradest.report.frames.loading import load_run
from gradest.runs.claims import parse_claim
from gradest.statistics import Interval

SUITE = """
replicates: {replicates}
timed: false
parameters: [log_alpha]
tasks:
  - bernoulli: {{theta: [0.25], target: 0.49}}
  - categorical
estimators: [exact, reinforce, {{rloo: {{samples: [2, 4]}}}}, arm, disarm, straight_through,
  reinmax, st_gumbel_softmax]
claims:
{claims}
"""

# In closed form for one bit with p = 0.25 and f = (b − 0.49)², with respect to the logit: the
# gradient g = (0.51² − 0.49²) p (1 − p) = 0.00375; log α has its square twice.
G = 0.02 * 0.25 * 0.75
TRUE = [
    f"gradient_norm(exact) == {math.sqrt(2) * G!r} +- 0.01%",
    "variance(disarm) < variance(arm)",
    "variance(disarm) < 0.95 * variance(arm)",
    "variance(rloo, samples=4) < variance(rloo, samples=2)",
    "relative_bias(reinmax) == 0",
    "variance(rloo, samples=2) == variance(rloo, samples=2)",
    "cosine(exact) == 1",
    "evaluations(disarm) == 2",
]
FALSE = [
    f"gradient_norm(exact) == {1.02 * math.sqrt(2) * G!r} +- 0.5%",
    "variance(arm) <= variance(disarm)",
    "variance(rloo, samples=2) <= variance(rloo, samples=4)",
    "variance(rloo, samples=2) == 1.02 * variance(rloo, samples=2) +- 1%",
    "relative_bias(st_gumbel_softmax) == 0",
    "variance(exact) > 0",
    "variance(reinforce) == 1.0001 * variance(reinforce)",
    "evaluations(disarm) < 2",
]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Runs claims and returns the rows of claims.csv."""
    folder = tmp_path_factory.mktemp("claims")

    def verdicts(claims, replicates=4000, *options):
        entries = [f"  - holds: '{text}'\n    on: [bernoulli]" for text in claims]
        (folder / "mine.yaml").write_text(
            SUITE.format(replicates=replicates, claims="\n".join(entries))
        )
        out = folder / str(replicates)
        command = ["--suite", str(folder / "mine.yaml"), "--out", str(out), "--jobs", "1"]
        status = main([*command, "--quiet", *options])
        return status, pd.read_csv(out / "claims.csv"), load_run(out)

    return verdicts


def test_eight_true_and_eight_false_claims_get_their_verdicts(verdicts) -> None:
    status, table, _ = verdicts(TRUE + FALSE)
    assert status == 0
    assert table["holds"].tolist() == TRUE + FALSE
    assert table["verdict"].tolist() == [REPRODUCED] * 8 + [REFUTED] * 8
    assert list(table) == [
        *("holds", "on", "says", "source", "published", "measured", "low", "high", "verdict"),
    ]
    status, _, _ = verdicts(TRUE + FALSE, 4000, "--fail-on-refuted")
    assert status == 1


@pytest.mark.slow
def test_noise_is_called_noise_and_more_replicates_settle_it(verdicts) -> None:
    """The variance of ARM on this bit is 1.09 × DisARM's or more: 64 replicates cannot show it."""
    claims = ["variance(arm) == 1.30 * variance(disarm) +- 12%"]
    _, few, _ = verdicts(claims, 64)
    assert few["verdict"].tolist() == [UNDECIDED]
    _, more, run = verdicts(claims, 100_000)
    (row,) = more.to_dict("records")
    rows = run.frame.set_index(["estimator", "task"])["variance"]
    ratio = rows["arm", "bernoulli"] / rows["disarm", "bernoulli"]
    assert row["measured"] == pytest.approx(ratio, rel=1e-12)
    assert row["verdict"] == (REPRODUCED if abs(ratio / 1.30 - 1) < 0.12 else REFUTED)


def test_an_equality_without_a_tolerance_cannot_be_shown_by_replicates(verdicts) -> None:
    _, table, run = verdicts(["relative_bias(arm) == 0"], 4000)
    assert table["verdict"].tolist() == [UNDECIDED]
    (judgement,) = judge(run)
    assert judgement.decisive.refuted == pytest.approx(
        run.frame.set_index(["estimator", "task"])["p_value"]["arm", "bernoulli"]
    )


def value(estimate, low, high, freedom=math.inf) -> Value:
    return Value(Interval(estimate, low, high), freedom)


def test_evidence_is_a_t_test_by_the_end_that_faces_the_bound() -> None:
    """Asymmetric ends: 2 has the standard error 0.5 below and 1 above it."""
    steps = stats.t.isf(0.025, 7)
    both = evidence(value(2.0, 2 - 0.5 * steps, 2 + steps, 7), 3.0, False)
    assert both.below == pytest.approx(stats.t.sf(1.0, 7))
    assert both.above == pytest.approx(stats.t.sf(-1.0 / 0.5, 7))


def test_a_ratio_is_compared_by_its_logarithm() -> None:
    reach = math.exp(stats.norm.isf(0.025) * 0.1)
    both = evidence(value(2.0, 2 / reach, 2 * reach), 2 * math.exp(0.2), True)
    assert both.below == pytest.approx(stats.norm.sf(2.0))


def test_exact_numbers_are_compared_up_to_their_rounding() -> None:
    exact = Value(Interval.exactly(1.0), rounding=1e-9)
    assert evidence(exact, 1.0 + 1e-12, False) == (1.0, 1.0)
    assert evidence(exact, 1.1, False) == (0.0, 1.0)
    assert evidence(exact, 0.9, False) == (1.0, 0.0)


def test_a_small_bias_is_shown_to_be_within_a_tolerance_of_zero(verdicts) -> None:
    """A length cannot be below zero, where its interval ends."""
    _, table, _ = verdicts(
        ["relative_bias(disarm) == 0 +- 0.1", "relative_bias(disarm) == 0.2 +- 0.05"], 20_000
    )
    assert table["low"].eq(0).all() and table["high"].lt(0.1).all()
    assert table["verdict"].tolist() == [REPRODUCED, REFUTED]


def test_a_bias_that_may_be_zero_is_compared_by_the_difference(verdicts) -> None:
    """There is no ratio of an interval that begins at zero."""
    holds = ["relative_bias(disarm) < relative_bias(st_gumbel_softmax)"]
    _, table, _ = verdicts(
        [*holds, "relative_bias(disarm) > relative_bias(st_gumbel_softmax)"], 20_000
    )
    assert table["verdict"].tolist() == [REPRODUCED, REFUTED]
    assert table["measured"].lt(0).all() and table["published"].eq(0).all()


def test_arithmetic_of_expressions() -> None:
    known = {"a": value(6.0, 5.0, 8.0), "b": value(2.0, 1.0, 2.5)}

    def interval(text):
        claim = parse_claim(f"{text} < 100")
        read = evaluate(claim.left, pd.DataFrame(), lambda q, rows: known[q.estimator])
        return read.interval.ends

    assert interval("2 * value(a)") == (12, 10, 16)
    assert interval("value(a) * -1") == (-6, -8, -5)
    assert interval("value(a) / 2") == (3, 2.5, 4)
    total, low, high = interval("value(a) + value(b)")
    assert total == 8 and total - low == pytest.approx(math.hypot(1, 1))
    assert high - total == pytest.approx(math.hypot(2, 0.5))
    difference, low, _ = interval("value(a) - value(b)")
    assert difference == 4 and difference - low == pytest.approx(math.hypot(1, 0.5))
    shifted, low, high = interval("value(a) + 1")
    assert (shifted, low, high) == (7, 6, 9)


@pytest.mark.slow
def test_a_comparison_says_whose_verdict_changed(tmp_path, capsys) -> None:
    """A claim that is refuted now is a regression; one that is reproduced now is not."""
    claims = ["variance(disarm) <= variance(arm)", "cosine(exact) == 1", "evaluations(arm) == 3"]
    now = tmp_path / "now"
    main(["--suite", str(_file(tmp_path, claims)), "--out", str(now), "--jobs", "1", "--quiet"])
    before = tmp_path / "before"
    shutil.copytree(now, before)
    table = pd.read_csv(now / "claims.csv")
    assert table["verdict"].tolist() == [REPRODUCED, REPRODUCED, REFUTED]
    changed = table.assign(verdict=[REPRODUCED, REFUTED, REPRODUCED])
    changed.to_csv(before / "claims.csv", index=False)
    capsys.readouterr()
    command = ["--report", str(before), str(now), "--out", str(tmp_path / "both")]
    assert main([*command, "--fail-on-regression"]) == 1
    told = capsys.readouterr().out
    assert "worse: evaluations(arm) == 3 on bernoulli: reproduced, now refuted" in told
    assert "1 regression" in told
    text = (tmp_path / "both" / "comparison.md").read_text(encoding="utf-8")
    assert "Claims with the same verdict in both runs: 1 of 3" in text


def _file(folder, claims):
    entries = "\n".join(f"  - holds: '{text}'\n    on: [bernoulli]" for text in claims)
    path = folder / "again.yaml"
    path.write_text(SUITE.format(replicates=500, claims=entries))
    return path


def test_a_metric_of_trainings_is_that_of_the_best_learning_rate_unless_one_is_named() -> None:
    """The first rate is the worse one by the validation data, and has other test values."""
    cell = {"task_label": "toy", "label": "rloo", "estimator": "rloo", "estimator_params": "{}"}
    points = [
        cell
        | {"learning_rate": rate, "seed": seed, "step": 10, "status": "ok"}
        | {"split": split, "metric": name, "value": value, "low": value, "high": value}
        for rate, loss in ((0.1, 9.0), (0.01, 5.0))
        for seed in (0, 1)
        for split, name, value in (
            ("valid", "negative_elbo", loss),
            ("test", "negative_bound", loss + seed),
        )
    ]
    for text, expected in (
        ("negative_bound(rloo)", 5.5),
        ("negative_bound(rloo, learning_rate=0.1)", 9.5),
    ):
        claim = parse_claim(f"{text} < 100")
        assert metric(claim.left, pd.DataFrame(points)).interval.estimate == expected
