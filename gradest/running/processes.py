"""Calls in processes of this machine: several at a time, and none can harm another.

joblib's processes would do for calls that behave.  But where one of them dies joblib gives up all
of them and does not say which call it was, and it can end none that hangs.  Here each process has
one call at a time, so that whoever dies or takes too long is known by name.
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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from gradest.errors import Inapplicable, UsageError
from gradest.running.template import NUMBER, Surroundings

_START = (
    "import sys; sys.path[:] = {path!r}; from gradest.running.template import serve; serve({fd})"
)
# Libraries that start threads when they are loaded must not: threads do not survive a fork.
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_DYING = 5.0  # seconds in which a process that has closed its connection must have ended


class Job(NamedTuple):
    """A call of a function that a module has, with arguments that can be pickled.

    What it returns is JSON.  `alone`: in a process that does nothing else, before or after.
    """

    key: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    alone: bool


class Failed(Exception):
    """A call that has raised; the message is the reason."""


class Died(Failed):
    """A call whose process has died, or was ended because it took too long."""


class UnderWay:
    """Which jobs are being done, and since when; may be asked from any thread."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def begin(self, key: str) -> None:
        self._since[key] = time.monotonic()

    def end(self, key: str) -> None:
        self._since.pop(key, None)

    def named(self, labels: Mapping[str, str]) -> dict[str, float]:
        """Label -> seconds up to this moment, the longest first."""
        now = time.monotonic()
        return {labels[key]: now - since for key, since in list(self._since.items())}


class _Template:
    """The process that others are forked from: started when it is first needed, and again if it
    dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def fork(self, connection: int, status: int) -> None:
        """Let a child answer calls on the connection and its end be told on the status pipe."""
        with self._lock:
            try:
                self._request(connection, status)
            except OSError:  # it has died since: whoever is asked next is a new one
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
        self._requests, theirs = socket.socketpair()
        with theirs:
            command = _START.format(path=sys.path, fd=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | _SINGLE_THREADED,
                start_new_session=True,  # Ctrl-C in a terminal is for this process alone
            )

    def _end(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._process.wait()
            self._requests = self._process = None


_template = _Template()
atexit.register(_template.end)


class Process:
    """A process that answers one call after the other."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        self.status, told = os.pipe()
        try:
            _template.fork(theirs.fileno(), told)
        finally:
            theirs.close()
            os.close(told)
        self._number = self._read()
        self._send(Surroundings.here())

    def submit(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._send((call, arguments))

    def answer(self) -> Any:
        """What the call has returned; waits for it.

        Raises Inapplicable and UsageError as the call does, Failed for all else that it raises, and
        Died.
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
        known = {"Inapplicable": Inapplicable, "UsageError": UsageError}
        raise known.get(answer["raised"], Failed)(answer["reason"])

    def call(self, call: Callable[..., Any], *arguments: Any, timeout: float | None = None) -> Any:
        """Submit and answer.  Raises as `answer`, and Died past the timeout."""
        self.submit(call, arguments)
        if not wait([self.connection, self.status], timeout):
            raise Died(too_long(timeout))
        return self.answer()

    def close(self) -> None:
        """End it with all that it has started."""
        if self._number:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._number, signal.SIGKILL)
            with suppress(ProcessLookupError):  # before it has its own group
                os.kill(self._number, signal.SIGKILL)
            self._number = 0
            self.connection.close()
            os.close(self.status)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # it has died, which the status pipe tells
            self.connection.send(message)

    def _read(self) -> int | None:
        """The next number on the status pipe, None where the template has died as well."""
        told = os.read(self.status, NUMBER.size)
        return NUMBER.unpack(told)[0] if told else None

    def _end(self) -> str:
        """How it ended."""
        if not wait([self.status], _DYING):
            return "its process closed its connection"
        return ending(self._read())


def in_own_process(job: Job, timeout: float | None) -> Any:
    """What the job returns, from a process of its own.  Raises as `Process.call`."""
    with Process() as process:
        return process.call(job.call, *job.arguments, timeout=timeout)


def in_processes(
    jobs: Iterable[Job], count: int, timeout: float | None, under_way: UnderWay
) -> Iterator[tuple[Job, Any]]:
    """Each job with what it returns or the error that it raises, as they come in.

    At most `count` are done at a time.  One that takes more than `timeout` seconds is ended.
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
                process = Process() if job.alone or not idle else idle.pop()
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


def ending(status: int | None) -> str:
    """How a process ended, by its exit status, negative for a signal and None where unknown."""
    if status is None:
        return "its process died"
    if status < 0:
        return f"its process died: signal {-status} ({signal.Signals(-status).name})"
    return f"its process died: exit status {status}"


def too_long(timeout: float) -> str:
    return f"ended after cell_timeout = {timeout:g} s"


def _ready(busy: Mapping[Process, tuple[Job, float]], timeout: float | None) -> list[Process]:
    """Those that have answered, died or taken too long; waits until there are any."""
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
            return Died(too_long(timeout))
        return process.answer()
    except (Failed, UsageError) as error:  # Inapplicable is one
        return error
