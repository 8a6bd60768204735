"""Workers of a SLURM cluster for a run of gradest.

    python examples/cluster/slurm.py --workers 16 --partition cpu --walltime 04:00:00
    python benchmark.py --suite variance --backend dask --scheduler <the address that it prints>

The first command starts a Dask scheduler on this machine, prints its address and submits one SLURM
job for each worker.  It stays until Ctrl-C, which ends the jobs, or until `--minutes` have passed.
`--script` prints the script of a job instead.  Needs dask-jobqueue: pip install 'gradest[slurm]'.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from dask_jobqueue import SLURMCluster


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Workers of a SLURM cluster for gradest.")
    parser.add_argument("--workers", type=int, default=4, help="number of jobs, each one worker")
    parser.add_argument("--cores", type=int, default=1, help="cells that a worker runs at once")
    parser.add_argument("--memory", default="4GB", help="memory of a job")
    parser.add_argument("--walltime", default="01:00:00", help="time limit of a job")
    parser.add_argument("--partition", help="partition of SLURM")
    parser.add_argument("--account", help="account of SLURM")
    parser.add_argument("--interface", help="network interface, such as ib0")
    parser.add_argument("--setup", action="append", default=[], help="line before the worker")
    parser.add_argument("--port", type=int, default=0, help="port of the scheduler")
    parser.add_argument("--minutes", type=float, help="end after this time")
    parser.add_argument("--script", action="store_true", help="print the script of a job")
    return parser.parse_args(arguments)


def cluster(options: argparse.Namespace) -> SLURMCluster:
    """A scheduler on this machine; it submits jobs once it is scaled."""
    return SLURMCluster(
        cores=options.cores,
        processes=1,
        memory=options.memory,
        walltime=options.walltime,
        queue=options.partition,
        account=options.account,
        interface=options.interface,
        job_script_prologue=options.setup,
        python=sys.executable,
        # A worker that finds no scheduler ends its job, instead of using up the walltime.
        death_timeout=600,
        scheduler_options={"port": options.port, "dashboard_address": ":0"},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    with cluster(options) as workers:
        if options.script:
            print(workers.job_script())
            return
        workers.scale(jobs=options.workers)
        print(workers.scheduler_address, flush=True)
        try:
            time.sleep(60 * options.minutes if options.minutes else float(2**31 // 1000))
        except KeyboardInterrupt:
            print("ending the jobs", file=sys.stderr)


if __name__ == "__main__":
    main()
