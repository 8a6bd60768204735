"""`--report A B`: the files that a comparison leaves, what it says, how it exits."""

import json
import re
import shutil
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pandas as pd
import pytest

from gradest.cli import main
from gradest.plugins.registry import PluginBundle, Registry
from gradest.report.regression import comparison as report
from gradest.report.regression.differences import COLUMNS, UNDECIDED, WORSE
from gradest.report.regression.figure import NAMED, draw_comparison
from gradest.runs.journal import append_record, read_records
from gradest.runs.provenance import describe_run
from gradest.runs.runner import run
from gradest.runs.suite import load_suite
from gradest.runs.tables import write_results
from gradest.runs.workers import Workers
from gradest.support.files import write_json
from gradest.support.text import counted

pytestmark = pytest.mark.slow  # whole runs, compared

SUITE = """\
replicates: {replicates}
enumerate_draws: false
timed: false
tasks: [categorical]
estimators: [rloo, st_gumbel_softmax, mine]
"""
PLUGIN = '''
"""Two samples, each the other's baseline."""
from dataclasses import dataclass
from gradest import Estimator
from gradest.categorical import log_prob, nabla, sample

@dataclass(eq=False)
class Mine(Estimator):
    def __call__(self, logits, f):
        z = sample(logits, 2)
        cost = f(z)
        advantage = cost - cost.flip(1)
        return (cost + {factor} * advantage * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)
'''


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """name -> the folder of a run, without its report.

    `worse` has an estimator that is scaled, `fewer` a suite without it.
    """
    folder = tmp_path_factory.mktemp("runs")
    (folder / "mine.yaml").write_text(SUITE.format(replicates=2000))
    made = {"base": (1.0, 0), "again": (1.0, 0), "seed": (1.0, 1), "worse": (1.5, 2)}
    for name, (factor, seed) in made.items():
        plugin = folder / f"plugin-{factor}" / "mine.py"
        plugin.parent.mkdir(exist_ok=True)
        plugin.write_text(PLUGIN.format(factor=factor))
        _run(folder / "mine.yaml", plugin, seed, folder / name)
    fewer = SUITE.format(replicates=2000).replace(", mine]", "]")
    (folder / "fewer.yaml").write_text(fewer)
    _run(folder / "fewer.yaml", plugin, 0, folder / "fewer")
    return {name: folder / name for name in (*made, "fewer")}


def _run(file, plugin, seed, folder):
    registry, bundle = Registry.load([plugin]), PluginBundle.of([plugin])
    suite = load_suite(file, registry, seed=seed)
    workers = Workers(1, "threading")
    run(suite.name, suite.cells, folder, registry, bundle, workers, timed=False)
    write_results(folder, describe_run(suite, registry, datetime.now(UTC)))


@pytest.fixture
def compare(tmp_path, capsys, monkeypatch):
    """Compares folders; returns exit status, both outputs and the folder of the comparison.

    Without the figure, unless it is to be drawn.
    """

    def compared(*folders, fail=True, out=None, draw=False):
        out = out or tmp_path / "out"
        if not draw:
            monkeypatch.setattr(report, "draw_comparison", lambda frame: None)
        more = ["--fail-on-regression"] if fail else []
        status = main(["--report", *map(str, folders), "--out", str(out), *more])
        captured = capsys.readouterr()
        return status, captured.out, captured.err, out

    return compared


def frame_of(folder):
    return pd.read_parquet(folder / "differences.parquet")


def test_a_comparison_leaves_its_files_and_the_runs_as_they_were(runs, compare):
    def state():
        return {
            path: path.stat().st_mtime_ns
            for name in ("base", "seed")
            for path in runs[name].rglob("*")
        }

    before = state()
    status, out, _, folder = compare(runs["base"], runs["seed"], draw=True)
    assert status == 0 and "no regression" in out and str(folder / "comparison.html") in out
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *("comparison.md", "comparison.html", "differences.csv", "differences.parquet"),
        *(f"figures/comparison.{kind}" for kind in ("png", "svg", "pdf")),
    }
    assert list(frame_of(folder).columns) == list(COLUMNS)
    assert len(pd.read_csv(folder / "differences.csv")) == len(frame_of(folder))
    text = (folder / "comparison.md").read_text()
    assert "No significant difference" in text and "## No significant difference" in text
    assert "| seeds" in text and "**1**" in text  # where the runs differ
    assert state() == before


