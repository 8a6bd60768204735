"""What a report says of adapting, of the sources of variance, of nested levels and of numerics."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest

from gradest.cli import main
from gradest.errors import UsageError
from gradest.report import write_report
from gradest.report.figures import canvas, selection
from gradest.report.frames import tables
from gradest.report.frames.nested_factors import find_families
from gradest.report.studies.adaptation import adaptation
from gradest.report.studies.variance_components import variance_by_source
from gradest.runs.measurement_tables import ADAPTATION, SOURCES, measurements_frame
from gradest.statistics import Interval
from gradest.support.files import write_frame, write_json
from tests.support import only_figures

LEVELS = ["seed", "steps", "batch"]
PLACES = list(itertools.product((0, 1, 2), (5, 10), (0, 1)))


def row(estimator="rloo", params=None, task="toy", knobs=None, bias=0.0, variance=1.0, **columns):
    return {
        **{"suite": "demo", "task": task, "task_params": json.dumps(knobs or {}, sort_keys=True)},
        **{"estimator": estimator, "estimator_params": json.dumps(params or {}), "seed": 0},
        **{"dtype": "float64", "parameter": "log_alpha", "status": "ok", "reason": ""},
        **{"batch": 1, "latents": 2, "categories": 3, "coordinates": 6, "replicates": 100},
        **{"method": "monte_carlo", "reference": "exact", "gradient_norm": 0.5},
        **{"bias_sq": bias**2, "bias_sq_low": bias**2, "bias_sq_high": bias**2},
        **{"bias_norm": bias, "relative_bias": bias / 0.5, "verdict": "unbiased"},
        **{"variance": variance, "variance_low": 0.9 * variance, "variance_high": 1.2 * variance},
        **{"mse": bias**2 + variance, "evaluations": 1, "work_variance": variance},
        **{"zero": 0.0, "nonfinite": 0.0, "overflow": 0.0, "drift": 0.0, "drift_se": 0.0},
        **columns,
    }


def family(estimator="rloo", task="net", same=None, **columns):
    """A row at every combination of the levels; the variances are 1, 2, ..., 12."""
    return [
        row(estimator, task=task, knobs={**dict(zip(LEVELS, place, strict=True)), **(same or {})},
            bias=0.01 * n, variance=float(n), **columns)
        for n, place in enumerate(PLACES, 1)
    ]  # fmt: skip


def looks(variances, estimator="nvil", steps=(0, 1, 4, 9), **columns):
    named = {k: v for k, v in row(estimator, **columns).items() if k in ADAPTATION[:7]}
    return [
        {**named, "step": step, "variance": v, "variance_low": 0.8 * v, "variance_high": 1.5 * v}
        for step, v in zip(steps, variances, strict=False)
    ]


def sources(parts, estimator="rloo", task="net", parameter="encoder", **columns):
    named = {k: v for k, v in row(estimator, task=task, **columns).items() if k in SOURCES[:7]}
    return [
        {**named, "parameter": parameter, "source": source, "variance": v, "variance_low": low,
         "variance_high": high, "over": "seed", "values": 5}
        for source, (v, low, high) in parts.items()
    ]  # fmt: skip


PARTS = {
    "draws": (6.0, 5.0, 7.0),
    "batch": (3.0, -1.0, 7.0),
    "steps": (-2.0, -4.0, 0.5),
    "seed": (1.0, 0.5, 1.5),
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a run folder and its report, without the ordinary figures; returns the text."""
    only_figures(monkeypatch, "adaptation", "variance_by_source")

    def written(rows, adapted=None, parts=None, **run):
        write_frame(tmp_path / "measurements.parquet", measurements_frame(list(rows)))
        write_json(tmp_path / "run.json", {"suite": "demo", **run})
        for name, result, columns in (
            ("adaptation", adapted, ADAPTATION),
            ("sources", parts, SOURCES),
        ):
            if result is not None:
                frame = pd.DataFrame(result, columns=list(columns))
                write_frame(tmp_path / f"{name}.parquet", frame)
        write_report(tmp_path)
        return (tmp_path / "report.md").read_text(encoding="utf-8")

    return written


