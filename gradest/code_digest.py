"""The code that a number is computed by, as a digest: what makes a recorded row stale.

A digest covers modules and all that they import, from their own package and from gradest.  It is
of their syntax trees without docstrings, so that comments, formatting and documentation do not
count, and modules that only display results are left out: to reword or to rearrange measures
nothing again.  Other packages that plugins import are not followed; torch's version is recorded
beside the digest.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gradest.contracts import built_in

_PACKAGE = __package__
# They show a measurement, how far it is and what is wrong with it, and change no number.
DISPLAY = frozenset(
    f"{_PACKAGE}.{name}"
    for name in ("code_digest", "quantities", "text", "measuring.progress", "measuring.shown")
)


def digest_of_code(*modules: str) -> str:
    """SHA-256 of the syntax trees of these modules, which are imported, and of all they import."""
    total = hashlib.sha256()
    for module in sorted(closure(*modules)):
        # The name of a plugin's own package is another one wherever the plugin lies.
        name = module if _is_own(module) else module.partition(".")[2]
        total.update(f"{name} {code_of(_file(module).read_bytes())}\n".encode())
    return total.hexdigest()


def digest_of_class(cls: type) -> str:
    """That of a plugin's class: of its module and, for a plugin from elsewhere, of the helpers in
    its folder, `_*.py`, whether it imports them or not.
    """
    helpers = [] if built_in(cls) else _helpers(cls.__module__)
    return digest_of_code(cls.__module__, *helpers)


def closure(*modules: str) -> frozenset[str]:
    """The modules with all that they import, directly or not."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found and module not in DISPLAY and _file(module) is not None:
            found.add(module)
            waiting.extend(_imports(module))
    return frozenset(found)


@cache
def _imports(module: str) -> tuple[str, ...]:
    """The modules of gradest and of its own package that a module imports, anywhere in it."""
    tops = (_PACKAGE, module.partition(".")[0])
    tree = ast.parse(_file(module).read_bytes())
    return tuple(name for name in _imported(tree, module) if name.partition(".")[0] in tops)


def _imported(tree: ast.Module, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield from _origins(_absolute(node, module), alias.name)


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """The name of the module that is imported from, without leading dots."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    is_package = _file(module).name == "__init__.py"
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def _origins(module: str, name: str) -> Iterator[str]:
    """The modules that `from module import name` takes the name from.

    Of a package that passes names on it is the module that defines the name: the package's other
    modules do not count.
    """
    if _file(module) is None:
        return
    if _file(f"{module}.{name}") is not None:
        yield f"{module}.{name}"
    elif _file(module).name == "__init__.py" and name in _passed_on(module):
        yield from _origins(*_passed_on(module)[name])
    else:
        yield module


@cache
def _passed_on(package: str) -> dict[str, tuple[str, str]]:
    """name -> the module and the name there, of all that a package imports to pass it on."""
    return {
        alias.asname or alias.name: (_absolute(node, package), alias.name)
        for node in ast.walk(ast.parse(_file(package).read_bytes()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@cache
def _file(module: str) -> Path | None:
    """The source of a module of gradest or of a plugin's package; None where there is none."""
    package, _, name = module.rpartition(".")
    if not package:
        file = getattr(sys.modules.get(module), "__file__", None)
        return None if file is None else Path(file)
    for folder in _folders(package):
        for path in (folder / name / "__init__.py", folder / f"{name}.py"):
            if path.is_file():
                return path
    return None


def _folders(package: str) -> list[Path]:
    if package in sys.modules:  # the folders of a package's plugins may lie beside it
        return [Path(folder) for folder in getattr(sys.modules[package], "__path__", ())]
    file = _file(package)
    return [file.parent] if file is not None and file.name == "__init__.py" else []


def _helpers(module: str) -> list[str]:
    package = module.rpartition(".")[0]
    files = sorted(_file(module).parent.glob("_*.py"))
    return [f"{package}.{file.stem}" for file in files if file.stem != "__init__"]


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE


@cache
def code_of(source: bytes) -> str:
    """The source without docstrings, comments and formatting."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.unparse(tree)