def test_the_same_run_again_is_the_same(runs, compare):
    status, _, _, folder = compare(runs["base"], runs["again"])
    assert status == 0
    assert set(frame_of(folder)["judgement"]) == {"same"}
    assert "## No significant difference" not in (folder / "comparison.md").read_text()


def test_a_regression_fails_and_its_reverse_does_not(runs, compare):
    status, out, _, folder = compare(runs["base"], runs["worse"])
    assert status == 1
    shared, _, *lines, total = out.splitlines()
    assert shared == "worse: 3 of 3 cells are compared"
    assert total == counted(len(lines), "regression")
    assert lines and all(line.startswith("worse: ") and " of mine on " in line for line in lines)
    text = (folder / "comparison.md").read_text()
    assert "## Worse" in text and "## Better" not in text
    found = frame_of(folder)
    assert set(found.loc[found["judgement"].eq(WORSE), "estimator"]) == {"mine"}
    assert compare(runs["base"], runs["worse"], fail=False)[0] == 0
    status, out, _, folder = compare(runs["worse"], runs["base"])
    assert status == 0 and "no regression" in out
    assert "## Better" in (folder / "comparison.md").read_text()


def test_versions_that_differ_are_said(runs, compare, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs["again"], other)
    run = json.loads((other / "run.json").read_text())
    run["implementations"]["mine"] = 2
    write_json(other / "run.json", {k: v for k, v in run.items() if k != "checksum"})
    _, _, _, folder = compare(runs["base"], other)
    text = (folder / "comparison.md").read_text()
    assert re.search(r"\| version of mine +\| +\| \*\*2\*\* ", text)


def test_three_runs_are_all_compared_with_the_first(runs, compare):
    status, out, _, folder = compare(runs["base"], runs["seed"], runs["worse"])
    assert status == 1 and " in worse: " in out and " in seed: " not in out
    assert "| run " in (folder / "comparison.md").read_text()


