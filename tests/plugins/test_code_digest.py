"""What makes a recorded row stale: the code that computes it, all of it and nothing else."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gradest
from gradest.measurement.measurement import measure
from gradest.measurement.reference import ReferencePrecision, measure_reference
from gradest.plugins.code_digest import DISPLAY, closure, code_of, digest_of_class
from gradest.plugins.registry import load_plugin
from gradest.runs.training.loop import train

ROOT = Path(gradest.__file__).parents[1]
PLUGIN = '''
"""A score function."""
from gradest import Estimator
{imports}

class Method(Estimator):
    """What it is."""

    def __call__(self, logits, f):
        return {factor} * logits.sum((-2, -1))
'''


def modules_that_run(call: Callable[[], object]) -> set[str]:
    """The modules of gradest whose functions the call executes."""
    files = set()
    sys.setprofile(lambda frame, event, _: files.add(frame.f_code.co_filename))
    try:
        call()
    finally:
        sys.setprofile(None)
    named = {module.__file__: name for name, module in sys.modules.items() if _has_file(module)}
    return {named[file] for file in files if named.get(file, "").startswith("gradest.")}


def _has_file(module: object) -> bool:
    return getattr(module, "__file__", None) is not None


def of_class(*plugins: object) -> set[str]:
    return set().union(*(closure(type(plugin).__module__) for plugin in plugins))


@pytest.mark.parametrize(
    ("estimator", "task", "options"),
    [
        ("rloo", "categorical", {}),
        ("rloo", "quadratic", {"enumerate_draws": False, "replicates": 64}),
        ("relax", "categorical", {"adapt_steps": 2, "replicates": 64}),
        ("concrete", "quadratic", {"precision": gradest.Precision(variance=0.5)}),
        ("gumbel_softmax", "extreme", {"dtype": torch.float32, "replicates": 64}),
    ],
)
def test_all_that_a_measurement_runs_is_in_the_digest(estimator, task, options):
    pair = gradest.make_estimator(estimator), gradest.make_task(task)
    ran = modules_that_run(lambda: measure(*pair, **options))
    assert "gradest.measurement.replicator" in ran
    assert ran <= closure(measure.__module__) | of_class(*pair) | DISPLAY


def test_all_that_a_reference_runs_is_in_the_digest():
    task = gradest.make_task("categorical")
    ran = modules_that_run(
        lambda: measure_reference(task, ReferencePrecision(max_evaluations=1000))
    )
    code = closure(measure_reference.__module__) | of_class(task)
    estimators = {name for name in ran if name.startswith("gradest.estimators.")}
    assert estimators and ran <= code | estimators | DISPLAY | {"gradest.plugins.registry"}


def test_nothing_that_shows_or_runs_is_in_the_digest():
    code = closure(measure.__module__, train.__module__, measure_reference.__module__)
    rooms = {name.split(".")[1] for name in code if ".runs.training." not in name}
    assert not rooms & {"checks", "cli", "commands", "plots", "report", "runs"}
    assert all(name in sys.modules for name in DISPLAY)


def test_comments_formatting_and_docstrings_do_not_count():
    before = b'"""A."""\nclass X:\n    """B."""\n    def f(self, x):\n        return x+1\n'
    after = b"class X:\n    '''D.'''\n\n    def f(self, x):  # why\n        return (x + 1)\n"
    assert code_of(before) == code_of(after)
    assert code_of(before) != code_of(after.replace(b"1", b"2"))
    assert code_of(b"x = 1\n'a string that is no docstring'") != code_of(b"x = 1")


def test_the_digest_of_a_plugin_covers_what_it_imports(plugin):
    def digest(factor=2.0, imports=""):
        path = plugin("d/method.py", PLUGIN.format(factor=factor, imports=imports))
        return digest_of_class(load_plugin(path)[0])

    first = digest()
    assert digest(factor=3.0) != first
    plugin("d/other.py", PLUGIN.format(factor=4.0, imports=""))  # which it does not import
    assert digest() == first
    beside = digest(imports="from .other import Method as Other")
    plugin("d/other.py", PLUGIN.format(factor=5.0, imports="# a comment"))
    assert digest(imports="from .other import Method as Other") not in (first, beside)
    plugin("d/_helper.py", "A = 1")  # which counts, imported or not
    helped = digest()
    plugin("d/_helper.py", "A = 2  # two")
    assert len({digest(), helped, first}) == 3


def test_the_digest_of_a_plugin_does_not_hang_on_its_place(plugin):
    text = PLUGIN.format(factor=2.0, imports="from ._helper import A")
    result = set()
    for folder in ("here", "there"):
        plugin(f"{folder}/_helper.py", "A = 1")
        result.add(digest_of_class(load_plugin(plugin(f"{folder}/method.py", text))[0]))
    assert len(result) == 1


def test_a_package_that_passes_names_on_stands_for_the_modules_that_define_them():
    assert "gradest.contracts" in closure("gradest.estimators.rloo")
    assert not {"gradest", "gradest.measurement.measurement"} & closure("gradest.estimators.rloo")
    assert "gradest.statistics.planning" in closure("gradest.measurement.precision")


SUITE = """\
replicates: 64
timed: false
tasks: [bernoulli, categorical]
estimators: [rloo, reinforce, concrete]
"""


@pytest.mark.weekly
def test_words_re_run_nothing_and_a_number_re_runs_its_estimators_cells(tmp_path):
    for name in ("gradest", "estimators", "tasks", "benchmark.py"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    (tmp_path / "mine.yaml").write_text(SUITE)

    def run(*options):
        done = subprocess.run(
            [sys.executable, "benchmark.py", "--suite", "mine.yaml", *options],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def to_measure():
        cells = run("--dry-run").splitlines()[:-1]
        return [cell.split(maxsplit=2)[-1] for cell in cells if cell.split()[0] != "done"]

    run()
    for file in sorted((tmp_path / "gradest" / "measurement").glob("*.py")):
        text = file.read_text()
        assert text.startswith('"""')
        file.write_text('"""Other words."""\n# And a remark.\n' + text.split('"""', 2)[2])
    assert to_measure() == []
    file = tmp_path / "estimators" / "rloo.py"
    text, changed = re.subn(r"dim=1\)", "dim=1) * 1.0", file.read_text(), count=1)
    assert changed
    file.write_text(text)
    assert to_measure() == ["bernoulli × rloo", "categorical × rloo"]
