"""Jobs on a Ray cluster, each of whose results is returned when it is ready.

Ray queues what is sent without saying what has begun.  So only as many jobs are sent as the cluster
has CPUs, counted again and again since nodes may join: what is sent then runs, and is shown so.
"""

import re
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gradest.errors import UsageError
from gradest.runs.engines.remote import Installation, answer_on_worker, checked
from gradest.runs.processes import Failed, Job, UnderWay
from gradest.support import counted, in_a_line

_RETRIES = 3  # of a job whose worker is lost, as many as Dask's scheduler allows
_POLL = 1.0  # seconds between two looks at the number of CPUs
_CONNECTING = 10.0  # seconds that an address may take to answer; Ray would try for minutes


def ray_answers(
    jobs: Sequence[Job],
    count: int,
    address: str | None,
    timeout: float | None,
    under_way: UnderWay,
) -> Iterator[tuple[Job, Any]]:
    """Yield each job with its result, Failed or UsageError, in the order of completion.

    The cluster is that at `address`; without one, Ray is started on this machine with `count` CPUs.
    Raises UsageError if there is no cluster or if its workers cannot run gradest.
    """
    import ray

    with _cluster(address, count):
        run = ray.remote(num_cpus=1, max_retries=_RETRIES)(answer_on_worker)
        expected = Installation.here()
        waiting, running = deque(jobs), {}
        said = False
        while waiting or running:
            cpus = int(ray.cluster_resources().get("CPU", 0))
            while waiting and len(running) < cpus:
                job = waiting.popleft()
                under_way.begin(job.key)
                running[run.remote(job, timeout, expected)] = job
            if not cpus and not said:
                print("the Ray cluster has no CPUs yet; waiting for them", file=sys.stderr)
                said = True
            done, _ = ray.wait(list(running), num_returns=1, timeout=_POLL) if running else ([], [])
            for reference in done:
                job = running.pop(reference)
                under_way.end(job.key)
                yield job, _answer(reference)


def _answer(reference: Any) -> Any:
    """The answer of a finished task.  Raises UsageError if the worker could not run it."""
    import ray
    from ray.exceptions import RayError, RayTaskError, WorkerCrashedError

    try:
        return checked(ray.get(reference), "Ray cluster")
    except RayTaskError as error:  # raised around the job: its own errors are answers
        raise UsageError(
            f"the workers of the Ray cluster cannot run gradest ({in_a_line(str(error.cause))}); "
            "install the same versions there as here"
        ) from error
    except WorkerCrashedError:
        return Failed(f"{counted(_RETRIES + 1, 'Ray worker')} died while it ran")
    except RayError as error:  # for example memory that the node lacks
        return Failed(in_a_line(str(error)))


@contextmanager
def _cluster(address: str | None, count: int) -> Iterator[None]:
    """Within the block Ray is connected.  Raises UsageError if there is no such cluster."""
    import ray

    options = {"address": address} if address else {"num_cpus": count, "include_dashboard": False}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if place := re.fullmatch(r"(?:ray://)?(.+):(\d{1,5})", address or ""):
            socket.create_connection((place[1], int(place[2])), _CONNECTING).close()
        ray.init(**options, logging_level="ERROR", log_to_driver=False)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise UsageError(f"no Ray cluster at {address}: {in_a_line(str(error))}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # Ray replaces it by one that loses the reason
    try:
        yield
    finally:
        ray.shutdown()
