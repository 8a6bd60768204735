"""Plugins: how they are found, named and refused."""

import inspect
from pathlib import Path

import pytest

import gradest
from gradest import Estimator, Task
from gradest.errors import KnobError, PluginError, UsageError
from gradest.plugins import registry
from gradest.plugins.registry import PluginBundle, Registry, load_plugin

ESTIMATOR = '''
from dataclasses import dataclass
from gradest import Estimator

@dataclass(eq=False)
class Mine(Estimator):
    """Doubles the gradient."""
    factor: float = 2.0

    def __call__(self, logits, f):
        return self.factor * logits.sum((-2, -1))
'''
TASK = """
from gradest import Problem, Task

class MyTask(Task):
    def problem(self, batch=None):
        raise NotImplementedError
"""


def loaded(*paths: Path) -> Registry:
    return Registry.load(paths)


# what is found


def test_every_built_in_file_is_in_the_registry_under_its_stem():
    root = Path(gradest.__file__).parent.parent
    for folder, members in (
        ("estimators", gradest.all_estimators()),
        ("tasks", gradest.all_tasks()),
    ):
        stems = {f.stem for f in (root / folder).glob("*.py") if not f.name.startswith("_")}
        assert stems <= set(members) and stems
        for name, found in members.items():
            assert found.name == name
            assert not inspect.isabstract(found)
            assert issubclass(found, Estimator if folder == "estimators" else Task)


def test_the_catalogue_cannot_be_changed_through_its_copy():
    gradest.all_estimators().clear()
    assert gradest.all_estimators()


def test_a_plugin_file_is_found_beside_the_built_in_ones(plugin):
    found = loaded(plugin("my_method.py", ESTIMATOR))
    assert found.estimator("my_method").__name__ == "Mine"
    assert found.estimator("my_method").name == "my_method"
    assert set(gradest.all_estimators()) < set(found.estimators)
    assert "my_method" not in gradest.all_estimators()


def test_a_plugin_that_is_not_installed_can_be_measured(plugin):
    mine = loaded(plugin("my_method.py", ESTIMATOR)).estimator("my_method")
    found = gradest.measure(mine(factor=3.0), gradest.make_task("bernoulli"))
    assert (found.mean == 3).all()


def test_a_version_is_a_whole_number(plugin):
    text = TASK.replace("(Task):", "(Task):\n    version = 'two'")
    with pytest.raises(PluginError, match="version: expected an integer of at least 1, got 'two'"):
        load_plugin(plugin("my_task.py", text))


def test_a_folder_gives_all_its_files_but_its_helpers(plugin):
    plugin(
        "more/first.py", "from ._shared import Base\n" + ESTIMATOR.replace("Estimator)", "Base)")
    )
    plugin("more/second.py", TASK)
    plugin("more/_shared.py", "from gradest import Estimator\nclass Base(Estimator):\n    pass\n")
    plugin("more/test_first.py", "raise AssertionError")
    plugin("more/conftest.py", "raise AssertionError")
    folder = plugin("more/notes.txt", "not Python").parent
    found = loaded(folder)
    assert found.estimator("first").__mro__[1].__name__ == "Base"
    assert issubclass(found.task("second"), Task)
    assert not {"_shared", "notes"} & (set(found.estimators) | set(found.tasks))


def test_a_single_file_imports_its_helper_too(plugin):
    plugin("alone/_numbers.py", "FACTOR = 7.0")
    text = "from ._numbers import FACTOR\n" + ESTIMATOR.replace("= 2.0", "= FACTOR")
    mine = loaded(plugin("alone/method.py", text)).estimator("method")
    assert mine().factor == 7.0


def test_folders_with_files_of_the_same_name_do_not_mix(plugin):
    for folder, factor in (("a", 3.0), ("b", 4.0)):
        plugin(f"{folder}/_numbers.py", f"FACTOR = {factor}")
        text = "from ._numbers import FACTOR\n" + ESTIMATOR.replace("= 2.0", "= FACTOR")
        path = plugin(f"{folder}/method.py", text)
        assert loaded(path).estimator("method")().factor == factor


def test_imported_and_abstract_classes_do_not_count(plugin):
    text = (
        "from gradest import Tuned, Estimator, Task\n"
        "from gradest.estimators.rloo import RLOO\n"
        "class Half(Estimator):\n    pass\n" + ESTIMATOR
    )
    assert loaded(plugin("imports.py", text)).estimator("imports").__name__ == "Mine"