def test_a_cell_that_fails_is_a_regression_and_one_that_is_gone_is_not(runs, compare, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(runs["base"], broken)
    rewrite(broken / "journal.jsonl", partial(change_of, change=_failed))
    for other, expected in ((broken, 1), (runs["fewer"], 0)):
        status, out, _, folder = compare(runs["base"], other)
        assert (status, "out of luck" in out) == (expected, bool(expected))
        assert "## Missing cells" in (folder / "comparison.md").read_text()


def rewrite(path, change):
    """Each record of a journal as `change` returns it; none where that is nothing."""
    records = [change(record) for record in read_records(path)]
    path.unlink()
    for record in filter(None, records):
        append_record(path, record)


def renamed(record, name):
    if record.get("cell", {}).get("estimator") != "mine":
        return record
    return record | {"cell": record["cell"] | {"estimator": name}}


def change_of(record, change):
    mine = record.get("cell", {}).get("estimator") == "mine"
    return change(record) if mine else record


def _failed(record):
    kept = {key: record[key] for key in ("kind", "of", "key", "cell")}
    return {**kept, "status": "failed", "reason": "ValueError: out of luck"}


def test_hostile_names_break_nothing(runs, compare, tmp_path):
    name = "<script>alert(1)</script>|$x$_\\alpha`"
    hostile = []
    for kind in ("base", "worse"):
        folder = tmp_path / f"{kind} | <b>$"
        shutil.copytree(runs[kind], folder)
        rewrite(folder / "journal.jsonl", lambda record: renamed(record, name))
        described = json.loads((folder / "run.json").read_text())
        described["machine"]["platform"] = f"{kind} {name}"
        del described["checksum"]  # as in a file that somebody has written
        write_json(folder / "run.json", described)
        hostile.append(folder)
    status, out, _, folder = compare(*hostile, draw=True)
    text = (folder / "comparison.md").read_text()
    assert status == 1 and name in out
    assert "<script>" not in text and "<b>" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    inside = [line.replace(r"\|", "").count("|") for line in tables]
    starts = [n for n, line in enumerate(tables) if line.startswith("|:")]
    for start, end in zip(starts, [*(n - 1 for n in starts[1:]), len(tables)], strict=True):
        assert set(inside[start - 1 : end]) == {inside[start]}
    assert "<script>alert" not in (folder / "figures/comparison.svg").read_text()
    assert "<script>alert" not in (folder / "comparison.html").read_text()


def test_what_is_no_comparison_is_refused(runs, compare, tmp_path):
    (tmp_path / "empty").mkdir()
    bare = tmp_path / "bare"
    shutil.copytree(runs["base"], bare)
    (bare / "journal.jsonl").unlink()
    torn = tmp_path / "torn"
    shutil.copytree(runs["base"], torn)
    write_json(torn / "run.json", {"suite": "mine"})
    for folders, out, said in [
        ([runs["base"]], None, "--fail-on-regression"),
        ([runs["base"], runs["base"]], None, "the same run"),
        ([runs["base"], runs["base"] / ".." / "base"], None, "the same run"),
        ([runs["base"], tmp_path / "empty"], None, "empty"),
        ([tmp_path / "nowhere", runs["base"]], None, "nowhere"),
        ([runs["base"], bare], None, "journal.jsonl"),
        ([runs["base"], torn], None, "cells"),
        ([runs["base"], runs["seed"]], runs["again"], "holds a run"),
    ]:
        status, _, error, folder = compare(*folders, out=out)
        assert status == 2 and said in error and error.count("\n") == 1
        assert not (folder / "comparison.md").exists()
    assert main(["--list", "--fail-on-regression"]) == 2


def lines(count, judgement=UNDECIDED):
    """A frame of so many variances and biases, of which the last is the most telling."""
    rows = []
    for n in range(count):
        for quantity, change, half in (("variance", 1.01, 0.02), ("bias", 0.01, 0.02)):
            rows.append(
                {
                    **dict.fromkeys(COLUMNS, ""),
                    **{"run": "other", "kind": "measurement", "quantity": quantity},
                    **{"parameter": "log_alpha", "label": f"e{n} $_", "task_label": "_toy"},
                    **{"change": change, "low": change - half, "high": change + half},
                    **{"gradient_norm": 0.0 if n == 1 else 0.5, "p_value": 1 / (n + 1)},
                    "judgement": judgement,
                }
            )
    return pd.DataFrame(rows)


def points(ax):
    return sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "o")


@pytest.mark.parametrize("count", [1, NAMED, 100, 1000])
def test_the_figure_names_those_with_the_strongest_evidence(count):
    figure = draw_comparison(lines(count))
    left, right = figure.axes
    named = [label.get_text() for label in left.get_yticklabels()]
    assert len(named) == min(count, NAMED)
    assert named[0].strip() == rf"e{count - 1} \$_ · _toy"
    assert points(left) == count
    assert points(right) == count - (count > 1)  # no bias is relative to a gradient of zero
    assert figure.get_size_inches()[1] < 14


def test_the_figure_bears_zeros_and_infinities():
    frame = lines(3, WORSE)
    first, second = frame.index[frame["quantity"].eq("variance")][:2]
    frame.loc[first, ["change", "low", "high"]] = [np.inf, 0.0, np.inf]
    frame.loc[second, ["change", "low", "high"]] = [0.0, 0.0, np.inf]
    figure = draw_comparison(frame)
    low, high = figure.axes[0].get_xlim()
    drawn = [x for line in figure.axes[0].lines for x in line.get_xdata()]
    assert min(drawn) == pytest.approx(low) and max(drawn) == pytest.approx(high)
    figure.draw_without_rendering()


def test_nothing_to_compare_has_no_figure():
    assert draw_comparison(pd.DataFrame(columns=list(COLUMNS))) is None
