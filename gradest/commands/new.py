"""Begins a plugin: writes a working file to edit, its test, and a suite that measures it.

The texts lie in `gradest/templates`, and certify as they are.
"""

import ast
import keyword
import os
import re
import shlex
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Literal, NamedTuple

from gradest.errors import UsageError
from gradest.files import write_atomically
from gradest.registry import Registry, is_test

_TEMPLATES = Path(__file__).parents[1] / "templates"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")  # at most 40, so that no line gets too long


class Scaffold(NamedTuple):
    """What is asked for: the kind of the plugin, and its name."""

    kind: Literal["estimator", "task"]
    name: str

    @property
    def class_name(self) -> str:
        """my_estimator -> MyEstimator"""
        return "".join(part.capitalize() for part in self.name.split("_"))

    def texts(self) -> dict[str, str]:
        """file name -> text, the plugin's own first."""
        patterns = ("{}.py", "test_{}.py", "{}.yaml")
        return {p.format(self.name): self._filled(p.format(self.kind)) for p in patterns}

    def _filled(self, template: str) -> str:
        text = (_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
        return Template(text).substitute(name=self.name, class_name=self.class_name)


def begin(asked: Scaffold, folder: Path, registry: Registry) -> str:
    """Write the files of `asked` into the folder; returns what there is, and what to run next.

    Raises UsageError for a name that cannot be a plugin's, for a file that exists and for a folder
    that cannot be written: then none of the files is there.
    """
    if reason := _ill_formed(asked.name):
        raise UsageError(f"{asked.name!r} cannot be the name of a plugin: {reason}")
    texts = {folder / name: text for name, text in asked.texts().items()}
    for path in texts:
        if os.path.lexists(path):
            raise UsageError(f"{path} exists; nothing was written")
    if reason := _taken(asked, registry):
        raise UsageError(f"{asked.name!r} cannot be the name of a plugin: {reason}")
    _write_all(texts, folder)
    return _told(*texts)


def _ill_formed(name: str) -> str:
    """Why the name is none for any plugin, or nothing."""
    if not _NAME.fullmatch(name):
        return "it takes a lower-case letter and then such letters, digits and _, at most 40"
    return ""


def _taken(asked: Scaffold, registry: Registry) -> str:
    """Why the name is no longer free for a plugin's file, class and test, or nothing."""
    name, class_name = asked.name, asked.class_name
    if keyword.iskeyword(name) or keyword.iskeyword(class_name):
        return "it is a keyword of Python"
    if name in registry.estimators or name in registry.tasks:
        return "it is taken, see --list"
    if is_test(name):
        return "pytest would take the file for a test"
    if (found := find_spec(name)) and found.origin:
        return f"it would hide the Python module of that name ({found.origin})"
    if class_name in _imported(next(iter(asked.texts().values()))):
        return f"its class would hide the {class_name} that the file imports"
    return ""


def _imported(text: str) -> set[str]:
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for found in imports for alias in found.names}


def _write_all(texts: dict[Path, str], folder: Path) -> None:
    try:
        with ExitStack() as undo:
            for path, text in texts.items():
                write_atomically(path, lambda file, t=text: file.write_text(t, encoding="utf-8"))
                undo.callback(path.unlink)
            undo.pop_all()
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None


def _told(plugin: Path, test: Path, suite: Path) -> str:
    own = Path(sys.argv[0])
    program = ["python", own] if own.suffix == ".py" else [own.name]
    commands = (
        [*program, "--check", plugin],
        [*program, "--suite", suite, "--plugin", plugin],
        ["python", "-m", "pytest", test],
    )
    written = (f"wrote {path}" for path in (plugin, test, suite))
    return "\n".join([*written, "next:", *(f"  {shlex.join(map(str, c))}" for c in commands)])
