"""Processes that are forked from one that has loaded everything, so that they start at once.

Importing torch takes seconds and forking a few milliseconds.  The template is a program of its own,
started by whoever needs processes.  It has computed nothing: threads that compute, and a device
that is in use, do not survive a fork.  For each request it forks a child that answers calls.

Nobody outlives whoever has started them, however that ends: the template ends when the other end of
its socket is closed, which the kernel sees to, and a child ends with the template.
"""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from gradest.errors import Inapplicable, UsageError
from gradest.process_state import own_process
from gradest.registry import Registry
from gradest.text import message_of, reason_of

# What is loaded when a call is first answered, and by torch when it first computes: each child
# would do so anew, which takes longer than most cells.
_LOADED_LATE = ("gradest.running.runner", "torch._dynamo", "torch._refs", "scipy.stats")

NUMBER = struct.Struct("q")  # a process id, then an exit status, on a child's status pipe
DESCRIPTORS = 4  # of a request: the connection, the status pipe, standard output and error

_PR_SET_PDEATHSIG = 1
_WATCHED = 1.0  # seconds between two looks at the parent, where the kernel does not tell


class Surroundings(NamedTuple):
    """What a child takes over from whoever asked for it, as it is at that moment."""

    folder: str
    environment: dict[str, str]
    path: list[str]

    @classmethod
    def here(cls) -> "Surroundings":
        return cls(os.getcwd(), dict(os.environ), list(sys.path))

    def enter(self) -> None:
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = self.path


def serve(control: int) -> None:
    """Fork a child for each request on the socket, until its other end is closed."""
    torch.set_num_threads(1)
    Registry.load(only=())
    for name in _LOADED_LATE:
        with suppress(ImportError):  # names that another version may not have
            import_module(name)
    # Some library may have a thread that waits for work; a child has no use for it.
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever has started this
    ended, wake = socket.socketpair()
    for end in (ended, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    requests = socket.socket(fileno=control)
    children: dict[int, int] = {}  # process -> its status pipe
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            ended.recv(4096)
            _tell_of_ends(children)
        if requests in ready:
            message, passed, *_ = socket.recv_fds(requests, 1, DESCRIPTORS)
            if not message:
                os._exit(0)
            connection, status, out, err = passed
            if (child := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                for each in (requests, ended, wake):
                    each.close()
                for each in (status, *children.values()):
                    os.close(each)
                _be_a_child(connection, out, err)
            for each in (connection, out, err):
                os.close(each)
            children[child] = status
            _tell(status, child)


def _tell_of_ends(children: dict[int, int]) -> None:
    while children:
        child, ended = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        status = children.pop(child, None)
        if status is not None:
            _tell(status, os.waitstatus_to_exitcode(ended))
            os.close(status)


def _tell(status: int, number: int) -> None:
    with suppress(BrokenPipeError):  # whoever asked for the child has no more use for it
        os.write(status, NUMBER.pack(number))


def _be_a_child(connection: int, out: int, err: int) -> None:
    """Answer calls until whoever asks is gone; never returns."""
    try:
        os.setsid()  # so that the child and whatever it starts are ended together
        end_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for given, stream in ((out, 1), (err, 2)):
            os.dup2(given, stream)
            os.close(given)
        own_process()
        answer_calls(Connection(connection))
    finally:
        os._exit(1)


def end_with_parent() -> None:
    """Let this process end when its parent does."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that was said
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCHED)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def answer_calls(connection: Connection) -> None:
    """Receive calls and send what they return, as JSON, one after the other."""
    own = os.getpid()
    connection.recv().enter()
    while True:
        try:
            call, arguments = connection.recv()
        except EOFError:
            os._exit(0)
        answer = _answer(call, arguments)
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):  # code from elsewhere may have put anything in its place
                stream.flush()
        if os.getpid() != own:  # a copy that the call has forked and that came back as well
            os._exit(1)
        connection.send_bytes(answer)


def _answer(call: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        return json.dumps({"value": call(*arguments)}).encode()
    except (Inapplicable, UsageError) as error:
        kind = "Inapplicable" if isinstance(error, Inapplicable) else "UsageError"
        return json.dumps({"raised": kind, "reason": message_of(error)}).encode()
    except BaseException as error:  # SystemExit and the like are no end of this process either
        return json.dumps({"raised": "other", "reason": reason_of(error)}).encode()
