"""The report: honest first lines, rankings, escaping, figures; from synthetic rows."""

import math
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from gradest import plots
from gradest.errors import UsageError
from gradest.report import write_report
from gradest.report.documents.controls import control_failures
from gradest.report.figures import canvas, style
from gradest.report.figures.matrix import matrix
from gradest.report.frames import tables
from gradest.report.studies.ranking_table import ranking_table
from gradest.runs.measurement_tables import COLUMNS, measurements_frame
from gradest.support.files import write_frame, write_json
from gradest.support.markup import escape
from gradest.support.numbers import interval, number, plus_minus, stated
from tests import hostile
from tests.report.rows import CONTROLS, FIGURES, NORM, hostile_rows, lacking, row, rows


def annotated(rows):
    return tables.annotate(measurements_frame(list(rows)))


def ranking(*rows):
    frame = annotated(rows)
    return tables.rank_rows(frame).set_index("label")["rank"].to_dict()


def cells(line):
    """The cells of a line of a Markdown table; an escaped pipe is no border."""
    inside = line.strip().strip("|").replace(r"\|", "\0")
    return [cell.strip().replace("\0", "|") for cell in inside.split("|")]


def rescaled(best, left, **columns):
    """A row with a scale and what it leaves, exactly."""
    exactly = {f"best_scale{end}": best for end in ("", "_low", "_high")}
    exactly |= {f"relative_bias_rescaled{end}": left for end in ("", "_low", "_high")}
    return row(**exactly, **columns)


def test_many_rankings_at_once_are_those_of_each_alone():
    tasks = {
        "close": [2.0, 1.0, 1.001, 0.0],
        "apart": [3.0, 1.0, 9.0, 1.0],
        "unknown": [1.0, math.nan, math.inf, 2.0],
        "single": [1.0],
    }
    spread = {"variance_low": 0.9, "variance_high": 1.1}
    made = [
        row(f"e{n}", task=task, variance=v, **{end: v * f for end, f in spread.items()})
        for n in range(4)  # the rows of the tasks alternate
        for task, variances in tasks.items()
        for v in variances[n : n + 1]
    ]
    frame = annotated([*made, row("e0", task="twice", method="enumerated", variance=1.0)] * 2)
    frame.loc[frame["task"].eq("unknown"), ["mse", "mse_low", "mse_high"]] = math.nan
    alone = pd.concat([tables.rank_rows(part) for _, part in frame.groupby("task", sort=False)])
    assert len(alone) < len(frame) and alone["rank"].isna().any() and alone["rank"].gt(1).any()
    pd.testing.assert_frame_equal(tables.rank_rows(frame, within=["task"]), alone)


def test_a_rescaling_is_in_the_table_where_a_row_is_biased():
    biased = rescaled(0.75, 0.125, estimator="short", bias_sq=0.1, verdict="biased")
    unbiased = rescaled(1.0, 0.0, estimator="fine")
    table = ranking_table(tables.rank_rows(annotated([biased, unbiased])))
    place = table.headers.index("best scale")
    assert table.headers[place - 1 : place + 2] == [
        *("relative bias, %", "best scale", "bias after rescaling, %")
    ]
    shown = {line[1]: [str(cell) for cell in line[place : place + 2]] for line in table.rows}
    assert shown == {"short": ["0.750", "12.5"], "fine": ["1.00", "0"]}
    alone = ranking_table(tables.rank_rows(annotated([unbiased])))
    assert "best scale" not in alone.headers


def test_an_enumerated_mean_that_is_a_multiple_of_g_leaves_nothing():
    """What is left is rounding; so is the distance of an unbiased scale from one."""
    exact = {"method": "enumerated", "scale": NORM, "rounding": 1e-13}
    short = rescaled(0.75, 1e-12, estimator="a", bias_sq=0.1, verdict="biased", **exact)
    fine = rescaled(1 + 1e-14, 1e-15, estimator="b", bias_sq=1e-30, **exact)
    turned = rescaled(0.75, 1e-3, estimator="c", bias_sq=0.1, verdict="biased", **exact)
    frame = annotated([short, fine, turned])
    assert frame["relative_bias_rescaled_high"].tolist() == [0.0, 0.0, 1e-3]
    assert frame["best_scale_low"].tolist() == [0.75, 1.0, 0.75]


