"""The reference results in the repository, and the program that writes them."""

import shutil

import pandas as pd
import pytest

import gradest
from gradest.errors import UsageError
from gradest.runs import find_reference, read_manifest, references_folder
from gradest.runs.reference_results import checksum_of
from tests.support import ROOT, run_suite
from tools import reference
from tools.verdict_matrix import COLUMNS, GROUNDS, draw_verdicts, show_in_readme

SUITE = "{replicates: 100, timed: false, tasks: [categorical], estimators: [exact, rloo]}"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder of reference results of one suite."""
    place = tmp_path_factory.mktemp("kept")
    described = reference.keep(run_suite(place, SUITE), "mine", place / "reference")
    assert described["cells"] == 2 and described["implementations"] == {
        **{"categorical": 1, "exact": 1},
        "rloo": 1,
    }
    return place / "reference"


def test_the_manifest_describes_what_is_there(kept):
    entry = read_manifest(kept)["mine"]
    assert {"commit", "machine", "versions", "finished", "seconds", "bytes"} < entry.keys()
    assert entry["versions"]["torch"] and "cpu" in entry["machine"]
    for name, file in entry["files"].items():
        path = kept / "mine" / name
        assert file == {"sha256": checksum_of(path), "bytes": path.stat().st_size}
    assert entry["bytes"] == sum(file["bytes"] for file in entry["files"].values())
    assert find_reference("mine", kept) == kept / "mine"


def test_a_suite_without_reference_results_is_told_which_have_some(kept, tmp_path):
    with pytest.raises(UsageError, match=r"of the suite 'yours'; there are some of mine;"):
        find_reference("yours", kept)
    with pytest.raises(UsageError, match="there are none"):
        find_reference("yours", tmp_path)


def test_damaged_reference_results_are_refused(kept, tmp_path):
    folder = tmp_path / "reference"
    shutil.copytree(kept, folder)
    path = folder / "mine" / "measurements.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match=r"measurements.parquet: damaged"):
        find_reference("mine", folder)
    path.unlink()
    with pytest.raises(UsageError, match="is missing from the reference results"):
        find_reference("mine", folder)
    for text in ("{", '{"version": 2, "suites": {}}', '{"version": 1, "suites": {"a": 1}}'):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(UsageError, match=r"manifest.json"):
            read_manifest(folder)


def test_those_that_come_with_gradest_are_intact():
    folder = references_folder()
    assert folder == ROOT / "results" / "reference"
    suites = read_manifest(folder)
    assert "smoke" in suites
    for suite in suites:
        assert find_reference(suite) == folder / suite
    listed = gradest.reference()
    assert listed["suite"].tolist() == sorted(suites) and listed["torch"].notna().all()
    frame = gradest.reference("smoke")
    assert len(frame) == 28 and frame["status"].eq("ok").all() and frame["origin"].isna().all()


def test_a_folder_stands_for_its_suites_and_an_unknown_suite_is_an_error(capsys):
    members = reference._members("published")
    assert len(members) > 10 and all(name.startswith("published/") for name in members)
    assert reference.main(["nonsense"]) == 2
    assert "unknown suite 'nonsense'" in capsys.readouterr().err


def test_the_picture_has_every_estimator_and_tells_verdicts_apart():
    cells = {
        ("rloo (samples=2)", "a"): "unbiased",
        ("rloo (samples=4)", "b"): "inconclusive",
        ("concrete (temperature=0.5)", "a"): "unbiased",
        ("concrete (temperature=0.5)", "b"): "biased",
        ("arm", "a"): "unbiased",
        ("arm", "b"): None,
    }
    rows = pd.DataFrame(
        [
            {"estimator": label.partition(" ")[0], "label": label, "task_label": t, "verdict": v}
            for (label, t), v in cells.items()
        ]
    )
    for ground in GROUNDS.values():
        figure = draw_verdicts(rows, ground)
        texts = [text.get_text() for ax in figure.axes for text in ax.texts]
        assert len(figure.axes) == COLUMNS
        # First those found biased on no task; knobs where there are several values.
        names = ["arm", "rloo (samples=2)", "rloo (samples=4)", "concrete"]
        assert [text for text in texts if text not in ("a", "b")] == names
        points = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "o"]
        hollow = [line for line in points if line.get_markerfacecolor() == "none"]
        assert len(points) == 5 and len(hollow) == 1


def test_the_picture_takes_its_place_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = show_in_readme(text)
    assert "docs/verdicts_dark.png" in shown and show_in_readme(shown) == shown
    assert shown.partition("<picture>")[0] == text.partition("![")[0].partition("<picture>")[0]
    assert shown.partition("end of the picture")[2] == text.partition("end of the picture")[2]
    with pytest.raises(ValueError, match="not once each"):
        show_in_readme(text * 2)


def test_a_dry_run_says_what_is_not_up_to_date_and_runs_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reference, "_up_to_date", lambda name, folder: name == "smoke")
    words = ["smoke", "variance", "--dry-run", "--out", str(tmp_path)]
    assert reference.main(words) == 1
    expected = "variance: not up to date\n1 of 2 suites up to date\n"
    assert capsys.readouterr().out == expected and not list(tmp_path.iterdir())
    assert reference.main(["smoke", *words[2:]]) == 0


@pytest.mark.weekly
def test_a_suite_is_measured_once_and_again_only_if_it_is_damaged(tmp_path, capsys):
    words = ["smoke", "--out", str(tmp_path), "--jobs", "1"]
    assert reference.main(words) == 0
    assert capsys.readouterr().out.startswith("smoke: 14 cells, ")
    assert find_reference("smoke", tmp_path / "reference").is_dir()
    assert reference.main(words) == 0
    assert capsys.readouterr().out.startswith("smoke: up to date, ")
    (tmp_path / "reference" / "smoke" / "run.json").write_text("{}")
    shutil.rmtree(tmp_path / "building")
    (tmp_path / "building").write_text("in the way of the run")
    assert reference.main(words) == 1
    assert "not built: smoke" in capsys.readouterr().err
