"""The backends by name, in a module that loads at once, and whether one can be used here.

The command line is parsed before torch or joblib is loaded, so the code that runs jobs is not
imported here.
"""

import importlib.util
from typing import NamedTuple

from gradest.errors import UsageError


class Backend(NamedTuple):
    """A way to run cells.

    A remote one runs them on a cluster, whose workers may have no access to the folder of the run.
    """

    title: str
    module: str = ""  # that it needs, from the extra of the same name as the backend
    remote: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")


BACKENDS = {
    "loky": Backend("processes on this machine"),
    "threading": Backend("threads of this process"),
    "dask": Backend("Dask", "distributed", remote=True),
    # Ray hides the GPUs from tasks that do not reserve one, which cells have no way to do.
    "ray": Backend("Ray", "ray", remote=True, devices=("cpu",)),
}


def check_backend(name: str, scheduler: str | None, device: str) -> None:
    """Raises UsageError if the backend is not installed or contradicts the other options."""
    backend = BACKENDS[name]
    if scheduler and not backend.remote:
        remote = " or ".join(name for name, each in BACKENDS.items() if each.remote)
        raise UsageError(f"--scheduler requires --backend {remote}")
    if device not in backend.devices:
        raise UsageError(
            f"--backend {name} requires --device {' or '.join(backend.devices)}, got {device}"
        )
    if backend.module and importlib.util.find_spec(backend.module) is None:
        raise UsageError(
            f"--backend {name} requires {backend.title}; run pip install 'gradest[{name}]'"
        )
