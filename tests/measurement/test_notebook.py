"""What a notebook shows and reads: tables in HTML, runs as tidy frames, figures of these."""

import json
import math
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import gradest
from gradest import Cost, Estimator, Problem, Task, plots
from gradest.categorical import log_prob, nabla, sample
from gradest.cli import main
from gradest.errors import UsageError
from gradest.report.figures import canvas, selection
from gradest.report.frames import curves, tables
from gradest.report.studies import STUDIES
from gradest.runs.measurement_tables import COLUMNS, measurements_frame
from gradest.runs.training.results import COLUMNS as TRAINING
from gradest.support.files import write_frame, write_json
from gradest.support.markup import html_table
from gradest.support.numbers import interval
from tests.report.points import training
from tests.report.rows import lacking, row, rows
from tests.support import MEASUREMENTS

HOSTILE = "<script>alert('x')</script> & \"co\""


class Texts(HTMLParser):
    """The texts of a document's elements; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], [], set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1], data))

    def of(self, tag):
        return [text for result, text in self.texts if result == tag]


@dataclass(eq=False)
class Plain(Estimator):
    unbiased = True
    said: str = HOSTILE

    def __call__(self, logits, f):
        z = sample(logits)
        return f(z).detach() * nabla(log_prob(logits, z))


class Odd(Task):
    """One bit; f is chosen so that not every estimate is finite where it is asked for."""

    name = "<b>odd</b>"

    def __init__(self, infinite=False):
        super().__init__()
        self.infinite = infinite

    def problem(self, batch=None):
        logits = torch.tensor([[[0.0, 0.3]]], dtype=torch.float64)
        top = math.inf if self.infinite else 2.0
        return Problem(logits, Cost(lambda z: torch.where(z[..., 0, 1] > 0, top, 1.0).to(z)))


def test_a_measurement_is_a_table_with_a_line_for_each_parameter():
    result = gradest.measure(Plain(), Odd())
    output = Texts(result._repr_html_())
    (caption,) = output.of("caption")
    assert caption.startswith(f"Plain (said={HOSTILE}) on {Odd.name}: exact, 2 outcomes")
    assert output.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    cells = np.reshape(output.of("td"), (2, -1))
    assert list(cells[:, 0]) == ["α", "log α"]
    row = result.row("log_alpha")
    assert list(cells[1, 1:3]) == ["unbiased", "0"]  # what is left of the bias is rounding
    assert cells[1, 3] == cells[1, 4] == f"{row['variance']:.3f}"


def test_numbers_that_were_drawn_stand_beside_their_intervals():
    result = gradest.measure(Plain(), Odd(), replicates=2000, enumerate_draws=False)
    output = Texts(result._repr_html_())
    assert "2,000 replicates" in output.of("caption")[0]
    measured, cells = result.row(), np.reshape(output.of("td"), (2, -1))[1]
    assert all("[" in cell for cell in cells[2:5])
    # The same interval of the mse as in the tables of a report.
    written = tables.annotate(measurements_frame([row(estimator="plain") | measured])).iloc[0]
    assert cells[4] == interval(*written[["mse", "mse_low", "mse_high"]])


def test_a_measurement_that_is_not_finite_says_so_alone():
    result = gradest.measure(Plain(), Odd(infinite=True), tolerant=True)
    output = Texts(result._repr_html_())
    assert "of the estimates are NaN or infinite" in output.of("caption")[0] and not output.of("td")


def test_a_comparison_is_a_table_of_what_it_says():
    result = gradest.compare(Plain(), Plain(said="b"), Odd())
    output = Texts(result._repr_html_())
    lines = np.reshape(output.of("td"), (-1, 2))
    assert HOSTILE in output.of("caption")[0] and "script" not in output.tags
    assert str(result).splitlines()[0] == output.of("caption")[0]
    assert [f"  {what:<21} {said}" for what, said in lines] == str(result).splitlines()[1:]


def test_a_table_names_no_colour_and_escapes_all():
    text = html_table((HOSTILE, "b"), [(HOSTILE, "1")], 1, HOSTILE)
    output = Texts(text)
    assert output.of("th") == [HOSTILE, "b"] and output.of("td") == [HOSTILE, "1"]
    assert "color" not in text and "background" not in text


def swept():
    """Two sweeps: of a bit, and over a simplex."""
    for theta in (0.1, 0.25, 0.5, 0.8, 0.95):
        yield from _swept("bit", {"theta": [theta]}, 2)
    for i in range(1, 6):
        for j in range(1, 7 - i):
            yield from _swept("die", {"alpha": [i, j, 7 - i - j]}, 3)


def _swept(task, params, categories):
    size = {"latents": 1, "categories": categories}
    for name, bias in (("rloo", 0.0), ("relaxed", 0.3)):
        yield row(name, bias_sq=bias, task=task, task_params=params, **size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with something for every figure."""
    path = tmp_path_factory.mktemp("run")
    skipped = lacking("skipped", "for bits alone", estimator="arm")
    write(path, [*rows(), *swept(), skipped])
    points = [
        point
        for temperature in (0.25, 0.5, 1.0)
        for point in training("relaxed", 20 + temperature, estimator_params=_knob(temperature))
    ]
    points += [p | {"metric": "gap", "split": "train", "value": 3.0} for p in points if p["step"]]
    points += [p | {"metric": "gradient_variance", "split": "train"} for p in points[:3]]
    points += training("relaxed", 30, rate=0.01, estimator_params=_knob(0.25))
    write_frame(path / "training.parquet", pd.DataFrame(points, columns=list(TRAINING)))
    return path