def below(text, heading):
    """The tables of a section as rows of cells, without the line under the headers."""
    section = text.split(f"\n{heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    inside = [line.strip("|").replace(r"\|", "\0").split("|") for line in lines]
    return [
        [cell.strip().replace("\0", "|") for cell in line] for line in inside
        if not line[0].startswith(":")
    ]  # fmt: skip


# adapting


@pytest.mark.parametrize("result", [None, []])
def test_without_looks_and_sources_nothing_is_said_of_them(write, tmp_path, result):
    text = write([row()], adapted=result, parts=result)
    assert "daptation" not in text and "by source" not in text and "## Numerics" not in text
    assert not list(tmp_path.glob("figures/*"))


@pytest.mark.parametrize("name", ["adaptation", "sources"])
@pytest.mark.parametrize("damage", ["text", "columns"])
def test_a_damaged_table_is_one_clear_line(write, tmp_path, name, damage):
    path = tmp_path / f"{name}.parquet"
    if damage == "text":
        path.write_text("no parquet")
    else:
        write_frame(path, pd.DataFrame({"step": [1]}))
    with pytest.raises(UsageError, match="holds no readable run") as caught:
        write([row()])
    assert "\n" not in str(caught.value)


def test_what_adapting_buys_is_the_last_look_over_the_first(write, tmp_path):
    rows = [row("nvil|", {"d": d}) for d in (1, 2)]
    adapted = [
        *looks([4.0, 9.0, 9.0, 1.0], "nvil|", params={"d": 1})[::-1],
        *looks([2.0, 9.0, 3.0], "nvil|", params={"d": 2}),
    ]
    text = write(rows, adapted)
    _, first, second = below(text, "## Effect of adaptation")
    assert first[:3] == ["toy", "nvil| (d=1)", "9"]
    assert first[3:5] == ["4.0 [3.2, 6.0]", "1.00 [0.80, 1.50]"]
    assert second[1:4] == ["nvil| (d=2)", "4", "2.0 [1.6, 3.0]"]
    assert first[5].startswith("0.25 [") and second[5].startswith("1.5 [")
    assert "medians" not in text.split("## Effect of adaptation")[1].split("|")[0]
    assert "](figures/adaptation.png)" in text
    assert (tmp_path / "figures" / "adaptation.svg").exists()
    write(rows, [])
    assert not (tmp_path / "figures" / "adaptation.svg").exists()


@pytest.mark.slow
def test_a_run_of_adaptive_estimators_in_two_dtypes_has_a_line_each(tmp_path):
    suite = {
        **{"replicates": 64, "timed": False, "parameters": ["log_alpha"], "adapt_steps": 5},
        **{"dtype": ["float64", "float32"], "tasks": ["bernoulli"]},
        "estimators": ["reinforce_ema", "rloo"],
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(suite))
    assert main(["--suite", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "run")]) == 0
    result = pd.read_parquet(tmp_path / "run" / "adaptation.parquet")
    steps = result.groupby("dtype")["step"].agg(list).to_dict()
    assert steps == {dtype: [0, 1, 4, 5] for dtype in suite["dtype"]}
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    _, *lines = below(text, "## Effect of adaptation")
    assert [line[1:3] for line in lines] == [
        [f"reinforce_ema (dtype={dtype})", "5"] for dtype in suite["dtype"]
    ]


def test_the_ratio_of_two_variances_has_an_interval_by_its_facing_ends():
    after, before = Interval(1.0, 0.5, 4.0), Interval(4.0, 2.0, 5.0)
    value, low, high = (after / before).ends
    assert value == 0.25
    assert math.log(value / low) == pytest.approx(math.hypot(math.log(2), math.log(5 / 4)))
    assert math.log(high / value) == pytest.approx(math.hypot(math.log(4), math.log(2)))
    assert (Interval(0.0, 0.0, 0.0) / Interval(1.0, 0.5, 2.0)).estimate == 0
    for nothing in (0.0, math.nan):
        assert all(map(math.isnan, Interval(1.0, 1.0, 1.0) / Interval(*[nothing] * 3)))


def named(rows):
    frame = pd.DataFrame(rows)
    settings = [{} for _ in rows]
    return frame.assign(
        task_label=frame["task"], label=frame["estimator"], settings=settings, tag=""
    )


