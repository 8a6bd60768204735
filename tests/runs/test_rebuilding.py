"""`--report` of one run: what is derived destroys nothing that cannot be derived again."""

import errno
import json
import os
import shutil
import signal
from multiprocessing.connection import wait
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from gradest.cli import main
from gradest.measurement.result import Measurement
from gradest.report.unchanged import RECORD
from gradest.runs.processes import Process
from gradest.support import files
from gradest.support.files import replacing, settle, write_atomically
from tests.support import only_figures

FIGURE = "bias_against_variance"
SUITE = """\
replicates: 200
timed: false
tasks: [bernoulli, categorical]
estimators: [exact, rloo, reinforce]
"""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The folder of a run of six cells, with one figure and without a damage."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mine.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        only_figures(patch, FIGURE)
        assert main(_suite(folder, folder / "run")) == 0
    return folder / "run"


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of it to be damaged, whose report is made again although nothing changed."""
    shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns(RECORD))
    shutil.copy(finished_run.parent / "mine.yaml", tmp_path)
    return tmp_path / "run"


def _suite(folder, out, *more):
    return ["--suite", str(folder / "mine.yaml"), "--out", str(out), "--jobs", "1", *more]


def state(folder):
    """What every file but locks holds."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    paths = [path for path in paths if path.name != RECORD]  # by which a report is kept
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def report(folder, capsys):
    capsys.readouterr()
    status = main(["--report", str(folder)])
    return status, *capsys.readouterr()


def frame(folder):
    return pd.read_parquet(folder / "measurements.parquet")


def test_a_report_is_rebuilt_byte_by_byte(run, capsys, monkeypatch):
    only_figures(monkeypatch, FIGURE)
    before = state(run)
    status, out, err = report(run, capsys)
    assert (status, out, err) == (0, f"{run / 'report.html'}\n", "")
    assert state(run) == before


def _truncate(journal):
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:4]))


@pytest.mark.parametrize(
    "damage, said",
    [
        (Path.unlink, "is missing"),
        (lambda journal: journal.write_bytes(b""), "contains no cell"),
        (lambda journal: journal.write_bytes(b"\0" * 1000), "contains no cell"),
        (lambda journal: journal.write_bytes(b"5\n{}\n"), "contains no cell (journal.jsonl:1"),
        (_truncate, "lacks 3 of the 6 cells"),
    ],
)
def test_a_journal_that_lost_cells_leaves_the_report_as_it_is(run, capsys, damage, said):
    damage(run / "journal.jsonl")
    before = state(run)
    status, out, err = report(run, capsys)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert said in err and "nothing was changed" in err
    assert state(run) == before


def test_a_missing_journal_does_not_let_a_run_take_the_folder_but_a_fresh_one(run, capsys):
    (run / "journal.jsonl").unlink()
    before = state(run)
    assert main(_suite(run.parent, run)) == 2
    assert "journal.jsonl is missing" in capsys.readouterr().err
    assert state(run) == before
    assert main(_suite(run.parent, run, "--fresh")) == 0
    assert (frame(run)["status"] == "ok").all()


def test_a_damaged_cell_is_told_in_the_first_line_and_measured_again_by_a_run(run, capsys):
    before = frame(run)
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"A", b"B", 1)
    journal.write_bytes(b"".join(lines))
    message = "journal.jsonl:4: damaged: checksum does not match"
    status, out, err = report(run, capsys)
    assert status == 1 and out == f"{run / 'report.html'}\n"
    assert err == f"warning: {run}: {message}\n"
    first = (run / "report.md").read_text().splitlines()[0]
    assert first.startswith("**NUMBERS ARE MISSING") and message in first
    assert '<p class="alert"><strong>NUMBERS ARE MISSING' in (run / "report.html").read_text()
    outcome = frame(run)
    lost = outcome["status"].ne("ok")
    assert lost.sum() == 2 and outcome.loc[lost, "reason"].str.contains("its record is lost").all()
    pd.testing.assert_frame_equal(outcome[~lost], before[~lost], check_dtype=False)
    assert main(_suite(run.parent, run)) == 0
    assert f"{message}; its cell is measured again" in capsys.readouterr().err
    pd.testing.assert_frame_equal(frame(run), before)
    assert "NUMBERS ARE MISSING" not in (run / "report.md").read_text()


