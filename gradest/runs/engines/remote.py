"""One job on a worker of a cluster.

The job runs in a process of its own below the worker.  A cell that crashes or hangs is then told
apart from a worker that is lost, the worker stays responsive, and a job for which nobody waits any
more can be ended: a thread could not.
"""

import hashlib
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gradest.errors import UsageError
from gradest.runs.processes import Died, Failed, Job, Process, timeout_message

_POLL = 0.5  # seconds between two looks at whether anybody waits for the job
# What computes a cell.  The catalogue is inside the package where a wheel was installed, and next
# to it in a clone, which must not count.
_CATALOGUE = ("estimators", "tasks")
_PACKAGES = ("gradest", *(f"gradest.{name}" for name in _CATALOGUE))


class Installation(NamedTuple):
    """What must be the same everywhere for the numbers to be those of the recorded code."""

    gradest: str  # a digest of the source files
    torch: str

    @classmethod
    @cache
    def here(cls) -> "Installation":
        files: dict[str, Path] = {}
        for package in _PACKAGES:
            folder = Path(next(iter(find_spec(package).submodule_search_locations)))
            for path in folder.rglob("*.py"):
                place = path.relative_to(folder)
                if package != "gradest" or place.parts[0] not in _CATALOGUE:
                    files[f"{package}/{place.as_posix()}"] = path
        total = hashlib.sha256()
        for name in sorted(files):
            total.update(
                f"{name} {hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode()
            )
        return cls(total.hexdigest()[:12], torch.__version__)

    def __str__(self) -> str:
        return f"gradest {self.gradest} with torch {self.torch}"


class Mismatch(NamedTuple):
    """The answer of a worker whose installation is another one than that of the run."""

    installation: Installation


def answer_on_worker(
    job: Job,
    timeout: float | None,
    expected: Installation,
    abandoned: Callable[[], bool] = lambda: False,
) -> Any:
    """The result of a job, or the Failed, UsageError or Mismatch in its place.

    The job is ended after `timeout` seconds, and once `abandoned` returns True: its answer, None,
    is then read by nobody.
    """
    if (here := Installation.here()) != expected:
        return Mismatch(here)
    with Process() as process:
        start = time.monotonic()
        process.submit(job.call, job.arguments)
        while not wait([process.connection, process.status], _pause(start, timeout)):
            if timeout is not None and time.monotonic() - start >= timeout:
                return Died(timeout_message(timeout))
            if abandoned():
                return None
        try:
            return process.answer()
        except (Failed, UsageError) as error:
            return error


def checked(answer: Any, cluster: str) -> Any:
    """The answer of a worker.  Raises UsageError if its installation differs."""
    if isinstance(answer, Mismatch):
        raise UsageError(
            f"a worker of the {cluster} has {answer.installation}, this process has "
            f"{Installation.here()}; install the same versions on all workers"
        )
    return answer


def _pause(start: float, timeout: float | None) -> float:
    """The seconds until the next look at a running job."""
    if timeout is None:
        return _POLL
    return min(_POLL, max(start + timeout - time.monotonic(), 0.0))
