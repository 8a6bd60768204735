"""The layout of gradest: rooms with one door, and imports that run one way."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import gradest
from gradest.plugins import all_estimators, all_tasks

ROOT = Path(gradest.__file__).parent
# From the top down: a room imports from those below it alone.  Loose files may be imported by all
# rooms; the command line, the modules of nn, the figures and the package itself stand above them.
ROOMS = (
    *("commands", "report", "runs", "checks", "measurement", "plugins", "statistics", "support"),
)
ABOVE = ("gradest", "gradest.cli", "gradest.foreign", "gradest.nn")
FEWEST_LINES = 40


@cache
def modules() -> dict[str, Path]:
    """Name -> file of every module of the package, plugins aside."""
    return {_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def doors() -> dict[str, frozenset[str]]:
    """Package with a stub -> the names that it passes on; others only group modules of a room."""
    return {
        name: frozenset(alias.name for node in _imports(stub) for alias in node)
        for name, path in modules().items()
        if path.name == "__init__.py" and (stub := path.with_suffix(".pyi")).exists()
    }


def _imports(stub: Path) -> Iterator[list[ast.alias]]:
    for node in ast.parse(stub.read_text()).body:
        assert isinstance(node, ast.ImportFrom) and node.level == 1, stub
        yield node.names


def room(module: str) -> str:
    """The innermost package of a module; gradest itself for a loose file."""
    return max((door for door in doors() if f"{module}.".startswith(f"{door}.")), key=len)


def imports(module: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a module imports from gradest, anywhere in it."""
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            if (node.module or "").partition(".")[0] == "gradest":
                yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from ((name, "") for name in names if name.partition(".")[0] == "gradest")


def target(module: str, name: str) -> str:
    """The module that `from module import name` loads, through the doors on its way."""
    if f"{module}.{name}" in modules():
        return f"{module}.{name}"
    if module not in doors():
        return module
    for node in ast.parse(modules()[module].with_suffix(".pyi").read_text()).body:
        if name in [alias.name for alias in node.names]:
            return target(f"{module}.{node.module}" if node.module else module, name)
    return module


def test_no_import_goes_past_a_door() -> None:
    wrong = []
    for module in sorted(modules()):
        own = room(module)
        for source, name in imports(module):
            theirs = room(source) if source in modules() else ""
            if theirs and f"{own}.".startswith(f"{theirs}."):  # its own room, or one around it
                continue
            if not theirs:
                wrong.append(f"{module} imports {source}, which does not exist")
            elif source != theirs:
                wrong.append(f"{module} imports {source} past the door of {theirs}")
            elif (source, name) != ("gradest", "__version__") and name not in doors()[source]:
                wrong.append(f"{source} passes no {name} on, which {module} imports")
    assert not wrong


def test_imports_run_from_the_top_down() -> None:
    def floor(module: str) -> int:
        if module in ABOVE:
            return 0
        first = module.split(".")[1]
        return 1 + ROOMS.index(first) if first in ROOMS else len(ROOMS) + 1

    upward = [
        f"{module} -> {found}"
        for module in modules()
        if room(module) != "gradest" or module in ABOVE
        for source, name in imports(module)
        if name != "__version__" and floor(found := target(source, name)) < floor(module)
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {found for each in imports(module) if (found := target(*each)) != module}
        for module in modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_module_of_the_core_names_a_plugin() -> None:
    plugins = {*all_estimators(), *all_tasks()}
    # Words that name something else as well: a divergence, the truth, the distribution.
    plugins -= {"bernoulli", "categorical", "concrete", "exact", "extreme", "quadratic"}
    named = [
        f"{module}:{node.lineno}: {node.value}"
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in plugins
    ]
    imported = [
        f"{module}: {source}"
        for module in modules()
        for source, _ in imports(module)
        if source.startswith(("gradest.estimators.", "gradest.tasks."))
    ]
    assert (named, imported) == ([], [])


def test_rooms_are_few_and_files_are_not_too_small() -> None:
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ROOMS) and {f"gradest.{room}" for room in ROOMS} <= set(doors())
    loose = [path for path in ROOT.glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= 10
    small = {
        module: lines
        for module, path in modules().items()
        if path.name != "__init__.py"
        and (lines := len(path.read_text().splitlines())) < FEWEST_LINES
    }
    assert small == {}


@pytest.mark.parametrize("door", sorted(doors()))
def test_a_door_says_what_its_room_is_for(door: str) -> None:
    tree = ast.parse(modules()[door].read_text())
    assert ast.get_docstring(tree)
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body) or (
        door == "gradest"
    )
    package = __import__(door, fromlist=["__all__"])
    assert set(package.__all__) - {"__version__"} == doors()[door]
    for name in package.__all__:
        assert getattr(package, name) is not None
