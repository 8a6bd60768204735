"""Where work is done: processes, threads or a Dask cluster, through joblib."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import joblib

from gradest.errors import UsageError

BACKENDS = ("loky", "threading", "dask")


@dataclass(frozen=True)
class Workers:
    """Where cells are measured: how many at a time, by which joblib backend.

    `scheduler` is the address of a running Dask cluster; without it Dask starts one here.
    """

    jobs: int = joblib.cpu_count()
    backend: str = "loky"
    scheduler: str | None = None


@contextmanager
def running_on(workers: Workers) -> Iterator[None]:
    """Within the block joblib runs on these workers; for Dask a client of its cluster is open."""
    if workers.backend != "dask":
        with joblib.parallel_config(workers.backend, n_jobs=workers.jobs):
            yield
        return
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--backend dask needs Dask: pip install 'gradest[dask]'")
    import dask
    from distributed import Client, LocalCluster

    # A profiler that looks into frames keeps alive what they hold, and memory would be too high.
    dask.config.set({"distributed.worker.profile.enabled": False})
    local = {"n_workers": workers.jobs, "threads_per_worker": 1, "dashboard_address": ":0"}
    with nullcontext() if workers.scheduler else LocalCluster(**local) as cluster:
        try:
            client = Client(workers.scheduler or cluster, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"no Dask scheduler at {workers.scheduler}: {error}") from None
        with client, joblib.parallel_config("dask", n_jobs=-1):
            yield