def test_a_run_of_some_tasks_after_damage_tells_what_is_still_missing(run, capsys):
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"5\n", *lines[3:]]))  # of bernoulli
    assert main(_suite(run.parent, run, "--only-tasks", "categorical")) == 1
    assert "lacks 1 cell of this run" in capsys.readouterr().err
    assert frame(run)["status"].value_counts().to_dict() == {"ok": 10, "failed": 2}


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "run.json"),
        ("5", "run.json is not a mapping"),
        ("[" * 100_000, "run.json"),
        ('{"suite": ' + "9" * 5000 + "}", "run.json"),
        (
            '{"suite": "s", "parameters": ["log_alpha"], "cells": [5]}',
            "run.json: expected 'cells' to be",
        ),
        ('{"suite": "s", "parameters": ["log_alpha"], "cells": [{"key": 5}]}', "'cells'"),
        ('{"suite": "s", "parameters": ["log_alpha"], "cells": {"a": {}}}', "'cells'"),
        ('{"suite": "s", "parameters": 5, "cells": []}', "run.json: expected 'parameters' to be"),
        ('{"suite": ["s"], "parameters": [], "cells": []}', "run.json: expected 'suite' to be"),
        ('{"suite": "s", "parameters": [], "cells": [], "controls": {"biased": 1}}', "'controls'"),
        ('{"suite": "s", "checksum": "00000000"}', "its checksum does not match"),
    ],
)
def test_a_damaged_run_json_is_one_line_and_changes_nothing(run, capsys, text, said):
    (run / "run.json").write_text(text)
    before = state(run)
    status, out, err = report(run, capsys)
    assert (status, out) == (2, "") and err.count("\n") == 1 and said in err
    assert state(run) == before


def test_any_change_of_run_json_is_seen(run, capsys):
    text = (run / "run.json").read_text()
    key = json.loads(text)["cells"][0]["key"]
    (run / "run.json").write_text(text.replace(key, "0" + key[1:] if key[0] != "0" else "1"))
    status, _, err = report(run, capsys)
    assert status == 2 and "run.json is damaged" in err


def test_a_run_or_a_report_at_work_is_not_disturbed(run, capsys):
    before = state(run)
    with FileLock(run / ".run.lock"):
        status, out, err = report(run, capsys)
    assert (status, out) == (2, "")
    assert err == (
        f"error: {run}: another run or report is using this folder; try again when it has ended\n"
    )
    assert state(run) == before


@pytest.mark.parametrize("name", ["measurements.csv", "figures/bias_against_variance.svg"])
def test_a_full_disk_names_the_file_and_leaves_the_old_report(run, capsys, monkeypatch, name):
    before = state(run)
    only_figures(monkeypatch, FIGURE)

    def full(path, write):
        if str(path).endswith(f".staged/{name}"):
            raise files.Unwritable(path, OSError(errno.ENOSPC, "No space left on device"))
        write_atomically(path, write)

    for module in ("gradest.support.files", "gradest.report.figures.saving"):
        monkeypatch.setattr(f"{module}.write_atomically", full)
    status, out, err = report(run, capsys)
    assert (status, out) == (1, "")
    assert err == f"error: {run / name}: cannot be written: No space left on device\n"
    assert state(run) == before


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    def fail(partial):
        partial.write_bytes(b"half")
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / "x.csv", fail)
    assert str(caught.value) == f"{tmp_path / 'x.csv'}: cannot be written: Read-only file system"
    assert caught.value.errno == errno.EROFS and not list(tmp_path.iterdir())


def test_files_of_killed_writers_are_cleared_and_no_others(run, capsys):
    stray = [run / ".measurements-ab12cd3_.parquet", run / "figures" / ".matrix-00000000.png"]
    for path in stray:
        path.write_bytes(b"half")
    (run / ".staged" / "tables").mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    (run / "figures" / "mine.txt").write_text("mine")
    (run / "tables" / "gone-log_alpha.csv").write_text("of a former report")
    assert report(run, capsys)[0] == 0
    assert not any(path.exists() for path in stray) and not (run / ".staged").exists()
    assert (run / "notes.txt").exists() and (run / "figures" / "mine.txt").exists()
    assert not (run / "tables" / "gone-log_alpha.csv").exists()


