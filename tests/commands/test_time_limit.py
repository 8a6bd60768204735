"""A plugin that never returns is a failed cell with its reason, on every backend."""

import pytest

from gradest.cli import main
from gradest.runs.tables import finished

ENDLESS = '''
"""REINFORCE that never returns if it is told so."""
import time
from dataclasses import dataclass
from gradest import Estimator
from gradest.categorical import log_prob, nabla, sample

@dataclass(eq=False)
class Endless(Estimator):
    unbiased = True
    seconds: float = 0.0

    def __call__(self, logits, f):
        time.sleep(self.seconds)
        z = sample(logits)
        cost = f(z)
        return cost + cost.detach() * nabla(log_prob(logits, z))
'''


WAITS = '''
"""A task that waits for its data forever."""
import time
from gradest import Problem, Task
from gradest.errors import UsageError

class Waits(Task):
    def prepare(self):
        time.sleep(10000)

    def problem(self) -> Problem:
        raise UsageError("no data")
'''


def command(plugin, suite):
    """The run of a suite with a plugin, in whose folder the suite is written."""
    file, out = plugin.with_name("mine.yaml"), plugin.with_name("out")
    file.write_text(f"replicates: 64\ntimed: false\nfigures: false\n{suite}")
    return ["--suite", str(file), "--plugin", str(plugin), "--out", str(out)]


def test_a_dry_run_is_under_the_same_limit(plugin, capsys):
    suite = (
        "cell_timeout: 5000\ntasks: [categorical]\n"
        "estimators: [{endless: {seconds: 10000}}, rloo]\n"
    )
    words = command(plugin("endless.py", ENDLESS), suite)
    assert main([*words, "--dry-run", "--time-limit", "1"]) == 1
    one, other, _ = capsys.readouterr().out.splitlines()
    assert one.startswith("would fail: ended after cell_timeout = 1 s  categorical × endless")
    assert other.endswith("categorical × rloo")


def test_a_limit_that_no_system_can_wait_for_is_refused(tmp_path, capsys):
    suite = tmp_path / "mine.yaml"
    suite.write_text("cell_timeout: 2000000\ntasks: [categorical]\nestimators: [rloo]\n")
    assert main(["--suite", str(suite), "--dry-run"]) == 2
    error = capsys.readouterr().err
    told = "cell_timeout = 2000000: input should be less than or equal to 1000000"
    assert error == f"error: {suite}:1: {told}\n"


@pytest.mark.slow
def test_a_task_that_is_never_prepared_does_not_hold_up_the_others(plugin, tmp_path, capsys):
    suite = "tasks: [waits, categorical]\nestimators: [rloo]\n"
    words = command(plugin("waits.py", WAITS), suite)
    assert main([*words, "--jobs", "2", "--quiet", "--time-limit", "15"]) == 1
    told, failed = capsys.readouterr().err.splitlines()
    assert told == "warning: waits: prepare() failed: ended after cell_timeout = 15 s"
    assert failed == "failed waits × rloo: UsageError: no data"
    records = finished(tmp_path / "out" / "journal.jsonl").values()
    assert {r["cell"]["task"]: r["status"] for r in records} == {
        "waits": "failed",
        "categorical": "ok",
    }


@pytest.mark.parametrize(
    ("backend", "module"),
    [
        pytest.param("loky", "gradest", marks=pytest.mark.slow),
        pytest.param("threading", "gradest", marks=pytest.mark.weekly),
        pytest.param("dask", "distributed", marks=pytest.mark.weekly),
        pytest.param("ray", "ray", marks=pytest.mark.weekly),
    ],
)
def test_a_cell_that_never_returns_fails_alone(
    plugin, tmp_path, monkeypatch, capsys, backend, module
):
    pytest.importorskip(module, reason="it is an optional extra")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # a busy machine would starve Ray's workers
    suite = (
        "cell_timeout: 5000\ntasks: [categorical]\n"
        "estimators: [{endless: {seconds: [0, 10000]}}, rloo]\n"
    )
    words = command(plugin("endless.py", ENDLESS), suite)
    limit = ["--time-limit", "15"]  # overrides the key
    assert main([*words, "--backend", backend, "--jobs", "2", "--quiet", *limit]) == 1
    records = finished(tmp_path / "out" / "journal.jsonl").values()
    found = {(r["cell"]["estimator"], *r["cell"]["estimator_knobs"].values()): r for r in records}
    failed = found.pop(("endless", 10000.0))
    assert (failed["status"], failed["reason"]) == ("failed", "ended after cell_timeout = 15 s")
    assert [record["status"] for record in found.values()] == ["ok", "ok"]
    assert "ended after cell_timeout = 15 s" in capsys.readouterr().err