def test_controls_as_they_should_be_are_reported_first(write):
    assert control_failures(annotated(list(rows())), CONTROLS) == []
    first = write(rows(), controls=CONTROLS).splitlines()[0]
    assert first == "All controls passed: exact is unbiased, relaxed is biased."
    assert write(rows(), controls={}).startswith("# demo")


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("exact", "biased"), ("exact", "inconclusive"), ("relaxed", "unbiased")],
)
def test_a_control_with_the_wrong_verdict_is_the_first_line(write, name, verdict):
    changed = [
        each | {"verdict": verdict} if (each["estimator"], each["latents"]) == (name, 4) else each
        for each in rows()
    ]
    failures = control_failures(annotated(changed), CONTROLS)
    assert failures and all(
        name in each and "toy (latents=4)" in each and f"is {verdict}" in each for each in failures
    )
    first = write(changed, controls=CONTROLS).splitlines()[0]
    assert first.startswith("**CONTROLS FAILED")
    assert first.count("should be") == len(failures)


def test_a_control_that_failed_or_was_never_measured_is_a_failure():
    skipped = lacking("skipped", "K = 3", estimator="exact", task="other")
    fine = [*rows(), skipped, row("relaxed", task="other", verdict="biased")]
    assert control_failures(annotated(fine), CONTROLS) == []
    broken = [*fine, lacking("failed", "NaN", estimator="exact", task="other")]
    (failure,) = control_failures(annotated(broken), CONTROLS)
    assert "exact should be unbiased on other" in failure and "NaN" in failure
    nowhere = measurements_frame([skipped, row("relaxed", task="other", verdict="biased")])
    (failure,) = control_failures(tables.annotate(nowhere), CONTROLS)
    assert failure == "exact should be unbiased, but was measured on no task."


def test_rows_share_a_rank_with_the_first_they_overlap():
    result = ranking(
        row("a", variance=1.00),
        row("b", variance=1.08),
        row("c", variance=1.16),
        row("d", variance=9.00),
    )
    assert result == {"a": 1, "b": 1, "c": 3, "d": 4}  # c overlaps b, but not a


def test_the_ranking_is_by_mse_and_by_variance_where_the_truth_is_unknown():
    low_variance = row("low", variance=0.1, bias_sq=5.0, verdict="biased")
    assert ranking(low_variance, row("fair")) == {"fair": 1, "low": 2}
    unknown = {
        c: math.nan
        for c in ("gradient_norm", "bias_sq", "bias_sq_low", "bias_sq_high", "relative_bias")
    } | {"mse": math.nan, "cosine": math.nan, "cosine_se": math.nan, "verdict": "inconclusive"}
    assert ranking(low_variance | unknown, row("fair") | unknown) == {"low": 1, "fair": 2}


def test_what_rounding_leaves_of_zero_ties_with_zero():
    a = row("a", variance=0.0, bias_sq=1e-32) | {"bias_sq_low": 1e-32, "bias_sq_high": 1e-32}
    b = row("b", variance=0.0, bias_sq=1e-30) | {"bias_sq_low": 1e-30, "bias_sq_high": 1e-30}
    assert ranking(a, b, row("c", variance=1e-6)) == {"a": 1, "b": 1, "c": 3}
    infinite = row("d") | {"variance": math.inf, "variance_high": math.inf, "mse": math.inf}
    assert ranking(a, infinite, row("e") | {"mse": math.nan}) == {
        "a": 1,
        "d": 2,
        "e": pytest.approx(math.nan, nan_ok=True),
    }


def test_an_interval_of_the_mse_covers_both_of_its_parts():
    (result,) = tables.annotate(
        measurements_frame(
            [
                row(variance=4.0, bias_sq=2.0)
                | {"variance_low": 1.0, "variance_high": 7.0}
                | {"bias_sq_low": 0.0, "bias_sq_high": 6.0}
            ]
        )
    ).itertuples()
    assert result.mse_low == pytest.approx(6 - math.hypot(3, 2))
    assert result.mse_high == pytest.approx(6 + math.hypot(3, 4))
    assert result.relative_bias_high == pytest.approx(math.sqrt(6) / NORM)


def test_labels_show_the_knobs_that_tell_rows_apart():
    frame = measurements_frame(
        [
            row("rloo", {"samples": 2, "decay": 0.9}),
            row("rloo", {"samples": 4, "decay": 0.9}),
            row("vimco", {"samples": 4}),
            row("exact", variance=0.0),
        ]
    )
    result = tables.annotate(frame)["label"].tolist()
    assert result == ["rloo (samples=2)", "rloo (samples=4)", "vimco (samples=4)", "exact"]
    twice = tables.annotate(pd.concat([frame, frame.assign(seed=1)]))["label"]
    assert twice.is_unique and "rloo (samples=2, seed=1)" in set(twice)


def test_replicates_that_a_precision_took_are_no_label():
    frame = [row("a", replicates=100, precision="reached"), row("b", replicates=200)]
    assert tables.annotate(measurements_frame(frame))["label"].tolist() == ["a", "b"]
    frame[0]["precision"] = ""
    assert "replicates=100" in tables.annotate(measurements_frame(frame))["label"][0]