def test_lines_begin_at_zero_steps_and_exact_zeros_lie_in_the_band():
    rows = named([*looks([2.0, 1.0, 0.5, 0.0]), *looks([3.0, math.nan], "rebar", task="other")])
    figure = adaptation(rows, ["nvil", "rebar"])
    figure.draw_without_rendering()
    left, right = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["toy", "other"]
    (line,) = [each for each in left.lines if len(each.get_xdata()) > 1]
    assert line.get_xydata().tolist() == [[0, 2], [1, 1], [4, 0.5], [9, 0]]
    points = [each for each in left.lines if len(each.get_xdata()) == 1]
    marked = [e for e in right.lines if len(e.get_xdata()) == 1 and e.get_marker() != "None"]
    assert len(points) == 4 and len(marked) == 1  # what is not finite is left out
    for point in points:
        place = left.transAxes.inverted().transform(left.transData.transform(point.get_xydata()[0]))
        assert ((place >= 0) & (place <= 1)).all()
    assert left.get_yscale() == "symlog" and right.get_yscale() == "log"
    assert left.get_xticks().tolist() == [0, 1, 4, 9]
    assert adaptation(rows[:0], []) is None
    assert adaptation(named(looks([math.nan])), ["nvil"]) is None


def test_a_tick_does_not_lie_on_the_one_beside_it():
    figure = adaptation(named(looks([1.0] * 4, steps=(0, 4, 64, 65))), ["nvil"])
    assert figure.axes[0].get_xticks().tolist() == [0, 4, 65]


def test_settings_that_share_a_section_share_a_line_of_medians(write):
    rows = family("nvil")
    knobs = [json.loads(each["task_params"]) for each in rows]
    adapted = [
        each for n, k in enumerate(knobs, 1) for each in looks([n, 1.0], task="net", knobs=k)
    ]
    text = write(rows, adapted, nested=LEVELS)
    _, line = below(text, "## Effect of adaptation")
    assert line[0] == "net over 12 settings of seed, steps, batch"
    assert line[3].startswith("6.5 [") and line[4].startswith("1.00 [")
    assert line[5].startswith(f"{np.median([1 / n for n in range(1, 13)]):.2f} [")
    assert "numbers and the ends of their intervals are medians" in text


# sources and nested levels


def test_the_parts_are_in_order_from_the_draws_out_with_shares(write, tmp_path):
    shuffled = {name: PARTS[name] for name in ("seed", "batch", "draws", "steps")}
    rows = [*family("a|b"), *family("other")]
    parts = [*sources(shuffled, "a|b"), *sources({"draws": (0.0, 0.0, 0.0)}, "other")]
    text = write(rows, parts=parts, nested=LEVELS)
    header, first, second = below(text, "## Variance by source")
    assert header == [
        "estimator", "draws", "share", "batch", "share", "steps", "share", "seed", "share"
    ]  # fmt: skip
    assert first[:3] == ["a|b", "6.0 [5.0, 7.0]", "60 %"]
    assert first[3:5] == ["3.0 [-1.0, 7.0]", "30 %"] and first[6] == "0 %"
    assert first[7:] == ["1.0 [0.5, 1.5]", "10 %"]
    assert second == ["other", "0", "n/a", *["n/a", ""] * 3]
    assert "over 5 values of seed" in text and "cover the draws alone" in text
    assert "### net: gradient in encoder" in text
    assert "](figures/variance_by_source.png)" in text
    assert (tmp_path / "figures" / "variance_by_source.svg").exists()


def test_a_share_is_not_said_to_be_none_or_all(write):
    shares = {"a": (0.001, "< 1 %"), "b": (0.9999, "> 99 %"), "c": (0.5, "50 %")}
    rows, parts = [], []
    for name, (part, _) in shares.items():
        rows += family(name)
        values = {"draws": (part, part / 2, 2 * part), "seed": (1 - part, 0.0, 1.0)}
        parts += sources(values, name)
    _, *lines = below(write(rows, parts=parts, nested=LEVELS), "## Variance by source")
    assert {line[0]: line[2] for line in lines} == {
        name: text for name, (_, text) in shares.items()
    }


