"""Whatever is in one row, no other row, table, figure or section changes or fails for it."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.markers import CARETRIGHT

from gradest.report import write_report
from gradest.report.figures import selection
from gradest.report.frames import tables
from gradest.runs.measurement_tables import COLUMNS, TEXT, measurements_frame
from gradest.support.files import write_frame, write_json
from tests.report.rows import FIGURES, row
from tests.report.rows import rows as usual
from tests.support import only_figures

NAN, INF = math.nan, math.inf
ENDS = ("", "_low", "_high")
NUMBERS = [c for c in COLUMNS if c not in TEXT]
MEASURED = [
    *(f"variance{end}" for end in ENDS),
    *(f"bias_sq{end}" for end in ENDS),
    *("bias_norm", "relative_bias", "mse", "snr", "cosine", "cosine_se", "work_variance"),
    *("gradient_norm", "p_value", "max_z", "detectable_bias", "bias_precision"),
]


def all_of(value, names=MEASURED):
    return dict.fromkeys(names, value)


ODD = {
    "nan": all_of(NAN),
    "inf": all_of(INF),
    "minus inf": all_of(-INF),
    "none": all_of(None),
    "every number nan": all_of(NAN, [c for c in NUMBERS if c not in ("seed", "replicates")]),
    "every number inf": all_of(INF, [c for c in NUMBERS if c not in ("seed", "replicates")]),
    "variance nan": all_of(NAN, ["variance", "variance_low", "variance_high", "mse"]),
    "variance inf": all_of(INF, ["variance", "variance_high", "mse", "work_variance"]),
    "ends inf": all_of(INF, ["variance_high", "bias_sq_high"]),
    "ends nan": all_of(NAN, [f"{c}{e}" for c in ("variance", "bias_sq") for e in ENDS[1:]]),
    "ends crossed": {"variance_low": 3.0, "variance_high": 0.5},
    "negative": {"variance": -1.0, "variance_low": -2.0, "variance_high": -0.5, "mse": -1.0},
    "zero": all_of(0.0),
    "huge": all_of(1e300),
    "tiny": all_of(5e-324),
    "no gradient": {"gradient_norm": 0.0, "relative_bias": INF, "bias_sq": 1.0},
    "bias of rounding": {"gradient_norm": 1e-12, "relative_bias": 1e3, "bias_sq": 1e-18},
    "no verdict": {"verdict": None},
    "another verdict": {"verdict": "perhaps"},
    "no cost": {"evaluations": 0, "gradient_evaluations": NAN, "seconds": NAN, "memory": NAN},
    "infinite cost": {"evaluations": INF, "seconds": INF, "seconds_high": INF, "memory": INF},
    "no protocol": {"replicates": NAN, "method": None, "precision": None, "reference": None},
    "no sizes": {"batch": NAN, "latents": NAN, "categories": NAN, "coordinates": NAN},
    "not finite": all_of(NAN) | {"nonfinite": 1.0, "overflow": 1.0, "verdict": "inconclusive"},
    "shares of nan": {"nonfinite": NAN, "zero": NAN, "drift": INF, "drift_se": NAN},
}

ODDITIES = [0.25 + n / 128 for n in range(len(ODD))]  # the temperature of a row of each kind


def odd_row(columns, temperature=0.25):
    """Of an estimator and a task that are there, at a temperature of its own."""
    sizes = {"latents": 2, "task_params": {"latents": 2}}
    return (
        row("relaxed", {"temperature": temperature}, bias_sq=0.1, verdict="biased", **sizes)
        | columns
    )


def write(folder, rows):
    folder.mkdir()
    write_frame(folder / "measurements.parquet", measurements_frame(list(rows)))
    write_json(folder / "run.json", {"suite": "demo", "command": ["benchmark.py"]})
    write_report(folder)  # which warns of what fails, and warnings are errors here
    return {path.name: pd.read_csv(path) for path in (folder / "tables").glob("*.csv")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return write(tmp_path_factory.mktemp("undisturbed") / "run", [*usual(), odd_row({})])


def without(frame):
    odd = [json.dumps({"temperature": temperature}) for temperature in ODDITIES]
    return frame[~frame["estimator_params"].isin(odd)]


@pytest.mark.weekly
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_row_changes_no_other_in_any_table(kind, tmp_path, undisturbed):
    assert_others_unchanged(undisturbed, tmp_path / "run", [odd_row(ODD[kind])])


def test_odd_rows_of_every_kind_change_no_other_in_any_table(tmp_path, undisturbed):
    assert_others_unchanged(undisturbed, tmp_path / "run", one_of_each_kind())


def one_of_each_kind():
    return [odd_row(*each) for each in zip(ODD.values(), ODDITIES, strict=True)]


def assert_others_unchanged(undisturbed, folder, odd):
    """The report has every table that it has without odd rows, with the same numbers elsewhere."""
    disturbed = write(folder, [*usual(), *odd])
    assert set(disturbed) >= set(undisturbed)
    for name, frame in undisturbed.items():
        if name == "crossovers.csv":
            continue
        # Ranks count the rows above, and tests the family: where the odd row stands may change.
        columns = [c for c in frame if c not in ("rank", "detectable_ratio", "p_holm")]
        a, b = (without(f)[columns].reset_index(drop=True) for f in (frame, disturbed[name]))
        pd.testing.assert_frame_equal(a, b, check_dtype=False)
    text = (folder / "report.md").read_text()
    assert "Missing from this report" not in text
    for each in odd:
        temperature = json.loads(each["estimator_params"])["temperature"]
        assert f"relaxed (temperature={temperature})" in text


def assert_same_scale(name, odd):
    """The figure has the panels that it has without odd rows, and axes that are of use."""
    frames = [measurements_frame([*usual(), *extra]) for extra in ([], odd)]
    plain, figure = (FIGURES[name](frame) for frame in frames)
    figure.draw_without_rendering()
    assert len(figure.axes) == len(plain.axes)
    for a, b in zip(plain.axes, figure.axes, strict=True):
        for (low, high), (least, most) in (
            (a.get_xlim(), b.get_xlim()),
            (a.get_ylim(), b.get_ylim()),
        ):
            assert np.isfinite([least, most]).all()
            assert abs(most) <= 1e12 * max(abs(high), 1.0)
            assert abs(least) >= 1e-12 * abs(low)


@pytest.mark.weekly
@pytest.mark.parametrize("name", FIGURES)
def test_odd_rows_leave_every_figure_its_panels_and_its_scale(name):
    assert_same_scale(name, one_of_each_kind())


@pytest.mark.weekly
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_row_alone_leaves_every_figure_its_panels_and_its_scale(kind, name):
    assert_same_scale(name, [odd_row(ODD[kind])])


def test_what_is_absurdly_far_away_is_an_arrow_at_the_frame():
    far = odd_row({f"variance{end}": 1e60 for end in ENDS})
    figure = FIGURES["bias_against_variance"](measurements_frame([*usual(), far]))
    ax = figure.axes[0]
    assert ax.get_xlim()[1] < 1e4
    arrows = [line for line in ax.lines if line.get_marker() == CARETRIGHT]
    assert [line.get_xdata()[0] for line in arrows] == [ax.get_xlim()[1]]


def test_a_bias_that_is_rounding_is_in_the_band_about_zero():
    tiny = {"relative_bias": 3e-13, "bias_sq": 1e-26, "bias_sq_low": 1e-26, "bias_sq_high": 1e-26}
    rounding = odd_row(tiny | {"verdict": "unbiased", "dtype": "float64"})
    frame = measurements_frame([*usual(), rounding])
    drawn = selection.with_bias(selection.select_rows(tables.annotate(frame))[0])
    assert drawn.loc[drawn["estimator_params"].eq('{"temperature": 0.25}'), "bias"].item() == 0
    low, _ = FIGURES["bias_against_variance"](frame).axes[0].get_ylim()
    assert low < 0  # the band, and a scale that begins where the other biases are


def test_a_figure_that_fails_costs_itself_alone_and_is_told(tmp_path, monkeypatch):
    def broken(frame):
        raise ZeroDivisionError("by <nothing>")

    only_figures(monkeypatch, "bias_against_variance", matrix=broken)
    message = "the figure matrix could not be made: ZeroDivisionError: by <nothing>"
    with pytest.warns(UserWarning, match=message):
        write(tmp_path / "run", usual())
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert drawn == {f"bias_against_variance.{kind}" for kind in ("png", "svg", "pdf")}
    text = (tmp_path / "run" / "report.md").read_text()
    assert "**Missing from this report:** the figure matrix could not be made" in text
    assert "## Missing measurements" not in text and "by <nothing>" not in text


def test_a_section_that_fails_costs_itself_alone_and_is_told(tmp_path, monkeypatch, undisturbed):
    def broken(rows):
        raise ValueError("The data contains non-finite values.")
        yield

    monkeypatch.setattr("gradest.report.studies.numerics.section", broken)
    with pytest.warns(UserWarning, match="the section numerics could not be made: ValueError"):
        result = write(tmp_path / "run", [*usual(), odd_row({})])
    assert set(result) == set(undisturbed)
    assert "## toy (latents=8)" in (tmp_path / "run" / "report.md").read_text()
