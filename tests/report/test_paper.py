"""What a paper takes from a run: names, a figure of its width, and a table of a few methods."""

import re

import matplotlib as mpl
import pytest

from gradest import latex_table, plots, rank, rename
from gradest.errors import UsageError
from gradest.report.frames.reading import as_results
from gradest.runs.measurement_tables import measurements_frame
from tests.report.rows import row, rows


@pytest.fixture(scope="module")
def frame():
    """Four estimators on three tasks, one of them at three temperatures."""
    return as_results(measurements_frame(list(rows())))


@pytest.fixture(scope="module")
def one(frame):
    return frame[frame["task_label"] == frame["task_label"].iloc[0]]


def words(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def test_an_estimator_gets_another_name_everywhere(one):
    renamed = rename(one, {"rloo": "Ours"})
    assert set(renamed["estimator"]) == {"Ours", "exact", "noisy", "relaxed"}
    assert "Ours (samples=2)" in set(rank(renamed)["label"])
    table = latex_table(renamed)
    assert "Ours" in table and "rloo" not in table
    assert set(one["estimator"]) == {"rloo", "exact", "noisy", "relaxed"}  # unchanged
    with pytest.raises(UsageError, match="no estimator 'rlo' in this frame; did you mean 'rloo'"):
        rename(one, {"rlo": "Ours"})
    with pytest.raises(UsageError, match="a name for each estimator, got 'exact' twice"):
        rename(one, {"rloo": "exact"})


def test_a_figure_for_a_paper_has_its_width_and_its_text(one, frame, tmp_path):
    settings = dict(mpl.rcParams)
    with plots.paper(width=8.5, size=8, font="STIXGeneral"):
        figure = plots.bias_against_variance(rename(one, {"rloo": "Ours"}))
        several = plots.bias_against_variance(frame)
        figure.savefig(tmp_path / "a.pdf")
    assert dict(mpl.rcParams) == settings
    assert figure.get_figwidth() * 2.54 == pytest.approx(8.5)
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_text().strip()]
    assert {text.get_fontsize() for text in texts} == {8.0}
    assert {text.get_fontname() for text in texts} == {"STIXGeneral"}
    assert "Ours (samples)" in words(figure)
    assert not any("lower left is better" in text for text in words(figure))  # the caption's
    assert b"Type3" not in (tmp_path / "a.pdf").read_bytes()
    box = figure.get_tightbbox()  # in inches: nothing is cut off
    assert box.x0 >= 0 and box.x1 <= figure.get_figwidth()
    assert box.y0 >= 0 and box.y1 <= figure.get_figheight()
    assert len({ax.get_position().x0 for ax in several.axes}) == 1  # one below the other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 300}, "paper: width = 300; expected 4 to 60"),
        ({"size": 0.1}, "paper: size = 0.1; expected 4 to 24"),
        ({"font": "STIXGenral"}, "unknown font 'STIXGenral'; did you mean 'STIXGeneral'"),
    ],
)
def test_a_mistake_in_a_paper_is_named(options, message):
    with pytest.raises(UsageError, match=message), plots.paper(**options):
        pass


def test_a_table_ranks_the_rows_that_it_is_given(one, frame):
    few = one[one["estimator"].isin(["rloo", "noisy"])]
    table = latex_table(few, columns=["variance", "mse"], caption="Ours & theirs")
    assert r"\caption{Ours \& theirs}" in table and r"\label{tab:toy-" in table
    assert "variance & MSE" in table.replace(r"\multicolumn{2}{c}", "").replace("{", "").replace(
        "}", ""
    )
    assert not re.search("evals|Evals|relaxed", table)
    assert table.count(r"\textbf") == 1  # the best of these rows
    for wrong, message in (
        ({"columns": ["var"]}, "unknown column 'var'.*available: bias, variance"),
        ({"parameter": "encoder"}, "no row has results for the parameter 'encoder'"),
    ):
        with pytest.raises(UsageError, match=message):
            latex_table(few, **wrong)
    with pytest.raises(UsageError, match="expected rows of one task, got 3"):
        latex_table(frame)
    two = measurements_frame([row(), row("other")]).assign(run=["a", "b"])
    with pytest.raises(UsageError, match="expected rows of one run, got 2"):
        latex_table(two)
