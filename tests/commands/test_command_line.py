"""The command line: what it prints, what it leaves behind and how it exits."""

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

import gradest
from gradest import all_estimators, all_tasks, cli
from gradest.cli import main
from gradest.runs.suites import suite_names
from tests.support import ROOT, only_figures
from tools import readme

SUITE = """\
replicates: 500
timed: false
controls: {unbiased: [exact], biased: [straight_through]}
tasks: [categorical]
estimators: [exact, rloo, straight_through]
"""

PLUGIN = '''
"""REINFORCE with its cost clipped."""
from dataclasses import dataclass
from gradest import Estimator
from gradest.categorical import log_prob, nabla, sample

@dataclass(eq=False)
class Clipped(Estimator):
    unbiased = False
    clip: float = 1.0

    def __call__(self, logits, f):
        z = sample(logits)
        cost = f(z)
        return cost + cost.clamp(-self.clip, self.clip) * nabla(log_prob(logits, z))
'''


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "clipped.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def call(tmp_path, capsys):
    """Runs a command line; returns exit status, standard output and standard error."""

    def call(*arguments):
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def run(call, suite, folder, *more):
    return call("--suite", suite, "--out", folder, "--jobs", 1, *more)


class Finished(NamedTuple):
    """A run that has ended, to be read: its folder and what it printed."""

    folder: Path
    out: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mine.yaml").write_text(SUITE)
    call = ["--suite", str(folder / "mine.yaml"), "--out", str(folder / "out"), "--jobs", "1"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        only_figures(patch, "bias_against_variance")
        assert main(call) == 0
    return Finished(folder / "out", printed.getvalue())


@pytest.fixture
def copied(finished, tmp_path):
    """The folder of such a run, to be changed."""
    return shutil.copytree(finished.folder, tmp_path / "out")


def test_a_run_leaves_the_files_of_the_design(finished):
    assert "3 ok, 0 skipped, 0 failed" in finished.out
    for name in ("journal.jsonl", "measurements.parquet", "measurements.csv", "run.json"):
        assert (finished.folder / name).stat().st_size
    for name in ("coordinates.parquet", "report.md"):
        assert (finished.folder / name).stat().st_size
    assert list((finished.folder / "tables").glob("*.csv"))
    assert list((finished.folder / "figures").glob("*.svg"))
    assert not list(finished.folder.glob(".*-*"))  # no partial file is left
    described = json.loads((finished.folder / "run.json").read_text())
    assert described["suite"] == "mine"
    assert described["versions"]["torch"]


def test_csv_and_parquet_agree(finished):
    parquet = pd.read_parquet(finished.folder / "measurements.parquet")
    csv = pd.read_csv(finished.folder / "measurements.csv")
    assert list(parquet.columns) == list(csv.columns)
    numbers = parquet.select_dtypes("number").columns
    pd.testing.assert_frame_equal(parquet[numbers], csv[numbers], check_dtype=False)


def test_the_coordinates_scale_by_one_over_alpha(finished):
    rows = pd.read_parquet(finished.folder / "coordinates.parquet")
    rows = rows[rows.estimator == "rloo"].set_index(["parameter", "category"])
    alpha = {0: 2.0, 1: 0.5, 2: 1.0}
    for category, a in alpha.items():
        plain, scaled = rows.loc[("log_alpha", category)], rows.loc[("alpha", category)]
        for column in ("mean", "exact", "standard_error"):
            assert scaled[column] == pytest.approx(plain[column] / a, rel=1e-12)
        assert scaled["variance"] == pytest.approx(plain["variance"] / a**2, rel=1e-12)
    exact = rows.loc["log_alpha"].sort_index()["exact"].tolist()
    assert exact == pytest.approx([-0.3673469, -0.0775510, 0.4448980], abs=5e-8)


def test_the_report_can_be_rebuilt(call, copied, monkeypatch):
    only_figures(monkeypatch, "bias_against_variance")
    folder = copied
    before = pd.read_parquet(folder / "measurements.parquet")
    text = (folder / "report.md").read_text()
    for name in ("measurements.parquet", "measurements.csv", "coordinates.parquet", "report.md"):
        (folder / name).unlink()
    status, out, _ = call("--report", folder)
    assert status == 0
    assert str(folder / "report.html") in out
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "measurements.parquet"), before)
    assert (folder / "report.md").read_text() == text


