"""Jobs on a Dask cluster, which may lose workers, gain workers and lose its scheduler.

`Client.map` sends all jobs at once, and the scheduler gives each to a worker that is free, whenever
that joined.  joblib's backend for Dask would send as many as the first workers can take, and say
nothing of a scheduler that is gone.

Dask itself runs the jobs of a lost worker again.  A lost scheduler takes along what its workers
were doing: they end those jobs, and what has not been answered is sent again to the next one.
"""

import logging
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from gradest.errors import UsageError
from gradest.runs.engines.remote import Installation, answer_on_worker, checked
from gradest.runs.processes import Failed, Job, UnderWay
from gradest.support import counted

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 600.0  # seconds that a run waits for a scheduler which it has lost

_CONNECTING = 10.0  # seconds that one attempt to reach the scheduler may take
_CLOSING = 0.5  # seconds for the end of a client whose scheduler is lost
_POLL = 0.05  # seconds between two looks at what has been answered
_RETRY = 1.0  # seconds between two attempts to reach a lost scheduler


class _Lost(Exception):
    """The connection to the scheduler is lost, and with it everything that was sent."""


def dask_answers(
    jobs: Sequence[Job],
    count: int,
    address: str | None,
    timeout: float | None,
    patience: float,
    under_way: UnderWay,
) -> Iterator[tuple[Job, Any]]:
    """Yield each job with its result, Failed or UsageError, in the order of completion.

    The cluster is that of the scheduler at `address`; without one, `count` workers are started on
    this machine.  Raises UsageError if there is no scheduler at first or if its workers cannot run
    gradest, and ConnectionError if it has been lost for `patience` seconds.
    """
    left = {job.key: job for job in jobs}
    with _quiet_client(), _scheduler(address, count) as scheduler:
        try:
            client = _connect(scheduler)
        except OSError as error:
            raise UsageError(f"no Dask scheduler at {scheduler}: {error}") from None
        while left:
            try:
                for job, answer in _answers(client, list(left.values()), timeout, under_way):
                    del left[job.key]
                    under_way.end(job.key)
                    yield job, answer
            except _Lost:
                for key in left:
                    under_way.end(key)
                _say(f"lost the Dask scheduler at {scheduler}; waiting up to {patience:g} s for it")
                with suppress(TimeoutError):  # the client is still waiting for an answer
                    client.close(_CLOSING)
                    # Dask cancels its own attempt to connect again, whose socket stays open.
                    client.loop.close(all_fds=True)
                client = _reconnect(scheduler, patience)
                _say(f"the Dask scheduler is back; {counted(len(left), 'cell')} submitted again")
            except BaseException:  # also Ctrl-C: the scheduler then ends what was sent
                client.close()
                raise
        client.close()


def _answers(
    client: "Client", jobs: Sequence[Job], timeout: float | None, under_way: UnderWay
) -> Iterator[tuple[Job, Any]]:
    """Send the jobs and yield their answers.  Raises _Lost and UsageError."""
    from distributed import as_completed

    # Unlike any other key: a worker may still be ending a job of an earlier run with its cell.
    topic = f"gradest-{uuid.uuid4().hex}"
    unanswered = {job.key for job in jobs}

    def begun(event: tuple[float, str]) -> None:
        if event[1] in unanswered:  # an event may arrive after its answer
            under_way.begin(event[1])

    call = partial(_on_worker, timeout=timeout, expected=Installation.here(), topic=topic)
    with _while_connected(client):
        client.subscribe_topic(topic, begun)
        futures = client.map(call, jobs, key=topic, pure=False)
        if not client.nthreads():
            _say("the Dask cluster has no workers yet; waiting for them")
        results = as_completed(futures, client.loop, with_results=True, raise_errors=False)
    by_key = {future.key: job for future, job in zip(futures, jobs, strict=True)}
    while unanswered:
        if client.status != "running":
            raise _Lost
        if not results.has_ready():
            time.sleep(_POLL)
            continue
        for future, result in results.next_batch(block=False):
            job = by_key[future.key]
            answer = _answer(future.status, result)
            unanswered.discard(job.key)
            yield job, answer
            future.release()  # so that the cluster forgets the result


def _answer(status: str, result: Any) -> Any:
    """The answer of a job, from the status and the result of its future."""
    from distributed import KilledWorker

    if status == "finished":
        return checked(result, "Dask cluster")
    if status == "cancelled":
        raise _Lost
    error = result[1]
    if isinstance(error, KilledWorker):
        return Failed(f"{counted(error.allowed_failures + 1, 'Dask worker')} died while it ran")
    raise UsageError(
        f"the workers of the Dask cluster cannot run gradest ({type(error).__name__}: {error}); "
        "install the same versions there as here"
    ) from error


def _on_worker(job: Job, timeout: float | None, expected: Installation, topic: str) -> Any:
    """The answer to a job; the run is told when it begins."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    worker.log_event(topic, job.key)

    def abandoned() -> bool:
        """Whether the run has ended, or this worker is about to."""
        task = worker.state.tasks.get(key)
        closing = worker.status.name in ("closing", "closed", "failed")
        return closing or task is None or task.state == "cancelled"

    return answer_on_worker(job, timeout, expected, abandoned)


@contextmanager
def _scheduler(address: str | None, count: int) -> Iterator[str]:
    """The address of the scheduler: the given one, or that of a cluster on this machine."""
    if address is not None:
        yield address
        return
    from distributed import LocalCluster

    # One thread a worker, so that a worker which is lost takes one cell with it.
    with LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Within the block Dask's client logs nothing: a lost scheduler is reported here, in a line."""
    import distributed  # which sets the levels of its loggers

    logger = logging.getLogger(f"{distributed.__name__}.client")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _connect(scheduler: str, seconds: float = _CONNECTING) -> "Client":
    """A client of the scheduler.  Raises OSError after that time."""
    from distributed import Client

    try:
        return Client(scheduler, timeout=seconds, set_as_default=False)
    except ValueError as error:  # an address that cannot be parsed
        raise OSError(str(error)) from None


def _reconnect(scheduler: str, patience: float) -> "Client":
    """A client of a scheduler that was lost.  Raises ConnectionError if it stays so."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return _connect(scheduler, min(_CONNECTING, patience))
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ConnectionError(
                    f"the Dask scheduler at {scheduler} has been away for {patience:g} s; "
                    "finished cells are kept, run the suite again to resume"
                ) from error
            time.sleep(_RETRY)


@contextmanager
def _while_connected(client: "Client") -> Iterator[None]:
    """Within the block, errors of a connection that is lost count as that: raises _Lost."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or client.status != "running":
            raise _Lost from error
        raise


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