def test_params_of_one_task_are_sections_of_their_own(write, tmp_path):
    text = write(rows())
    for latents in (2, 4, 8):
        assert f"## toy (latents={latents})\n" in text
        result = pd.read_csv(tmp_path / "tables" / f"toy-latents={latents}-log_alpha.csv")
        assert result["rank"].is_monotonic_increasing and result["label"].is_unique
        assert len(result) == 7 and result["label"].iloc[0] == "exact"
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv")
    assert len(summary) == 21


def test_names_that_a_file_system_confuses_get_files_of_their_own(write, tmp_path):
    write([row(task="toy"), row(task="Toy"), row(task="to/y"), row(task="to y")])
    names = [path.name.lower() for path in (tmp_path / "tables").iterdir()]
    assert len(set(names)) == len(names) == 5 + 5 + 4  # the summary is no table for a paper


def test_text_of_plugins_cannot_break_the_markdown(write):
    reason = "a|b `c` <script>\n| new | row |\n# title *bold* $x$ [link](u) \\ & __d__"
    nasty = row("ev|l<b>", {"mode": "x`y|z"}), row("ev|l<b>", {"mode": "w"}, variance=9.0)
    text = write([*nasty, lacking("failed", reason, estimator="br`ken")], controls={})
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("|") and "ev|l" in line.replace("\\", "")]
    assert [cells(line)[1] for line in table] == [
        r"ev|l&lt;b&gt; (mode=x\`y|z)",
        "ev|l&lt;b&gt; (mode=w)",
    ]
    (failed,) = [line for line in lines if "failed" in line and line.startswith("|")]
    assert len(cells(failed)) == 4
    assert "<script>" not in text and not any(line.startswith("# title") for line in lines)
    assert r"\*bold\*" in failed and r"\$x\$" in failed and r"\_\_d\_\_" in failed
    assert escape("reinforce_ema") == "reinforce_ema"


def test_hostile_texts_of_plugins_stay_texts_in_every_file(write, tmp_path):
    cited = {"hostile": f"{hostile.ALL}, 2024"}
    text = write(hostile_rows(), references=cited, suite=hostile.ALL, command=["x", hostile.ALL])
    code = text.split("````")[1]  # of the command; it holds a shorter fence
    assert "".join(hostile.ALL.split()) in "".join(code.replace("'\"'\"'", "'").split())
    outside = text.replace(code, "")
    assert "<" not in outside and not re.search(r"(?<!\\)\]\(javascript", outside)
    lines = outside.splitlines()
    assert [line for line in lines if line.startswith("# ")] == [lines[0]]
    widths = Counter(len(cells(line)) for line in lines if line.startswith("|"))
    tasks = 2 * len(hostile.TEXTS)
    assert widths == {4: tasks + 2, 5: widths[5], 12: tasks * (2 + 2)}  # with headers and rules
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv")
    assert summary["label"].map(
        lambda x: x.split("=", 1)[1].rpartition(", other")[0]
    ).to_list() == [text for _ in range(2) for text in hostile.TEXTS.values() for _ in range(2)]
    same = pd.read_parquet(tmp_path / "tables" / "summary.parquet")
    pd.testing.assert_frame_equal(summary, same, check_dtype=False, rtol=1e-14)


def test_numbers_are_as_precise_as_their_intervals():
    assert interval(0.32374, 0.31412, 0.33365) == "0.324 [0.314, 0.334]"
    assert interval(3583.78, 3569.6, 3598.0) == "3584 [3570, 3598]"
    assert interval(0.0, 0.0, 2.345) == "0.0 [0.0, 2.3]"
    assert interval(1.5e-9, 1.4e-9, 1.6e-9) == "1.50 [1.40, 1.60] × 10⁻⁹"
    assert interval(1.5e-9, 1.4e-9, 1.6e-9, ends=False) == "1.50 × 10⁻⁹"
    assert interval(0.0, 0.0, 0.0) == "0"
    assert interval(0.25, math.nan, math.nan) == "0.250"
    assert interval(math.inf, 1.0, math.inf) == "∞"
    assert plus_minus(-0.0359, 0.0044) == "-0.0359 ± 0.0044"
    assert plus_minus(-0.00001, 0.02) == "0.000 ± 0.020"
    assert number(math.nan) == "n/a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.43842, "0.43842"),
        (7.275e-3, "0.007275"),
        (1.25e-9, "1.25 × 10⁻⁹"),
        (1.0, "1"),
        (-100.0, "-100"),
        (0.001, "0.001"),
        (2 / 3, "0.666667"),
        (0.1 + 0.2, "0.3"),
        (0.0, "0"),
        (float("nan"), "n/a"),
    ],
)
def test_a_number_that_is_stated_keeps_its_digits(value, text):
    assert stated(value) == text