def _knob(temperature):
    return json.dumps({"temperature": temperature})


def write(path, result):
    path.mkdir(exist_ok=True)
    write_frame(path / "measurements.parquet", measurements_frame(list(result)))
    write_json(path / "run.json", {"suite": "demo"})


def test_results_are_tidy(folder):
    frame = gradest.read_results(folder)
    assert len(frame) == len([*rows(), *swept()]) + 1 and "run" not in frame
    assert set(COLUMNS) < set(frame) and frame.index.is_unique
    toy = frame[frame["task"] == "toy"]
    assert set(toy["task_label"]) == {"toy", *(f"toy (latents={n})" for n in (2, 4, 8))}
    numeric = ["task.latents", "estimator.samples", "estimator.temperature", "mse_low"]
    assert all(pd.api.types.is_numeric_dtype(frame[column]) for column in numeric)
    assert toy.loc[toy["estimator"] == "rloo", "estimator.samples"].tolist() == [2, 4] * 3
    assert toy.loc[toy["estimator"] == "exact", "estimator.samples"].isna().all()
    assert frame.loc[frame["task"] == "bit", "task.theta"].iloc[0] == [0.1]
    (skipped,) = frame[frame["status"] == "skipped"].to_dict("records")
    assert (skipped["reason"], math.isnan(skipped["variance"])) == ("for bits alone", True)


def test_several_runs_are_told_apart_by_folder_and_label(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, [row("rloo", {"samples": 2}, p_value=0.004), row("nvil", p_value=0.006)])
    write(b, [row("rloo", {"samples": 4}, p_value=0.004)])
    frame = gradest.read_results(a, str(b))
    assert frame["run"].tolist() == [str(a), str(a), str(b)]
    assert frame["label"].tolist() == ["rloo (samples=2)", "nvil", "rloo (samples=4)"]
    # Holm is over the tests of one run, not over all that are read with it.
    assert frame["p_holm"].tolist() == pytest.approx([0.008, 0.008, 0.004])
    own = tables.adjust_p_values(measurements_frame([row("rloo", p_value=0.004)]))
    assert own.tolist() == [0.004]


