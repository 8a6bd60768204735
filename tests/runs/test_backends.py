"""A backend that cannot be used is one clear line, before anything is loaded or measured."""

import subprocess
import sys

import pytest

from gradest.errors import UsageError
from gradest.runs import backends
from gradest.runs.backends import BACKENDS, Devices, check_backend
from gradest.runs.workers import Workers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("dask", None, "cpu"), r"--backend dask requires Dask; run pip install 'gradest\[dask\]'"),
        (("ray", None, "cpu"), r"--backend ray requires Ray; run pip install 'gradest\[ray\]'"),
        (("loky", "a:1", "cpu"), "--scheduler requires --backend dask or ray"),
        (("threading", "a:1", "cpu"), "--scheduler requires --backend dask or ray"),
        (("ray", None, "cuda"), "--backend ray requires --device cpu, got cuda"),
        (
            ("threading", None, "cuda:1,cuda:0"),
            "--device cuda:1,cuda:0 requires --backend loky, whose processes are spread over the "
            "GPUs, got threading; use --device cuda",
        ),
    ],
)
def test_a_backend_that_cannot_be_used_is_one_line(monkeypatch, options, message):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"^{message}$"):
        name, scheduler, device = options
        check_backend(name, scheduler, Devices.parse(device))


def test_what_needs_no_package_is_always_there(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    for name in ("loky", "threading"):
        check_backend(name, None, Devices.parse("cuda"))


def test_devices_are_named_as_torch_names_them():
    assert Devices.parse("cpu") == Devices("cpu") == Devices()
    assert Devices.parse("cuda:3,cuda:0") == Devices("cuda", (3, 0))
    assert [str(Devices.parse(text)) for text in ("cuda", "cuda:1,cuda:2")] == [
        "cuda",
        "cuda:1,cuda:2",
    ]


@pytest.mark.parametrize(
    "text", ["", "gpu", "cpu:0", "cuda:", "cuda:0,", "cuda:0,cpu", "cuda:1,cuda:1"]
)
def test_other_devices_are_refused(text):
    with pytest.raises(ValueError, match=r"^expected cpu, cuda or GPUs as in cuda:0,cuda:1, got "):
        Devices.parse(text)


def test_only_clusters_are_remote():
    assert {name for name in BACKENDS if Workers(backend=name).remote} == {"dask", "ray"}


def test_names_of_backends_load_no_engine():
    code = (
        "import sys; from gradest.runs import BACKENDS; "
        "print({'torch', 'joblib', 'distributed', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