def test_zero_and_missing_numbers_are_said_as_they_are(write):
    unknown = dict.fromkeys(("bias_sq_high", "relative_bias", "mse", "cosine"), math.nan)
    hidden = row("hidden", task="large") | unknown | {"gradient_norm": math.nan}
    untimed = {"seconds": math.nan, "seconds_low": math.nan, "seconds_high": math.nan}
    text = write([row("exact", variance=0.0), hidden | untimed | {"bias_sq": math.nan}])
    zero, missing = (
        cells(line) for line in text.splitlines() if line.startswith(("| 1 ", "|      1 "))
    )
    assert zero[1] == "exact" and zero[4:7] == ["0", "0", "0"] and zero[11] == "0"
    assert missing[4] == missing[6] == missing[7] == missing[9] == missing[10] == "n/a"
    assert missing[5] == "1.00 [0.95, 1.05]" and missing[11] == "1.00"
    assert "ranking is by variance" in text


def test_tables_stay_readable_and_files_have_every_column(write, tmp_path):
    text = write(rows())
    widths = {len(cells(line)) for line in text.splitlines() if line.startswith("|")}
    assert max(widths) <= 12
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv")
    derived = {"bias_sq", "bias_norm", "value", "batch", "latents", "categories", "coordinates"}
    told_once = {"suite", "status", "reason"}
    left_out = {c for c in COLUMNS if not any(c.startswith(d) for d in derived | told_once)}
    versions = {"task_version", "estimator_version"}  # which a run has in run.json
    assert left_out - set(summary) == {"exact_value", *versions}
    assert {"p_holm", "detectable_ratio", "mse_low"} <= set(summary)


def test_what_was_exact_missed_estimated_or_odd_is_said(write):
    missed = "variance within 3 % instead of 2 %"
    result = [
        row("sampled", precision="reached", replicates=20_000, detectable_bias=0.0123),
        row("noisy|", precision=missed, variance=9.0, detectable_bias=0.5, verdict="biased"),
        row("listed", variance=3.0, method="enumerated", outcomes=64, replicates=0)
        | {"variance_low": 3.0, "variance_high": 3.0, "bias_sq_high": 0.0, "zero": 0.25},
        row("dear", variance=0.1, evaluations=3, gradient_evaluations=2, memory=1234.4, zero=0.5),
    ]
    text = write(result)
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    table = {line[1]: line for line in lines if len(line) == 12}
    assert table["sampled"][2:4] == ["unbiased (1.23 %)", "20,000"]
    assert table["noisy|"][2:4] == ["biased", "1,000 ‡"]
    assert table["listed"][3] == "exact (64)" and table["listed"][5:7] == ["3.00", "3.00"]
    assert table["dear"][8:10] == ["3 + 2", "1,234"] and table["sampled"][8] == "1"
    assert f"‡ The requested precision was not reached: noisy\\|: {missed}." in text
    assert "Some estimates" not in text and "is replaced by" not in text
    plain = write([row("a"), row("b", variance=2.0)])
    assert "The requested precision" not in plain
    some = write([row("a|", nonfinite=0.1), row("b", zero=0.1)])
    assert "Some estimates are not finite: a\\|. See [Numerics](#numerics)." in some
    estimated = write([row("a", reference="monte_carlo", reference_by="rloo")])
    assert "replaced by the mean of many estimates of rloo" in estimated


def test_inconclusive_beside_an_interval_that_excludes_zero_is_explained(write):
    doubtful = {"bias_sq": 0.1, "verdict": "inconclusive"}
    result = [
        row("unproven", variance=9.0, **doubtful, detectable_bias=0.9),
        row("may be none", verdict="inconclusive"),
        row("found", bias_sq=0.1, verdict="biased"),
        row("small", bias_sq=1e-8),
        row("listed", **doubtful) | {"method": "enumerated"},
    ]
    text = write(result)
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    table = {line[1]: line[2] for line in lines if len(line) == 12}
    assert table["unproven"] == "inconclusive (90.0 %) †"
    assert [name for name, verdict in table.items() if "†" in verdict] == ["unproven"]
    assert "† Inconclusive although the interval of the bias excludes 0" in text
    assert "†" not in write(result[1:])


