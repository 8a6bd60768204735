"""Whatever code from outside the catalogue does, it costs its own cells and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import torch

import gradest
from gradest import randomness
from gradest.cli import main
from gradest.errors import PluginError
from gradest.plugins.process_state import Code, Settings, changes
from gradest.plugins.registry import PluginBundle, Registry, load_plugin
from gradest.runs.journal import read_records
from gradest.runs.provenance import describe_run
from gradest.runs.runner import run
from gradest.runs.suite import load_suite
from gradest.runs.tables import write_results
from gradest.runs.workers import Workers
from gradest.support.text import in_a_line, printable, reason_of, traceback_of
from tests.support import ROOT

TIMES = ["seconds", "seconds_low", "seconds_high"]

TEMPLATE = '''
"""REINFORCE that does something else as well."""
import builtins, ctypes, os, signal, sys, threading, time, warnings
import torch
import gradest
from gradest import Estimator, randomness
from gradest.categorical import log_prob, nabla, sample

class Silent(Exception):
    def __str__(self):
        raise SystemExit("no words")

class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError

class Wild(Estimator):
    unbiased = True

    def __call__(self, logits, f):
        z = sample(logits)
        cost = f(z)
        {deed}
        return cost + cost.detach() * nabla(log_prob(logits, z))
'''

# name -> what it does, and how the reason begins
WILD = {
    "exits": ("sys.exit()", "SystemExit"),
    "exits_well": ("sys.exit(0)", "SystemExit: 0"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "stops_generating": ("raise GeneratorExit", "GeneratorExit"),
    "raises_anything": ("raise BaseException('anything')", "BaseException: anything"),
    "vanishes": ("os._exit(0)", "its process died: exit status 0"),
    "dies": ("os._exit(3)", "its process died: exit status 3"),
    "segfaults": ("ctypes.string_at(0)", "its process died: signal 11 (SIGSEGV)"),
    "aborts": ("os.abort()", "its process died: signal 6 (SIGABRT)"),
    "kills_itself": (
        "os.kill(os.getpid(), signal.SIGTERM)",
        "its process died: signal 15 (SIGTERM)",
    ),
    "closes_everything": ("os.closerange(3, 1000)", "its process died: "),
    "is_endless": ("time.sleep(1000)", "ended after cell_timeout = 2 s"),
    "is_silent": ("raise Silent", "Silent: its message cannot be read: SystemExit"),
    "cannot_be_pickled": ("raise Unpicklable('me')", "Unpicklable: me"),
    "has_no_unicode": (r"raise OSError('a\udcffb')", r"OSError: a\udcffb"),
    "shouts": ("raise ValueError('A' * 10**7)", "ValueError: " + "A" * 100),
    "paints": (r"raise ValueError('\x1b[31mred\x9b')", r"ValueError: \x1b[31mred\x9b"),
    "forgets_gradients": ("torch.set_grad_enabled(False)", ""),
    "moves": ("torch.set_default_device('meta')", ""),
    "widens": (
        "torch.set_default_dtype(torch.float16)",
        "its code calls torch.set_default_dtype, on which numbers rely",
    ),
    "takes_threads": ("torch.set_num_threads(2)", "its code calls torch.set_num_threads"),
    "is_strict": (
        "torch.use_deterministic_algorithms(True)",
        "its code calls torch.use_deterministic_algorithms",
    ),
    "bends_draws": (
        "randomness.Draws.uniform = lambda self, shape, like: torch.full(shape, .3).to(like)",
        "its code replaces gradest.randomness.Draws.uniform",
    ),
    "bends_torch": (
        "torch.Tensor.mean = lambda *a, **k: torch.tensor(0.0)",
        "",
    ),
    "bends_code": (
        "randomness.Draws.normal.__code__ = (lambda self, shape, like: 0).__code__",
        "its code replaces gradest.randomness.Draws.normal",
    ),
}
# What others must not notice, and what is no harm to its own numbers.
HARMLESS = {
    "moves_away": "os.chdir('/')",
    "is_deep": "sys.setrecursionlimit(10**6)",
    "sets_variables": "os.environ.update(GRADEST_CACHE='/nowhere', OMP_NUM_THREADS='7')",
    "forks": "os.fork() or os._exit(0)",
    "starts_a_thread": "threading.Thread(target=time.sleep, args=(1000,)).start()",
    "prints": "print(end='')",
}


def write(folder: Path, deeds: dict[str, str]) -> None:
    folder.mkdir()
    for name, deed in deeds.items():
        (folder / f"{name}.py").write_text(TEMPLATE.replace("{deed}", deed), encoding="utf-8")


def rows_of(folder: Path, plugins: Path, names: list[str], workers: Workers):
    path = folder / "mine.yaml"
    listed = json.dumps(["rloo", *names, "reinforce"])
    path.write_text(
        f"replicates: 200\nenumerate_draws: false\ntasks: [categorical]\nestimators: {listed}\n"
    )
    registry = Registry.load([plugins])
    suite = load_suite(str(path), registry)
    out = folder / "out"
    bundle = PluginBundle.of([plugins])
    run(suite.name, suite.cells, out, registry, bundle, workers, timed=False)
    write_results(out, describe_run(suite, registry, datetime.now(UTC)))
    rows = pd.read_parquet(out / "measurements.parquet")
    return rows[rows.parameter == "alpha"].set_index("estimator").drop(columns=TIMES)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wild")
    deeds = {name: deed for name, (deed, _) in WILD.items()} | HARMLESS | {"good": "pass"}
    write(folder / "plugins", deeds)
    return rows_of(folder, folder / "plugins", list(deeds), Workers(jobs=2, timeout=2.0))


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tame")
    write(folder / "plugins", {"good": "pass"})
    return rows_of(folder, folder / "plugins", ["good"], Workers(jobs=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", WILD)
def test_a_wild_plugin_fails_and_says_why(together, name):
    row = together.loc[name]
    assert row.status == "failed"
    assert row.reason.startswith(WILD[name][1])
    assert len(row.reason) < 3000


@pytest.mark.slow
def test_what_is_harmless_gives_the_numbers_of_the_good(together):
    for name in HARMLESS:
        assert together.loc[name].status == "ok", together.loc[name].reason


@pytest.mark.slow
def test_all_others_have_the_rows_that_they_have_without(together, apart):
    kept = together.loc[apart.index]
    assert (kept.status == "ok").all()
    pd.testing.assert_frame_equal(kept, apart, check_exact=True, check_dtype=False)


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("threading", marks=pytest.mark.slow),
        pytest.param("dask", marks=pytest.mark.weekly),
    ],
)
def test_other_backends_isolate_as_well(apart, tmp_path, backend):
    if backend == "dask":
        pytest.importorskip("distributed", reason="Dask is an optional extra")
    names = ["dies", "leaves", "bends_draws"]
    deeds = {"dies": "os._exit(3)", "leaves": "sys.exit()", "good": "pass"}
    write(tmp_path / "plugins", deeds | {"bends_draws": WILD["bends_draws"][0]})
    workers = Workers(jobs=2, backend=backend)
    rows = rows_of(tmp_path, tmp_path / "plugins", [*names, "good"], workers)
    assert rows.status[names].tolist() == ["failed"] * 3
    pd.testing.assert_frame_equal(rows.loc[apart.index], apart, check_exact=True, check_dtype=False)


TASK = '''
"""A task that does something else as well."""
import os, sys
import torch
from gradest import Cost, Problem, Task
from gradest.categorical import simplex

class Wild(Task):
    def prepare(self):
        {prepare}

    def problem(self):
        {problem}
        return Problem(torch.zeros(1, 2, 3), Cost(lambda z: (z * z).sum((-2, -1))))
'''


@pytest.mark.slow
def test_a_wild_task_costs_its_own_cells_alone(tmp_path, capsys):
    for name, prepare, problem in (
        ("dies_early", "os._exit(1)", "sys.exit()"),
        ("dies_late", "sys.exit()", "os._exit(2)"),
        ("tame", "pass", "pass"),
    ):
        text = TASK.replace("{prepare}", prepare).replace("{problem}", problem)
        (tmp_path / f"{name}.py").write_text(
            text.replace("from gradest.categorical import simplex\n", "")
        )
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "replicates: 200\ntasks: [dies_early, dies_late, tame, categorical]\nestimators: [rloo]\n"
    )
    call = ["--suite", str(suite), "--plugin", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*call, "--jobs", "2", "--dry-run"]) == 1
    output = capsys.readouterr().out
    assert "would fail: its process died: exit status 2  dies_late × rloo" in output
    assert "would fail: SystemExit" in output and "4 cells" in output
    assert main([*call, "--jobs", "2"]) == 1
    records = read_records(tmp_path / "out" / "journal.jsonl")
    message = {r["cell"]["task"]: r["reason"] for r in records if r["kind"] == "cell"}
    assert message == {
        "dies_early": "SystemExit",
        "dies_late": "its process died: exit status 2",
        "tame": "",
        "categorical": "",
    }


def test_timing_that_dies_costs_the_times_of_its_own_plugin(tmp_path):
    # Alive while it is measured and dead while it is timed: it remembers in a file.
    deed = "(os._exit(1) if os.path.exists(__file__ + '.seen') else None)"
    late = "import atexit; os.mkdir(__file__ + '.seen') if len(z) > 100 else None"
    write(tmp_path / "plugins", {"fragile": f"{deed}\n        {late}", "good": "pass"})
    suite = tmp_path / "mine.yaml"
    suite.write_text("replicates: 200\ntasks: [categorical]\nestimators: [good, fragile, rloo]\n")
    registry = Registry.load([tmp_path / "plugins"])
    loaded = load_suite(str(suite), registry)
    bundle = PluginBundle.of([tmp_path / "plugins"])
    with pytest.warns(UserWarning, match="fragile cannot be timed: its process died"):
        run("mine", loaded.cells, tmp_path / "out", registry, bundle, Workers(jobs=1))
    records = list(read_records(tmp_path / "out" / "journal.jsonl"))
    names = {r["key"]: r["cell"]["estimator"] for r in records if r["kind"] == "cell"}
    timed = {names[r["key"]]: len(r["samples"]) for r in records if r["kind"] == "seconds"}
    assert timed == {"good": 7, "fragile": 0, "rloo": 7}


def test_importing_a_plugin_leaves_the_process_as_it_was(plugin):
    path = plugin(
        "calm.py",
        TEMPLATE.replace("{deed}", "pass")
        + "\ntorch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\n"
        "torch.set_default_device('meta')\nos.chdir('/')\nwarnings.simplefilter('error')\n"
        "sys.setrecursionlimit(12345)\nos.environ['GRADEST_TOLD'] = 'so'\n",
    )
    settings, code, filters = Settings.take(), Code.take(), list(warnings.filters)
    (result,) = load_plugin(path)
    assert result.name == "calm"
    assert Settings.take() == settings and changes(settings, code) == ""
    assert warnings.filters == filters and "GRADEST_TOLD" not in os.environ


@pytest.mark.parametrize(
    ("deed", "named"),
    [
        ("randomness.Draws.uniform = None", "gradest.randomness.Draws.uniform"),
        ("gradest.measure = print", "gradest.measure"),
        ("randomness.draws.__defaults__ = (1,)", "gradest.randomness.draws"),
        ("torch.exp = torch.log", "torch.exp"),
        ("torch.Tensor.uniform_ = print", "torch.Tensor.uniform_"),
        ("del randomness.Draws.normal", "gradest.randomness.Draws.normal"),
    ],
)
def test_a_plugin_that_replaces_the_code_of_others_is_refused_and_nothing_is_left(
    plugin, deed, named
):
    code = Code.take()
    path = plugin("bends.py", f"{TEMPLATE.replace('{deed}', 'pass')}\n{deed}\n")
    with pytest.raises(PluginError, match=rf"bends.py, when it is imported, replaces {named}\b"):
        load_plugin(path)
    assert code.changed() == []
    assert callable(randomness.Draws.uniform) and torch.exp(torch.zeros(1)) == 1


def test_a_name_that_is_loaded_on_first_use_can_be_used_but_not_replaced(plugin, monkeypatch):
    monkeypatch.delattr(gradest, "compare", raising=False)
    text = TEMPLATE.replace("{deed}", "pass")
    assert load_plugin(plugin("uses.py", f"{text}\ncompare = gradest.compare\n"))
    monkeypatch.delattr(gradest, "compare", raising=False)
    path = plugin("bends.py", f"{text}\ngradest.compare = print\n")
    with pytest.raises(PluginError, match=r"replaces gradest\.compare\b"):
        load_plugin(path)
    assert gradest.compare is not print


@pytest.mark.parametrize("deed", ["sys.exit(0)", "raise GeneratorExit", "raise ValueError('no')"])
def test_a_plugin_that_does_not_import_is_one_line(plugin, deed):
    path = plugin("quits.py", f"{TEMPLATE.replace('{deed}', 'pass')}\n{deed}\n")
    with pytest.raises(PluginError, match=r"quits.py cannot be imported: \w+"):
        load_plugin(path)


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("os._exit(0)", "its process died: exit status 0 during the check 'shape'"),
        ("os.kill(os.getpid(), 15)", "signal 15 (SIGTERM) during the check 'shape'"),
        ("raise KeyboardInterrupt", "exit status 130 during the check 'shape'"),
    ],
)
def test_a_plugin_that_ends_its_process_is_rejected(plugin, capsys, deed, message):
    assert main(["--check", str(plugin("ends.py", TEMPLATE.replace("{deed}", deed)))]) == 1
    assert capsys.readouterr().out.endswith(f"{message}\n")


def test_a_plugin_that_changes_a_setting_of_all_is_rejected(plugin, capsys):
    deed = "torch.set_default_dtype(torch.float64)"
    assert main(["--check", str(plugin("sets.py", TEMPLATE.replace("{deed}", deed)))]) == 1
    assert "failed       shape: calls torch.set_default_dtype" in capsys.readouterr().out
    assert torch.get_default_dtype() == torch.float32


class Recursive(Exception):
    def __str__(self):
        return str(self)


class Endless(str):
    def __getitem__(self, at):
        raise SystemExit


def test_reasons_can_be_written_and_shown_whatever_is_raised():
    assert reason_of(ValueError()) == "ValueError"
    assert reason_of(Recursive()) == "Recursive: its message cannot be read: RecursionError"
    assert reason_of(ValueError(Endless("text"))) == "ValueError: text"
    assert reason_of(OSError("a\udcff")) == r"OSError: a\udcff"
    assert len(reason_of(ValueError("é" * 10**7))) < 2100
    assert len(traceback_of(ValueError("é" * 10**7))) < 21000
    assert printable("a\x00\x1b\x7f\x9b\u202eb\n\tα") == r"a\x00\x1b\x7f\x9b\u202eb" + "\n\tα"
    assert in_a_line("a\r\nb\tc") == r"a\x0d b c"


SLOW = TEMPLATE.replace("{deed}", "x = 0\n        while True: x += 1")


@pytest.mark.parametrize(
    ("number", "status", "backend"),
    [
        pytest.param(signal.SIGINT, 130, "loky", marks=pytest.mark.weekly),
        pytest.param(signal.SIGINT, 130, "threading", marks=pytest.mark.weekly),
        pytest.param(signal.SIGTERM, 143, "loky", marks=pytest.mark.weekly),
        pytest.param(signal.SIGTERM, 143, "threading", marks=pytest.mark.weekly),
        pytest.param(signal.SIGKILL, -9, "loky", marks=pytest.mark.slow),
    ],
)
def test_nothing_outlives_a_run_that_is_ended(tmp_path, number, status, backend):
    psutil = pytest.importorskip("psutil")
    (tmp_path / "slow.py").write_text(SLOW)
    suite = tmp_path / "mine.yaml"
    # With a catalogue's cell that takes long, which a thread computes where there are threads.
    suite.write_text(
        "replicates: 1000000000\nenumerate_draws: false\ntasks: [categorical, quadratic]\n"
        "estimators: [slow, rloo]\n"
    )
    command = [sys.executable, "-m", "gradest.cli", "--suite", str(suite), "--jobs", "4"]
    command += ["--plugin", str(tmp_path / "slow.py"), "--out", str(tmp_path / "out")]
    command += ["--backend", backend]
    root = ROOT
    with (tmp_path / "err").open("w") as err:
        child = subprocess.Popen(command, cwd=root, stderr=err, start_new_session=True)
    fewest = {"loky": 5, "threading": 3}[backend]  # the template and what it has forked
    try:
        deadline = time.monotonic() + 120
        while len(started := psutil.Process(child.pid).children(recursive=True)) < fewest:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        child.send_signal(number)
        assert child.wait(30) == status
    finally:
        child.kill()
        child.wait()
    _, left = psutil.wait_procs(started, timeout=10)
    assert not left
    if status > 0:
        message = "interrupted: finished cells are kept; run the suite again to resume\n"
        assert (tmp_path / "err").read_text() == message


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("sys.exit(0)", "mine.yaml:3: made cannot be created: SystemExit: 0"),
        ("raise RuntimeError('no')", "mine.yaml:3: made cannot be created: RuntimeError: no"),
        (
            "randomness.Draws.uniform = None",
            "a plugin of this suite, when it is created, replaces gradest.randomness.Draws.uniform",
        ),
    ],
)
def test_a_plugin_that_cannot_be_created_is_one_line(tmp_path, capsys, deed, message):
    text = TEMPLATE.replace("{deed}", "pass").replace(
        "    unbiased = True\n",
        f"    unbiased = True\n\n    def __init__(self):\n        {deed}\n",
    )
    (tmp_path / "made.py").write_text(text)
    suite = tmp_path / "mine.yaml"
    suite.write_text("tasks: [categorical]\nestimators:\n  - made\n")
    call = ["--suite", str(suite), "--plugin", str(tmp_path / "made.py")]
    assert main([*call, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert callable(randomness.Draws.uniform)