def test_rankings_have_ties_and_runs_of_their_own(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, [row("slow", variance=9.0), row("one"), row("two", variance=1.01)])
    write(b, [row("slow", variance=9.0), row("one", task="other", variance=2.0)])
    ranked = gradest.rank(gradest.read_results(a, b))
    result = ranked.groupby(["run", "task_label"], sort=False)
    said = {key: list(zip(part["label"], part["rank"], strict=True)) for key, part in result}
    assert said == {
        (str(a), "toy"): [("one", 1), ("two", 1), ("slow", 3)],
        (str(b), "toy"): [("slow", 1)],
        (str(b), "other"): [("one", 1)],
    }
    assert ranked["detectable_ratio"].notna().tolist() == [False, True, False, False, False]
    assert gradest.rank(gradest.read_results(a).query("task == 'none'")).empty


OWN = {  # figure -> tasks and estimators with which it has something to show
    "matrix": (["bernoulli", "categorical"], [("rloo", {}), ("reinforce", {})]),
    "bias_against_variance": (["categorical"], [("rloo", {}), ("straight_through", {})]),
    "variance_against_evaluations": (["categorical"], [("rloo", {}), ("reinforce", {})]),
    "mse_against_budget": (["categorical"], [("rloo", {}), ("straight_through", {})]),
    "temperature_tradeoff": (
        ["categorical"],
        [("concrete", {"temperature": t}) for t in (0.25, 0.5, 1.0)],
    ),
}


@pytest.fixture(scope="module")
def own():
    """(task, estimator, params) -> the row of a measurement, each measured once."""

    @cache
    def measured(task, name, knobs):
        estimator = gradest.make_estimator(name, **dict(knobs))
        return gradest.measure(estimator, gradest.make_task(task), replicates=500).row()

    return lambda tasks, estimators: pd.DataFrame(
        [measured(t, name, tuple(knobs.items())) for t in tasks for name, knobs in estimators]
    )


@pytest.mark.parametrize("name", OWN)
def test_rows_of_measurements_make_a_frame_for_figures_and_rankings(own, name):
    frame = own(*OWN[name])
    before = frame.copy()
    assert isinstance(getattr(plots, name)(frame), Figure)
    ranked = gradest.rank(frame)
    assert len(ranked) == len(frame) and ranked["rank"].notna().all()
    assert frame.equals(before)


def test_rows_of_measurements_say_what_a_run_says(own, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "replicates: 500\ntimed: false\nparameters: [log_alpha]\n"
        "tasks: [categorical]\nestimators: [{concrete: {temperature: 0.5}}]\n"
    )
    assert main(["--suite", str(suite), "--out", str(tmp_path / "run"), "--jobs", "1"]) == 0
    (theirs,) = gradest.read_results(tmp_path / "run").to_dict("records")
    (ours,) = own(["categorical"], [("concrete", {"temperature": 0.5})]).to_dict("records")
    same = ("task", "task_params", "estimator", "estimator_params", "seed", "dtype", "status")
    for column in (*same, "parameter", "task_version", "estimator_version", "replicates"):
        assert ours[column] == theirs[column], column
    assert set(ours) <= set(theirs)
    assert ours["work_variance"] == ours["variance"] * ours["evaluations"]


def test_several_runs_in_one_figure_are_named(own):
    rows = own(["categorical"], [("rloo", {}), ("reinforce", {})])
    frame = pd.concat([rows.assign(run="x/first"), rows.assign(run="x/second")])
    marked = selection.mark_runs(frame)
    assert marked["label"].tolist() == [
        f"{name}, {run}" for run in ("first", "second") for name in ("rloo", "reinforce")
    ]
    assert selection.mark_runs(marked) is marked
    # The same cell of two runs is two points.
    assert len(selection.most_replicates(selection.select_rows(frame)[0])) == 4
    for draw in (plots.bias_against_variance, plots.mse_against_budget, plots.matrix):
        figure = draw(frame)
        assert figure is None or isinstance(figure, Figure)
    assert gradest.rank(frame)["run"].tolist() == ["x/first"] * 2 + ["x/second"] * 2
    # Runs whose folders have the same name go by their paths.
    twins = selection.mark_runs(frame.assign(run=frame["run"].str.replace("x/second", "y/first")))
    assert twins["label"].iloc[-1] == "reinforce, y/first"


