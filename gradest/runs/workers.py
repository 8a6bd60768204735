"""Jobs run by the chosen backend: local processes, threads, or a cluster of Dask or Ray."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import joblib

from gradest.errors import UsageError
from gradest.runs.backends import BACKENDS
from gradest.runs.engines import PATIENCE, dask_answers, ray_answers
from gradest.runs.processes import Failed, Job, UnderWay, in_own_process, in_processes


@dataclass(frozen=True)
class Workers:
    """The number and the kind of workers that measure cells.

    `backend` is a key of BACKENDS.  `scheduler` is the address of a running Dask scheduler or Ray
    cluster; without it one is started on this machine.  `timeout` limits the seconds per cell, and
    `patience` those that a run waits for a Dask scheduler which it has lost.  `gpus` are the
    numbers of the CUDA devices that local processes are spread over; if empty, all use the same.
    """

    jobs: int = joblib.cpu_count()
    backend: str = "loky"
    scheduler: str | None = None
    timeout: float | None = None
    patience: float = PATIENCE
    gpus: tuple[int, ...] = ()

    @property
    def remote(self) -> bool:
        """Whether the workers may have no access to the files of this machine."""
        return BACKENDS[self.backend].remote


def answers(
    jobs: Sequence[Job], workers: Workers, under_way: UnderWay, clean: bool = True
) -> Iterator[tuple[Job, Any]]:
    """Yield each job with its result, Failed or UsageError, in the order of completion.

    `clean` means that no code from outside the catalogue has run in this process, which may then
    run the jobs itself.  Raises UsageError if the workers are unavailable, and ConnectionError if
    the cluster is lost.
    """
    # Closing a generator ends the jobs that still run, for example after Ctrl-C.
    with closing(_engine(jobs, workers, under_way, clean)) as results:
        yield from results


def _engine(
    jobs: Sequence[Job], workers: Workers, under_way: UnderWay, clean: bool
) -> Iterator[tuple[Job, Any]]:
    count, address, timeout = min(workers.jobs, len(jobs)), workers.scheduler, workers.timeout
    match workers.backend:
        case "threading":
            return _in_threads(jobs, count, timeout, under_way)
        case "dask":
            return dask_answers(jobs, count, address, timeout, workers.patience, under_way)
        case "ray":
            return ray_answers(jobs, count, address, timeout, under_way)
    apart = timeout is not None or workers.gpus or not clean or any(job.alone for job in jobs)
    if count > 1 or apart:
        return in_processes(jobs, count, timeout, under_way, workers.gpus)
    return ((job, _answer(job, None, under_way)) for job in jobs)


def _in_threads(
    jobs: Sequence[Job], count: int, timeout: float | None, under_way: UnderWay
) -> Iterator[tuple[Job, Any]]:
    by_key = {job.key: job for job in jobs}
    # Batches of one job, so that each answer arrives as soon as it is ready.
    parallel = joblib.Parallel(
        count, backend="threading", return_as="generator_unordered", batch_size=1
    )
    call = joblib.delayed(_keyed_answer)
    for key, answer in parallel(call(job, timeout, under_way) for job in jobs):
        yield by_key[key], answer


def _keyed_answer(job: Job, timeout: float | None, under_way: UnderWay) -> tuple[str, Any]:
    return job.key, _answer(job, timeout, under_way)


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