def test_a_selection_runs_alone_and_the_report_keeps_the_rest(call, suite, tmp_path):
    folder = tmp_path / "out"
    assert run(call, suite, folder, "--only-estimators", "rl*")[0] == 0
    assert set(pd.read_parquet(folder / "measurements.parquet").estimator) == {"rloo"}
    assert run(call, suite, folder, "--only-estimators", "ex*", "--only-tasks", "cat*")[0] == 0
    assert set(pd.read_parquet(folder / "measurements.parquet").estimator) == {"exact", "rloo"}


def test_overrides_reach_the_rows(call, suite, tmp_path):
    suite.write_text(SUITE + "enumerate_draws: false\n")
    run(call, suite, tmp_path / "out", "--seed", 5, "--replicates", 64)
    rows = pd.read_parquet(tmp_path / "out" / "measurements.parquet")
    assert set(rows.seed) == {5}
    assert set(rows[rows.method == "monte_carlo"].replicates) == {64}
    assert set(rows[rows.method == "enumerated"].replicates) == {0}


def test_a_suite_can_do_without_references(call, suite, tmp_path):
    suite.write_text(
        "reference: null\nreplicates: 64\ntimed: false\nfigures: false\n"
        "tasks: [extreme: {latents: 20}]\nestimators: [rloo]\n"  # 3²⁰ codes
    )
    assert run(call, suite, tmp_path / "out")[0] == 0
    (row, *_) = pd.read_parquet(tmp_path / "out" / "measurements.parquet").to_dict("records")
    assert row["status"] == "ok" and row["variance"] > 0
    assert pd.isna(row["reference"]) and pd.isna(row["relative_bias"])
    assert '"kind": "reference"' not in (tmp_path / "out" / "journal.jsonl").read_text()


def test_an_estimator_outside_the_suite_is_refused_with_what_to_do(call, suite, plugin, tmp_path):
    words = ["--only-estimators", "rloo", "clipped", "--plugin", plugin]
    status, out, err = run(call, suite, tmp_path / "out", *words)
    assert (status, out) == (2, "") and not (tmp_path / "out").exists()
    said = f"--only-estimators: clipped is not in the suite {suite.stem}; add it there, or rank it "
    assert (
        err == f"error: {said}beside rows that are measured already with --beside, as in "
        "--beside reference\n"
    )


@pytest.mark.slow
def test_plugins_run_beside_the_catalogue(call, suite, plugin, tmp_path):
    suite.write_text(SUITE.replace("rloo", "clipped"))
    assert run(call, suite, tmp_path / "out", "--plugin", plugin)[0] == 0
    status, _, err = run(call, suite, tmp_path / "other")
    assert (status, (tmp_path / "other").exists()) == (2, False)
    assert "unknown estimator 'clipped'" in err


def test_dry_run_tells_and_writes_nothing(call, suite, tmp_path):
    status, out, _ = run(call, suite, tmp_path / "out", "--dry-run")
    assert status == 0
    assert "categorical × rloo" in out and "3 cells" in out
    assert not (tmp_path / "out").exists()
    run(call, suite, tmp_path / "out", "--only-estimators", "rloo")
    lines = run(call, suite, tmp_path / "out", "--dry-run")[1].splitlines()
    assert [line.split()[0] == "done" for line in lines[:3]] == [False, True, False]
    assert lines[3].startswith("3 cells, 1 done; the others: less than a second with ")


WILD_TASK = """
from gradest import Cost, Problem, Task
import torch

class Wild(Task):
    def prepare(self):
        {prepare}

    def problem(self, batch=None):
        logits = torch.zeros(1, 1, 3)
        {problem}
        return Problem(logits, Cost(self.cost))

    def cost(self, z):
        {cost}
        return z[..., 0].sum(-1)
"""


# The name of a wild task, where it is wild, and what it does there.
WILD_TASKS = {
    "unprepared": ("prepare", "raise RuntimeError('gone')"),
    "no_problem": ("problem", "raise RuntimeError('gone')"),
    "leaves": ("problem", "raise SystemExit(0)"),
    "poses_nothing": ("problem", "return None"),
    "flat": ("problem", "logits = torch.zeros(3)"),
    "undefined": ("problem", "logits = torch.full((1, 1, 3), torch.nan)"),
    "impossible": ("problem", "logits = torch.full((1, 1, 3), -torch.inf)"),
    "empty": ("problem", "logits = torch.zeros(0, 1, 3)"),
    "a_list": ("problem", "logits = [[0.0, 1.0]]"),
    "no_cost": ("cost", "raise RuntimeError('gone')"),
}


