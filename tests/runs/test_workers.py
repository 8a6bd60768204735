"""Work is done by the workers that were asked for, and whoever dies or hangs is known by name."""

import math
import os
import signal
import sys
import time

import pytest

from gradest.runs.processes import Died, Failed, Job, Process, UnderWay, in_processes
from gradest.runs.workers import Workers, answers


def test_each_call_that_fails_dies_or_hangs_is_known_and_the_others_go_on():
    jobs = [
        Job("exits", os._exit, (3,), alone=False),
        Job("aborts", os.abort, (), alone=True),
        Job("hangs", time.sleep, (1000,), alone=False),
        Job("raises", math.sqrt, (-1,), alone=False),
        Job("leaves", sys.exit, (), alone=True),
        Job("knows", Workers, (1,), alone=False),  # is no JSON
        *(Job(f"good {n}", math.sqrt, (n,), alone=n % 2 == 0) for n in range(6)),
    ]
    result = {job.key: answer for job, answer in in_processes(jobs, 2, 1.0, UnderWay())}
    assert {key: result[key] for key in result if key.startswith("good")} == {
        f"good {n}": math.sqrt(n) for n in range(6)
    }
    message = {key: (type(result[key]), str(result[key])) for key in result if "good" not in key}
    assert message == {
        "exits": (Died, "its process died: exit status 3"),
        "aborts": (Died, "its process died: signal 6 (SIGABRT)"),
        "hangs": (Died, "ended after cell_timeout = 1 s"),
        "raises": (Failed, "ValueError: math domain error"),
        "leaves": (Failed, "SystemExit"),
        "knows": (Failed, "TypeError: Object of type Workers is not JSON serializable"),
    }


def test_no_more_processes_than_jobs_and_each_serves_again():
    jobs = [Job(str(n), os.getpid, (), alone=False) for n in range(9)]
    assert len({answer for _, answer in answers(jobs, Workers(jobs=2), UnderWay())}) <= 2
    few = {answer for _, answer in answers(jobs[:1], Workers(jobs=8), UnderWay())}
    assert few == {os.getpid()}  # which starts none
    alone = [Job(str(n), os.getpid, (), alone=True) for n in range(3)]
    for backend in ("loky", "threading"):
        result = {answer for _, answer in answers(alone, Workers(2, backend), UnderWay())}
        assert len(result) == 3 and os.getpid() not in result


def test_a_timeout_holds_for_threads_as_well():
    jobs = [Job("hangs", time.sleep, (1000,), False), Job("good", math.sqrt, (4,), False)]
    workers = Workers(2, "threading", timeout=1.0)
    result = {job.key: answer for job, answer in answers(jobs, workers, UnderWay())}
    assert result["good"] == 2.0 and str(result["hangs"]) == "ended after cell_timeout = 1 s"


def test_what_runs_is_named_while_it_runs():
    under_way = UnderWay()
    jobs = [Job("a", time.sleep, (0.2,), True), Job("b", time.sleep, (0.4,), True)]
    result = answers(jobs, Workers(jobs=2), under_way)
    done, _ = next(result)
    assert done.key == "a" and list(under_way.named({"b": "b"})) == ["b"]
    result.close()


def test_a_process_takes_over_folder_and_variables_and_ends_with_what_it_has_started(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADEST_TOLD", "so")
    with Process() as process:
        assert process.call(os.getcwd) == str(tmp_path)
        assert process.call(os.getenv, "GRADEST_TOLD") == "so"
        started = process.call(os.getpid)
    _wait_until_gone(started)


@pytest.mark.weekly
def test_a_template_that_dies_is_replaced():
    with Process() as process:
        os.kill(process.call(os.getppid), signal.SIGKILL)
        with pytest.raises(Died, match="its process died"):
            process.call(time.sleep, 1000)
    with Process() as process:
        assert process.call(math.sqrt, 4) == 2.0


def _wait_until_gone(process, seconds=20):
    deadline = time.monotonic() + seconds
    while _lives(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_are_spread_over_the_devices_and_each_sees_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    jobs = [Job(str(n), _visible_device, (), alone=n % 2 == 0) for n in range(8)]
    result = in_processes(jobs, 2, None, UnderWay(), gpus=(0, 1))
    assert {answer for _, answer in result} == {"5", "7"}


def _visible_device():
    time.sleep(0.3)  # so that both processes are busy at any time
    return os.environ["CUDA_VISIBLE_DEVICES"]
