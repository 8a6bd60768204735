"""The backends that run jobs: local processes, threads or a Dask cluster."""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import joblib

from gradest.errors import UsageError
from gradest.runs.processes import Failed, Job, UnderWay, in_own_process, in_processes


@dataclass(frozen=True)
class Workers:
    """The number and the kind of workers that measure cells.

    `backend` is "loky" for local processes, or one of joblib's "threading" and "dask".  `scheduler`
    is the address of a running Dask scheduler; without it Dask starts a local cluster.  `timeout`
    limits the seconds per cell.
    """

    jobs: int = joblib.cpu_count()
    backend: str = "loky"
    scheduler: str | None = None
    timeout: float | None = None


def answers(
    jobs: Sequence[Job], workers: Workers, under_way: UnderWay, clean: bool = True
) -> Iterator[tuple[Job, Any]]:
    """Yield each job with its result, Failed or UsageError, in the order of completion.

    `clean` means that no code from outside the catalogue has run in this process, which may then
    run the jobs itself.  Raises UsageError if the workers are unavailable, and ConnectionError if
    the cluster is lost.
    """
    count = min(workers.jobs, len(jobs))
    workers = replace(workers, jobs=count)
    if workers.backend != "loky":
        yield from _by_joblib(jobs, workers, under_way)
    elif count > 1 or workers.timeout is not None or not clean or any(job.alone for job in jobs):
        # Closing this generator ends the processes at once, for example after Ctrl-C.
        with closing(in_processes(jobs, count, workers.timeout, under_way)) as results:
            yield from results
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
            # Batches of one job, so that each answer arrives as soon as it is ready.
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
            call = joblib.delayed(_keyed_answer)
            shared = None if remote else under_way  # remote workers cannot write to it
            for key, answer in parallel(call(job, workers.timeout, shared) for job in jobs):
                yield by_key[key], answer
    except UsageError:
        raise
    except Exception as error:
        if not remote:
            raise
        raise ConnectionError(
            f"the Dask cluster has failed ({type(error).__name__}); finished cells are kept, run "
            "the suite again to resume"
        ) from error


def _keyed_answer(job: Job, timeout: float | None, under_way: UnderWay | None) -> tuple[str, Any]:
    return job.key, _answer(job, timeout, under_way or UnderWay())


def _answer(job: Job, timeout: float | None, under_way: UnderWay) -> Any:
    under_way.begin(job.key)
    try:
        # Only a process can be ended after a timeout, a thread cannot.
        if job.alone or timeout is not None:
            return in_own_process(job, timeout)
        return job.call(*job.arguments)
    except (Failed, UsageError) as error:
        return error
    finally:
        under_way.end(job.key)


@contextmanager
def running_on(workers: Workers) -> Iterator[None]:
    """Within the block, joblib uses these workers; for Dask a client is open."""
    if workers.backend != "dask":
        with joblib.parallel_config(workers.backend, n_jobs=workers.jobs):
            yield
        return
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--backend dask requires Dask; run pip install 'gradest[dask]'")
    import dask
    from distributed import Client, LocalCluster

    # Dask's profiler keeps frames and their variables alive, which would distort measured memory.
    dask.config.set({"distributed.worker.profile.enabled": False})
    # The loss of a scheduler is reported once, by the error raised above.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    local = {"n_workers": workers.jobs, "threads_per_worker": 1, "dashboard_address": ":0"}
    with nullcontext() if workers.scheduler else LocalCluster(**local) as cluster:
        try:
            client = Client(workers.scheduler or cluster, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"no Dask scheduler at {workers.scheduler}: {error}") from None
        with client, joblib.parallel_config("dask", n_jobs=-1):
            yield