@pytest.mark.slow
def test_a_wild_task_fails_its_own_cells_dry_and_wet(call, suite, tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name, (where, what) in WILD_TASKS.items():
        lines = {"prepare": "pass", "problem": "pass", "cost": "pass", where: what}
        (folder / f"{name}.py").write_text(WILD_TASK.format(**lines))
    suite.write_text(
        f"replicates: 64\ntimed: false\ntasks: [categorical, {', '.join(WILD_TASKS)}]\n"
        "estimators: [exact, rloo]\n"
    )
    status, out, err = run(call, suite, tmp_path / "out", "--plugin", folder, "--dry-run")
    foreseen = out.splitlines()
    assert "22 cells" in foreseen[-1] and "Traceback" not in err
    assert [line.split()[-3] for line in foreseen[:2]] == ["categorical"] * 2
    assert status == 1
    fails = {line.split()[-3] for line in foreseen[:22] if "would fail: " in line}
    assert fails == WILD_TASKS.keys() - {"unprepared"}  # whose cells are not measured by `prepare`
    assert sum("would fail: " in line for line in foreseen[:22]) == 18
    wild = ("--only-tasks", "categorical", "poses_nothing", "undefined")
    status, out, _ = run(call, suite, tmp_path / "out", "--plugin", folder, *wild)
    assert status == 1 and "2 ok, 0 skipped, 4 failed" in out


def test_every_option_is_in_the_table_of_modes_with_its_default():
    known = {action.dest for action in cli._parser()._actions} - {"help", "version"}
    assert known == set(cli._COMMANDS) | set(cli._COMMANDS_OF_OPTION) == set(cli._DEFAULTS)


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63)])
def test_the_ends_of_the_range_of_seeds_reach_the_tables(call, suite, tmp_path, seed):
    suite.write_text("replicates: 64\ntasks: [categorical]\nestimators: [concrete]\n")
    assert run(call, suite, tmp_path / "out", "--seed", seed)[0] == 0
    rows = pd.read_parquet(tmp_path / "out" / "measurements.parquet")
    assert set(rows.seed) == {seed}


def test_the_version_is_that_of_the_project(call):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert call("--version") == (0, f"gradest {project['version']}\n", "")
    assert gradest.__version__ == project["version"]


@pytest.mark.parametrize("mode", ["--suite", "--check", "--report"])
def test_a_link_onto_itself_is_one_line(call, tmp_path, mode):
    link = tmp_path / "loop.yaml"
    link.symlink_to(link.name)
    status, out, err = call(mode, link)
    assert (status, out) == (2, "") and err.count("\n") == 1


@pytest.mark.parametrize("name", ["pipe.yaml", "pipe.py"])
def test_a_pipe_is_not_waited_for(call, suite, tmp_path, name):
    pipe = tmp_path / name
    os.mkfifo(pipe)
    status, _, err = call("--suite" if name.endswith("yaml") else "--check", pipe)
    assert status == 2 and err.count("\n") == 1
    assert run(call, suite, tmp_path / "out", "--dry-run")[0] == 0


def test_a_failed_cell_is_exit_status_1(call, suite, plugin, tmp_path):
    plugin.write_text(PLUGIN.replace("cost = f(z)", "cost = f(z) / 0"))
    suite.write_text(SUITE.replace("rloo", "clipped"))
    status, out, _ = run(call, suite, tmp_path / "out", "--plugin", plugin)
    assert status == 1
    assert "2 ok, 0 skipped, 1 failed" in out
    report = (tmp_path / "out" / "report.md").read_text()
    assert "NonFiniteGradient" in report


def test_no_finite_number_at_all_is_exit_status_1(call, suite, plugin, tmp_path):
    plugin.write_text(PLUGIN.replace("unbiased = False", "unbiased = False\n    categories = 7"))
    suite.write_text("replicates: 500\ntasks: [categorical]\nestimators: [clipped]\n")
    status, out, err = run(call, suite, tmp_path / "out", "--plugin", plugin)
    assert status == 1
    assert "1 skipped" in out
    assert "no cell gave a finite number" in err
    assert (tmp_path / "out" / "report.md").exists()