def test_a_shared_rank_says_what_would_have_been_told_apart(write):
    exact = {"method": "enumerated", "outcomes": 9} | dict.fromkeys(
        ("variance_low", "variance_high"), 5.0
    )
    text = write(
        [row("a"), row("b", variance=1.02)]
        + [row(name, variance=5.0, bias_sq_high=0.0) | exact for name in "cd"]
    )
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    result = {line[1]: line[0] for line in lines if len(line) == 12}
    assert result["a"] == "1" and result["c"] == "3" and result["d"] == "3 (=)"
    ratio = float(result["b"].removeprefix("1 (×").removesuffix(")"))
    assert 1.05 < ratio < 1.2


def test_the_tests_of_a_whole_run_are_counted_once(write, tmp_path):
    def cell(name, p, **columns):
        both = {"p_value": p, "verdict": "biased" if p < 0.01 else "inconclusive"} | columns
        return [row(name, **both, parameter=each) for each in ("alpha", "log_alpha")]

    result = [
        *cell("certain", 0.0, method="enumerated"),
        *cell("lucky", 0.004),
        *cell("wrong", 1e-9),
        *(each for n in range(198) for each in cell(f"fair{n}", 0.5)),
    ]
    text = write(result)
    assert "made 200 tests of bias at a level of 1 %" in text
    assert "at most 2; the number of rejections is 2, and 1 after Holm's correction" in text
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv").set_index("estimator")
    p_holm = summary["p_holm"].groupby("estimator").agg(["min", "max"])
    assert (p_holm["min"] == p_holm["max"]).all()
    assert p_holm["min"]["wrong"] == pytest.approx(200e-9)
    assert p_holm["min"]["lucky"] == pytest.approx(199 * 0.004)
    assert p_holm["min"]["certain"] == 0
    noisy = cell("certain", 0.5, method="enumerated", reference="monte_carlo")
    assert "made 1 test of" in write(noisy)
    groups = [*cell("a", 0.5), row("a", p_value=0.5, parameter="encoder")]
    assert "made 2 tests of" in write(groups)  # that of a group is another one
    assert "Multiple tests" not in write(cell("certain", 0.0, method="enumerated"))


def test_where_the_biased_are_overtaken_is_a_table(write, tmp_path):
    result = [
        row("fair", variance=9.0),
        row("cheap", bias_sq=0.5, verdict="biased"),
        row("fair", variance=9.0, parameter="alpha"),
        row("cheap", bias_sq=2.0, verdict="biased", parameter="alpha"),
    ]
    text = write(result)
    (line,) = [cells(x) for x in text.splitlines() if x.startswith("|") and "cheap" in x
               and "fair" in x]  # fmt: skip
    assert line[:3] == ["toy", "cheap", "fair"] and line[3].startswith("16.0 [")
    table = pd.read_csv(tmp_path / "tables" / "crossovers.csv").set_index("parameter")
    assert table["budget"].to_dict() == {"log_alpha": 16, "alpha": 4}
    many = [row(f"cheap{n}", bias_sq=0.5, verdict="biased") for n in range(50)]
    long = write([result[0], *many])
    assert sum("| fair" in x for x in long.splitlines() if len(cells(x)) == 5) == 40
    assert "10 more rows are there" in long
    assert "MSE at a fixed budget" not in write(result[:1])
    assert not (tmp_path / "tables" / "crossovers.csv").exists()
    write([row("fair", task=name) for name in ("crossovers", "summary")] + result)
    assert len(list((tmp_path / "tables").glob("*.csv"))) == 6


def test_a_run_without_a_measured_row_is_reported(write, tmp_path):
    text = write(
        [
            lacking("failed", "NonFiniteGradient: nan", estimator="rloo"),
            lacking("skipped", "needs K = 2", estimator="arm"),
        ],
        controls=CONTROLS,
    )
    assert text.startswith("**CONTROLS FAILED")
    assert "Nothing was measured here." in text
    assert "NonFiniteGradient: nan" in text and "needs K = 2" in text
    assert "0 measured, 1 skipped, 1 failed" in text
    assert not (tmp_path / "figures").exists()
    assert "# demo" in write([])


def test_how_the_run_was_made_can_be_read(write):
    text = write(
        rows(),
        command=["python", "benchmark.py", "--suite", "a suite.yaml"],
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:02:03+00:00",
        versions={"torch": "2.13"},
        commit="abc123",
        replicates=[20000],
    )
    assert "\npython benchmark.py --suite 'a suite.yaml'\n" in text
    assert "2 min 3 s" in text and "torch = 2.13" in text and "abc123" in text
    assert "replicates: 20,000" in text and "21 measured" in text


