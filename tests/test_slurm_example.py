"""The script that the example for SLURM would submit, which needs no SLURM."""

import importlib.util
import sys

import pytest

from tests.support import ROOT

pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is an optional extra")


@pytest.fixture(scope="module")
def slurm():
    path = ROOT / "examples" / "cluster" / "slurm.py"
    spec = importlib.util.spec_from_file_location("slurm_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_of_a_job_starts_one_worker_with_the_cores_asked_for(slurm, capsys):
    options = ["--partition", "cpu", "--account", "me", "--cores", "3", "--memory", "6GB"]
    options += ["--walltime", "02:00:00", "--setup", "module load python"]
    slurm.main(["--script", *options])
    lines = capsys.readouterr().out.strip().splitlines()
    assert {"#SBATCH -p cpu", "#SBATCH -A me", "#SBATCH --cpus-per-task=3"} <= set(lines)
    assert {"#SBATCH -t 02:00:00", "#SBATCH --mem=6G"} <= set(lines)
    assert lines[-2] == "module load python"
    assert lines[-1].startswith(f"{sys.executable} -m distributed.cli.dask_worker tcp://")
    assert "--nthreads 3" in lines[-1] and "--death-timeout 600" in lines[-1]
    assert "--nworkers" not in lines[-1]
