"""A worker of a cluster answers for one job whatever that does, and says when it must not."""

import math
import os
import time

import pytest

from gradest.errors import UsageError
from gradest.runs.engines.remote import Installation, Mismatch, answer_on_worker, checked
from gradest.runs.processes import Died, Failed, Job
from tests.runs.engines.support import stay, wait_until_gone

HERE = Installation.here()


def answer(call, *arguments, timeout=None, abandoned=lambda: False):
    job = Job("job", call, arguments, alone=False)
    return answer_on_worker(job, timeout, HERE, abandoned)


def test_a_job_runs_in_a_process_of_its_own_that_ends_with_it():
    process = answer(os.getpid)
    assert process != os.getpid()
    wait_until_gone(process)


def test_each_way_to_fail_is_an_answer():
    raised, died = answer(math.sqrt, -1), answer(os.abort)
    assert (type(raised), str(raised)) == (Failed, "ValueError: math domain error")
    assert (type(died), str(died)) == (Died, "its process died: signal 6 (SIGABRT)")
    late = answer(time.sleep, 1000, timeout=0.2)
    assert (type(late), str(late)) == (Died, "ended after cell_timeout = 0.2 s")


def test_a_limit_above_the_time_between_two_looks_lets_a_job_finish():
    assert answer(time.sleep, 0.7, timeout=60.0) is None


def test_a_job_for_which_nobody_waits_is_ended(tmp_path):
    begun = tmp_path / "begun"
    assert answer(stay, str(begun), abandoned=begun.exists) is None
    wait_until_gone(int(begun.read_text()))


def test_another_installation_runs_nothing(tmp_path):
    job = Job("job", stay, (str(tmp_path / "begun"),), alone=False)
    other = HERE._replace(torch="1.0")
    reply = answer_on_worker(job, None, other)
    assert reply == Mismatch(HERE) and not (tmp_path / "begun").exists()
    with pytest.raises(UsageError, match=r"worker of the Dask cluster has gradest \w{12} with tor"):
        checked(reply, "Dask cluster")
    assert checked({"kind": "cell"}, "Dask cluster") == {"kind": "cell"}


def test_the_digest_of_the_code_includes_the_catalogue(monkeypatch, tmp_path):
    import gradest.estimators

    (tmp_path / "rloo.py").write_text("pass\n")
    monkeypatch.setattr(gradest.estimators.__spec__, "submodule_search_locations", [str(tmp_path)])
    Installation.here.__func__.cache_clear()
    try:
        changed = Installation.here()
    finally:
        Installation.here.__func__.cache_clear()
    assert changed.torch == HERE.torch and changed.gradest != HERE.gradest