def test_the_report_is_reproducible_and_clears_what_is_stale(write, tmp_path):
    stale = [
        tmp_path / name
        for name in (
            "figures/cost_growth.svg",
            "figures/old.png",
            "tables/gone-log_alpha.csv",
            "tables/gone-log_alpha.tex",
            "tables/gone-log_alpha.parquet",
        )
    ]
    only = [each for each in rows() if each["latents"] == 2]
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text("stale")
    text = write(only, ["bias_against_variance"])
    assert not any(path.exists() for path in stale)
    contents = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert write(only, ["bias_against_variance"]) == text
    changed = {
        p.name
        for p, content in contents.items()
        if p.suffix != ".parquet" and p.read_bytes() != content
    }
    assert changed == set()


@pytest.mark.slow  # six figures, in three forms each
def test_every_figure_is_embedded_with_alternative_text(write, tmp_path):
    text = write([each for each in rows() if each["latents"] < 8], FIGURES)  # two tasks: quicker
    for name in FIGURES:
        assert f"](figures/{name}.png)" in text
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (tmp_path / "figures" / f"{name}.svg").read_bytes()
        pdf = (tmp_path / "figures" / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # fonts are embedded whole
    assert text.count("![") == len(FIGURES) == 6 and "![]" not in text


def test_the_methods_that_were_measured_come_last_with_what_they_cite(write, tmp_path):
    known = {
        "rloo": 'Kool & Others_, "A <b>", 2019, arXiv 1611.00712.',
        "relaxed": 'Kool & Others_, "A <b>", 2019, arXiv 1611.00712.',
        "noisy": "On my | desk, 2024",
        "skipped": "Never, 2024",
        "elsewhere": "Nobody, 2024",
    }
    result = [*rows(), lacking("skipped", "K = 3", estimator="skipped")]
    methods = {"rloo": "Leave *one* out.\n\n    ĝ = <f> `x`\n\nWith `S` <samples>."}
    last = write(result, references=known, methods=methods).split("## Methods\n\n")[1]
    cited = (
        'Kool &amp; Others\\_, "A &lt;b&gt;", 2019, '
        "[arXiv 1611.00712](https://arxiv.org/abs/1611.00712)\n"
    )
    assert last == (
        "References as BibTeX: [references.bib](references.bib)\n\n"
        "### noisy\n\nOn my \\| desk, 2024\n\n"
        f"### relaxed\n\n{cited}\n"
        "### rloo\n\nLeave \\*one\\* out.\n\n```\nĝ = <f> `x`\n```\n\n"
        f"With `S` &lt;samples&gt;.\n\n{cited}"
    )
    bibtex = (tmp_path / "references.bib").read_text(encoding="utf-8")
    assert [line for line in bibtex.splitlines() if line.startswith("@")] == [
        "@misc{kool2019b,",
        "@misc{noisy,",
    ]


@pytest.mark.parametrize("known", [None, {}, [], "text", {"exact": ""}, {"other": "Me, 2024"}])
def test_a_run_that_keeps_no_references_has_none_and_no_stale_ones(write, tmp_path, known):
    (tmp_path / "references.bib").write_text("of an earlier report")
    assert "## Methods" not in write([row("exact")], references=known)
    assert not (tmp_path / "references.bib").exists()


@pytest.mark.parametrize("damage", ["missing", "no run", "parquet", "json", "columns", "params"])
def test_a_folder_that_holds_no_run_is_one_clear_line(tmp_path, damage):
    frame = measurements_frame([row()])
    if damage == "columns":
        frame = frame.drop(columns=["variance", "verdict"])
    elif damage == "params":
        frame["estimator_params"] = "{samples"
    if damage != "missing":
        write_frame(tmp_path / "measurements.parquet", frame)
    if damage != "no run":
        write_json(tmp_path / "run.json", {"suite": "demo"})
    if damage == "parquet":
        (tmp_path / "measurements.parquet").write_text("no parquet")
    elif damage == "json":
        (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="holds no readable run") as caught:
        write_report(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "report.md").exists()


def test_an_estimator_looks_the_same_in_every_run():
    names = [f"estimator{n}" for n in range(60)]
    everyone = style.assign_styles(names)
    assert len(set(everyone.values())) == 60
    assert style.assign_styles(reversed(names)) == everyone
    alone = [style.assign_styles([name])[name] for name in names]
    # The same in every process and every release: figures of different runs are compared.
    assert (to_hex(alone[0].colour), alone[0].marker) == ("#56b4e9", "s")
    kept = [look == everyone[name] for look, name in zip(alone, names, strict=True)]
    assert np.mean(kept) > 0.6  # those whose look nobody before them wants
    assert len(style.assign_styles([f"estimator{n}" for n in range(500)])) == 500


def drawn(figure):
    """Panels by title; the points of a panel are its lines of one vertex."""
    panels = {}
    for ax in figure.axes:
        points = [line for line in ax.lines if len(line.get_xdata()) == 1]
        panels.setdefault(ax.get_title(loc="left"), []).append((ax, points))
    return panels


def test_every_point_is_drawn_zeros_and_limits_included():
    figure = plots.bias_against_variance(annotated(list(rows())))
    panels = drawn(figure)
    assert len(panels) == 3
    for ((ax, points),) in panels.values():
        assert len(points) == 7
        places = [ax.transAxes.inverted().transform(ax.transData.transform(p.get_xydata()[0]))
                  for p in points]  # fmt: skip
        assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in places)
        assert sum(p.get_xydata()[0].tolist() == [0, 0] for p in points) == 1
        arrows = [t for t in ax.texts if t.arrow_patch is not None]
        assert len(arrows) == 3  # noisy and twice rloo
        heights = sorted(p.get_ydata()[0] for p in points)
        limit = 100 * math.sqrt(0.25 / 1e5) / NORM
        assert heights[1] == pytest.approx(limit)  # the upper end, not the estimate, which is 0