@pytest.mark.slow
def test_nested_settings_are_one_section_and_their_rows_are_kept(write, tmp_path):
    rows = [*family(), *family("st", verdict="biased"), row(knobs={"seed": 3}), row(task="free")]
    rows += family("arm|", status="skipped", reason="K = 3")
    text = write(rows, nested=LEVELS)
    headings = [line for line in text.splitlines() if line.startswith("## ")][2:]
    assert headings == ["## toy", "## free", "## net over 12 settings of seed, steps, batch",
                        "## Missing measurements"]  # fmt: skip
    assert "all 12 settings of the nested levels: seed = 0, 1, 2; steps = 5, 10; batch = 0, 1" in (
        text
    )
    _, first, second = below(text, headings[2])
    assert first[:3] == ["rloo", "unbiased 12", "13.0"]
    assert first[3:6] == ["6.5 [5.8, 7.8]", "1.00", "12.0"] and second[1] == "biased 12"
    assert sum("arm" in line for line in text.splitlines()) == 1
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv")
    assert len(summary) == 26
    assert len(list((tmp_path / "tables").glob("*.csv"))) == 3
    paper = (
        tmp_path / "tables" / "net-over-12-settings-of-seed-steps-batch-log_alpha.tex"
    ).read_text()
    assert r"$6.5$ & ${}^{+1.3}_{-0.7}$" in paper and "medians over the settings" in paper
    apart = write(rows)
    assert sum(line.startswith("## net") for line in apart.splitlines()) == 12


def test_other_knobs_keep_families_apart():
    rows = [*family(same={"size": 1, "fixed": 2}), *family(same={"size": 9, "fixed": 2})]
    frame = tables.annotate(measurements_frame([*rows, row()]))
    result = find_families(frame, LEVELS)
    over = "over 12 settings of seed, steps, batch"
    assert [each.label for each in result] == [f"net (size=1) {over}", f"net (size=9) {over}"]
    assert find_families(frame, []) == [] == find_families(frame, ["nothing"])
    assert find_families(tables.annotate(measurements_frame(rows[:1])), LEVELS) == []


def test_the_figures_of_a_task_have_no_panel_for_nested_settings(tmp_path, monkeypatch):
    seen = []
    only_figures(monkeypatch, matrix=lambda run: seen.append(run.single))
    write_frame(tmp_path / "measurements.parquet", measurements_frame([*family(), row()]))
    write_json(tmp_path / "run.json", {"suite": "demo", "nested": LEVELS})
    write_report(tmp_path)
    assert [frame["task"].tolist() for frame in seen] == [["toy"]]


def drawn(parts, **columns):
    figure = variance_by_source(named(sources(parts, **columns)), ["rloo"], LEVELS)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    points = {
        round(line.get_xdata()[0]): (line.get_ydata()[0], line.get_markerfacecolor())
        for line in ax.lines
        if len(line.get_xdata()) == 1 and line.get_marker() not in ("None", None, "")
    }
    return ax, points


def test_a_part_that_is_no_more_than_zero_hangs_from_its_upper_limit():
    ax, points = drawn({name: PARTS[name] for name in ("seed", "steps", "batch", "draws")})
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "draws", "batch", "steps", "seed"
    ]  # fmt: skip
    assert [points[n][0] for n in range(4)] == [6, 3, 0.5, 1]
    assert points[0][1] == points[3][1] != points[1][1]  # pale where it may be zero
    assert sum(each.arrow_patch is not None for each in ax.texts) == 1
    assert ax.get_yscale() == "log"


def test_a_part_that_is_exactly_zero_lies_in_the_band():
    ax, points = drawn({"draws": (0.0, 0.0, 0.0), "seed": (1.0, 0.5, 2.0), "batch": (-1, -2, -1)})
    assert points[0][0] == points[1][0] == 0 and ax.get_yscale() == "symlog"
    assert not any(each.arrow_patch is not None for each in ax.texts)
    assert variance_by_source(pd.DataFrame(columns=list(SOURCES)), [], LEVELS) is None


def test_every_parameter_has_a_panel():
    rows = named([*sources(PARTS), *sources(PARTS, parameter="log_alpha")])
    figure = variance_by_source(rows, ["rloo"], LEVELS)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["net, gradient in encoder", "net, gradient in log α"]
    assert "bias" in canvas._LIMITED and "part" in canvas._LIMITED


