"""Finds plugins: the built-in folders, `--plugin` paths and installed entry points.

A plugin is a file with exactly one concrete class; its name is the file's stem, its kind the
contract that the class implements.  Of a folder, files that begin with an underscore are helpers,
and those that pytest takes for tests are passed over.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from gradest import claims
from gradest.contracts import Estimator, Model, Task, built_in
from gradest.errors import PluginError, UsageError
from gradest.knobs import build, examine, suggestion
from gradest.process_state import preserving
from gradest.text import described, shortened

_KINDS = {"estimators": Estimator, "tasks": Task}


@dataclass(frozen=True)
class Registry:
    """name -> class, of both kinds."""

    estimators: dict[str, type[Estimator]] = field(default_factory=dict)
    tasks: dict[str, type[Task]] = field(default_factory=dict)

    @classmethod
    def load(
        cls, plugins: Iterable[str | Path] = (), only: Collection[str] | None = None
    ) -> "Registry":
        """The built-in catalogue, the installed entry points and the plugins at these paths.

        Of entry points and plugins, `only` those of these names, so that no other code is executed.
        Raises PluginError: a plugin that fails is never skipped.
        """
        registry = cls()
        for kind in _KINDS:
            for found in _built_in(kind):
                registry._add(found)
            for entry in entry_points(group=f"gradest.{kind}"):
                if only is None or entry.name in only:
                    registry._add(_named(_entry_point_class(entry), entry.name))
        for path in plugins:
            for found in load_plugin(Path(path), only):
                registry._add(found)
        return registry

    @property
    def foreign(self) -> bool:
        """Whether code from outside the catalogue has been loaded."""
        return not all(map(built_in, (*self.estimators.values(), *self.tasks.values())))

    def find(self, name: str) -> type[Estimator] | type[Task]:
        """The estimator or task of that name.  Raises UsageError when there is neither."""
        return _lookup({**self.tasks, **self.estimators}, name, "estimator or task")

    def estimator(self, name: str) -> type[Estimator]:
        """Raises UsageError, with the nearest name, when there is none."""
        return _lookup(self.estimators, name, "estimator")

    def task(self, name: str) -> type[Task]:
        """Raises UsageError, with the nearest name, when there is none."""
        return _lookup(self.tasks, name, "task")

    def models(self) -> list[str]:
        """The names of the tasks that can be trained."""
        return sorted(name for name, found in self.tasks.items() if issubclass(found, Model))

    def _add(self, found: type) -> None:
        name = found.name
        members = self.estimators if issubclass(found, Estimator) else self.tasks
        if name in members:
            raise PluginError(
                f"the name {name!r} is taken twice: by {inspect.getfile(members[name])} "
                f"and by {inspect.getfile(found)}"
            )
        members[name] = found


@dataclass(frozen=True)
class PluginBundle:
    """Plugin paths with their files' contents, so that they reach workers on other machines."""

    plugins: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # path, (file name, text)

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> "PluginBundle":
        """Raises PluginError for a path that is no plugin."""
        absolute = [Path(path).resolve() for path in paths]
        return cls(tuple((str(path), _contents(path)) for path in absolute))

    def registry(self, only: frozenset[str] | None = None) -> Registry:
        """With these plugins, or `only` those of these names; loaded once in each process."""
        return _loaded(self, only)

    def unpacked(self) -> list[Path]:
        """Where the plugins lie on this machine: the same files, or else a private copy.

        Editing a plugin while a suite runs does not mix two versions of it in one run.
        """
        return [
            path if path.exists() and _contents(path) == files else _copy(path, files)
            for path, files in ((Path(path), files) for path, files in self.plugins)
        ]


_copies: list[tempfile.TemporaryDirectory] = []  # kept until this process ends


@cache
def _loaded(bundle: PluginBundle, only: frozenset[str] | None) -> Registry:
    return Registry.load(bundle.unpacked(), only)


def _copy(path: Path, files: tuple[tuple[str, str], ...]) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="gradest-plugins-")
    _copies.append(folder)
    copy = Path(folder.name)
    for name, text in files:
        (copy / name).write_text(text, encoding="utf-8")
    return copy / path.name if path.suffix == ".py" else copy


def _contents(path: Path) -> tuple[tuple[str, str], ...]:
    files = [*_files_at(path), *_regular(_folder_of(path), "_*.py")]
    try:
        return tuple((file.name, file.read_text(encoding="utf-8")) for file in files)
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"{path}: cannot be read: {described(error)}") from None


@cache
def _default() -> Registry:
    return Registry.load()


# kind -> name -> class of what `load_plugin` read in this process
_loaded_here: dict[str, dict[str, type]] = {kind: {} for kind in _KINDS}


def _kind_of(cls: type) -> str:
    return next(kind for kind, contract in _KINDS.items() if issubclass(cls, contract))


def all_estimators() -> dict[str, type[Estimator]]:
    """name -> class of every estimator, built in or installed."""
    return dict(_default().estimators)


def all_tasks() -> dict[str, type[Task]]:
    """name -> class of every task, built in or installed."""
    return dict(_default().tasks)


def catalogue_estimators() -> dict[str, type[Estimator]]:
    """name -> class of every estimator that comes with gradest, plugins aside."""
    return {found.name: found for found in _built_in("estimators")}


def make_estimator(name: str, **knobs: Any) -> Estimator:
    """The estimator of that name: built in, installed or loaded by `load_plugin`.

    Raises UsageError for an unknown name, KnobError for a knob.
    """
    members = {**_loaded_here["estimators"], **_default().estimators}
    return build(_lookup(members, name, "estimator"), knobs)


