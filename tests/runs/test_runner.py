"""Runs: the same rows however they are made, interrupted or failing."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import torch

from gradest.errors import PluginError, UsageError
from gradest.plugins.registry import PluginBundle, Registry
from gradest.runs.journal import read_records
from gradest.runs.provenance import describe_run
from gradest.runs.runner import run
from gradest.runs.suite import load_suite
from gradest.runs.tables import finished, write_results
from gradest.runs.workers import Workers
from tests.support import ROOT

ALONE = Workers(jobs=1)
TIMES = ["seconds", "seconds_low", "seconds_high"]

HALVED = '''
"""Half of REINFORCE, slowly: with a helper, as plugins may have."""
import time
from dataclasses import dataclass
from gradest import Estimator
from gradest.categorical import log_prob, nabla, sample
from ._helper import halved

@dataclass(eq=False)
class Halved(Estimator):
    unbiased = False
    delay: float = 0.0

    def reset(self, logits):
        time.sleep(self.delay)

    def __call__(self, logits, f):
        z = sample(logits)
        cost = f(z)
        return cost + halved(cost) * nabla(log_prob(logits, z))
'''

BROKEN = '''
"""Breaks in the way that is asked for."""
import os
from dataclasses import dataclass
import torch
from gradest import Estimator
from gradest.categorical import log_prob, nabla, sample

@dataclass(eq=False)
class Broken(Estimator):
    way: str = "raise"

    def __call__(self, logits, f):
        z = sample(logits)
        cost = f(z)
        if self.way == "raise":
            raise RuntimeError("on <purpose>")
        if self.way == "die":
            os._exit(3)
        if self.way == "shape":
            return cost.sum()
        if self.way == "constant":
            return cost.detach()
        bad = {"nan": torch.nan, "inf": torch.inf}[self.way]
        weight = torch.where((z == 1) & (z[..., 1:2] == 1), bad, 1.0)
        return cost + (nabla(logits) * weight).sum((-2, -1))
'''


@pytest.fixture
def plugins(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "halved.py").write_text(HALVED)
    (folder / "broken.py").write_text(BROKEN)
    (folder / "_helper.py").write_text("def halved(x):\n    return x / 2\n")
    return folder


@pytest.fixture
def suite_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "replicates: 200\n"
        "tasks: [categorical, bernoulli]\n"
        "estimators: [exact, {rloo: {samples: [2, 3]}}, {halved: {delay: [0.0, 0.01]}}]\n"
    )
    return path


@pytest.fixture
def measured(tmp_path, plugins, suite_file):
    """Runs the suite and returns its rows and coordinates."""

    def measured(name, workers=ALONE, text=None, timed=False, **options):
        if text:
            suite_file.write_text(text)
        registry = Registry.load([plugins])
        suite = load_suite(str(suite_file), registry)
        folder = tmp_path / name
        run(
            suite.name,
            suite.cells,
            folder,
            registry,
            PluginBundle.of([plugins]),
            workers,
            timed=timed,
            **options,
        )
        write_results(folder, describe_run(suite, registry, datetime.now(UTC)))
        return (
            pd.read_parquet(folder / "measurements.parquet"),
            pd.read_parquet(folder / "coordinates.parquet"),
        )

    return measured


def same(left, right):
    for a, b in zip(left, right, strict=True):
        a, b = (frame.drop(columns=TIMES, errors="ignore") for frame in (a, b))
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    return True


def test_processes_and_threads_measure_what_one_process_measures(measured):
    alone = measured("alone", timed=True)
    assert (alone[0].status == "ok").all()
    assert alone[0].seconds.gt(0).all()
    assert (alone[0].seconds_low <= alone[0].seconds).all()
    assert (alone[0].seconds <= alone[0].seconds_high).all()
    assert same(alone, measured("processes", Workers(jobs=2)))
    assert same(alone, measured("threads", Workers(jobs=2, backend="threading")))


@pytest.mark.weekly
def test_a_dask_cluster_measures_what_one_process_measures(measured):
    distributed = pytest.importorskip("distributed", reason="Dask is an optional extra")
    dask = pytest.importorskip("dask", reason="Dask is an optional extra")
    alone = measured("alone")
    # The profiler looks into frames and keeps alive what they hold, which the column memory shows.
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        workers = Workers(backend="dask", scheduler=cluster.scheduler_address)
        assert same(alone, measured("dask", workers))


@pytest.mark.weekly
def test_a_missing_scheduler_is_one_clear_line(measured):
    pytest.importorskip("distributed", reason="Dask is an optional extra")
    with pytest.raises(UsageError, match=r"no Dask scheduler at 127.0.0.1:1"):
        measured("dask", Workers(backend="dask", scheduler="127.0.0.1:1"))


def test_a_cell_gives_the_same_numbers_in_any_company(measured):
    together, _ = measured("together")
    text = "replicates: 200\ntasks: [bernoulli]\nestimators: [{rloo: {samples: 3}}]\n"
    alone, _ = measured("alone", text=text)
    there = together[together.estimator_params.eq('{"samples": 3}') & together.task.eq("bernoulli")]
    assert same([alone], [there.reset_index(drop=True)])


def test_a_second_run_measures_nothing(measured, tmp_path):
    first = measured("run")
    journal = (tmp_path / "run" / "journal.jsonl").read_text()
    second = measured("run")
    assert (tmp_path / "run" / "journal.jsonl").read_text() == journal
    pd.testing.assert_frame_equal(first[0], second[0])


def test_fresh_measures_everything_again(measured, tmp_path):
    first = measured("run")
    before = next(read_records(tmp_path / "run" / "journal.jsonl"))["id"]
    assert same(first, measured("run", fresh=True))
    assert next(read_records(tmp_path / "run" / "journal.jsonl"))["id"] != before


def test_editing_a_plugin_or_its_helper_measures_it_again(measured, plugins):
    first, _ = measured("run")
    (plugins / "_helper.py").write_text("def halved(x):\n    return x / 4\n")
    second, _ = measured("run")
    is_plugin = first.estimator == "halved"
    assert same([first[~is_plugin]], [second[~is_plugin]])
    assert (first[is_plugin].variance > 2 * second[is_plugin].variance).all()


def test_each_failure_stays_in_its_cell(measured):
    text = (
        "replicates: 200\ntasks: [categorical]\n"
        "estimators: [{broken: {way: [raise, shape, constant, nan, inf]}}, rloo]\n"
    )
    rows, coordinates = measured("run", text=text)
    assert rows.status.tolist() == ["failed"] * 10 + ["ok"] * 2
    reasons = rows.reason[:10:2].tolist()
    assert reasons[0] == "RuntimeError: on <purpose>"
    assert "one value a row" in reasons[1]
    assert "without a gradient" in reasons[2]
    for reason in reasons[3:]:
        place = "broken on categorical: the gradient at data point 0, latent 0, category 1"
        assert f"{place} is NaN or infinite in " in reason
    assert rows.variance[:10].isna().all()
    assert set(coordinates.estimator) == {"rloo"}


def test_failed_cells_are_tried_again(measured, plugins):
    text = "replicates: 200\ntasks: [categorical]\nestimators: [{broken: {way: raise}}, rloo]\n"
    first, _ = measured("run", text=text)
    assert first.status.tolist() == ["failed"] * 2 + ["ok"] * 2
    second, _ = measured("run", text=text.replace("raise", "nan"))
    assert second.status.tolist() == ["failed"] * 2 + ["ok"] * 2


@pytest.mark.slow
def test_a_cell_that_kills_its_worker_is_found_and_the_others_go_on(measured):
    text = (
        "replicates: 200\ntasks: [categorical, bernoulli]\n"
        "estimators: [{broken: {way: die}}, rloo, reinforce, straight_through]\n"
    )
    rows, _ = measured("run", Workers(jobs=2), text=text)
    assert rows.groupby("estimator").status.unique().map(list).to_dict() == {
        "broken": ["failed"],
        "reinforce": ["ok"],
        "rloo": ["ok"],
        "straight_through": ["ok"],
    }
    assert rows[rows.estimator == "broken"].reason.str.startswith("its process died").all()


def test_inapplicable_cells_are_skipped_with_the_reason(measured, plugins):
    (plugins / "binary.py").write_text(
        BROKEN.replace("class Broken(Estimator):", "class Binary(Estimator):\n    categories = 2")
    )
    text = "replicates: 200\ntasks: [categorical]\nestimators: [binary, rloo]\n"
    rows, _ = measured("run", text=text)
    assert rows.status.tolist() == ["skipped"] * 2 + ["ok"] * 2
    assert rows.reason[0] == "binary needs K = 2, categorical has K = 3"


def test_a_run_that_was_cut_short_goes_on_from_its_journal(measured, tmp_path):
    """As after a kill: the journal ends amid a line, and neither tables nor run.json are there."""
    whole = measured("whole")
    folder, journal = tmp_path / "cut", tmp_path / "whole" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:100])
    kept = finished(folder / "journal.jsonl")
    assert 0 < len(kept) < len(finished(journal))
    assert same(whole, measured("cut"))
    records = [r for r in read_records(folder / "journal.jsonl") if r["kind"] == "cell"]
    assert len(records) == len({r["key"] for r in records}) == len(finished(journal))
    assert all(kept[r["key"]] == r for r in records if r["key"] in kept)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.weekly), 2])
def test_kill_9_loses_no_finished_cell(measured, tmp_path, plugins, suite_file, jobs):
    suite_file.write_text(
        "replicates: 200\ntimed: false\ntasks: [categorical]\n"
        "estimators: [{rloo: {samples: [2, 3]}}, "
        "{halved: {delay: [0.1, 0.11, 0.12, 0.13, 0.14, 0.15]}}]\n"
    )
    undisturbed = measured("undisturbed")
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "gradest.cli", "--suite", str(suite_file)]
    command += ["--plugin", str(plugins), "--out", str(folder), "--jobs", str(jobs)]
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: len(finished(folder / "journal.jsonl")) >= 4, child)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    kept = finished(folder / "journal.jsonl")
    assert 4 <= len(kept) < 8
    assert same(undisturbed, measured("killed"))
    records = [r["key"] for r in read_records(folder / "journal.jsonl") if r["kind"] == "cell"]
    assert len(records) == len(set(records)) == 8  # what was finished was not measured again


def _wait_for(condition, child, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_foreign_folders_are_refused_untouched(measured, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="contains files that are not results"):
        measured("mine")
    assert [f.name for f in folder.iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="got a file"):
        measured("file")


def test_an_unwritable_folder_is_one_clear_line(measured, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        measured("file/below")


def test_two_runs_do_not_share_a_folder(measured, tmp_path):
    from filelock import FileLock

    measured("run")
    with FileLock(tmp_path / "run" / ".run.lock"), pytest.raises(UsageError, match="another run"):
        measured("run")


def test_a_run_leaves_the_threads_and_the_random_state_alone(measured):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    measured("run")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_plugins_travel_by_value(plugins, tmp_path):
    bundle = PluginBundle.of([plugins, plugins / "halved.py"])
    assert bundle.unpacked() == [str(plugins), str(plugins / "halved.py")]
    plugins.rename(tmp_path / "gone")
    folder, file = map(Path, bundle.unpacked())
    assert folder != plugins
    assert (folder / "_helper.py").exists() and (file.parent / "_helper.py").exists()
    assert set(Registry.load([folder]).estimators) >= {"halved", "broken"}
    with pytest.raises(PluginError, match="no such plugin"):
        PluginBundle.of([plugins])


def test_a_cell_that_cannot_be_timed_keeps_its_numbers(measured, plugins):
    fragile = (
        HALVED.replace("Halved", "Fragile")
        .replace("import time", "import os")
        .replace("time.sleep(self.delay)", "os.mkdir(__file__ + '.seen')")
    )
    (plugins / "fragile.py").write_text(fragile)
    text = "replicates: 200\ntasks: [categorical]\nestimators: [fragile, rloo]\n"
    with pytest.warns(UserWarning, match="categorical × fragile cannot be timed: .*File exists"):
        rows, _ = measured("run", text=text, timed=True)
    assert rows.status.tolist() == ["ok"] * 4
    assert rows.variance.notna().all()
    assert rows.seconds.isna().tolist() == [True] * 2 + [False] * 2
