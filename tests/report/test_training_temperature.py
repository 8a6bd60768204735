"""The temperatures that models were trained with: curves, the best of each, the figure."""

import json
import math

import pandas as pd
import pytest

from gradest.report.documents.document import render_markdown
from gradest.report.frames import curves
from gradest.report.studies import training_temperature as study
from gradest.report.studies.training_temperature import section, vae_temperature
from gradest.runs.training.results import COLUMNS

GRID = (0.25, 0.5, 1.0)


def training(estimator, knobs, bound, seed=0, task=None, status="ok"):
    """The points of one training, its test bound given; the band of a seed is ± 0.1."""
    task = {"latents": 8, "categories": 4} if task is None else task
    identity = {
        **{"suite": "demo", "task": "net", "task_params": json.dumps(task)},
        **{"estimator": estimator, "estimator_params": json.dumps(knobs)},
        **{"learning_rate": 1e-3, "seed": seed, "key": f"{estimator} {knobs} {task} {seed}"},
        **{"status": status, "reason": ""},
    }
    seen = [
        (0, "valid", "gap", 9.0),
        (5, "valid", "gap", 0.5),
        (5, "valid", "negative_elbo", bound),
        (5, "test", "negative_elbo", bound + 1),
        (5, "test", "negative_bound", bound),
    ]
    for step, split, metric, value in seen:
        point = {"step": step, "seconds": 1.0, "split": split, "metric": metric}
        ends = {"value": value, "low": value - 0.1, "high": value + 0.1}
        yield {**identity, **point, **ends}


def annotated(*trainings):
    rows = [point for each in trainings for point in each]
    return curves.annotate_points(pd.DataFrame(rows, columns=list(COLUMNS)))


def relaxed(bounds, prior=None, **more):
    for temperature, bound in zip(GRID, bounds, strict=True):
        knobs = {"temperature": temperature, "prior_temperature": prior}
        yield training("relaxed", knobs, bound, **more)


@pytest.fixture
def points():
    """Two lines of one estimator, and what has no line: one temperature, and none."""
    return annotated(
        *relaxed((20.0, 15.0, 15.05)),
        *relaxed((12.0, 30.0, 31.0), prior=0.5),
        training("fixed", {"temperature": 0.5}, 1.0),
        training("plain", {}, 1.0),
    )


def test_lines_are_of_trainings_that_differ_in_the_temperature_alone(points):
    swept = study.select_trainings(points)
    assert set(swept["curve"]) == {"relaxed", "relaxed (prior_temperature=0.5)"}
    assert (swept["limit"] == 1 / 3).all()
    rows = study._last_step(swept)
    gaps = rows[rows["metric"] == "gap"]
    assert len(gaps) == 2 * len(GRID)
    assert (gaps["value"] == 0.5).all()  # at the last step, not at the first


def test_the_best_temperature_is_said_with_its_ties(points):
    first, second = study._best_temperatures(study.select_trainings(points))
    assert (first.curve, first.temperature) == ("relaxed (prior_temperature=0.5)", 0.25)
    assert first.tied == ()
    assert (second.temperature, second.value) == (0.5, 15.0)
    assert second.tied == (1.0,)
    text = render_markdown(list(section(points)))
    assert "12.00 [11.90, 12.10]" in text
    assert text.count("0.333") == 2


def test_a_task_without_categories_has_no_limit_and_is_drawn():
    points = annotated(*relaxed((2.0, 1.0, 3.0), task={"latents": 3}))
    (only,) = study._best_temperatures(study.select_trainings(points))
    assert math.isnan(only.limit)
    axes = vae_temperature(points).axes
    assert [ax.get_ylabel() for ax in axes] == [
        "test −ELBO, nats",
        "test −log p(x), nats",
        "discrete − optimized, nats",
    ]


def test_every_task_has_a_column_where_its_limit_is_marked():
    sizes = [{"latents": 24, "categories": 2}, {"latents": 8, "categories": 8}]
    points = annotated(*(t for size in sizes for t in relaxed((2.0, 1.0, 3.0), task=size)))
    figure = vae_temperature(points)
    marked = [
        {float(line.get_xdata()[0]) for line in ax.lines if line.get_linestyle() == "--"}
        for ax in figure.axes
    ]
    assert marked == [{1.0}, {1 / 7}] * 3


@pytest.mark.parametrize("trainings", [[], [training("plain", {}, 1.0)]])
def test_without_temperatures_nothing_is_said(trainings):
    points = annotated(*trainings)
    assert vae_temperature(points) is None
    assert list(section(points)) == []


def test_a_training_that_failed_has_no_point():
    failed = training("relaxed", {"temperature": 2.0}, math.nan, status="failed")
    points = annotated(*relaxed((2.0, 1.0, 3.0)), failed)
    assert set(study.select_trainings(points)["temperature"]) == set(GRID)
