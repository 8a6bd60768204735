"""A Dask cluster: workers that come late, and a scheduler that goes away and comes back."""

import math
import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from gradest.errors import UsageError
from gradest.runs.engines import dask_cluster
from gradest.runs.engines.remote import Installation
from gradest.runs.processes import Failed, Job, UnderWay
from gradest.runs.workers import Workers, answers
from tests.runs.engines.support import stay, wait_for, wait_until_gone
from tools import kills

distributed = pytest.importorskip("distributed", reason="Dask is an optional extra")


@contextmanager
def cluster(workers=1, port=0):
    """A cluster in threads of this process, which starts in a fraction of a second."""
    options = {"threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(
        n_workers=workers, scheduler_port=port, protocol="tcp", host="127.0.0.1", **options
    ) as local:
        yield local


def on(local, **options):
    return Workers(backend="dask", scheduler=local.scheduler_address, **options)


@pytest.mark.slow
def test_jobs_that_fail_die_or_hang_are_known_and_the_others_go_on():
    jobs = [
        Job("hangs", time.sleep, (1000,), alone=False),
        Job("aborts", os.abort, (), alone=False),
        Job("raises", math.sqrt, (-1,), alone=True),
        *(Job(f"good {n}", math.sqrt, (n,), alone=False) for n in range(4)),
    ]
    with cluster() as local:
        result = {
            job.key: answer for job, answer in answers(jobs, on(local, timeout=3.0), UnderWay())
        }
    assert [result[f"good {n}"] for n in range(4)] == [math.sqrt(n) for n in range(4)]
    assert all(isinstance(result[key], Failed) for key in ("hangs", "aborts", "raises"))
    assert str(result["hangs"]) == "ended after cell_timeout = 3 s"
    assert str(result["aborts"]) == "its process died: signal 6 (SIGABRT)"


@pytest.mark.slow
def test_a_cluster_without_workers_is_waited_for_and_late_workers_get_work(monkeypatch, tmp_path):
    jobs = [Job(str(n), _arrive, (str(tmp_path), 2), alone=False) for n in range(4)]
    lines = []
    with cluster(workers=0) as local:

        def say(line):
            lines.append(line)
            local.scale(1)
            second.start()

        def join_late():
            wait_for(lambda: any(tmp_path.iterdir()))
            local.scale(2)

        # No job ends before two have begun, which takes a second worker.
        second = threading.Thread(target=join_late)
        monkeypatch.setattr(dask_cluster, "_say", say)
        done = [answer for _, answer in answers(jobs, on(local), UnderWay())]
        second.join()
    assert done == [None] * 4
    assert lines == ["the Dask cluster has no workers yet; waiting for them"]


@pytest.mark.slow
def test_what_runs_is_named_and_ends_with_the_run(tmp_path):
    under_way = UnderWay()
    jobs = [Job("quick", math.sqrt, (4,), False), Job("long", stay, (str(tmp_path / "b"),), True)]
    with cluster(workers=2) as local:
        results = answers(jobs, on(local), under_way)
        assert next(results)[1] == 2.0
        wait_for((tmp_path / "b").exists)
        wait_for(lambda: list(under_way.named({"long": "long"})) == ["long"])
        process = int((tmp_path / "b").read_text())
        results.close()
        wait_until_gone(process)


@pytest.mark.slow
def test_a_scheduler_that_comes_back_gets_what_is_left(capsys, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = [Job(str(n), _count, (str(tmp_path), n), alone=False) for n in range(3)]
    with cluster(port=port) as local:
        results = answers(jobs, on(local, patience=60.0), UnderWay())
        done = [next(results)[0].key]
    with cluster(port=port):
        done += [job.key for job, _ in results]
    assert sorted(done) == ["0", "1", "2"]
    first = int(done[0])
    assert len(list(tmp_path.glob(f"{first}-*"))) == 1  # what was answered is not run again
    lines = capsys.readouterr().err.splitlines()
    assert sum("lost the Dask scheduler at tcp://127.0.0.1" in line for line in lines) == 1
    assert sum(line.endswith("is back; 2 cells submitted again") for line in lines) == 1


@pytest.mark.slow
def test_a_scheduler_that_stays_away_is_given_up():
    jobs = [Job(str(n), math.sqrt, (n,), alone=False) for n in range(200)]
    with cluster() as local:
        results = answers(jobs, on(local, patience=0.2), UnderWay())
        next(results)
    with pytest.raises(ConnectionError, match=r"has been away for 0.2 s; finished cells are kept"):
        list(results)


@pytest.mark.slow
def test_workers_with_another_installation_are_refused(monkeypatch):
    class Other:
        here = staticmethod(lambda: Installation("0" * 12, "1.0"))

    monkeypatch.setattr(dask_cluster, "Installation", Other)
    with cluster() as local, pytest.raises(UsageError, match="install the same versions on all"):
        list(answers([Job("job", math.sqrt, (4,), False)], on(local), UnderWay()))


@pytest.mark.weekly
def test_a_run_survives_one_kill_of_each_kind(tmp_path):
    with kills.prepared(tmp_path) as (local, command, expected):
        for kind in kills.KINDS:
            out = tmp_path / kind
            trial = kills.attempt(local, command, out, kind, 3, 0.2, expected)
            assert trial.identical and trial.again == 0, trial
            assert trial.restarts == (kind == "run"), trial


def _arrive(folder, number):
    """Return once that many processes have been here."""
    open(os.path.join(folder, str(os.getpid())), "w").close()
    while len(os.listdir(folder)) < number:
        time.sleep(0.02)


def _count(folder, number):
    open(os.path.join(folder, f"{number}-{os.getpid()}"), "w").close()
    time.sleep(0.5)
