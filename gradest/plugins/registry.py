"""The registry of plugins: built-in folders, `--plugin` paths and installed entry points.

A plugin is a file with exactly one concrete class, a subclass of Estimator or Task; its name is the
stem of the file.  `FILE.py:Class` is one of several classes in a file, with the name of the class.
In a folder, files whose names begin with an underscore are helpers, and files that pytest collects
as tests are skipped.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from gradest.contracts import Estimator, Task, built_in
from gradest.errors import PluginError, UsageError
from gradest.knobs import build, examine
from gradest.plugins import claims
from gradest.plugins.process_state import preserving
from gradest.support import described, shortened, suggestion

_KINDS = {"estimators": Estimator, "tasks": Task}
_EITHER = "estimator or task"


@dataclass(frozen=True)
class Registry:
    """name -> class for estimators and for tasks."""

    estimators: dict[str, type[Estimator]] = field(default_factory=dict)
    tasks: dict[str, type[Task]] = field(default_factory=dict)

    @classmethod
    def load(
        cls, plugins: Iterable[str | Path] = (), only: Collection[str] | None = None
    ) -> "Registry":
        """The built-in catalogue, the installed entry points and the plugins at these paths.

        With `only`, entry points and plugins of other names are not executed.  Raises PluginError
        for a plugin that fails: none is skipped silently.
        """
        registry = cls()
        for kind in _KINDS:
            for plugin in _built_in(kind):
                registry._add(plugin)
            for entry in _entry_points(kind):
                if only is None or entry.name in only:
                    registry._add(_named(_entry_point_class(entry), entry.name))
        for path in plugins:
            for plugin in load_plugin(Path(path), only):
                registry._add(plugin)
        return registry

    @property
    def foreign(self) -> bool:
        """Whether the registry contains code from outside the catalogue."""
        return not all(map(built_in, (*self.estimators.values(), *self.tasks.values())))

    def find(self, name: str) -> type[Estimator] | type[Task]:
        """The estimator or task of that name or alias.  Raises UsageError if neither exists."""
        return _lookup(_by_alias(self.estimators) | self.tasks | self.estimators, name, _EITHER)

    def estimator(self, name: str) -> type[Estimator]:
        """The class of that name or alias.  Raises UsageError that suggests the most similar."""
        if cls := self.estimators.get(name):
            return cls
        return _lookup(_by_alias(self.estimators) | self.estimators, name, "estimator")

    def canonical(self, name: str) -> str:
        """The name of the estimator that has this alias; any other text as it is."""
        cls = None if name in self.estimators else _by_alias(self.estimators).get(name)
        return cls.name if cls else name

    def __contains__(self, name: str) -> bool:
        """Whether an estimator or task has this name or alias."""
        return name in _by_alias(self.estimators) | self.tasks | self.estimators

    def task(self, name: str) -> type[Task]:
        """The class of that name.  Raises UsageError that suggests the most similar name."""
        return _lookup(self.tasks, name, "task")

    def _add(self, plugin: type) -> None:
        members = self.estimators if issubclass(plugin, Estimator) else self.tasks
        taken = _by_alias(members) | members
        for name in (plugin.name, *_aliases(plugin)):
            if name in taken:
                raise PluginError(
                    f"expected unique names, got {name!r} from {_origin(taken[name], name)} and "
                    f"from {_origin(plugin, name)}; rename one of the files"
                )
        members[plugin.name] = plugin


def _aliases(cls: type) -> tuple[str, ...]:
    return cls.aliases if issubclass(cls, Estimator) else ()


def _by_alias(members: Mapping[str, type]) -> dict[str, type]:
    """alias -> class."""
    return {alias: cls for cls in members.values() for alias in _aliases(cls)}


def _origin(cls: type, name: str) -> str:
    """The file of a class, and whose alias the name is if it is one."""
    file = inspect.getfile(cls)
    return file if name == cls.name else f"{file}, as an alias of {cls.name!r},"


@dataclass(frozen=True)
class PluginBundle:
    """Plugin paths with the contents of their files, so that workers elsewhere can load them."""

    plugins: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # path, (file name, text)

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> "PluginBundle":
        """The bundle of these paths.  Raises PluginError for a path that contains no plugin."""
        absolute = [str(Path(path).resolve()) for path in paths]
        return cls(tuple((path, _contents(_file_and_class(path)[0])) for path in absolute))

    def registry(self, only: frozenset[str] | None = None) -> Registry:
        """The registry with these plugins, or `only` those of these names; cached per process."""
        return _loaded(self, only)

    def unpacked(self) -> list[str]:
        """The paths of the plugins on this machine: the original files or a private copy.

        The copy is used once a file has changed, so that editing a plugin while a suite runs does
        not mix two versions of it in one run.
        """
        return [_unpacked(path, files) for path, files in self.plugins]


_copies: list[tempfile.TemporaryDirectory] = []  # deleted when this process ends


@cache
def _loaded(bundle: PluginBundle, only: frozenset[str] | None) -> Registry:
    return Registry.load(bundle.unpacked(), only)


def _unpacked(path: str, files: tuple[tuple[str, str], ...]) -> str:
    file, name = _file_and_class(path)
    if file.exists() and _contents(file) == files:
        return path
    copy = _copy(file, files)
    return f"{copy}:{name}" if name else str(copy)


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


# kind -> name -> class, for the plugins that `load_plugin` has loaded in this process
_plugins_loaded: dict[str, dict[str, type]] = {kind: {} for kind in _KINDS}


def _kind_of(cls: type) -> str:
    return next(kind for kind, contract in _KINDS.items() if issubclass(cls, contract))


def all_estimators() -> dict[str, type[Estimator]]:
    """name -> class of every estimator, built in or installed."""
    return dict(_default().estimators)


def all_tasks() -> dict[str, type[Task]]:
    """name -> class of every task, built in or installed."""
    return dict(_default().tasks)


def catalogue_estimators() -> dict[str, type[Estimator]]:
    """name -> class of every estimator that gradest includes, without plugins."""
    return {cls.name: cls for cls in _built_in("estimators")}


def make_estimator(name: str, **knobs: Any) -> Estimator:
    """The estimator of that name or alias: built in, installed or loaded by `load_plugin`.

    Raises UsageError for an unknown name and KnobError for an unknown or invalid knob.
    """
    catalogue = _default().estimators
    if name in catalogue:  # at once: a training may make its estimator in every step
        return build(catalogue[name], knobs)
    # An alias of the catalogue, like its names, comes before a plugin of that name.
    groups = (_plugins_loaded["estimators"], catalogue)
    members = {name: cls for g in groups for name, cls in (_by_alias(g) | g).items()}
    return build(_lookup(members, name, "estimator"), knobs)


def make_task(name: str, **knobs: Any) -> Task:
    """The task of that name: built in, installed or loaded by `load_plugin`.

    Raises UsageError for an unknown name and KnobError for an unknown or invalid knob.
    """
    return build(_lookup({**_plugins_loaded["tasks"], **_default().tasks}, name, "task"), knobs)


def load_plugin(
    path: str | Path, only: Collection[str] | None = None
) -> list[type[Estimator] | type[Task]]:
    """The classes in a plugin file or folder, named after their files; one class per file.

    `FILE.py:Class` is one class of a file that may have several, and keeps the name of the class.
    With `only`, files and classes of other names are not loaded.  Afterwards `make_estimator` and
    `make_task` find the classes by name in this process; of two plugins with the same name they use
    the last one loaded, but a plugin never replaces a name of the catalogue.  Raises PluginError
    for a path that contains no plugin and for a plugin that fails.
    """
    path, name = _file_and_class(path)
    try:
        files = [file for file in _files_at(path) if only is None or (name or file.stem) in only]
        package = _package(_folder_of(path).resolve())
    except (OSError, ValueError) as error:
        if isinstance(error, PluginError):
            raise
        raise PluginError(f"{path}: cannot be read: {described(error)}") from None
    if name:
        classes = [_class_of(_imported(file.resolve(), package), file, name) for file in files]
    else:
        classes = [_only_class(_import(file.resolve(), package), file) for file in files]
    for cls in classes:
        _plugins_loaded[_kind_of(cls)][cls.name] = cls
    return classes


def is_test(stem: str) -> bool:
    """Whether pytest collects a file of that name; the tests of plugins are in the same folder."""
    return stem.startswith("test_") or stem == "conftest"


def _digest_of(files: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of the files."""
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        total.update(f"{file.name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _lookup(members: Mapping[str, type], name: str, kind: str) -> Any:
    if name in members:
        return members[name]
    # Looking for a file raises OSError if the name is too long or contains a null character.
    file = f"{name}.py" if name.isidentifier() and len(name) < 100 else "FILE.py"
    how = f'load a plugin with --plugin {file} or gradest.load_plugin("{file}")'
    hint = f"; {how}" if Path(file).is_file() else f"{suggestion(name, members)} (or {how})"
    raise UsageError(f"unknown {kind} {shortened(name)}{hint}")


@cache
def _built_in(kind: str) -> tuple[type, ...]:
    """The classes of the catalogue, examined once: a worker inherits them from its template."""
    package = importlib.import_module(f"gradest.{kind}")
    files = _plugin_files(Path(next(iter(package.__path__))))
    return tuple(
        _only_class(importlib.import_module(f"gradest.{kind}.{file.stem}"), file) for file in files
    )


def _plugin_files(folder: Path) -> list[Path]:
    return [
        file
        for file in _regular(folder, "*.py")
        if not file.name.startswith("_") and not is_test(file.stem)
    ]


def _regular(folder: Path, pattern: str) -> list[Path]:
    """The matching regular files, sorted: reading a pipe or a device could block for ever."""
    return sorted(file for file in folder.glob(pattern) if file.is_file())


@cache
def _entry_points(kind: str) -> tuple[Any, ...]:
    """Those of installed packages, searched once: a worker inherits them from its template."""
    return tuple(entry_points(group=f"gradest.{kind}"))


def _entry_point_class(entry: Any) -> type:
    try:
        with preserving(f"the entry point {entry.value}, when it is imported,"):
            plugin = entry.load()
    except PluginError:
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        reason = described(error)
        raise PluginError(f"the entry point {entry.value} cannot be imported: {reason}") from error
    contracts = tuple(_KINDS.values())
    if (
        not inspect.isclass(plugin)
        or not issubclass(plugin, contracts)
        or inspect.isabstract(plugin)
    ):
        raise PluginError(
            f"the entry point {entry.value}: expected a concrete Estimator or Task class, got "
            f"{shortened(plugin)}"
        )
    return plugin


def _files_at(path: Path) -> list[Path]:
    if not path.exists():
        raise PluginError(f"{path}: no such plugin file or folder")
    if not path.is_dir() and (path.suffix != ".py" or not path.is_file()):
        raise PluginError(f"{path}: expected a .py file or a folder of .py files")
    files = _plugin_files(path) if path.is_dir() else [path]
    if not files:
        raise PluginError(
            f"{path}: the folder contains no plugin (a .py file whose name begins neither with _ "
            "nor with test_)"
        )
    return files


def _file_and_class(path: str | Path) -> tuple[Path, str | None]:
    """The file or folder, and the class that `FILE.py:Class` names."""
    file, _, name = str(path).rpartition(":")
    return (Path(file), name) if file.endswith(".py") and name else (Path(path), None)


def _folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _package(folder: Path) -> str:
    """The name of a private package over the folder, from which plugins import their helpers.

    The name depends on the contents of the files, so that a process imports an edited helper again.
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
        raise PluginError(f"the plugin {file} cannot be imported: {described(error)}") from error
    return module


def _imported(file: Path, package: str) -> ModuleType:
    """The module of a file, executed once for all of its classes."""
    return sys.modules.get(f"{package}.{file.stem}") or _import(file, package)


def _class_of(module: ModuleType, file: Path, name: str) -> type:
    """The class of that name, of a file with any number of them."""
    classes = {
        key: cls
        for key, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, tuple(_KINDS.values()))
        and not (built_in(cls) or inspect.isabstract(cls))
    }
    if name not in classes:
        hint = suggestion(name, classes) if classes else ", which has none"
        raise PluginError(
            f"the plugin {file}: expected a concrete Estimator or Task class, got {name}{hint}"
        )
    try:
        return _named(classes[name], name)
    except PluginError as error:
        raise PluginError(f"the plugin {file}: {error}") from None


def _only_class(module: ModuleType, file: Path) -> type:
    own = [
        cls
        for cls in dict.fromkeys(v for v in vars(module).values() if inspect.isclass(v))
        if issubclass(cls, tuple(_KINDS.values())) and cls.__module__ == module.__name__
    ]
    concrete = [cls for cls in own if not inspect.isabstract(cls)]
    if len(concrete) == 1:
        try:
            return _named(concrete[0], file.stem)
        except PluginError as error:
            raise PluginError(f"the plugin {file}: {error}") from None
    names = ", ".join(cls.__name__ for cls in concrete) or "none"
    missing = "".join(
        f"; {cls.__name__} does not define {', '.join(sorted(cls.__abstractmethods__))}"
        for cls in own
        if inspect.isabstract(cls)
    )
    hint = f"; name one of them: {file}:{concrete[0].__name__}" if concrete else ""
    raise PluginError(
        f"the plugin {file}: expected exactly one concrete Estimator or Task class, got "
        f"{names}{missing}{hint}"
    )


def _named(cls: type, name: str) -> type:
    cls.name = name
    examine(cls)
    if issubclass(cls, Estimator):
        claims.examine(cls)
    elif not claims.is_version(cls.version):
        message = f"version: expected {claims.VERSION}, got {cls.version!r}"
        raise PluginError(f"{cls.__name__}: {message}")
    return cls
