"""A Ray cluster answers job by job, and jobs that fail or hang stay in their cells."""

import math
import os
import signal
import time

import pytest

from gradest.errors import UsageError
from gradest.runs.engines import ray_cluster
from gradest.runs.engines.remote import Installation
from gradest.runs.processes import Failed, Job, UnderWay
from gradest.runs.workers import Workers, answers
from tests.runs.engines.support import stay, wait_until_gone

pytest.importorskip("ray", reason="Ray is an optional extra")

WORKERS = Workers(2, "ray", timeout=20.0)


@pytest.fixture(autouse=True)
def at_usual_priority(monkeypatch):
    """Ray's workers have a low priority, with which a busy machine would starve them."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.mark.weekly
def test_results_come_as_they_are_ready_and_failures_are_known(tmp_path):
    begun, under_way = tmp_path / "begun", UnderWay()
    jobs = [
        Job("hangs", stay, (str(begun),), alone=False),
        Job("aborts", os.abort, (), alone=False),
        Job("raises", math.sqrt, (-1,), alone=True),
        *(Job(f"good {n}", math.sqrt, (n,), alone=False) for n in range(4)),
    ]
    result, running = {}, {}
    for job, answer in answers(jobs, WORKERS, under_way):
        result[job.key] = answer
        running[job.key] = set(under_way.named({each.key: each.key for each in jobs}))
    assert [result[f"good {n}"] for n in range(4)] == [math.sqrt(n) for n in range(4)]
    assert list(result)[-1] == "hangs" and running["good 3"] == {"hangs"}
    assert all(isinstance(result[key], Failed) for key in ("hangs", "aborts", "raises"))
    assert str(result["hangs"]) == "ended after cell_timeout = 20 s"
    assert str(result["aborts"]) == "its process died: signal 6 (SIGABRT)"
    wait_until_gone(int(begun.read_text()))


@pytest.mark.weekly
def test_what_runs_ends_with_the_run(tmp_path):
    begun = tmp_path / "begun"
    jobs = [Job("long", stay, (str(begun),), False), Job("quick", _after, (str(begun),), False)]
    handler = signal.getsignal(signal.SIGTERM)
    results = answers(jobs, Workers(2, "ray"), UnderWay())
    assert next(results)[0].key == "quick"
    assert signal.getsignal(signal.SIGTERM) is handler  # which records that the run was terminated
    results.close()
    wait_until_gone(int(begun.read_text()))


@pytest.mark.weekly
def test_workers_with_another_installation_are_refused(monkeypatch):
    class Other:
        here = staticmethod(lambda: Installation("0" * 12, "1.0"))

    monkeypatch.setattr(ray_cluster, "Installation", Other)
    with pytest.raises(UsageError, match=r"a worker of the Ray cluster has .*; install the same"):
        list(answers([Job("job", math.sqrt, (4,), False)], WORKERS, UnderWay()))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_a_missing_cluster_is_one_clear_line(address):
    workers = Workers(2, "ray", scheduler=address)
    with pytest.raises(UsageError, match=rf"^no Ray cluster at {address}: .+"):
        list(answers([Job("job", math.sqrt, (4,), False)], workers, UnderWay()))


def _after(path):
    while not os.path.exists(path):
        time.sleep(0.02)
