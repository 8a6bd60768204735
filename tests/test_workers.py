"""joblib runs on the workers that were asked for, and afterwards as before."""

import joblib
import pytest
from joblib.parallel import get_active_backend

from gradest.errors import UsageError
from gradest.running.workers import Workers, running_on


def active() -> tuple[str, int]:
    backend, jobs = get_active_backend()
    return type(backend).__name__, jobs


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (Workers(jobs=2), ("LokyBackend", 2)),
        (Workers(jobs=3, backend="threading"), ("ThreadingBackend", 3)),
    ],
)
def test_the_backend_and_the_number_of_jobs_hold_within_the_block(workers, expected):
    before = active()
    with running_on(workers):
        assert active() == expected
        calls = (joblib.delayed(abs)(-i) for i in range(3))
        assert sorted(joblib.Parallel()(calls)) == [0, 1, 2]
    assert active() == before


def test_an_error_inside_gives_the_old_workers_back():
    before = active()
    with pytest.raises(ZeroDivisionError), running_on(Workers(jobs=2, backend="threading")):
        raise ZeroDivisionError
    assert active() == before


def test_without_dask_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("gradest.running.workers.importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(UsageError, match="needs Dask: pip install"),
        running_on(Workers(backend="dask")),
    ):
        pass
