"""A template process with all modules loaded, from which worker processes are forked.

Importing torch takes seconds, forking a few milliseconds.  The template is a separate program that
has computed nothing, since computing threads and devices in use do not survive a fork.  For each
request it forks a child that answers calls.

No process outlives the one that has started it: the template ends when the other end of its socket
is closed, which the kernel ensures in every case, and a child ends with the template.
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
from gradest.plugins import Code, Registry, own_process
from gradest.support import message_of, reason_of

# Modules that are imported by the first call and by torch when it first computes.  Without the
# template, each child would import them again, which takes longer than most cells.
_LOADED_LATE = ("gradest.runs.runner", "torch._dynamo", "torch._refs", "scipy.optimize")

_DEVICES = "CUDA_VISIBLE_DEVICES"  # read when a process first uses a device, which a child does

NUMBER = struct.Struct("q")  # a process id, then an exit status, on a child's status pipe
DESCRIPTORS = 4  # in a request: the connection, the status pipe, standard output and error

_PR_SET_PDEATHSIG = 1
_WATCHED = 1.0  # seconds between two checks of the parent, where the kernel cannot notify


class Surroundings(NamedTuple):
    """The state of the requesting process that a child takes over."""

    folder: str
    environment: dict[str, str]
    path: list[str]

    @classmethod
    def here(cls, gpu: int | None = None) -> "Surroundings":
        """Those of this process, of whose CUDA devices the child sees only the one numbered so."""
        environment = dict(os.environ)
        if gpu is not None:
            visible = environment.get(_DEVICES, "")
            environment[_DEVICES] = visible.split(",")[gpu] if visible else str(gpu)
        return cls(os.getcwd(), environment, list(sys.path))

    def enter(self) -> None:
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = self.path


def serve(control: int) -> None:
    """Fork a child for each request on the socket until its other end is closed."""
    torch.set_num_threads(1)
    Registry.load(only=())
    for name in _LOADED_LATE:
        with suppress(ImportError):  # another version of torch may lack a module
            import_module(name)
    Code.current()  # once, of thousands of attributes, instead of in each child
    # Python warns about forks of processes with threads; idle threads of libraries are harmless.
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
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
            _report_ends(children)
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
            _report(status, child)


def _report_ends(children: dict[int, int]) -> None:
    while children:
        child, ended = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        status = children.pop(child, None)
        if status is not None:
            _report(status, os.waitstatus_to_exitcode(ended))
            os.close(status)


def _report(status: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the requesting process has ended
        os.write(status, NUMBER.pack(number))


def _be_a_child(connection: int, out: int, err: int) -> None:
    """Answer calls until the requesting process ends; never returns."""
    try:
        os.setsid()  # so that the child is ended together with all processes it starts
        end_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for source, stream in ((out, 1), (err, 2)):
            os.dup2(source, stream)
            os.close(source)
        own_process()
        answer_calls(Connection(connection))
    finally:
        os._exit(1)


def end_with_parent() -> None:
    """Make this process end when its parent ends."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the call of prctl
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCHED)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def answer_calls(connection: Connection) -> None:
    """Receive calls one after the other and send their results as JSON."""
    own = os.getpid()
    connection.recv().enter()
    while True:
        try:
            call, arguments = connection.recv()
        except EOFError:
            os._exit(0)
        answer = _answer(call, arguments)
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):  # foreign code may have replaced the stream by any object
                stream.flush()
        if os.getpid() != own:  # a child that the call has forked and that has returned as well
            os._exit(1)
        connection.send_bytes(answer)


def _answer(call: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        return json.dumps({"value": call(*arguments)}).encode()
    except (Inapplicable, UsageError) as error:
        kind = "Inapplicable" if isinstance(error, Inapplicable) else "UsageError"
        return json.dumps({"raised": kind, "reason": message_of(error)}).encode()
    except BaseException as error:  # not even SystemExit may end this process
        return json.dumps({"raised": "other", "reason": reason_of(error)}).encode()
