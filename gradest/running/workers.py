"""Where work is done: processes, threads or a Dask cluster."""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import joblib

from gradest.errors import UsageError
from gradest.running.processes import Failed, Job, UnderWay, in_own_process, in_processes

BACKENDS = ("loky", "threading", "dask")


@dataclass(frozen=True)
class Workers:
    """Where cells are measured: how many at a time, and by what.

    `backend`: "loky" for processes of this machine, "threading" and "dask" are joblib's.
    `scheduler` is the address of a running Dask cluster; without it Dask starts one here.
    `timeout`: the seconds that a cell may take.
    """

    jobs: int = joblib.cpu_count()
    backend: str = "loky"
    scheduler: str | None = None
    timeout: float | None = None


def answers(
    jobs: Sequence[Job], workers: Workers, under_way: UnderWay, clean: bool = True
) -> Iterator[tuple[Job, Any]]:
    """Each job with what it returns, or with the Failed or UsageError it ends in, as they come in.

    `clean` says that no code from outside the catalogue has run in this process, so that it may
    do a single job itself.  Raises UsageError where there are no such workers, and ConnectionError
    where a cluster is lost.
    """
    count = min(workers.jobs, len(jobs))
    workers = replace(workers, jobs=count)
    if workers.backend != "loky":
        yield from _by_joblib(jobs, workers, under_way)
    elif count > 1 or workers.timeout is not None or not clean or any(job.alone for job in jobs):
        # Closed at once when this generator is: processes must not go on past Ctrl-C.
        with closing(in_processes(jobs, count, workers.timeout, under_way)) as found:
            yield from found
    else:
        for job in jobs:
            yield job, _answer(job, None, under_way)


def _by_joblib(
    jobs: Sequence[Job], workers: Workers, under_way: UnderWay
) -> Iterator[tuple[Job, Any]]:
    by_key = {job.key: job for job in jobs}
    remote = workers.backend == "dask"
    try:
        with running_on(workers):
            # One job a batch: an answer counts when it arrives, not when its batch does.
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
            call = joblib.delayed(_keyed_answer)
            told = None if remote else under_way  # which a worker elsewhere cannot write to
            for key, answer in parallel(call(job, workers.timeout, told) for job in jobs):
                yield by_key[key], answer
    except UsageError:
        raise
    except Exception as error:
        if not remote:
            raise
        raise ConnectionError(
            f"the Dask cluster has failed ({type(error).__name__}); finished cells are kept; "
            "run again to go on"
        ) from error


def _keyed_answer(job: Job, timeout: float | None, under_way: UnderWay | None) -> tuple[str, Any]:
    return job.key, _answer(job, timeout, under_way or UnderWay())


def _answer(job: Job, timeout: float | None, under_way: UnderWay) -> Any:
    under_way.begin(job.key)
    try:
        # A thread cannot be ended, but a process can.
        if job.alone or timeout is not None:
            return in_own_process(job, timeout)
        return job.call(*job.arguments)
    except (Failed, UsageError) as error:
        return error
    finally:
        under_way.end(job.key)


@contextmanager
def running_on(workers: Workers) -> Iterator[None]:
    """Within the block joblib runs on these workers; for Dask a client of its cluster is open."""
    if workers.backend != "dask":
        with joblib.parallel_config(workers.backend, n_jobs=workers.jobs):
            yield
        return
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--backend dask needs Dask: pip install 'gradest[dask]'")
    import dask
    from distributed import Client, LocalCluster

    # A profiler that looks into frames keeps alive what they hold, and memory would be too high.
    dask.config.set({"distributed.worker.profile.enabled": False})
    # A scheduler that is lost is told of in one line, by whoever raises it here.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    local = {"n_workers": workers.jobs, "threads_per_worker": 1, "dashboard_address": ":0"}
    with nullcontext() if workers.scheduler else LocalCluster(**local) as cluster:
        try:
            client = Client(workers.scheduler or cluster, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"no Dask scheduler at {workers.scheduler}: {error}") from None
        with client, joblib.parallel_config("dask", n_jobs=-1):
            yield