def test_an_alias_is_no_second_class(plugin):
    found = loaded(plugin("aliased.py", ESTIMATOR + "\nOldName = Mine\n"))
    assert found.estimator("aliased").__name__ == "Mine"


def test_a_loaded_plugin_is_known_by_its_name(plugin, monkeypatch):
    monkeypatch.setattr(registry, "_plugins_loaded", {"estimators": {}, "tasks": {}})
    path = plugin("my_method.py", ESTIMATOR)
    with pytest.raises(UsageError) as caught:
        gradest.make_estimator("my_method")
    assert "unknown estimator 'my_method'" in str(caught.value)
    how = 'load a plugin with --plugin my_method.py or gradest.load_plugin("my_method.py")'
    assert how in str(caught.value)
    (mine,) = gradest.load_plugin(str(path))
    assert type(gradest.make_estimator("my_method", factor=3.0)) is mine
    assert "my_method" not in gradest.all_estimators()
    path.write_text(ESTIMATOR.replace("2.0", "5.0"))
    gradest.load_plugin(path)
    assert gradest.make_estimator("my_method").factor == 5.0
    (task,) = gradest.load_plugin(plugin("my_task.py", TASK))
    assert type(gradest.make_task("my_task")) is task


def test_a_loaded_plugin_does_not_take_the_place_of_a_built_in(plugin, monkeypatch):
    monkeypatch.setattr(registry, "_plugins_loaded", {"estimators": {}, "tasks": {}})
    gradest.load_plugin(plugin("rloo.py", ESTIMATOR))
    assert type(gradest.make_estimator("rloo")).__name__ == "RLOO"


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "", "../x", "a\nb"])
def test_any_name_that_is_unknown_is_said_to_be(name):
    with pytest.raises(UsageError, match="unknown estimator"):
        gradest.make_estimator(name)


def test_a_class_of_several_in_a_file_has_its_own_name(plugin):
    path = plugin("several.py", ESTIMATOR + TASK)
    registry_ = Registry.load([f"{path}:Mine", f"{path}:MyTask"])
    assert registry_.estimators["Mine"].name == "Mine" and "MyTask" in registry_.tasks
    assert load_plugin(f"{path}:Mine")[0] is registry_.estimators["Mine"]  # executed once
    assert "Mine" not in Registry.load([f"{path}:Mine"], only=["MyTask"]).estimators
    bundle = PluginBundle.of([f"{path}:Mine"])
    path.write_text("1 / 0")
    assert bundle.unpacked() != [f"{path}:Mine"]
    assert bundle.registry().estimators["Mine"] is not registry_.estimators["Mine"]
    path.write_text(ESTIMATOR + TASK)
    for name in ("Estimator", "Min", "dataclass", ""):
        with pytest.raises(PluginError, match=r"several\.py") as error:
            load_plugin(f"{path}:{name}")
        assert (
            name == ""
            or "available: Mine, MyTask" in str(error.value)
            or "Mine" in str(error.value)
        )


# what is refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ESTIMATOR + TASK, "exactly one concrete .* got Mine, MyTask"),
        ("x = 1", "exactly one concrete .* got none"),
        (
            "from gradest import Estimator\nclass A(Estimator):\n    pass\n",
            "A does not define __call__",
        ),
        (
            "from gradest import Tuned\nclass A(Tuned):\n    pass\n",
            "A does not define __call__, build",
        ),
        ("from gradest import Task\nclass A(Task):\n    pass\n", "A does not define problem"),
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such"),
        ("def f(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (
            ESTIMATOR.replace("@dataclass(eq=False)", ""),
            "Mine declares the knobs factor but is not",
        ),
        (
            "import torch\n" + ESTIMATOR.replace("float", "torch.Tensor"),
            "the knob 'factor': expected an annotation for numbers",
        ),
        (
            "from __future__ import annotations\n" + ESTIMATOR.replace("float", "Flaot"),
            "invalid annotation: name 'Flaot' is not defined",
        ),
        (
            ESTIMATOR.replace("    factor", '    evaluations = "factr * N"\n    factor'),
            "Mine: invalid formula 'factr \\* N': unknown name 'factr'; available: K, N, factor, m",
        ),
    ],
    ids=lambda x: x[:20] if "lacks" in x or "Error" in x else "",
)
def test_a_file_that_is_no_plugin_fails_with_its_reason(text, reason, plugin):
    path = plugin("broken.py", text)
    with pytest.raises(PluginError, match=reason) as caught:
        loaded(path)
    assert str(path) in str(caught.value)