def test_a_frame_that_does_not_say_what_was_measured_is_an_error(own):
    frame = own(["categorical"], [("rloo", {})]).drop(columns=["task", "seed"])
    for use in (gradest.rank, plots.matrix):
        with pytest.raises(UsageError, match="without the column task, seed"):
            use(frame)


def test_trainings_are_read_at_their_best_rate(folder, tmp_path):
    points = gradest.read_training(folder)
    assert set(points["learning_rate"]) == {0.1} and points["rates"].max() == 2
    assert "relaxed (temperature=0.25)" in set(points["label"])
    write(tmp_path / "none", [row()])
    assert gradest.read_training(tmp_path / "none").empty


@pytest.mark.parametrize("read", [gradest.read_results, gradest.read_training])
@pytest.mark.parametrize("damage", ["none", "table", "params"])
def test_a_folder_without_a_run_is_named(tmp_path, read, damage):
    folder = tmp_path / "mine"
    if damage == "none":
        with pytest.raises(UsageError, match="no readable run: the folder does not exist"):
            read(folder)
        folder.mkdir()
        with pytest.raises(
            UsageError, match=r"mine: holds no readable run: the folder contains no run\.json"
        ):
            read(folder)
        (folder / "journal.jsonl").touch()
        with pytest.raises(UsageError, match=r"mine: .* run the suite again to resume"):
            read(folder)
        return
    write(folder, [row()])
    text = "[1]" if damage == "params" else "{}"
    broken = pd.DataFrame([dict.fromkeys(TRAINING, text)])
    if damage == "table":
        broken = broken[["task"]]
    write_frame(folder / "training.parquet", broken)
    result = measurements_frame([row() | {"task_params": text}])
    write_frame(folder / "measurements.parquet", result if damage == "params" else result[["task"]])
    with pytest.raises(UsageError, match="mine: holds no readable run") as raised:
        read(folder)
    assert "\n" not in str(raised.value)


# Those of directions and of knobs are drawn of few runs, and have tests of their own.
@pytest.mark.parametrize("name", sorted({*MEASUREMENTS} - {"bias_of_direction", "knob_sweep"}))
def test_figures_of_measurements_take_what_was_read(folder, name):
    draw = getattr(plots, name)
    frame = gradest.read_results(folder)
    if name == "cost_growth":
        frame = frame[frame["task"] == "toy"]
    elif name != "matrix" and not name.startswith("landscape"):
        frame = frame[frame["task.latents"] == 2]  # a part of the rows does as well
    assert isinstance(draw(frame), Figure)


@pytest.mark.parametrize(
    "name", ["training_objectives", "training_gap", "training_gradient", "vae_temperature"]
)
def test_figures_of_trainings_take_what_was_read(folder, name):
    draw = getattr(plots, name)
    assert isinstance(draw(gradest.read_training(folder)), Figure)


def test_every_public_figure_is_one_of_a_report_and_in_the_docstring():
    drawn = {each.name for study in STUDIES for each in study.illustrations}
    assert set(plots.__all__) - {"paper"} <= drawn
    assert all(name in plots.__doc__ for name in plots.__all__)


def test_a_notebook_shows_a_figure_without_pyplot():
    figure, _ = canvas.panels(1, 1, (2.0, 2.0), "A title", {}, {})
    assert figure._repr_png_().startswith(b"\x89PNG\r\n")


def test_what_is_loaded_later_is_found_and_listed():
    assert {"plots", "rank", "read_results", "read_training"} < set(dir(gradest))
    assert (
        gradest.plots is plots
        and gradest.read_results.__module__ == "gradest.report.frames.reading"
    )
    with pytest.raises(AttributeError, match="no_such"):
        gradest.no_such  # noqa: B018
    assert curves.annotate_points(pd.DataFrame(columns=list(TRAINING))).empty
