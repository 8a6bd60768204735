"""Several comparisons as one: the adjusted tests, the geometric mean, and the sentence."""

import math
import re

import pandas as pd
import pytest
from scipy import stats

from gradest import Comparison, Comparisons, compare, make_estimator, make_task
from gradest.errors import UsageError
from gradest.measurement.comparisons import geometric_mean
from gradest.statistics import Interval, holm


@pytest.fixture(scope="module")
def tasks():
    thetas = ([0.3, 0.8, 0.1], [0.5], [0.9, 0.2])
    return [make_task("bernoulli", theta=theta) for theta in thetas]


@pytest.fixture(scope="module")
def drawn(tasks):
    others = [make_estimator("arm"), make_estimator("rloo")]
    return compare(make_estimator("disarm"), others, tasks, replicates=2000, progress=False)


def test_one_pair_is_still_one_comparison(tasks) -> None:
    one = compare(make_estimator("rloo"), make_estimator("reinforce"), tasks[0], progress=False)
    assert isinstance(one, Comparison)


def test_each_pair_on_each_task_is_compared_as_alone(drawn, tasks) -> None:
    assert isinstance(drawn, Comparisons) and len(drawn.comparisons) == 6
    alone = compare(
        make_estimator("disarm"), make_estimator("rloo"), tasks[2], replicates=2000, progress=False
    )
    (same,) = [one for one in drawn.comparisons if (one.b, one.task) == (alone.b, alone.task)]
    assert same.variance_ratio == alone.variance_ratio


def test_all_tests_are_one_family(drawn) -> None:
    alone = []
    for one in drawn.comparisons:
        ratio = one.work_ratio
        exact = ratio.low == ratio.high
        steps = 0 if exact else abs(math.log(ratio.estimate)) / ratio.standard_error
        alone.append(math.nan if exact else 2 * stats.t.sf(steps, one.batches - 1))
    assert sum(map(math.isnan, alone)) == 2  # a single fair bit, whose variance is zero
    assert drawn.p_values == pytest.approx(holm(pd.Series(alone).to_numpy()).tolist(), nan_ok=True)
    assert drawn.frame()["p_holm"].tolist() == pytest.approx(list(drawn.p_values), nan_ok=True)


def test_the_sentence_counts_the_problems_and_leaves_zero_variances_out_of_the_mean(drawn) -> None:
    text = drawn.sentence()
    ratios = [
        one.work_ratio for one in drawn.comparisons if one.b == "arm" and one.work_ratio.estimate
    ]
    mean = math.sqrt(ratios[0].estimate * ratios[1].estimate)
    value = re.match(r"disarm has a variance ([\d.]+) \[", text)
    assert float(value[1]) == pytest.approx(mean, rel=1e-2)
    assert "at equal evaluations of f, in the geometric mean over 2 problems on which" in text
    assert "it is lower on 3 of 3 problems (Holm-corrected p <" in text
    assert text.count("disarm has a variance") == 2


def test_problems_that_differ_are_counted_apart_and_enumeration_has_no_p_value() -> None:
    """A baseline of two samples is worth its evaluations on one of these problems alone."""
    tasks = [make_task("bernoulli", theta=[0.5], target=t) for t in (0.0, 5.0)]
    both = compare(make_estimator("reinforce"), make_estimator("rloo"), tasks, progress=False)
    ratios = [one.work_ratio.estimate for one in both.comparisons]
    assert ratios[0] < 1 < ratios[1]
    text = both.sentence()
    assert "lower on 1 of 2 problems (exact, by enumeration)" in text
    assert "higher on 1 of 2 problems (exact, by enumeration)" in text
    assert "at equal work (variance × evaluations of f)" in text


def test_a_geometric_mean_adds_the_errors_of_the_logarithms() -> None:
    parts = [Interval(2.0, 1.5, 3.0, 0.3), Interval(8.0, 5.0, 9.0, 0.4)]
    mean = geometric_mean(parts, [10, 20])
    assert mean.estimate == pytest.approx(4)
    assert mean.standard_error == pytest.approx(0.25)
    reach = stats.t.isf(0.025, 9) * 0.25
    assert mean.high == pytest.approx(4 * math.exp(reach))
    assert mean.low == pytest.approx(4 * math.exp(-reach))


def test_texts_of_all_formats_hold_the_same_numbers(drawn) -> None:
    rows = [line for line in drawn.to_markdown().splitlines() if line.startswith("| bernoulli")]
    assert len(rows) == 6
    assert drawn.to_latex().count(r" \\") == 7
    assert "\\_" not in drawn.sentence() and "<table>" in drawn._repr_html_()


@pytest.mark.parametrize(("others", "tasks"), [([], None), (None, [])])
def test_an_empty_list_is_refused(others, tasks) -> None:
    rloo, task = make_estimator("rloo"), make_task("bernoulli")
    with pytest.raises(UsageError, match="expected at least one"):
        compare(rloo, rloo if others is None else others, task if tasks is None else tasks)