def test_a_plugin_that_failed_can_be_mended(plugin):
    with pytest.raises(PluginError):
        loaded(plugin("method.py", "1 / 0"))
    assert "method" in loaded(plugin("method.py", ESTIMATOR)).estimators


def test_a_broken_file_in_a_folder_is_never_skipped(plugin):
    plugin("some/good.py", ESTIMATOR)
    folder = plugin("some/zz_bad.py", "import no_such_module_anywhere").parent
    with pytest.raises(PluginError, match="zz_bad"):
        loaded(folder)


def test_a_name_that_is_taken_twice_names_both_files(plugin):
    path = plugin("rloo.py", ESTIMATOR)
    with pytest.raises(PluginError, match="expected unique names, got 'rloo'") as caught:
        loaded(path)
    assert str(path) in str(caught.value)
    assert inspect.getfile(gradest.all_estimators()["rloo"]) in str(caught.value)
    with pytest.raises(PluginError, match="expected unique names, got 'twin'"):
        loaded(plugin("one/twin.py", ESTIMATOR), plugin("two/twin.py", ESTIMATOR))


def test_an_estimator_and_a_task_may_share_a_name(plugin):
    found = loaded(plugin("one/both.py", ESTIMATOR), plugin("two/both.py", TASK))
    assert "both" in found.estimators and "both" in found.tasks


def test_paths_that_hold_no_plugin(plugin, tmp_path):
    with pytest.raises(PluginError, match="no such plugin file or folder"):
        loaded(tmp_path / "nowhere.py")
    with pytest.raises(PluginError, match=r"expected a \.py file or a folder"):
        loaded(plugin("notes.txt", ESTIMATOR))
    with pytest.raises(PluginError, match="the folder contains no plugin"):
        loaded(plugin("empty/_helper.py", ESTIMATOR).parent)


# aliases

ALIASES = sorted(
    (alias, name) for name, cls in gradest.all_estimators().items() for alias in cls.aliases
)


@pytest.mark.parametrize(("alias", "name"), ALIASES)
def test_an_alias_is_the_estimator_under_its_own_name(alias, name):
    assert gradest.make_estimator(alias).name == name
    found = Registry.load()
    assert found.estimator(alias) is found.find(alias) is found.estimators[name]
    assert found.canonical(alias) == name and found.canonical(name) == name
    assert alias in found and alias not in found.estimators


def test_the_names_that_people_use_are_aliases():
    assert dict(ALIASES) | {
        "remax": "self_critical",
        "scst": "self_critical",
        "loorf": "rloo",
        "zgr": "reinmax",
        "u2g": "disarm",
        "grade": "gumbel_softmax",
        "grade_ste": "st_gumbel_softmax",
    } == dict(ALIASES)
    assert gradest.make_estimator("loorf", samples=7).samples == 7


def test_an_alias_is_suggested():
    with pytest.raises(UsageError, match="unknown estimator 'remaxx'; did you mean 'remax'"):
        gradest.make_estimator("remaxx")


def test_names_and_aliases_do_not_clash(plugin):
    path = plugin("remax.py", ESTIMATOR)
    with pytest.raises(PluginError, match="expected unique names, got 'remax'") as caught:
        loaded(path)
    own = inspect.getfile(gradest.all_estimators()["self_critical"])
    assert f"from {own}, as an alias of 'self_critical', and from {path}" in str(caught.value)
    with_alias = ESTIMATOR.replace("    factor", '    aliases = ("rloo",)\n    factor')
    path = plugin("mine.py", with_alias)
    with pytest.raises(PluginError, match="expected unique names, got 'rloo'") as caught:
        loaded(path)
    assert f"and from {path}, as an alias of 'mine'," in str(caught.value)
    one, two = (plugin(f"{f}.py", with_alias.replace("rloo", "shared")) for f in ("one", "two"))
    with pytest.raises(PluginError, match=r"got 'shared' from .*one\.py.* and from .*two\.py"):
        loaded(one, two)