# numerics


def test_numerics_say_what_is_odd_in_every_dtype(write):
    result = [
        row("dead|", zero=1.0, nonfinite=math.nan),
        row("dead|", dtype="float16", nonfinite=1.0, overflow=0.25, drift=math.inf),
        row("rloo", zero=0.5, variance=2.0),
        row("rloo", dtype="float16", drift=0.01, drift_se=0.002, parameter="log_alpha"),
        row("rloo", dtype="float16", drift=0.01, drift_se=0.002, parameter="alpha"),
        row("plain", method="enumerated"),
        row("listed", zero=0.25, method="enumerated", replicates=0),
    ]
    text = write(result)
    header, *lines = below(text, "## Numerics")
    assert header == [
        "task",
        "‖g‖ in log α",
        "estimator",
        "estimates in float64",
        "estimates in float16",
    ]
    cells = {line[2]: line[3:] for line in lines}
    assert cells == {
        "dead|": ["**all zero**", "**all non-finite; infinite 25.0 ± 4.3 %**"],
        "rloo": ["zero 50.0 ± 5.0 %", "error 0.0100 ± 0.0020"],
        "listed": ["zero 25.0 %", "not run"],
    }
    assert {line[1] for line in lines} == {"0.500"}
    assert "Left out: 1 row without" in text and "100 % in float16" in text


def test_a_dtype_in_which_nothing_is_odd_has_no_column(write):
    result = [row("a"), row("a", dtype="float32", drift=1.23456e-7, drift_se=1e-15)]
    text = write(result)
    assert below(text, "## Numerics") == [
        ["task", "‖g‖ in log α", "estimator", "estimates in float32"],
        ["toy", "0.500", "a", "error 1.23 × 10⁻⁷"],
    ]
    assert (
        "No such estimates occurred in float64." in text and "only rank rounding errors" not in text
    )
    assert "## Numerics" not in write([row("a"), row("a", dtype="float32")])


def test_of_many_settings_the_worst_is_said(write):
    shares = [0.0, 0.5, *[0.1] * 10]
    rows = [{**each, "zero": share} for each, share in zip(family(), shares, strict=True)]
    text = write(rows, nested=LEVELS)
    _, line = below(text, "## Numerics")
    assert line[3] == "zero 50.0 ± 5.0 %" and "each number is the largest" in text


def test_ranks_are_within_a_dtype_and_not_of_rounding(write, tmp_path):
    def both(dtype):
        return [row("a", dtype=dtype), row("b", dtype=dtype, variance=9.0)]

    text = write([*both("float64"), *both("float32"), *both("float16")])
    ranking = below(text, "## toy")
    assert [line[:2] for line in ranking if line[0] != "rank"] == [
        [rank, f"{name} (dtype={dtype})"]
        for dtype in ("float64", "float32")
        for rank, name in (("1", "a"), ("2", "b"))
    ]
    assert "In float32:" in text and "In float16:" not in text
    assert "Rankings in float16 would only rank rounding errors; they are only in the file" in text
    file = pd.read_csv(tmp_path / "tables" / "toy-log_alpha.csv")
    assert file["rank"].tolist() == [1, 2] * 3
    alone = write(both("float16"))
    assert len(below(alone, "## toy")) == 3 and "In float16:" not in alone


def test_figures_show_the_finest_dtype_alone():
    frame = tables.annotate(
        measurements_frame([row("a", dtype=d) for d in ("float16", "float64", "float32")])
    )
    rows, symbol = selection.select_rows(frame)
    assert rows["dtype"].tolist() == ["float64"] and symbol == "log α in float64"
    assert selection.select_rows(frame[:1])[1] == "log α"


def test_a_figure_names_the_knobs_of_which_an_estimator_has_several_values():
    frame = tables.annotate(
        measurements_frame(
            [
                row("rloo", {"samples": 2, "decay": 0.9}),
                row("rloo", {"samples": 4, "decay": 0.9}),
                row("vimco", {"samples": 4, "decay": 0.5}),
            ]
        )
    )
    rows, _ = selection.select_rows(frame)
    assert rows["tag"].tolist() == ["2", "4", ""]
    assert rows["settings"].tolist() == [{"samples": 2}, {"samples": 4}, {}]
