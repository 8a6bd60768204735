"""Kills at random of the processes of a run on a Dask cluster, and whether its rows survive.

    python -m tools.kills --kills 20

A run measures a suite on a scheduler and two workers on this machine.  In each trial one of the
run, a worker and the scheduler gets SIGKILL at a random moment; then what a person would do is
done: what has died is started again, with the same command.  The rows at the end are compared with
those of `--jobs 1`, bit for bit, but for the times.  The exit status is 1 if any differ.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tabulate import tabulate

from gradest.runs import read_journal
from gradest.support import counted

KINDS = ("run", "worker", "scheduler")
CELLS = 10

_WORKERS = 2
_PATIENCE = 600.0  # seconds that a condition may take before a trial is given up
_PLUGIN = '''
"""REINFORCE that takes its time, so that a kill finds it at work."""
import time
from dataclasses import dataclass
from gradest import Estimator
from gradest.categorical import log_prob, nabla, sample

@dataclass(eq=False)
class Slow(Estimator):
    unbiased = True
    delay: float = 0.0

    def reset(self, logits):
        time.sleep(self.delay)

    def __call__(self, logits, f):
        z = sample(logits)
        cost = f(z)
        return cost + cost.detach() * nabla(log_prob(logits, z))
'''


class Trial(NamedTuple):
    """What was killed when, and what came of it."""

    kind: str
    records: int  # cells that were recorded when it was killed
    again: int  # cells that were recorded twice
    restarts: int  # of the run itself
    identical: bool


class Cluster:
    """A scheduler and its workers, each in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self._start_scheduler()
        self.workers = [self._start_worker() for _ in range(_WORKERS)]

    def restart(self) -> None:
        """Start whatever has ended."""
        if self.scheduler.poll() is not None:
            self.scheduler = self._start_scheduler()
        self.workers = [
            worker if worker.poll() is None else self._start_worker() for worker in self.workers
        ]

    def close(self) -> None:
        for process in self.processes:
            kill(process)

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        return *self.workers, self.scheduler

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        options = ["--host", "127.0.0.1", "--port", str(self.port)]
        options += ["--dashboard-address", "127.0.0.1:0"]
        return self._start("scheduler", *options)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder)]
        return self._start("worker", self.address, *options)

    def _start(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        return start([sys.executable, "-m", "dask", program, *options], self.folder / "cluster.log")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    rows = []
    with tempfile.TemporaryDirectory() as name, prepared(Path(name)) as (cluster, command, rest):
        for number in range(options.kills):
            kind, records = chance.choice(KINDS), chance.randrange(CELLS - 1)
            out = Path(name) / f"killed{number}"
            trial = attempt(cluster, command, out, kind, records, chance.uniform(0, 0.5), rest)
            rows.append(trial)
            print(f"{number + 1}: {trial}", file=sys.stderr, flush=True)
    print(tabulate(rows, headers=Trial._fields))
    kept = sum(trial.identical for trial in rows)
    print(f"{kept} of {len(rows)} identical")
    return 0 if kept == len(rows) else 1


@contextmanager
def prepared(folder: Path) -> Iterator[tuple[Cluster, list[str], list[pd.DataFrame]]]:
    """A cluster, the command of a run on it without its --out, and the rows of `--jobs 1`."""
    (folder / "slow.py").write_text(_PLUGIN)
    delays = ", ".join(f"{0.4 + 0.02 * k:.2f}" for k in range(CELLS))
    (folder / "slow.yaml").write_text(
        "replicates: 200\ntimed: false\nfigures: false\ntasks: [categorical]\n"
        f"estimators: [{{slow: {{delay: [{delays}]}}}}]\n"
    )
    command = [sys.executable, "-m", "gradest.cli", "--suite", str(folder / "slow.yaml")]
    command += ["--plugin", str(folder / "slow.py"), "--quiet"]
    subprocess.run([*command, "--jobs", "1", "--out", str(folder / "one")], check=True, stdout=-3)
    cluster = Cluster(folder)
    try:
        remote = ["--backend", "dask", "--scheduler", cluster.address]
        yield cluster, [*command, *remote], rows_of(folder / "one")
    finally:
        cluster.close()


def attempt(
    cluster: Cluster,
    command: Sequence[str],
    out: Path,
    kind: str,
    records: int,
    delay: float,
    expected: Sequence[pd.DataFrame],
) -> Trial:
    """Kill one process `delay` seconds after that number of records, and restore what has ended.

    Raises TimeoutError if the run does not finish, and RuntimeError if it fails.
    """
    command, log = [*command, "--out", str(out)], out.with_suffix(".log")
    wait_for(partial(_listening, cluster.port), "the scheduler")
    run, restarts = start(command, log), 0
    try:
        wait_for(lambda run=run: len(recorded(out)) >= records or ended(run), "records")
        time.sleep(delay)
        reached = len(recorded(out))
        kill({"run": run, "worker": cluster.workers[0], "scheduler": cluster.scheduler}[kind])
        while run.poll() != 0:
            cluster.restart()
            if ended(run):
                if restarts > 1:
                    raise RuntimeError(f"the run has failed again:\n{log.read_text()[-2000:]}")
                restarts += 1
                run = start(command, log)
            wait_for(partial(ended, run, *cluster.processes), "the run")
    finally:
        kill(run)
    keys = Counter(recorded(out))
    again = sum(count > 1 for count in keys.values())
    same = all(a.equals(b) for a, b in zip(rows_of(out), expected, strict=True))
    return Trial(kind, reached, again, restarts, same)


def ended(*processes: subprocess.Popen[bytes]) -> bool:
    """Whether any of the processes has ended."""
    return any(process.poll() is not None for process in processes)


def rows_of(out: Path) -> list[pd.DataFrame]:
    """The measurements and the coordinates, without times."""
    frames = [pd.read_parquet(out / f"{name}.parquet") for name in ("measurements", "coordinates")]
    return [frame.drop(columns=[c for c in frame if c.startswith("seconds")]) for frame in frames]


def recorded(out: Path) -> list[str]:
    """The keys of the recorded cells, in the order of their records."""
    records = read_journal(out / "journal.jsonl").records
    return [record["key"] for record in records if record["kind"] == "cell"]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """The process of a command, leading a group; its output is appended to the log."""
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: nothing happened for {counted(int(_PATIENCE), 'second')}")
        time.sleep(0.05)


def _listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(main())
