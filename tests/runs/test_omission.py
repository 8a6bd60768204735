"""`--drop-estimators` and `--drop-tasks`, and suites that change while their results stay."""

import json
import shutil

import pandas as pd
import pytest

from gradest.cli import main
from gradest.runs.tables import finished, read_run
from tests.support import run_suite

SUITE = """\
replicates: 200
timed: false
figures: false
enumerate_draws: false
tasks: [bernoulli, categorical]
estimators: [exact, rloo, reinforce, straight_through]
controls: {unbiased: [exact], biased: [straight_through]}
claims:
  - {holds: "variance(rloo) > variance(exact)"}
  - {holds: "variance(straight_through) > variance(exact)"}
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return run_suite(tmp_path_factory.mktemp("original"), SUITE)


@pytest.fixture
def run(original, tmp_path):
    shutil.copytree(original, tmp_path / "mine")
    return tmp_path / "mine"


def names(folder, column="estimator"):
    return set(pd.read_parquet(folder / "measurements.parquet")[column])


def test_what_is_dropped_is_back_in_the_next_report(run, capsys):
    before = pd.read_parquet(run / "measurements.parquet")
    assert (
        main(["--report", str(run), "--drop-estimators", "straight*", "--drop-tasks", "cat*"]) == 0
    )
    assert names(run) == {"exact", "rloo", "reinforce"} and names(run, "task") == {"bernoulli"}
    text = (run / "report.md").read_text()
    assert text.startswith(
        "**Left out of this report and of the tables:** the estimators straight_through and the "
        "tasks categorical."
    )
    assert "1 claim: 1 reproduced" in text  # the other one is about what is left out
    assert "Controls left out of this run: straight_through" in text
    tests = text.partition("The run made ")[2].partition(" ")[0]
    assert tests == "2"  # of rloo and reinforce on one task; the draws of exact have one outcome
    assert not list((run / "tables").glob("categorical*"))
    assert main(["--report", str(run)]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(run / "measurements.parquet"), before)
    assert "Left out of this report" not in (run / "report.md").read_text()
    assert "left_out" not in read_run(run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--drop-estimators", "rlo"], "--drop-estimators: no estimator of this run matches 'rlo'"),
        (["--drop-tasks", "*"], "leave no cell of this run"),
    ],
)
def test_a_mistake_changes_nothing(run, words, message, capsys):
    before = (run / "run.json").read_bytes()
    assert main(["--report", str(run), *words]) == 2
    assert message in capsys.readouterr().err
    assert main(["--report", str(run), str(run), "--drop-tasks", "x"]) == 2
    assert "--drop-tasks: expected one run, got 2 to compare" in capsys.readouterr().err
    assert (run / "run.json").read_bytes() == before


def test_a_suite_grows_and_only_new_cells_are_measured(run, tmp_path, monkeypatch):
    before = finished(run / "journal.jsonl")
    more = SUITE.replace("reinforce,", "{reinforce: {baseline: [0.0, 1.0]}}, self_critical,")
    more = more.replace("[bernoulli,", "[{bernoulli: {target: [0.45, 0.499]}},")
    run_suite(tmp_path, more)
    after = finished(run / "journal.jsonl")
    assert len(after) == 18 and len(before) == 8
    assert all(after[key] == record for key, record in before.items())  # the times of a run, too
    frame = pd.read_parquet(run / "measurements.parquet")
    assert len(frame) == 36 and (frame["status"] == "failed").sum() == 0
    assert "unlisted" not in read_run(run)


def test_what_leaves_the_suite_stays_in_the_journal_and_is_named(run, tmp_path, capsys):
    fewer = SUITE.replace(", straight_through]", "]").partition("controls:")[0]
    (tmp_path / "mine.yaml").write_text(fewer)
    before = finished(run / "journal.jsonl")
    assert main(["--suite", str(tmp_path / "mine.yaml"), "--out", str(run), "--jobs", "1"]) == 0
    line = "bernoulli × straight_through (1 cell), categorical × straight_through (1 cell)"
    assert f"not in the suite any more, kept in the journal: {line}" in capsys.readouterr().out
    assert "not in the suite any more" in (run / "report.md").read_text()
    assert names(run) == {"exact", "rloo", "reinforce"}
    assert finished(run / "journal.jsonl") == before
    run_suite(tmp_path, SUITE)  # as it was: nothing is measured again
    assert finished(run / "journal.jsonl") == before and "straight_through" in names(run)
    assert json.loads((run / "run.json").read_text()).get("unlisted") is None