def test_the_list_shows_everything_with_its_knobs(call, plugin):
    status, out, _ = call("--list", "--plugin", plugin)
    assert status == 0
    for name in (*all_estimators(), *all_tasks(), *suite_names(), "clipped"):
        assert f"  {name}" in out
    assert "temperature=0.5" in out
    assert "also: remax, scst" in out
    assert "1611.00712" in out
    flat = " ".join(out.split())
    assert "biased; for every f the bias is small at temperature = 0.03" in flat
    assert "biased, except for affine f; uses f'" in out
    assert "K = 2 only; evaluations of f: samples; claimed laws: constant, labels" in flat
    assert max(map(len, out.splitlines())) <= 100


def test_an_alias_selects_cells(call, suite):
    status, out, _ = call("--suite", suite, "--only-estimators", "loorf", "--dry-run")
    assert status == 0 and "rloo" in out and "straight_through" not in out


def test_the_list_can_be_a_table_or_bibtex(call, plugin):
    plugin.write_text(PLUGIN.replace("clipped.", "clipped | cut.\n\nMe, on my <desk>, 2024."))
    status, out, _ = call("--list", "--markdown", "--plugin", plugin)
    assert status == 0
    lines = out.splitlines()
    assert len(lines) == 2 + len(all_estimators()) + 1
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    (mine,) = [line for line in lines if line.startswith("| `clipped`")]
    assert any(line.startswith("| `self_critical` (`remax`, `scst`)") for line in lines)
    assert r"REINFORCE with its cost clipped \| cut " in mine
    assert "Me, on my &lt;desk&gt;, 2024." in mine
    status, out, _ = call("--list", "--bibtex", "--plugin", plugin)
    assert status == 0
    assert "@misc{maddison2017concrete," in out
    assert "@misc{clipped,\n  note = {Me, on my \\textless{}desk\\textgreater{}, 2024.},\n}" in out


def test_an_own_docstring_that_does_not_cite_in_the_form_is_one_line(call, monkeypatch):
    module = sys.modules[all_estimators()["rloo"].__module__]
    monkeypatch.setattr(module, "__doc__", "RLOO.\n\nKool et al., 2019.")
    for form in ([], ["--markdown"], ["--bibtex"]):
        status, out, err = call("--list", *form)
        assert (status, out) == (2, "")
        assert err.startswith("error: rloo: expected a citation of the form Authors, ")
        assert err.endswith("; got 'Kool et al., 2019'\n")
        assert err.count("\n") == 1


def test_the_readme_shows_the_catalogue_as_it_is():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.updated(text) == text, "README.md is stale: run `make readme`"


def test_the_readme_is_rewritten_between_its_markers_alone():
    text = f"before\n{readme.BEGIN}old\n{readme.END}after\n"
    result = readme.updated(text)
    assert result.startswith(f"before\n{readme.BEGIN}") and result.endswith(f"{readme.END}after\n")
    assert "old" not in result and "`rloo`" in result
    assert readme.updated(result) == result
    for broken in ("", text * 2, text.replace(readme.BEGIN, ""), f"{readme.END}{readme.BEGIN}"):
        with pytest.raises(ValueError, match="not once each"):
            readme.updated(broken)


def test_a_report_cites_what_was_measured_also_when_the_plugin_is_gone(
    call, suite, plugin, tmp_path
):
    plugin.write_text(PLUGIN.replace("clipped.", "clipped.\n\nMe, on my <desk>, 2024."))
    suite.write_text(SUITE.replace("exact, rloo, straight_through]", "exact, rloo, clipped]"))
    suite.write_text(suite.read_text().replace("[straight_through]", "[]"))
    folder = tmp_path / "out"
    assert run(call, suite, folder, "--plugin", plugin)[0] == 0
    text, bibtex = ((folder / name).read_text() for name in ("report.md", "references.bib"))
    assert "### clipped\n\n" in text and "\n\nMe, on my &lt;desk&gt;, 2024.\n" in text
    assert "Kool, van Hoof & Welling".replace("&", "&amp;") in text.split("### rloo")[1]
    assert (
        "straight" not in bibtex and "@misc{clipped," in bibtex and "@misc{kool2019buy," in bibtex
    )
    plugin.unlink()
    (folder / "references.bib").unlink()
    assert call("--report", folder)[0] == 0
    assert (folder / "report.md").read_text() == text
    assert (folder / "references.bib").read_text() == bibtex