def test_budget_curves_begin_at_one_estimate_and_the_least_lies_below():
    cost = {"evaluations": 3, "gradient_evaluations": 1}
    result = [
        row("fair", variance=9.0, **cost),
        row("cheap", bias_sq=0.5, verdict="biased", evaluations=2),
        row("listed", variance=4.0, method="enumerated", spread=0.0, evaluations=1),
        row("exact", variance=0.0, evaluations=27),
    ]
    figure = plots.mse_against_budget(annotated(result))
    figure.draw_without_rendering()
    (((ax, points),),) = drawn(figure).values()
    starts = {tuple(p.get_xydata()[0].round(9)) for p in points}
    assert starts == {(4, 9), (2, 1.5), (1, 4), (27, 0)}
    (best,) = [line for line in ax.lines if line.get_linewidth() == 6]
    budgets, least = best.get_xydata().T
    assert (np.diff(budgets) > 0).all() and budgets[0] == 1 and least[0] == 4
    for budget, mse in zip(budgets, least, strict=True):
        expected = {1: 4 / budget, 2: 0.5 + 2 / budget, 4: 36 / budget, 27: 0.0}
        assert mse == pytest.approx(min(v for c, v in expected.items() if budget >= c))


def test_the_matrix_has_a_cell_for_every_estimator_and_task():
    result = [
        row("zero", variance=0.0),
        row("fair", evaluations=2),
        row("fair", task="other", variance=3.0, verdict="inconclusive"),
        row("skewed", bias_sq=0.25, variance=8.0, verdict="biased"),
        row("skewed", task="other", bias_sq=0.01, variance=6.0, verdict="biased"),
        lacking("skipped", "K = 3", estimator="zero", task="other"),
        row("alone", task="other", variance=1.0),
    ]
    figure = matrix(annotated(result))
    bias, work = figure.axes[:2]
    names = [label.get_text() for label in bias.get_yticklabels()]
    assert names == ["alone", "zero", "fair", "skewed"]  # the biased last
    assert [label.get_text() for label in bias.get_xticklabels()] == ["toy", "other"]

    def cell(ax, name, task):
        line, across = names.index(name), ["toy", "other"].index(task)
        inside = [t for t in ax.texts if [int(x) for x in t.get_position()] == [across, line]]
        filled = [p for p in ax.patches if p.get_xy() == (across, line)]
        return [t.get_text() for t in inside], [to_hex(p.get_facecolor()) for p in filled]

    assert cell(bias, "skewed", "toy") == (["100"], [])
    assert cell(bias, "fair", "toy") == (["< 0.632"], [])  # √(1/10⁵)/0.5: may be zero
    assert cell(work, "fair", "toy") == (["2.00"], [])
    assert cell(work, "zero", "toy") == (["0"], ["#f7f7f7"])  # hatched
    assert cell(bias, "zero", "other") == ([], ["#d9d9d9"])  # skipped
    assert cell(work, "alone", "toy") == (["·"], [])
    # Shades are over the least of a task, whatever the task's scale.
    shades = work.collections[0].get_array().reshape(4, 2)
    np.testing.assert_allclose(shades, [[np.nan, 1], [np.nan, np.nan], [1, 3], [4, 6]])
    assert matrix(annotated([row("a"), row("b")])) is None
    assert matrix(annotated([row("a"), row("a", task="other")])) is None


