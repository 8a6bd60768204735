"""Parallel calls in local processes, isolated from each other.

joblib's processes would suffice for calls that never crash.  But if one of them dies, joblib gives
up all of them without saying which call was responsible, and it cannot end one that hangs.  Here
each process runs one call at a time, so that a call that dies or takes too long is identified.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from gradest.errors import Inapplicable, UsageError
from gradest.runs.process_template import NUMBER, Surroundings

_START = (
    "import sys; sys.path[:] = {path!r}; "
    "from gradest.runs.process_template import serve; serve({fd})"
)
# Keeps libraries from starting threads when they are loaded: threads do not survive a fork.
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_DYING = 5.0  # seconds that a process may take to end once it has closed its connection


class Job(NamedTuple):
    """A call of a module-level function with arguments that can be pickled.

    Its result is JSON data.  With `alone` it runs in a process that runs no other call.
    """

    key: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    alone: bool


class Failed(Exception):
    """A call that has raised an error; the message is the reason."""


class Died(Failed):
    """A call whose process has died or was ended after the timeout."""


class UnderWay:
    """The jobs in progress and their start times; readable from any thread."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def begin(self, key: str) -> None:
        self._since[key] = time.monotonic()

    def end(self, key: str) -> None:
        self._since.pop(key, None)

    def named(self, labels: Mapping[str, str]) -> dict[str, float]:
        """label -> seconds since the start, the longest first."""
        now = time.monotonic()
        return {labels[key]: now - since for key, since in list(self._since.items())}


