"""`--against` and `--beside`: what agrees with reference results, and what ranks among them."""

import json
import shutil

import pandas as pd
import pytest

import gradest
from gradest import rank, read_results
from gradest.cli import main
from gradest.commands.baseline import baseline, check_agreement
from gradest.errors import UsageError
from gradest.report import write_agreement
from gradest.report.regression import comparison
from gradest.runs import Baseline, finished, read_run
from gradest.support import checksum, write_json
from tests.support import run_suite, without_processes
from tools.reduced_run import keep_run

SUITE = """\
replicates: 2000
enumerate_draws: false
timed: false
seeds: [{seed}]
tasks: [categorical, bernoulli]
estimators: [exact, straight_through, mine]
"""
PLUGIN = '''
"""Two samples, each the other's baseline."""
from dataclasses import dataclass
from gradest import Estimator
from gradest.categorical import log_prob, nabla, sample

@dataclass(eq=False)
class Mine(Estimator):
    version = {version}

    def __call__(self, logits, f):
        z = sample(logits, 2)
        cost = f(z)
        advantage = cost - cost.flip(1)
        return (cost + {factor} * advantage * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)
'''


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    without_processes(monkeypatch)
    monkeypatch.setattr(comparison, "draw_comparison", lambda frame: None)


class Runs(dict):
    """name -> the folder of a run, which is run when it is first used.

    `kept` is `base`, reduced as reference results are.
    """

    made = {  # factor, version and seed
        "base": (1.0, 1, 0),
        "again": (1.0, 1, 0),
        "scaled": (1.01, 1, 0),
        "seed": (1.0, 1, 1),
        "seeds": (1.0, 1, "0, 1"),
        "version": (1.01, 2, 0),
    }

    def __init__(self, place):
        self.place = place

    def __missing__(self, name):
        folder = self.place / name
        folder.mkdir()
        if name == "kept":
            keep_run(self["base"], folder)
            return self.setdefault(name, folder)
        factor, version, seed = self.made[name]
        plugin = self.place / f"plugin-{name}" / "mine.py"
        plugin.parent.mkdir()
        plugin.write_text(PLUGIN.format(factor=factor, version=version))
        return self.setdefault(name, run_suite(folder, SUITE.format(seed=seed), [plugin]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


def against(runs, name, tmp_path, base="kept"):
    return write_agreement(runs[base], "the reference", runs[name], tmp_path / "against")


def test_the_same_code_agrees_cell_by_cell_with_reduced_moments(runs, tmp_path, capsys):
    path, agreement = against(runs, "again", tmp_path)
    assert (agreement.compared, agreement.identical) == (6, 6) and agreement.holds
    assert (
        agreement.summary == "6 of 6 cells agree, 6 identical up to rounding, 6 of these bit by bit"
    )
    assert list(agreement.lines()) == []
    assert {path.name for path in path.parent.iterdir()} == {
        *("comparison.html", "comparison.md", "differences.csv", "differences.parquet")
    }
    assert "equal code gives equal numbers" in (tmp_path / "against/comparison.md").read_text()
    base = Baseline("the reference", runs["kept"])
    assert check_agreement(runs["again"], base) == 0
    assert "against the reference: 6 of 6 cells agree" in capsys.readouterr().out
    shutil.rmtree(runs["again"] / "against")


def test_exactly_the_cells_of_an_estimator_scaled_by_one_percent_disagree(runs, tmp_path, capsys):
    _, agreement = against(runs, "scaled", tmp_path)
    assert (agreement.compared, agreement.identical) == (6, 4) and not agreement.holds
    assert agreement.summary.startswith("4 of 6 cells agree") and agreement.bitwise == 4
    lines = agreement.disagreeing
    assert len(lines) == 2 and all(line.startswith("disagrees: mine on ") for line in lines)
    assert agreement.versions == []
    # Tested like independent runs it would pass: its noise hides a percent.
    frame = pd.read_parquet(tmp_path / "against/differences.parquet")
    moved = frame[frame["judgement"].isin(("worse", "better", "changed"))]
    assert set(moved["estimator"]) == {"mine"} and moved["p_value"].isna().all()
    assert check_agreement(runs["scaled"], Baseline("it", runs["kept"])) == 1
    assert "disagrees: mine on " in capsys.readouterr().err


@pytest.mark.slow
def test_another_seed_is_compared_by_tests(runs, tmp_path):
    _, agreement = against(runs, "seed", tmp_path)
    assert agreement.compared == 6 and agreement.identical == 2  # the two exact ones
    assert agreement.holds and agreement.disagreeing == []
    frame = pd.read_parquet(tmp_path / "against/differences.parquet")
    assert frame.loc[frame["estimator"].eq("mine"), "p_value"].notna().sum() >= 6


@pytest.mark.slow
def test_of_several_seeds_those_that_both_have_are_compared(runs, tmp_path):
    _, agreement = against(runs, "again", tmp_path, base="seeds")
    assert (agreement.compared, agreement.identical) == (6, 6) and agreement.holds
    _, agreement = against(runs, "seeds", tmp_path)
    assert agreement.compared == 6 and agreement.holds
    assert "exact on categorical" in agreement.missing[0]  # at the second seed


@pytest.mark.slow
def test_another_version_is_compared_by_tests_and_named(runs, tmp_path):
    _, agreement = against(runs, "version", tmp_path)
    assert agreement.holds and agreement.identical == 4
    assert agreement.versions == ["mine 1, here 2"]
    assert "versions that differ: mine 1, here 2" in agreement.lines()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["machine", "versions"])
def test_another_machine_or_torch_is_compared_by_tests(runs, tmp_path, key):
    shutil.copytree(runs["kept"], tmp_path / "kept")
    run = read_run(tmp_path / "kept")
    run[key] |= {"cpu": "another", "torch": "another"}
    del run["checksum"]
    write_json(tmp_path / "kept/run.json", run | {"checksum": checksum(run)})
    _, agreement = write_agreement(tmp_path / "kept", "it", runs["scaled"], tmp_path / "out")
    assert agreement.holds and agreement.identical == 4


@pytest.mark.slow
def test_cells_of_one_side_alone_are_told(runs, tmp_path):
    shutil.copytree(runs["kept"], tmp_path / "kept")
    run = read_run(tmp_path / "kept")
    records = finished(runs["kept"] / "journal.jsonl")
    cells = [cell for cell in run["cells"] if records[cell["key"]]["cell"]["estimator"] != "mine"]
    run = {key: value for key, value in run.items() if key != "checksum"} | {"cells": cells}
    write_json(tmp_path / "kept/run.json", run | {"checksum": checksum(run)})
    _, agreement = write_agreement(tmp_path / "kept", "it", runs["again"], tmp_path / "out")
    assert agreement.compared == 4 and agreement.holds
    assert agreement.missing == ["mine on categorical", "mine on bernoulli"]
    _, agreement = write_agreement(runs["again"], "it", tmp_path / "kept", tmp_path / "out")
    assert (agreement.compared, agreement.not_run, agreement.missing) == (4, 2, [])


@pytest.mark.slow
def test_without_a_common_cell_nothing_agrees(runs, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    suite = "{replicates: 100, timed: false, tasks: [quadratic], estimators: [exact]}"
    other = run_suite(folder, suite)
    _, agreement = write_agreement(runs["kept"], "it", other, tmp_path / "out")
    assert not agreement.holds and "nothing was compared" in agreement.summary


def test_what_cannot_be_compared_with_is_told_before_anything_runs(runs, tmp_path):
    with pytest.raises(UsageError, match="no reference results of the suite 'mine'"):
        baseline("reference", "mine", tmp_path, "--against")
    with pytest.raises(UsageError, match="expected 'reference' or the folder of a run"):
        baseline("nowhere", "mine", tmp_path, "--against")
    with pytest.raises(UsageError, match="contains no run"):
        baseline(str(tmp_path), "mine", tmp_path / "out", "--against")
    shutil.copytree(runs["kept"], tmp_path / "kept")
    (tmp_path / "kept" / "journal.jsonl.xz").unlink()
    with pytest.raises(UsageError, match=r"journal.jsonl is missing"):
        baseline(str(tmp_path / "kept"), "mine", tmp_path / "out", "--against")
    with pytest.raises(UsageError, match="the folder that this run writes into"):
        baseline(str(runs["base"]), "mine", runs["base"], "--against")


def test_reference_results_are_no_place_for_a_report_or_a_run(runs, capsys):
    assert main(["--report", str(runs["kept"])]) == 2
    assert "reference results, which have no report" in capsys.readouterr().err
    assert json.loads((runs["kept"] / "run.json").read_text())["reduced"] is True
    assert main(["--suite", "smoke", "--out", str(runs["kept"])]) == 2


@pytest.mark.slow
def test_the_smoke_suite_agrees_with_what_comes_with_gradest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--suite", "smoke", "--against", "reference", "--jobs", "1", "--quiet"]) == 0
    assert "14 of 14 cells agree" in capsys.readouterr().out


RANKED = """\
replicates: 2000
enumerate_draws: false
timed: false
figures: false
controls: {unbiased: [exact]}
tasks: [categorical, bernoulli]
estimators: [exact, straight_through]
"""


@pytest.fixture
def beside(runs, tmp_path):
    """Runs an own suite beside the kept run: exit status and folder."""

    def ranked(*options, suite=RANKED, names=("newcomer",)):
        (tmp_path / "own.yaml").write_text(suite)
        plugin = tmp_path / "newcomer.py"
        plugin.write_text(PLUGIN.format(factor=0.5, version=1).replace("Mine", "Newcomer"))
        arguments = ["--suite", tmp_path / "own.yaml", "--plugin", plugin, "--jobs", 1]
        arguments += ["--only-estimators", *names, "--out", tmp_path / "out", "--quiet"]
        status = main(list(map(str, [*arguments, "--beside", runs["kept"], *options])))
        return status, tmp_path / "out"

    return ranked


def test_a_new_estimator_is_ranked_among_those_of_the_reference(beside, runs, capsys):
    status, out = beside("--only-tasks", "categorical")
    printed = capsys.readouterr().err
    assert status == 0
    assert "not ranked: mine: it cannot be made here: unknown estimator 'mine'" in printed
    frame = read_results(out)
    rows = frame[frame["parameter"].eq("log_alpha")].set_index("estimator")
    assert set(rows.index) == {"exact", "straight_through", "newcomer"}
    assert pd.isna(rows.loc["newcomer", "origin"]) and rows.loc["newcomer", "label"] == "newcomer"
    assert rows.loc["exact", "origin"] == str(runs["kept"])
    assert rows.loc["exact", "label"] == "exact°"
    # The numbers are those of the other run, and a ranking holds all of them.
    other = read_results(runs["kept"]).set_index(["estimator", "task", "parameter"])
    same = other.loc[("straight_through", "categorical", "log_alpha")]
    assert rows.loc["straight_through", "variance"] == same["variance"]
    assert set(rank(frame)["label"]) == {"exact°", "straight_through°", "newcomer"}
    text = (out / "report.md").read_text()
    assert "## Rows of another run" in text and "° Not measured in this run" in text
    assert "Controls left out of this run: exact" in text  # it was not measured here
    # The report is rebuilt without the other run, and a run without the option forgets its rows.
    assert main(["--report", str(out), "--drop-estimators", "straight*"]) == 0
    assert set(read_results(out)["estimator"]) == {"exact", "newcomer"}
    assert main(["--report", str(out)]) == 0
    assert read_results(out)["origin"].notna().sum() == 4
    # It can also be compared with an earlier run of itself, although the suite lacks it.
    words = ["--suite", out.parent / "own.yaml", "--plugin", out.parent / "newcomer.py"]
    words += ["--only-estimators", "newcomer", "--only-tasks", "categorical", "--jobs", 1]
    words += ["--out", out.parent / "again", "--against", out, "--quiet"]
    assert main(list(map(str, words))) == 0
    assert "1 of 1 cell agrees, 1 identical up to rounding" in capsys.readouterr().out


@pytest.mark.slow
def test_rows_of_another_protocol_or_version_do_not_stand_in(beside, capsys):
    status, out = beside("--replicates", "1000", "--only-tasks", "categorical")
    printed = capsys.readouterr().err
    assert status == 0
    assert "replicates is 2000 in it and 1000 here" in printed
    command = next(line for line in printed.splitlines() if line.startswith("to measure them: "))
    words = command.partition(": ")[2].split()
    assert words[words.index("--only-estimators") + 1 :] == [
        "newcomer",
        "exact",
        "straight_through",
    ]
    # The command measures them: nothing is lacking then but what cannot be made.
    status, out = beside(
        *("--replicates", "1000", "--only-tasks", "categorical"),
        names=("newcomer", "exact", "straight_through"),
    )
    assert status == 0 and "to measure them" not in capsys.readouterr().err
    assert read_results(out)["origin"].isna().all()
    assert set(read_results(out)["estimator"]) == {"newcomer", "exact", "straight_through"}


@pytest.mark.slow
def test_a_cell_with_another_version_is_told(runs, monkeypatch, capsys, beside):
    monkeypatch.setattr(type(gradest.make_estimator("exact")), "version", 2)
    status, out = beside("--only-tasks", "categorical")
    printed = capsys.readouterr().err
    assert status == 0 and read_results(out)["origin"].notna().sum() == 2  # of one cell
    assert "version of the estimator is 1 in it and 2 here" in printed


def test_what_has_no_measurements_cannot_be_ranked_beside(runs, tmp_path):
    folder = tmp_path / "empty"
    shutil.copytree(runs["kept"], folder)
    run = read_run(runs["kept"])
    run = {key: value for key, value in run.items() if key != "checksum"} | {"cells": []}
    write_json(folder / "run.json", run | {"checksum": checksum(run)})
    (tmp_path / "own.yaml").write_text(RANKED)
    words = ["--suite", tmp_path / "own.yaml", "--beside", folder, "--out", tmp_path / "out"]
    assert main([*map(str, words), "--only-estimators", "exact", "--jobs", "1"]) == 2
