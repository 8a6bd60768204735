"""Runs of more tasks than a page has room for: one panel of medians, and a matrix that folds."""

import pytest

from gradest.report import plots
from gradest.report.figures import selection
from gradest.report.frames import tables
from gradest.runs import measurements_frame
from tests.report.rows import row


def annotated(rows):
    return tables.annotate(measurements_frame(rows))


def tasks(count, **variances):
    """So many tasks, each with other scales, and estimators with the same ratio on all of them."""
    return [
        row(name, task=task, variance=4.0**n * variance, evaluations=2)
        for n in range(count)
        for task in [f"task{n}"]
        for name, variance in variances.items()
    ]


def test_medians_over_tasks_are_of_ratios_within_a_task():
    rows = tasks(21, low=0.5, middle=1.0, high=4.0)
    rows += [row("middle", task="odd", variance=1.0), row("low", task="odd", variance=100.0)]
    rows += [row("high", task="odd", variance=1.0)]
    chosen, _ = selection.select_rows(annotated(rows))
    found = selection.over_tasks(selection.with_bias(chosen)).set_index("estimator")
    assert found["variance"].to_dict() == {"low": 0.5, "middle": 1.0, "high": 4.0}
    assert found.loc["low", "variance_low"] == 0.5 == found.loc["low", "variance_high"]
    assert found.loc["high", "variance_low"] == pytest.approx(4.0)  # 1 is below one in twenty
    assert set(found["evaluations"]) == {2}


@pytest.mark.parametrize("name", ["bias_against_variance", "variance_against_evaluations"])
def test_a_panel_a_task_gives_way_to_one_of_medians(name):
    few = annotated(tasks(12, rloo=1.0, reinforce=2.0))
    assert len(getattr(plots, name)(few).axes) == 12
    figure = getattr(plots, name)(annotated(tasks(13, rloo=1.0, reinforce=2.0)))
    (ax,) = figure.axes
    assert ax.get_title() == "" and ax.get_title(loc="left").startswith("13 tasks: medians")
    labels = ax.get_xlabel() + ax.get_ylabel()
    assert "relative to the median of its task" in labels


def test_budgets_have_no_median():
    assert plots.mse_against_budget(annotated(tasks(12, rloo=1.0, reinforce=2.0))) is not None
    assert plots.mse_against_budget(annotated(tasks(13, rloo=1.0, reinforce=2.0))) is None


def test_the_matrix_folds_the_settings_of_a_task():
    rows = [
        row(name, task=task, task_params={"shape": str(n)}, variance=4.0**n * variance, **bias)
        for task in ("one", "two")
        for n in range(13)
        for name, variance, bias in (
            ("rloo", 1.0, {}),
            ("relaxed", 2.0, {"bias_sq": 0.01, "verdict": "biased"} if n == 3 else {}),
        )
    ]
    figure = plots.matrix(annotated(rows))
    bias, work = figure.axes[:2]
    assert [text.get_text() for text in work.get_xticklabels()] == ["one", "two"]
    assert [text.get_text() for text in bias.get_yticklabels()] == ["rloo", "relaxed"]
    assert sorted(text.get_text() for text in work.texts) == ["1.00", "1.00", "2.00", "2.00"]