def make_task(name: str, **knobs: Any) -> Task:
    """The task of that name: built in, installed or loaded by `load_plugin`.

    Raises UsageError for an unknown name, KnobError for a knob.
    """
    return build(_lookup({**_loaded_here["tasks"], **_default().tasks}, name, "task"), knobs)


def load_plugin(
    path: str | Path, only: Collection[str] | None = None
) -> list[type[Estimator] | type[Task]]:
    """The classes of a plugin file or folder, named after their files: of a file, a list of one.

    With `only` those of these names.

    From then on `make_estimator` and `make_task` of this process know their names, the last loaded
    of each; names of the catalogue stay its own.  Raises PluginError for a path that is no plugin,
    or a plugin that fails.
    """
    path = Path(path)
    try:
        files = [file for file in _files_at(path) if only is None or file.stem in only]
        package = _package(_folder_of(path).resolve())
    except (OSError, ValueError) as error:
        if isinstance(error, PluginError):
            raise
        raise PluginError(f"{path}: cannot be read: {described(error)}") from None
    classes = [_only_class(_import(file.resolve(), package), file) for file in files]
    for cls in classes:
        _loaded_here[_kind_of(cls)][cls.name] = cls
    return classes


def is_test(stem: str) -> bool:
    """Whether pytest takes a file of that name for tests, which lie beside plugins."""
    return stem.startswith("test_") or stem == "conftest"


def _digest_of(files: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of these files."""
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        total.update(f"{file.name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _lookup(members: Mapping[str, type], name: str, kind: str) -> Any:
    if name in members:
        return members[name]
    # A name that can be no file's must not be looked for as one: the system may refuse even that.
    file = f"{name}.py" if name.isidentifier() and len(name) < 100 else "FILE.py"
    how = f'load it with --plugin {file} or gradest.load_plugin("{file}")'
    hint = f"; {how}" if Path(file).is_file() else f"{suggestion(name, members)}; a plugin? {how}"
    raise UsageError(f"unknown {kind} {shortened(name)}{hint}")


def _built_in(kind: str) -> Iterator[type]:
    package = importlib.import_module(f"gradest.{kind}")
    for file in _plugin_files(Path(next(iter(package.__path__)))):
        module = importlib.import_module(f"gradest.{kind}.{file.stem}")
        yield _only_class(module, file)


def _plugin_files(folder: Path) -> list[Path]:
    return [
        file
        for file in _regular(folder, "*.py")
        if not file.name.startswith("_") and not is_test(file.stem)
    ]


def _regular(folder: Path, pattern: str) -> list[Path]:
    """Sorted; reading a pipe or a device would wait for ever, and a folder has no text."""
    return sorted(file for file in folder.glob(pattern) if file.is_file())


def _entry_point_class(entry: Any) -> type:
    try:
        with preserving(f"the entry point {entry.value}, when it is imported,"):
            found = entry.load()
    except PluginError:
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        told = described(error)
        raise PluginError(f"the entry point {entry.value} does not import: {told}") from error
    contracts = tuple(_KINDS.values())
    if not inspect.isclass(found) or not issubclass(found, contracts) or inspect.isabstract(found):
        raise PluginError(f"the entry point {entry.value} is no concrete Estimator or Task class")
    return found


def _files_at(path: Path) -> list[Path]:
    if not path.exists():
        raise PluginError(f"{path}: no such plugin file or folder")
    if not path.is_dir() and (path.suffix != ".py" or not path.is_file()):
        raise PluginError(f"{path}: a plugin is a .py file or a folder of them")
    files = _plugin_files(path) if path.is_dir() else [path]
    if not files:
        raise PluginError(
            f"{path}: the folder holds no plugin file (*.py without a leading _ or test_)"
        )
    return files


def _folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _package(folder: Path) -> str:
    """A private package over the folder, so that plugins can import their helpers from it.

    Its name changes with the files, so that an edited helper is imported anew in a process that
    has already seen it.
    """
    content = f"{folder} {_digest_of(_regular(folder, '*.py'))}"
    name = f"gradest_plugins_{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _import(file: Path, package: str) -> ModuleType:
    name = f"{package}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and inspect look modules up there
    try:
        with preserving(f"the plugin {file}, when it is imported,"):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt | PluginError):
            raise
        raise PluginError(f"the plugin {file} does not import: {described(error)}") from error
    return module


def _only_class(module: ModuleType, file: Path) -> type:
    own = [
        found
        for found in dict.fromkeys(v for v in vars(module).values() if inspect.isclass(v))
        if issubclass(found, tuple(_KINDS.values())) and found.__module__ == module.__name__
    ]
    concrete = [found for found in own if not inspect.isabstract(found)]
    if len(concrete) == 1:
        try:
            return _named(concrete[0], file.stem)
        except PluginError as error:
            raise PluginError(f"the plugin {file}: {error}") from None
    names = ", ".join(found.__name__ for found in concrete) or "none"
    lacking = "".join(
        f"; {found.__name__} lacks {', '.join(sorted(found.__abstractmethods__))}"
        for found in own
        if inspect.isabstract(found)
    )
    raise PluginError(
        f"the plugin {file} must define exactly one concrete Estimator or Task class; "
        f"it defines {names}{lacking}"
    )


def _named(found: type, name: str) -> type:
    found.name = name
    examine(found)
    if issubclass(found, Estimator):
        claims.examine(found)
    elif not claims.is_version(found.version):
        told = f"version = {found.version!r}; {claims.VERSION} was expected"
        raise PluginError(f"{found.__name__}: {told}")
    return found
