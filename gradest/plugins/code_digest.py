"""Digests of the code that computes a number, which decide whether a recorded row is still valid.

A digest covers modules and everything they import from their own package and from gradest.  It is
computed from syntax trees without docstrings, and modules that only display results are left out,
so that changes of comments, formatting, documentation or wording do not invalidate any row.  Other
packages that plugins import are not followed; the version of torch is recorded next to the digest.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gradest.contracts import built_in

_PACKAGE = "gradest"
# Modules that display measurements, their progress and their errors, or limit their arguments, and
# change no number.
DISPLAY = frozenset(
    {
        "gradest.measurement.notebook",
        "gradest.measurement.progress",
        "gradest.plugins.code_digest",
        "gradest.support.limits",
        "gradest.support.numbers",
        "gradest.support.text",
    }
)


def digest_of_code(*modules: str) -> str:
    """SHA-256 of the syntax trees of these imported modules and of all modules they import."""
    total = hashlib.sha256()
    for module in sorted(closure(*modules)):
        # The package name of a plugin depends on its folder, which must not count.
        name = module if _is_own(module) else module.partition(".")[2]
        total.update(f"{name} {code_of(_file(module).read_bytes())}\n".encode())
    return total.hexdigest()


def digest_of_class(cls: type) -> str:
    """The digest of the module of an estimator or task.

    For a plugin from outside the catalogue it includes all helpers in its folder, `_*.py`, whether
    the plugin imports them or not.
    """
    helpers = [] if built_in(cls) else _helpers(cls.__module__)
    return digest_of_code(cls.__module__, *helpers)


def closure(*modules: str) -> frozenset[str]:
    """The modules and all modules they import, directly or indirectly."""
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached and module not in DISPLAY and _file(module) is not None:
            reached.add(module)
            waiting.extend(_imports(module))
    return frozenset(reached)


@cache
def _imports(module: str) -> tuple[str, ...]:
    """The modules of gradest and of its own package that a module imports at any place."""
    tops = (_PACKAGE, module.partition(".")[0])
    tree = ast.parse(_file(module).read_bytes())
    return tuple(name for name in _imported(tree, module) if name.partition(".")[0] in tops)


def _imported(tree: ast.Module, module: str) -> Iterator[str]:
    for node in _blocks(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield from _origins(_absolute(node, module), alias.name)


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """The absolute name of the module in a `from` import."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    is_package = _file(module).name == "__init__.py"
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def _origins(module: str, name: str) -> Iterator[str]:
    """The modules that define the name in `from module import name`.

    If a package re-exports the name, only the module that defines it counts.
    """
    if _file(module) is None:
        return
    if _file(f"{module}.{name}") is not None:
        yield f"{module}.{name}"
    elif _file(module).name == "__init__.py" and name in _reexports(module):
        yield from _origins(*_reexports(module)[name])
    else:
        yield module


@cache
def _reexports(package: str) -> dict[str, tuple[str, str]]:
    """re-exported name -> the module that defines it, and its name there."""
    stub = _file(package).with_suffix(".pyi")
    source = stub if stub.is_file() else _file(package)
    return {
        alias.asname or alias.name: (_absolute(node, package), alias.name)
        for node in _blocks(ast.parse(source.read_bytes()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@cache
def _file(module: str) -> Path | None:
    """The source file of a module of gradest or of a plugin's package; None if it has none."""
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
    if package in sys.modules:  # the folder of a plugin package need not be its parent's
        return [Path(folder) for folder in getattr(sys.modules[package], "__path__", ())]
    file = _file(package)
    return [file.parent] if file is not None and file.name == "__init__.py" else []


def _helpers(module: str) -> list[str]:
    package = module.rpartition(".")[0]
    files = sorted(_file(module).parent.glob("_*.py"))
    return [f"{package}.{file.stem}" for file in files if file.stem != "__init__"]


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE


def _blocks(node: ast.AST) -> Iterator[ast.AST]:
    """All statements within a node, and the handlers and cases that hold some.

    `ast.walk` takes in expressions as well: nine of ten nodes, which contain no statement.
    """
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield child
            yield from _blocks(child)


@cache
def code_of(source: bytes) -> str:
    """The source code without docstrings, comments and formatting."""
    tree = ast.parse(source)
    for node in [tree, *_blocks(tree)]:
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.unparse(tree)
