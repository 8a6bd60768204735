"""Command lines run in a process of their own, within limits of time and memory.

One process handles many of them, since importing torch takes longer than all else; it is started
anew after a crash or a hang.
"""

import contextlib
import importlib
import io
import json
import os
import resource
import select
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SECONDS = 5  # of processor time, beyond which a command line hangs
_PATIENCE = 60  # seconds by the clock until the process is killed, on a busy machine
_MEMORY = 4 * 2**30  # bytes that it may take beside its libraries


class Ending(NamedTuple):
    """How a command line ended: its status, None where it did not, and what it said."""

    status: int | None
    out: str = ""
    err: str = ""
    trouble: str = ""  # traceback, hang or crash, with its last line


class Child:
    """Runs command lines of gradest in a folder; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, arguments: list[str]) -> Ending:
        """The ending of one command line."""
        process = self._process = self._process or self._started()
        try:
            process.stdin.write(json.dumps(arguments) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return self._lost("crash: its process had died")
        if not select.select([process.stdout], [], [], _PATIENCE)[0]:
            return self._lost(f"hang: no end after {_PATIENCE} s")
        answer = process.stdout.readline()
        if not answer:
            return self._lost(f"crash: its process died with {process.wait()}")
        return Ending(**json.loads(answer))

    def _started(self) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-m", "tools.fuzz.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": path},
        )

    def _lost(self, trouble: str) -> Ending:
        self._stop()
        return Ending(None, trouble=trouble)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _answer(arguments: list[str]) -> Ending:
    """Run here; whatever escapes becomes part of the ending."""
    from gradest.cli import main

    out, err = io.StringIO(), io.StringIO()
    status, trouble = None, ""
    start = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as error:
            status = error.code
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(traceback.format_exception_only(error)[-1].split())[:200]
            trouble = f"traceback: {said} in {where.filename}:{where.lineno}"
    seconds = time.process_time() - start
    if seconds > SECONDS and not trouble:
        trouble = f"hang: {seconds:.1f} s"
    return Ending(status, out.getvalue(), err.getvalue(), trouble)


def _serve() -> None:
    # What commands import is no part of the limits.
    for name in ("check", "list", "new", "report", "suite"):
        importlib.import_module(f"gradest.commands.{name}")
    for name in ("scipy.stats", "torch._dynamo", "gradest.report.contents", "gradest.runs.runner"):
        importlib.import_module(name)
    importlib.import_module("gradest.plugins").Registry.load()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, taken + _MEMORY))
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))._asdict()), flush=True)


if __name__ == "__main__":
    _serve()