def test_a_loaded_plugin_does_not_take_the_place_of_an_alias(plugin, monkeypatch):
    monkeypatch.setattr(registry, "_plugins_loaded", {"estimators": {}, "tasks": {}})
    gradest.load_plugin(plugin("remax.py", ESTIMATOR))
    assert gradest.make_estimator("remax").name == "self_critical"
    gradest.load_plugin(
        plugin("mine.py", ESTIMATOR.replace("    factor", '    aliases = ("ours",)\n    factor'))
    )
    assert gradest.make_estimator("ours").name == "mine"


# entry points


class Entry:
    """What importlib.metadata gives for an installed entry point."""

    def __init__(self, name: str, found: object) -> None:
        self.name, self.value, self._found = name, f"package:{name}", found

    def load(self) -> object:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


@pytest.fixture
def install(monkeypatch):
    """`install(**{group: [entries]})`"""

    def patch(**groups: list[Entry]) -> None:
        by_group = {f"gradest.{kind}": entries for kind, entries in groups.items()}
        monkeypatch.setattr(
            registry, "_entry_points", lambda kind: by_group.get(f"gradest.{kind}", ())
        )

    return patch


def test_installed_plugins_are_found_under_the_name_of_their_entry_point(plugin, install):
    (method,) = load_plugin(plugin("some_module.py", ESTIMATOR))
    (task,) = load_plugin(plugin("other_module.py", TASK))
    install(estimators=[Entry("theirs", method)], tasks=[Entry("their_task", task)])
    found = Registry.load()
    assert found.estimator("theirs") is method and method.name == "theirs"
    assert found.task("their_task") is task


def test_an_installed_plugin_that_fails_is_never_skipped(install):
    install(estimators=[Entry("theirs", ImportError("no backend"))])
    with pytest.raises(
        PluginError, match=r"package:theirs cannot be imported: ImportError: no backend"
    ):
        Registry.load()


@pytest.mark.parametrize("thing", [42, str, Estimator])
def test_an_entry_point_must_be_a_concrete_class_of_a_contract(thing, install):
    install(estimators=[Entry("theirs", thing)])
    with pytest.raises(PluginError, match="package:theirs"):
        Registry.load()


def test_an_installed_plugin_cannot_take_a_built_in_name(plugin, install):
    (method,) = load_plugin(plugin("some_module.py", ESTIMATOR))
    install(estimators=[Entry("rloo", method)])
    with pytest.raises(PluginError, match="expected unique names, got 'rloo'"):
        Registry.load()


# looking up and making


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradest.make_estimator("reinforse"), "unknown estimator 'reinforse'.*'reinforce'"),
        (
            lambda: gradest.make_task("bernouli"),
            "unknown task 'bernouli'; did you mean 'bernoulli'",
        ),
        (lambda: gradest.make_task("zzz"), "unknown task 'zzz'; available: .*bernoulli.*quadratic"),
        (lambda: gradest.make_estimator("bernoulli"), "unknown estimator 'bernoulli'"),
        (lambda: Registry.load().find("rlo"), "unknown estimator or task 'rlo'.*'rloo'"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_names_are_made_with_their_knobs():
    assert gradest.make_estimator("rloo", samples=7).samples == 7
    assert gradest.make_task("bernoulli", theta=[0.25]).theta == (0.25,)
    with pytest.raises(KnobError, match="rloo has no knob 'sample'; did you mean 'samples'"):
        gradest.make_estimator("rloo", sample=7)
    assert Registry.load().find("rloo").__name__ == gradest.all_estimators()["rloo"].__name__


@pytest.mark.parametrize("name", sorted(gradest.all_estimators()))
def test_every_estimator_can_be_made_without_knobs(name):
    assert gradest.make_estimator(name).name == name


@pytest.mark.parametrize("name", sorted(gradest.all_tasks()))
def test_every_task_can_be_made_without_knobs(name):
    assert gradest.make_task(name).name == name


# plugins that travel


def test_shipped_plugins_are_unpacked_where_they_are_missing(plugin):
    plugin("away/_numbers.py", "FACTOR = 7.0")
    text = "from ._numbers import FACTOR\n" + ESTIMATOR.replace("= 2.0", "= FACTOR")
    path = plugin("away/method.py", text)
    bundle = PluginBundle.of([path])
    assert bundle.unpacked() == [str(path)]
    plugin("away/_numbers.py", "FACTOR = 8.0")  # edited while a suite runs
    (copy,) = bundle.unpacked()
    assert copy != str(path)
    assert loaded(copy).estimator("method")().factor == 7.0
    with pytest.raises(PluginError, match="no such plugin"):
        PluginBundle.of([path.with_name("nowhere.py")])
