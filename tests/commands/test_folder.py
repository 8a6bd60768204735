"""`--suite` with a folder: every suite in a folder of its own, and one table of all claims."""

from pathlib import Path

import pandas as pd
import pytest

import gradest.commands.folder
from gradest.cli import main
from gradest.errors import DataError
from gradest.runs.suites import folder_names, suite_names

SUITE = """\
description: {name} of two claims.
timed: false
figures: false
tasks: [categorical]
estimators: [exact, straight_through]
claims:
  - says: straight-through is biased
    source: The first paper
    holds: relative_bias(straight_through) > 0.01
  - holds: variance(straight_through) {relation} variance(exact)
"""


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """A folder of two suites; the second claim of the second one is refuted."""
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "first.yaml").write_text(SUITE.format(name="First", relation=">"))
    (folder / "second.yml").write_text(SUITE.format(name="Second", relation="<"))
    (folder / "notes.txt").write_text("not a suite")
    return folder


def run(folder: Path, *more: object) -> int:
    try:
        return main(list(map(str, ("--suite", folder, "--jobs", 1, *more))))
    except SystemExit as error:
        return int(error.code or 0)


def test_all_suites_of_a_folder_are_run_with_one_table_of_claims(papers, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(papers, "--out", out) == 0
    frame = pd.read_csv(out / "claims.csv")
    assert list(frame.columns[:2]) == ["suite", "holds"]
    assert frame["suite"].tolist() == ["first", "first", "second", "second"]
    assert frame["verdict"].tolist() == ["reproduced", "reproduced", "reproduced", "refuted"]
    for name in ("first", "second"):
        assert (out / name / "report.html").is_file()
        assert not list((out / name).rglob("*.png"))  # figures: false
    text = (out / "index.md").read_text()
    assert "4 claims: 3 reproduced, 1 refuted" in text
    assert "The first paper" in text and "Second of two claims." in text
    assert "second/report.html" in (out / "index.html").read_text()
    printed = capsys.readouterr()
    assert "first: 2 cells, 2 ok, 0 skipped, 0 failed" in printed.out
    assert "second: claim refuted: variance(straight_through) < variance(exact)" in printed.err
    assert f"report: {out / 'index.html'}" in printed.out
    # A second time nothing is measured, and one refuted claim decides about the status.
    assert run(papers, "--out", out, "--fail-on-refuted") == 1


def test_the_status_of_a_folder_is_that_of_the_worst_suite(papers, tmp_path):
    (papers / "second.yml").write_text(
        "figures: false\ntasks: [categorical]\nestimators: [arm]\n"  # which takes bits alone
    )
    assert run(papers, "--out", tmp_path / "out") == 1


def test_an_invalid_suite_is_told_before_any_of_them_is_run(papers, tmp_path, capsys):
    (papers / "zero.yaml").write_text("tasks: [categorical]\nestimators: [rlo]\n")
    assert run(papers, "--out", tmp_path / "out") == 2
    assert "zero.yaml:2: unknown estimator 'rlo'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_suite_without_its_data_is_left_out_and_the_overview_says_so(
    papers, tmp_path, capsys, monkeypatch
):
    ready = gradest.commands.folder.make_ready

    def without_data(folder: Path, *arguments: object) -> None:
        if folder.name == "first":
            raise DataError("the images are missing")
        ready(folder, *arguments)

    monkeypatch.setattr(gradest.commands.folder, "make_ready", without_data)
    out = tmp_path / "out"
    assert run(papers, "--out", out) == 0
    assert "warning: first is left out: the images are missing" in capsys.readouterr().err
    assert "**first was left out:** the images are missing." in (out / "index.md").read_text()
    assert set(pd.read_csv(out / "claims.csv")["suite"]) == {"second"}


def test_a_dry_run_lists_the_cells_of_all_suites_and_writes_nothing(papers, tmp_path, capsys):
    assert run(papers, "--out", tmp_path / "out", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert printed.count("categorical × straight_through") == 2
    assert "first:" in printed and "second:" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--only-tasks", "--only-estimators"])
def test_a_selection_goes_with_one_suite(papers, option, capsys):
    assert run(papers, option, "exact") == 2
    assert f"{option} applies to one suite, not to the folder papers" in capsys.readouterr().err


def test_a_folder_without_suites_is_an_error(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "expected suites in this folder (*.yaml), found none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "nearest"), [("published/disarn", "published/disarm"), ("publised", "published")]
)
def test_a_misspelt_paper_gets_the_nearest_name(name, nearest, capsys):
    assert run(Path(name)) == 2
    assert f"did you mean {nearest!r}" in capsys.readouterr().err


def test_the_published_suites_are_known_by_folder_and_name():
    assert "published" in folder_names()
    assert "published/disarm" in suite_names()


@pytest.mark.slow
def test_every_suite_of_a_folder_is_compared_with_its_namesake(papers, tmp_path, capsys):
    assert run(papers, "--out", tmp_path / "a", "--quiet") == 0
    assert run(papers, "--out", tmp_path / "b", "--quiet", "--against", tmp_path / "a") == 0
    printed = capsys.readouterr().out
    for name in ("first", "second"):
        assert f"against {tmp_path / 'a' / name}: 2 of 2 cells agree" in printed
        assert (tmp_path / "b" / name / "against" / "comparison.html").is_file()
    assert "2 of 2 claims agree" in printed
    assert run(papers, "--out", tmp_path / "c", "--quiet", "--against", "reference") == 2
    assert "no reference results of the suite 'first'" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