def test_a_kill_at_any_moment_leaves_the_old_files_or_the_new_ones(tmp_path, monkeypatch):
    """Stopped before each rename and each removal, and then settled by whoever comes next."""
    old = {"a": b"old", "sub/b": b"old", "gone": b"old"}
    new = {"a": b"new", "sub/b": b"new", "sub/c": b"new"}

    class Killed(BaseException):
        pass

    for stop in range(40):
        folder = tmp_path / str(stop)
        for name, text in old.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)
        left = [stop]

        def counted(original, left=left):
            def call(*arguments, **options):
                if not left[0]:
                    raise Killed
                left[0] -= 1
                return original(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("replace", "rename", "unlink", "mkdir"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
            try:
                with replacing(folder, lambda new: [Path("gone")]) as staged:
                    for name, text in new.items():
                        write_atomically(staged / name, lambda path, text=text: _write(path, text))
                done = True
            except Killed:
                done = False
        settle(folder)
        outcome = {name: text for name, text in state(folder).items()}
        assert outcome in ([new] if done else [old, new])
        if done:
            return
    raise AssertionError("it never ended")


def _write(path, text):
    path.write_bytes(text)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, 3.0, 4.0])
def test_kill_9_of_a_report_leaves_a_whole_one(run, capsys, seconds):
    before = state(run)
    with Process() as process:  # which draws every figure
        number = process.call(os.getpid)
        process.submit(main, (["--report", str(run)],))
        wait([process.connection, process.status], seconds)
        os.kill(number, signal.SIGKILL)
        assert wait([process.status], 60)
    # What begins with a dot is what was being staged, and no part of the run yet.
    kinds = (".csv", ".parquet", "run.json")
    left = {n: t for n, t in state(run).items() if not n.startswith(".")}
    whole = {n: t for n, t in left.items() if n.endswith(kinds)}
    assert whole.items() <= before.items()
    assert report(run, capsys)[0] == 0
    assert not list(run.glob(".staged")) and not list(run.glob(".*-????????.*"))


def test_moments_from_which_nothing_can_be_derived_cost_their_row_alone(run, capsys, monkeypatch):
    before = frame(run)
    kept = Measurement.row

    def row(self, parameter="log_alpha"):
        outcome = kept(self, parameter)
        if outcome["evaluations"] == 2 and parameter == "alpha":
            raise ValueError("The data contains\nnon-finite values.")
        return outcome

    monkeypatch.setattr(Measurement, "row", row)
    status, _, err = report(run, capsys)
    assert status == 1 and err.count("\n") == 2
    assert "bernoulli × rloo in alpha: its moments cannot be evaluated: Val" in err
    outcome = frame(run)
    lost = outcome["status"].eq("failed")
    assert lost.sum() == 2 and set(outcome.loc[lost, "parameter"]) == {"alpha"}
    assert outcome.loc[lost, "reason"].unique().tolist() == [
        "its moments cannot be evaluated: ValueError: The data contains non-finite values."
    ]
    pd.testing.assert_frame_equal(outcome[~lost], before[~lost], check_dtype=False)


def test_a_payload_that_cannot_be_decoded_is_named(run, capsys):
    from gradest.runs.journal import append_record, read_records

    journal = run / "journal.jsonl"
    records = list(read_records(journal))
    records[2]["measurement"]["logits"] = {"shape": [1, 7, 3], "float64": "AAAA"}
    del records[3]["measurement"]["peaks"]
    journal.unlink()
    for record in records:
        append_record(journal, record)
    status, _, err = report(run, capsys)
    assert status == 1 and err.count("\n") == 2
    assert "journal.jsonl: bernoulli × rloo: its record cannot be read (ValueError: " in err
    assert "journal.jsonl: bernoulli × reinforce: its record cannot be read (KeyError: " in err
    assert frame(run)["status"].value_counts().to_dict() == {"ok": 8, "failed": 4}


@pytest.mark.slow
def test_a_record_of_another_cell_is_named_and_measured_again(run, capsys):
    from gradest.runs.journal import append_record, read_records

    before = frame(run)
    journal = run / "journal.jsonl"
    records = list(read_records(journal))
    del records[2]["cell"]["task_knobs"]["theta"]
    journal.unlink()
    for record in records:
        append_record(journal, record)
    status, _, err = report(run, capsys)
    assert status == 1
    assert "journal.jsonl: bernoulli × rloo: its record describes another cell\n" in err
    changed = frame(run)
    assert list(changed["task_params"]) == list(before["task_params"])
    assert changed["status"].value_counts().to_dict() == {"ok": 10, "failed": 2}
    assert main(_suite(run.parent, run)) == 0
    pd.testing.assert_frame_equal(frame(run), before)


def test_a_run_that_has_lost_cells_is_not_compared(run, finished_run, tmp_path, capsys):
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]))
    capsys.readouterr()
    call = ["--report", str(finished_run), str(run), "--fail-on-regression"]
    assert main([*call, "--out", str(tmp_path / "compared")]) == 2
    assert "journal.jsonl" in (err := capsys.readouterr().err) and "lacks" in err
    assert not (tmp_path / "compared").exists()
