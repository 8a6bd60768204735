"""The commands `--new-estimator` and `--new-task`: write a plugin to start from.

Each writes a working plugin, its test and a suite that measures it.  The templates are in
`gradest/templates`, one for each kind of estimator, and pass `--check` unchanged.
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
from typing import Literal, NamedTuple

from gradest.errors import UsageError
from gradest.plugins import Registry, is_test
from gradest.support import default_estimator_template, fill_template, write_atomically

# At most 40 characters, or lines of the templates get too long.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Scaffold(NamedTuple):
    """The kind and the name of a plugin to create.

    An estimator begins as `like`, which has a template; None stands for the default one.
    """

    kind: Literal["estimator", "task"]
    name: str
    like: str | None = None

    @property
    def class_name(self) -> str:
        """my_estimator -> MyEstimator"""
        return "".join(part.capitalize() for part in self.name.split("_"))

    def texts(self) -> dict[str, str]:
        """file name -> text of the plugin, its test and its suite, in this order."""
        kind, like = self.kind, self.like or default_estimator_template()
        plugin = f"{kind}_{like}" if kind == "estimator" else kind
        templates = {
            f"{self.name}.py": f"{plugin}.py",
            f"test_{self.name}.py": f"test_{kind}.py",
            f"{self.name}.yaml": f"{kind}.yaml",
        }
        values = {"name": self.name, "class_name": self.class_name, "like": like}
        return {file: fill_template(each, **values) for file, each in templates.items()}


def write_plugin(scaffold: Scaffold, folder: Path, registry: Registry) -> str:
    """Write the files of a new plugin into the folder; returns their paths and the next commands.

    Raises UsageError for a name that no plugin can have, a file that exists and a folder that
    cannot be written; none of the files exists then.
    """
    if reason := _ill_formed(scaffold.name):
        raise UsageError(f"invalid plugin name {scaffold.name!r}: {reason}")
    texts = {folder / name: text for name, text in scaffold.texts().items()}
    for path in texts:
        if os.path.lexists(path):
            raise UsageError(f"{path} exists; nothing was written, choose another name or --out")
    if reason := _conflict(scaffold, registry):
        raise UsageError(f"invalid plugin name {scaffold.name!r}: {reason}")
    _write_all(texts, folder)
    return _next_steps(*texts)


def _ill_formed(name: str) -> str:
    """The reason why no plugin can have this name, or an empty string."""
    if not _NAME.fullmatch(name):
        return (
            "expected a lower-case letter followed by lower-case letters, digits and _, at most "
            "40 characters"
        )
    return ""


def _conflict(scaffold: Scaffold, registry: Registry) -> str:
    """The reason why the plugin's file, class or test cannot have this name, or an empty string."""
    name, class_name = scaffold.name, scaffold.class_name
    if keyword.iskeyword(name) or keyword.iskeyword(class_name):
        return "it is a Python keyword"
    if name in registry:
        return "an estimator or task already has this name, see --list"
    if is_test(name):
        return "pytest would collect the plugin as a test"
    if (module := find_spec(name)) and module.origin:
        return f"it would shadow the Python module of that name ({module.origin})"
    if class_name in _imported(next(iter(scaffold.texts().values()))):
        return f"its class would shadow {class_name}, which the template imports"
    return ""


def _imported(text: str) -> set[str]:
    """The names that a module imports."""
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def _write_all(texts: dict[Path, str], folder: Path) -> None:
    try:
        with ExitStack() as undo:
            for path, text in texts.items():
                write_atomically(path, lambda file, t=text: file.write_text(t, encoding="utf-8"))
                undo.callback(path.unlink)
            undo.pop_all()
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None


def _next_steps(plugin: Path, test: Path, suite: Path) -> str:
    script = Path(sys.argv[0])
    program = ["python", script] if script.suffix == ".py" else [script.name]
    commands = (
        [*program, "--check", plugin],
        [*program, "--suite", suite, "--plugin", plugin],
        ["python", "-m", "pytest", test],
    )
    written = (f"wrote {path}" for path in (plugin, test, suite))
    return "\n".join([*written, "next steps:", *(f"  {shlex.join(map(str, c))}" for c in commands)])