def test_labels_keep_off_points_and_each_other():
    crowd = [row(f"estimator{n}", variance=1.1**n, bias_sq=1.05**n) for n in range(25)]
    figure = plots.bias_against_variance(annotated(crowd))
    figure.draw_without_rendering()
    (((ax, points),),) = drawn(figure).values()
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text()]
    assert len(boxes) >= 10
    for n, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:n])
        centres = [ax.transData.transform(p.get_xydata()[0]) for p in points]
        assert not any(box.contains(*centre) for centre in centres)
        assert ax.get_window_extent().contains(*box.min)
        assert ax.get_window_extent().contains(*box.max)


def test_a_figure_without_its_rows_is_none():
    raw = measurements_frame([row("rloo"), row("relaxed", {"temperature": 0.5})])
    frame = tables.annotate(raw)
    assert plots.bias_against_variance(frame) is not None
    assert plots.temperature_tradeoff(frame) is None
    assert plots.cost_growth(frame) is None
    unknown = tables.annotate(raw.assign(bias_sq_high=np.nan))
    assert plots.bias_against_variance(unknown) is None
    assert plots.variance_against_evaluations(unknown) is not None
    assert plots.mse_against_budget(frame.assign(mse=np.nan)) is None
    assert plots.variance_against_evaluations(annotated([])) is None


def test_cost_grows_along_one_size_while_the_others_stay():
    star = [
        row(e, variance=v, latents=n, categories=k, replicates=r if v else 1,
            task_params={"latents": n, "categories": k})
        for e, v in (("exact", 0.0), ("rloo", 1.0))
        for n, k, r in ((2, 2, 100), (2, 2, 1000), (4, 2, 1000), (8, 2, 1000), (2, 9, 1000))
    ]  # fmt: skip
    titles = drawn(plots.cost_growth(annotated(star)))
    titles.pop("")
    assert list(titles) == [
        "toy at N = 2, K = 2",
        "toy at R = 1,000, K = 2",
        "toy at R = 1,000, N = 2",
    ]
    counts = {title: len(points) for title, ((_, points), *_) in titles.items()}
    assert list(counts.values()) == [2, 6, 4]  # an exact cell has no number of replicates


def test_an_exact_row_is_shown_rather_than_a_sampled_one():
    exact = row(variance=3.0, method="enumerated", replicates=0)
    sampled = row(variance=2.0)
    for order in ((exact, sampled), (sampled, exact)):
        figure = plots.bias_against_variance(annotated(list(order)))
        (((_, (point,)),),) = drawn(figure).values()
        assert point.get_xdata()[0] == 3


def test_a_name_is_drawn_as_it_is_written():
    frame = annotated([row("_$x_y$"), row("two\nlines"), row("n" * 90)])
    figure = plots.bias_against_variance(frame)
    figure.draw_without_rendering()
    words = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    assert any(w.strip() == r"_\$x_y\$" for w in words) and "two lines" in words
    assert max(map(len, words)) <= 60


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["toy", "toy", "other"], ["toy", "toy", "other"]),
        (["a" * 50], ["a" * 39 + "…"]),
        (
            [f"vae (latents=3, categories=6, seed=10, batch={n})" for n in (0, 1)],
            [f"vae (latents=3, categories=6, s…batch={n})" for n in (0, 1)],
        ),
        (["n" * 60 + "a", "n" * 60 + "b"], ["n" * 35 + "… (1)", "n" * 35 + "… (2)"]),
    ],
)
def test_titles_that_are_cut_stay_different(names, message):
    assert style.titles(names) == message
    assert max(map(len, style.titles(names))) <= 40


def test_two_panels_of_long_names_have_two_titles():
    values = {"values": [0.125] * 12}
    frame = measurements_frame(
        [row(task="categorical", task_params={**values, "x_target": t}) for t in (0.1, 0.2)]
    )
    other = measurements_frame([row(task="categorical", task_params={"values": [1, 2]})])
    figure = plots.bias_against_variance(
        tables.annotate(pd.concat([frame, other], ignore_index=True))
    )
    titles = [title for title in drawn(figure) if title]
    assert len(titles) == 3 and titles[0].startswith("categorical (values=[0.125")
    assert "x_target=0.1" in titles[0] and "x_target=0.2" in titles[1]


@pytest.mark.parametrize("values", [(3.0, 3.1), (0.04, 0.3), (7e-5, 8e-5), (1.0, 1e4)])
def test_an_axis_has_a_scale_beside_its_zeros_however_narrow_it_is(values):
    figure = Figure()
    ax = figure.subplots()
    canvas.logarithmic(ax, "x", pd.Series([0.0, *values]))
    figure.draw_without_rendering()
    low, high = ax.get_xlim()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    output = [text for x, text in zip(ax.get_xticks(), labels, strict=True) if 0 < x <= high]
    assert low < 0 and output and all(output) and len(set(output)) == len(output)
