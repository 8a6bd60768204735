"""Curves of trainings: rates chosen, bands over seeds, ranks, the report and the figures."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gradest.report.documents.document import render_markdown
from gradest.report.figures import style
from gradest.report.frames import curves
from gradest.report.studies import concrete
from gradest.report.studies import training as study
from gradest.runs.tables import write_results
from gradest.runs.training.results import COLUMNS, rows
from tests.report.points import row, training

NAN = float("nan")


def lost(estimator, status="failed", reason="OSError: no room", **own):
    none = dict.fromkeys(("step", "seconds", "split", "metric", "low", "high"))
    yield row(estimator, NAN, **own) | none | {"status": status, "reason": reason}


def frame(*trainings):
    result = pd.DataFrame([row for each in trainings for row in each], columns=list(COLUMNS))
    return curves.annotate_points(result)


def test_the_best_rate_is_that_of_the_validation_data_at_the_end():
    points = frame(
        training("rloo", 30, rate=0.1),
        training("rloo", 20, rate=0.01),
        training("nvil", 25, rate=0.1),
        training("nvil", 26, rate=0.01),
        # Best on the test data, and best halfway: neither counts.
        [row("nvil", 1.0, rate=0.01, metric="negative_elbo")],
        [row("nvil", 1.0, rate=0.01, step=10, split="valid", metric="negative_elbo", seed=1)],
    )
    chosen = points.groupby("label")["learning_rate"].unique()
    assert chosen["rloo"].tolist() == [0.01] and chosen["nvil"].tolist() == [0.1]
    assert points["rates"].eq(2).all()


@pytest.mark.parametrize(
    "bad",
    [training("rloo", NAN, rate=1.0, seed=1), lost("rloo", rate=1.0, seed=1)],
    ids=["diverged", "failed"],
)
def test_a_rate_at_which_a_seed_is_lost_is_the_worst(bad):
    points = frame(
        training("rloo", 10, rate=1.0),
        list(bad),
        training("rloo", 30, rate=0.1),
        training("rloo", 31, rate=0.1, seed=1),
    )
    assert set(points.loc[points["status"] == "ok", "learning_rate"]) == {0.1}


def test_where_every_rate_is_lost_one_is_shown_and_nothing_fails():
    points = frame(
        training("rloo", NAN, rate=1.0),
        training("rloo", NAN, rate=0.1),
        lost("arm", "skipped", "needs K = 2", rate=1.0),
        lost("arm", "skipped", "needs K = 2", rate=0.1),
    )
    assert points[points["label"] == "rloo"]["learning_rate"].nunique() == 1
    text = render_markdown(list(study.section(points, {})))
    assert text.count("needs K = 2") == 2 and "learning rate 0.100" in text
    assert study.training_objectives(points) is None


def test_bands_are_t_intervals_over_seeds():
    ends = [30.0, 31.0, 33.5]
    points = frame(*(training("rloo", end, seed=n) for n, end in enumerate(ends)))
    result = curves.average_over_seeds(points, "test", "negative_elbo").iloc[0]
    low, high = stats.t.interval(0.95, 2, np.mean(ends), stats.sem(ends))
    assert result["seeds"] == 3
    assert result[["value", "low", "high"]].tolist() == pytest.approx([np.mean(ends), low, high])


def test_of_a_single_seed_the_interval_is_the_one_over_data():
    points = frame(training("rloo", 30.0))
    result = curves.average_over_seeds(points, "test", "negative_elbo").iloc[0]
    assert result[["value", "low", "high"]].tolist() == [30.0, 29.9, 30.1] and result["seeds"] == 1


def test_ties_share_a_rank_and_the_diverged_come_last():
    points = frame(
        training("reinforce", NAN),
        training("nvil", np.inf),
        training("rloo", 30.0),
        training("arm", 30.05),
        training("concrete", 33.0),
    )
    ((_, result),) = curves.rank_final(points)
    assert result["label"].tolist() == ["rloo", "arm", "concrete", "nvil", "reinforce"]
    assert result["rank"].iloc[:4].tolist() == [1, 1, 3, 4] and np.isnan(result["rank"].iloc[4])


@pytest.mark.parametrize("ends", [(NAN, 30.0), (np.inf, 30.0), (NAN, NAN), (np.inf, np.inf)])
def test_a_diverged_seed_makes_no_warning_and_no_rank_but_the_last(ends):
    points = frame(
        *(training("nvil", end, seed=n) for n, end in enumerate(ends)),
        *(training("rloo", 30.0 + n, seed=n) for n in range(2)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, result),) = curves.rank_final(points)
        text = render_markdown(list(study.section(points, {})))
        for draw in (study.training_objectives, study.training_gap, study.training_gradient):
            draw(points)
    assert result["label"].tolist() == ["rloo", "nvil"] and result["rank"].iloc[0] == 1
    assert "| 1 " in text


def test_only_diverged_trainings_still_make_a_report():
    points = frame(training("rloo", NAN), training("nvil", NAN))
    ((_, result),) = curves.rank_final(points)
    assert result["rank"].isna().all()
    assert "n/a" in render_markdown(list(study.section(points, {})))


def test_the_report_tells_what_was_not_trained():
    points = frame(
        training("rloo", 30.0), lost("rloo", seed=1), lost("arm", "skipped", "arm needs K = 2")
    )
    text = render_markdown(list(study.section(points, {})))
    assert "- rloo on vae, seed 1: failed: OSError: no room" in text
    assert "- arm on vae, seed 0: skipped: arm needs K = 2" in text
    assert "Of several learning rates" not in text and "| rloo" in text


def test_nothing_is_drawn_or_said_of_no_rows():
    empty = curves.annotate_points(pd.DataFrame(columns=list(COLUMNS)))
    for points in (empty, frame(lost("rloo"))):
        assert study.training_objectives(points) is None
        assert study.training_gap(points) is None and study.training_gradient(points) is None
    assert study.pictures({}) is None
    assert not list(study.section(empty, {}))


def test_a_gap_is_shown_where_there_is_one():
    def gaps(estimator, size):
        return [
            row(estimator, size, split="train", metric="gap", step=step) for step in (0, 10, 20)
        ]

    assert study.training_gap(frame(gaps("rloo", 0.05))) is None
    assert study.training_gap(frame(gaps("rloo", 0.05), gaps("concrete", 2.0))) is not None


def test_a_bad_curve_does_not_flatten_the_others():
    ends = {f"e{n}": 20.0 + n for n in range(7)} | {"reinforce": 60.0}
    figure = study.training_objectives(frame(*(training(name, end) for name, end in ends.items())))
    low, high = figure.axes[0].get_ylim()
    assert low < 20 and 26 < high < 40
    arrows = [line for line in figure.axes[0].lines if line.get_marker() == "^"]
    assert any(line.get_ydata()[0] > 0.95 * high for line in arrows)
    assert "reinforce" in {text.get_text() for text in figure.axes[0].texts}


def test_a_bias_that_may_be_zero_is_an_upper_limit():
    def looks(estimator, square, reach):
        for step in (0, 20):
            ends = {"low": square - reach, "high": square + reach}
            given = {"split": "train", "metric": "gradient_bias_sq", "step": step}
            yield row(estimator, square, **given) | ends
            yield row(estimator, 3.0, split="train", metric="gradient_variance", step=step)

    points = frame(
        looks("rloo", -0.0001, 0.0003),
        looks("concrete", 0.04, 0.01),
        looks("exact", 0.0, 0.0),
        looks("relax", 0.0005, 0.0006),
        [row("nvil", 3.0, split="train", metric="gradient_variance", step=0)],  # bias unknown
    )
    result = study._rooted(curves.average_over_seeds(points, "train", "gradient_bias_sq"))
    result = result.drop_duplicates("label").set_index("label")
    names = ["rloo", "concrete", "exact", "relax"]
    assert list(result.index) == names and result["limit"].tolist() == [True, False, False, True]
    # Of what may be zero the upper end, in % of ‖g‖.
    ends = pytest.approx([100 * 0.0003**0.5, 20.0, 0.0, 100 * 0.0011**0.5])
    assert result["value"].tolist() == ends
    assert result["paleness"].tolist() == [style.FILLED, style.HOLLOW, style.FILLED, style.PALE]
    figure = study.training_gradient(points)
    panels = {ax.get_ylabel(): ax for ax in figure.axes}
    bias = panels["relative bias, % of ‖g‖"]
    assert sum(text.arrow_patch is not None for text in bias.texts) == 4  # looks at rloo, relax
    styles = style.assign_styles([*names, "nvil"])
    paleness = {**result["paleness"], "nvil": style.PALE}
    for ax in figure.axes:
        marks = [
            mark for mark in ax.lines if mark.get_marker() in {k.marker for k in styles.values()}
        ]
        assert {(mark.get_color(), mark.get_markerfacecolor()) for mark in marks} == {
            (styles[name].colour, styles[name].face(pale))
            for name, pale in paleness.items()
            if name != "nvil" or ax is not bias
        }
    output = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert {"unbiased", "biased", "inconclusive"} <= output


def test_pictures_have_room_for_every_label_and_a_title_a_task():
    labels = ["concrete (temperature=0.1)", "concrete (temperature=1.0)", "rloo"]
    parts = {
        name: np.zeros((10, 8, 8), np.uint8) for name in ("data", "reconstructions", "samples")
    }
    tasks = ["vae (latents=2)", "vae (latents=30)"]
    figure = study.pictures({(task, label): parts for task in tasks for label in labels})
    output = [ax.get_ylabel().replace("\n", " ") for ax in figure.axes[::3]]
    assert output == labels * 2
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert [t.partition("\n")[0] for t in titles if "\n" in t] == tasks
    figure.draw_without_rendering()
    left = min(ax.yaxis.label.get_window_extent().x0 for ax in figure.axes[::3])
    assert left >= 0


def test_rows_of_a_record():
    cell = {
        **{"task": "vae", "task_knobs": {"b": 1, "a": 2}, "estimator": "rloo"},
        **{"estimator_knobs": {}, "learning_rate": 0.1, "seed": 3},
    }
    record = {"cell": cell, "key": "k", "status": "ok", "reason": ""}
    point = [4, 1.5, "valid", "negative_elbo", 30.0, 29.0, 31.0]
    (result,) = rows("s", record | {"training": {"points": [point]}})
    message = dict(zip(COLUMNS, result, strict=True))
    assert message["task_params"] == '{"a": 2, "b": 1}' and message["value"] == 30.0
    (result,) = rows("s", record | {"status": "failed", "reason": "why"})
    message = dict(zip(COLUMNS, result, strict=True))
    assert message["reason"] == "why" and message["value"] is None


def test_a_property_that_could_not_be_looked_at_does_not_hold(tmp_path):
    cell = {"name": "argmax", "knobs": {"draws": 10}}
    record = {"kind": "cell", "of": "property", "key": "k", "cell": cell, "reference": None}
    record |= {"status": "failed", "reason": "RuntimeError: broken"}
    lines = [{"kind": "journal", "suite": "s", "id": "i"}, record]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    write_results(tmp_path, {"suite": "s", "parameters": ["log_alpha"], "cells": [{"key": "k"}]})
    result = pd.read_parquet(tmp_path / "properties.parquet")
    assert result["holds"].tolist() == [False]
    text = render_markdown(list(concrete.section(result)))
    assert "**1 of 1 rows do not hold**: argmax (1)." in text
    assert "RuntimeError: broken" in text and "| yes" not in text