def test_check_certifies_and_rejects(call, plugin, tmp_path):
    status, out, _ = call("--check", "rloo")
    assert (status, out.splitlines()[-1]) == (0, "rloo: certified (24 checks passed, 4 skipped)")
    plugin.write_text(PLUGIN.replace("unbiased = False", "unbiased = True"))
    status, out, _ = call("--check", plugin)
    assert (status, out.splitlines()[-1].partition(" (")[0]) == (1, "clipped: rejected")
    assert any(line.startswith("failed") for line in out.splitlines())
    status, out, _ = call("--check", "categorical")
    assert (status, out.splitlines()[-1]) == (
        0,
        "categorical: certified (9 checks passed, 3 skipped)",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a command: one of --suite, --list, --check, --report, --new-..., --refute"),
        (["--suit", "smoke"], "unrecognized arguments: --suit smoke; did you mean '--suite'?"),
        (["--list", "more"], "unrecognized arguments: more; see --help"),
        (["--suite", "varianc"], "unknown suite 'varianc'; did you mean 'variance'?"),
        (["--suite", "none.yaml"], "none.yaml: no such suite file"),
        (["--suite", "smoke", "--jobs", "0"], "--jobs: expected an integer from 1 to 1024, got 0"),
        (["--suite", "smoke", "--jobs", "two"], "expected an integer from 1 to 1024, got 'two'"),
        (["--suite", "smoke", "--replicates", "3"], "--replicates: expected at least 64, which"),
        (["--suite", "smoke", "--only-tasks", "x"], "no task of the suite smoke matches 'x'"),
        (["--suite", "smoke", "--scheduler", "a:1"], "--scheduler requires --backend dask or ray"),
        (["--suite", "smoke", "--backend", "mpi"], "invalid choice: 'mpi'"),
        (["--suite", "smoke", "--time-limit", "0"], "--time-limit: expected a positive number of"),
        (["--suite", "smoke", "--time-limit", "1e9"], "expected at most 1,000,000 seconds, got"),
        (
            ["--report", "x", "--time-limit", "5"],
            "--time-limit applies to --suite, not to --report",
        ),
        (["--suite", "smoke", "--plugin", "none.py"], "none.py: no such plugin"),
        (
            ["--suite", "smoke", "--tasks", "x"],
            "unrecognized arguments: --tasks x; did you mean '--only-tasks'?",
        ),
        (["--suite", "smoke", "--markdown"], "--markdown applies to --list, not to --suite"),
        (["--report", "x", "--only-tasks", "a"], "--only-tasks applies to --suite, not to --rep"),
        (["--report", "x", "--only-estimators", "a"], "--only-estimators applies to --suite, not"),
        (["--report", "x", "--dry-run"], "--dry-run applies to --suite, not to --report"),
        (
            ["--report", "x", "--plugin", "a"],
            "--plugin applies to --suite, --list, --check, --new-",
        ),
        (["--list", "--jobs", "2"], "--jobs applies to --suite, not to --list"),
        (["--list", "--device", "cpu"], "--device applies to --suite, not to --list"),
        (["--check", "rloo", "--out", "a"], "--out applies to --suite, --report, --new-..., --r"),
        (["--new-task", "mine", "--fresh"], "--fresh applies to --suite, not to --new-..."),
        (["--suite", "smoke", "--fail-on-regression"], "--fail-on-regression applies to --report"),
        (
            ["--suite", "smoke", "--seed", "1", "--seed", "2"],
            "--seed: expected at most once, got it twice",
        ),
        (
            ["--suite", "smoke", "--only-tasks", "a", "--only-tasks", "b"],
            "--only-tasks: expected at mos",
        ),
        (["--check", ""], "--check: expected a value, got an empty"),
        (["--suite", ""], "--suite: expected a value, got an empty"),
        (["--report", ""], "--report: expected a value, got an empty"),
        (["--suite", "smoke", "--out", ""], "--out: expected a value, got an empty"),
        (["--suite", "smoke", "--plugin", ""], "--plugin: expected a value, got an empty"),
        (["--suite", "smoke", "--scheduler", ""], "--scheduler: expected a value, got an empty"),
        (["--check", "a\0b"], r"expected a name or a path, got 'a\x00b'"),
        (["--check", "\udcff.py"], r"expected a path in UTF-8, got '\udcff.py'"),
        (["--suite", "x" * 5000 + ".yaml"], "File name too long"),
        (["--suite", "smoke", "--out", "\x1b[31m" * 99], r"'\x1b[31m"),
        (["--suite", "smoke", "--seed", str(10**30)], "to 9223372036854775807, got 1000000000000"),
        (
            ["--suite", "smoke", "--seed", str(-(10**30))],
            "from -9223372036854775808 to 9223372036854775807, got -1",
        ),
        (["--suite", "smoke", "--seed", "9" * 400], "got an integer of about 400 digits"),
        (["--suite", "smoke", "--seed", "9" * 5000], "got '99999999"),
        (
            ["--suite", "smoke", "--replicates", "9" * 400],
            "expected an integer from 1 to 1000000000000, got",
        ),
        (
            ["--suite", "training", "--steps", "9" * 400],
            "expected an integer from 1 to 1000000000, got",
        ),
        (["--suite", "smoke", "--jobs", "9" * 400], "expected an integer from 1 to 1024, got"),
        (["--suite", "smoke", "--precision", f"bias=1,max_replicates={10**400}"], "at most 1000"),
        (["--suite", "smoke", "--precision", "variance=1e400"], "variance: input should be a fini"),
        (["--suite", "smoke", "--only-tasks", "["], "no task of the suite smoke matches '['"),
        (["--check", "rloo", "--bibtex"], "--bibtex applies to --list"),
        (["--list", "--bibtex", "--markdown"], "not allowed with argument"),
        (["--check", "rlo"], "unknown estimator or task 'rlo'; did you mean 'rloo'?"),
        (["--check", "none.py"], "none.py: no such plugin"),
        (["--new-estimator", "rloo"], "invalid plugin name 'rloo': an estimator"),
        (["--new-task", "mine", "--like", "rebar"], "--like applies to --new-estimator, not to"),
        (["--new-estimator", "mine", "--like", "exact"], "invalid choice: 'exact' (choose from"),
        (["--list", "--like", "rebar"], "--like applies to --new-..., not to --list"),
        (["--check", "rloo", "--badge", "no/b.json"], "--badge no/b.json: the folder no does not"),
        (["--list", "--json"], "--json applies to --check, not to --list"),
        (["--new-task", ""], "invalid plugin name '': expected a lower-case letter"),
        (["--new-task", "mine", "--list"], "not allowed with argument"),
        (["--report", "nowhere"], "nowhere: holds no readable run"),
    ],
)
def test_bad_calls_are_one_line_and_exit_status_2(call, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(*arguments)
    assert status == 2
    assert out == ""
    assert message in err
    assert err.startswith("error: ") and err.count("\n") == 1 and err[:-1].isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("x =", "cannot be imported: SyntaxError"),
        ("x = 1", "class, got none"),
        (PLUGIN + PLUGIN.replace("Clipped", "Other"), "class, got Clipped, Other"),
        (PLUGIN.replace("__call__", "estimate"), "got none; Clipped does not define __call__"),
        (PLUGIN.replace("@dataclass(eq=False)\n", ""), "add the decorator @dataclass"),
    ],
)
def test_bad_plugins_are_one_line_and_exit_status_2(call, suite, plugin, source, message, tmp_path):
    plugin.write_text(source)
    status, _, err = run(call, suite, tmp_path / "out", "--plugin", plugin)
    assert status == 2
    assert message in err and str(plugin) in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_name_taken_twice_is_refused(call, plugin, tmp_path):
    taken = plugin.rename(tmp_path / "rloo.py")
    status, _, err = call("--list", "--plugin", taken)
    assert status == 2
    assert "expected unique names, got 'rloo' from" in err


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"suite": "mine"}'])
def test_a_damaged_run_is_one_line_and_exit_status_2(call, copied, content):
    (copied / "run.json").write_text(content)
    status, _, err = call("--report", copied)
    assert status == 2
    assert "holds no readable run" in err and err.count("\n") == 1


def test_a_terminal_without_greek_shows_the_catalogue():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmark.py", "--list"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_it_runs_as_a_program_and_exits_with_its_status(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--suite", "zzz"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmark.py"), run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown suite 'zzz'; available: ")