class _Template:
    """The process from which the others are forked; started on first use and after its death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def fork(self, connection: int, status: int) -> None:
        """Fork a child that answers calls on the connection; its end is sent to the status pipe."""
        with self._lock:
            try:
                self._request(connection, status)
            except OSError:  # the template has died: start a new one
                self._end()
                self._request(connection, status)

    def end(self) -> None:
        with self._lock:
            self._end()

    def _request(self, connection: int, status: int) -> None:
        if self._requests is None:
            self._start()
        socket.send_fds(self._requests, [b"\0"], [connection, status, 1, 2])

    def _start(self) -> None:
        self._requests, remote = socket.socketpair()
        with remote:
            command = _START.format(path=sys.path, fd=remote.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                pass_fds=[remote.fileno()],
                env=os.environ | _SINGLE_THREADED,
                start_new_session=True,  # so that Ctrl-C in a terminal reaches only this process
            )

    def _end(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._process.wait()
            self._requests = self._process = None


_template = _Template()
atexit.register(_template.end)


class Process:
    """A process that answers calls one after the other.

    `gpu` is the number of the only CUDA device that it sees, as the current one; None for all.
    """

    def __init__(self, gpu: int | None = None) -> None:
        self.gpu = gpu
        self.connection, remote = Pipe()
        self.status, remote_status = os.pipe()
        try:
            _template.fork(remote.fileno(), remote_status)
        finally:
            remote.close()
            os.close(remote_status)
        self._number = self._read()
        self._send(Surroundings.here(gpu))

    def submit(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._send((call, arguments))

    def answer(self) -> Any:
        """Wait for the call and return its result.

        Raises Inapplicable and UsageError if the call raises these, Failed for any other error, and
        Died if the process has died.
        """
        ready = wait([self.connection, self.status])
        try:
            if self.connection not in ready and not self.connection.poll():
                raise EOFError
            answer = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise Died(self._end()) from None
        if "value" in answer:
            return answer["value"]
        errors = {"Inapplicable": Inapplicable, "UsageError": UsageError}
        raise errors.get(answer["raised"], Failed)(answer["reason"])

    def call(self, call: Callable[..., Any], *arguments: Any, timeout: float | None = None) -> Any:
        """Submit a call and return its result.  Raises as `answer`, and Died after the timeout."""
        self.submit(call, arguments)
        if not wait([self.connection, self.status], timeout):
            raise Died(timeout_message(timeout))
        return self.answer()

    def close(self) -> None:
        """End the process and all processes that it has started."""
        if self._number:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._number, signal.SIGKILL)
            with suppress(ProcessLookupError):  # in case it has no process group of its own yet
                os.kill(self._number, signal.SIGKILL)
            self._number = 0
            self.connection.close()
            os.close(self.status)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # it has died; the status pipe reports that
            self.connection.send(message)

    def _read(self) -> int | None:
        """The next number on the status pipe; None if the template has died as well."""
        data = os.read(self.status, NUMBER.size)
        return NUMBER.unpack(data)[0] if data else None

    def _end(self) -> str:
        """A description of how the process ended."""
        if not wait([self.status], _DYING):
            return "its process closed its connection"
        return ending(self._read())


def in_own_process(job: Job, timeout: float | None) -> Any:
    """The result of a job in a process of its own.  Raises like `Process.call`."""
    with Process() as process:
        return process.call(job.call, *job.arguments, timeout=timeout)


def in_processes(
    jobs: Iterable[Job],
    count: int,
    timeout: float | None,
    under_way: UnderWay,
    gpus: Sequence[int] = (),
) -> Iterator[tuple[Job, Any]]:
    """Yield each job with its result or its error, in the order of completion.

    At most `count` jobs run at a time.  A job that takes more than `timeout` seconds is ended.  The
    processes are spread evenly over the CUDA devices of these numbers, if there are any.
    """
    waiting = deque(jobs)
    busy: dict[Process, tuple[Job, float]] = {}
    idle: list[Process] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                job = waiting.popleft()
                if job.alone and idle and len(busy) + len(idle) >= count:
                    idle.pop().close()
                if job.alone or not idle:
                    process = Process(_least_used(gpus, [*busy, *idle]))
                else:
                    process = idle.pop()
                busy[process] = job, time.monotonic()
                under_way.begin(job.key)
                process.submit(job.call, job.arguments)
            for process in _ready(busy, timeout):
                job, since = busy[process]
                answer = _answer_of(process, time.monotonic() - since, timeout)
                del busy[process]
                under_way.end(job.key)
                if job.alone or isinstance(answer, Died):
                    process.close()
                else:
                    idle.append(process)
                yield job, answer
    finally:
        for process in (*busy, *idle):
            process.close()


def _least_used(gpus: Sequence[int], processes: Iterable[Process]) -> int | None:
    """The device with the fewest of these processes, None if there are no devices."""
    users = Counter(process.gpu for process in processes)
    return min(gpus, key=users.__getitem__, default=None)


def ending(status: int | None) -> str:
    """How a process ended, given its exit status: negative for a signal, None if unknown."""
    if status is None:
        return "its process died"
    if status < 0:
        return f"its process died: signal {-status} ({signal.Signals(-status).name})"
    return f"its process died: exit status {status}"


def timeout_message(timeout: float) -> str:
    return f"ended after cell_timeout = {timeout:g} s"


def _ready(busy: Mapping[Process, tuple[Job, float]], timeout: float | None) -> list[Process]:
    """Wait for at least one process that has answered, died or exceeded the timeout."""
    left = None
    if timeout is not None:
        left = min(since for _, since in busy.values()) + timeout - time.monotonic()
    ends = {end: process for process in busy for end in (process.connection, process.status)}
    ready = {ends[end] for end in wait(list(ends), None if left is None else max(left, 0.0))}
    if ready or timeout is None:
        return list(ready)
    now = time.monotonic()
    return [process for process, (_, since) in busy.items() if now - since >= timeout]


def _answer_of(process: Process, seconds: float, timeout: float | None) -> Any:
    try:
        if not wait([process.connection, process.status], 0):
            return Died(timeout_message(timeout))
        return process.answer()
    except (Failed, UsageError) as error:  # Inapplicable is one
        return error
