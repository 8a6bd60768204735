"""Backends and devices by name, in a module that loads at once, and whether they can be used here.

The command line is parsed before torch or joblib is loaded, so the code that runs jobs is not
imported here.
"""

import importlib.util
import re
from typing import NamedTuple

from gradest.errors import UsageError
from gradest.support import DEVICES, shortened


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


class Devices(NamedTuple):
    """Where cells are computed: on the CPU, on the current GPU, or on GPUs of these numbers."""

    kind: str = "cpu"
    gpus: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Devices":
        """The devices of `cpu`, `cuda` or `cuda:0,cuda:1`.  Raises ValueError for other texts."""
        if text in DEVICES:
            return cls(text)
        numbers = [re.fullmatch(r"cuda:(\d{1,3})", part) for part in text.split(",")]
        gpus = tuple(int(number[1]) for number in numbers if number)
        if len(gpus) < len(numbers) or len(set(gpus)) < len(gpus):
            raise ValueError(
                f"expected {', '.join(DEVICES)} or GPUs as in cuda:0,cuda:1, got {shortened(text)}"
            )
        return cls("cuda", gpus)

    def __str__(self) -> str:
        return ",".join(f"{self.kind}:{number}" for number in self.gpus) or self.kind


def check_backend(name: str, scheduler: str | None, devices: Devices) -> None:
    """Raises UsageError if the backend is not installed or contradicts the other options."""
    backend = BACKENDS[name]
    if scheduler and not backend.remote:
        remote = " or ".join(name for name, each in BACKENDS.items() if each.remote)
        raise UsageError(f"--scheduler requires --backend {remote}")
    if devices.kind not in backend.devices:
        raise UsageError(
            f"--backend {name} requires --device {' or '.join(backend.devices)}, got {devices}"
        )
    if devices.gpus and name != "loky":
        raise UsageError(
            f"--device {devices} requires --backend loky, whose processes are spread over the "
            f"GPUs, got {name}; use --device cuda"
        )
    if backend.module and importlib.util.find_spec(backend.module) is None:
        raise UsageError(
            f"--backend {name} requires {backend.title}; run pip install 'gradest[{name}]'"
        )
