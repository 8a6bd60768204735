"""Global state of a process that a plugin must not change.

There are two kinds: settings of torch and of the interpreter, which can be read and restored, and
the code that measures, that is the attributes of gradest and torch, which a plugin could replace.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import isroutine
from operator import attrgetter, is_
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import torch

from gradest.errors import PluginError


class _Setting(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _set_default_device(device: torch.device) -> None:
    # Any default device, even the CPU, slows down every call; None removes it.
    torch.set_default_device(None if device.type == "cpu" else device)


# The call that changes a setting -> the setting.  Each changes the numbers computed afterwards.
_OF_TORCH = {
    "torch.set_grad_enabled": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.set_default_dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_default_device": _Setting(torch.get_default_device, _set_default_device),
    "torch.set_num_threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    "torch.use_deterministic_algorithms": _Setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "torch.set_float32_matmul_precision": _Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
}
_OF_PYTHON = {
    "sys.setrecursionlimit": _Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "os.chdir": _Setting(os.getcwd, os.chdir),
}

# The parts of torch that estimators, tasks and the measurement compute with.  The others are left
# out because libraries that build on torch patch some of them on import.
_TORCH = (torch, torch.Tensor, torch.Generator, torch.autograd, torch.nn.functional, torch.random)

_Place = tuple[Any, str]  # a module or class and the name of one of its attributes

# What a function does, which can be changed in place.
_substance = attrgetter("__code__", "__defaults__", "__kwdefaults__")


class Settings(NamedTuple):
    """A snapshot of the settings: the call that changes a setting -> its value."""

    of_torch: dict[str, Any]
    of_python: dict[str, Any]

    @classmethod
    def take(cls) -> "Settings":
        return cls(
            {name: each.read() for name, each in _OF_TORCH.items()},
            {name: each.read() for name, each in _OF_PYTHON.items()},
        )

    def changed(self) -> list[str]:
        """The calls that have changed a setting on which numbers depend since the snapshot."""
        return [name for name, value in self.of_torch.items() if _OF_TORCH[name].read() != value]

    def restore(self) -> None:
        for values, settings in ((self.of_torch, _OF_TORCH), (self.of_python, _OF_PYTHON)):
            for name, value in values.items():
                if settings[name].read() != value:
                    settings[name].write(value)


class _Attributes(NamedTuple):
    """All attributes of an owner at one moment, and what each of its functions consists of."""

    values: dict[str, Any]
    functions: list[FunctionType]
    substances: list[Any]

    @classmethod
    def of(cls, owner: Any) -> "_Attributes":
        values = dict(vars(owner))
        functions = [value for value in values.values() if type(value) is FunctionType]
        return cls(values, functions, list(map(_substance, functions)))

    def untouched(self, owner: Any) -> bool:
        """Whether nothing at all has changed, without a look at single attributes.

        A battery and a run compare thousands of attributes for each law and cell, which are nearly
        always the same objects.
        """
        values = vars(owner)
        return (
            len(values) == len(self.values)
            and all(map(is_, values.values(), self.values.values()))
            and list(values) == list(self.values)
            and list(map(_substance, self.functions)) == self.substances
        )

    def substance(self, function: FunctionType) -> Any:
        place = next(n for n, each in enumerate(self.functions) if each is function)
        return self.substances[place]


class Code(NamedTuple):
    """A snapshot of the attributes of gradest and torch."""

    owners: dict[Any, _Attributes]
    modules: int  # how many were imported then

    @classmethod
    def take(cls) -> "Code":
        return cls({owner: _Attributes.of(owner) for owner in _owners()}, len(sys.modules))

    @classmethod
    def current(cls) -> "Code":
        """A snapshot of this moment; most are what the one before them was.

        A process that a template has forked begins with the snapshot that the template has taken.
        """
        _latest[0] = _latest[0].retaken()
        return _latest[0]

    def retaken(self) -> "Code":
        """A snapshot of this moment, which takes up only what is new where nothing has changed."""
        if self._touched():
            return Code.take()
        if len(sys.modules) == self.modules:
            return self
        new = {owner: _Attributes.of(owner) for owner in _owners() if owner not in self.owners}
        return Code(self.owners | new, len(sys.modules))

    def changed(self) -> list[str]:
        """The full names of attributes replaced, deleted or overridden since the snapshot."""
        touched = self._touched()
        replaced = [
            (owner, name)
            for owner, before in touched
            for name, value in _counted(owner, before.values)
            if not _same(value, current := vars(owner).get(name), name)
            or (current is value and _rewritten(value, before))
        ]
        return [_full_name(*place) for place in (*replaced, *_overriding(touched))]

    def restore(self) -> None:
        touched = self._touched()
        for owner, name in _overriding(touched):
            delattr(owner, name)
        for owner, before in touched:
            for name, value in _counted(owner, before.values):
                if not _same(value, vars(owner).get(name), name):
                    setattr(owner, name, value)
                if _rewritten(value, before):
                    substance = before.substance(value)
                    value.__code__, value.__defaults__, value.__kwdefaults__ = substance

    def _touched(self) -> list[tuple[Any, _Attributes]]:
        return [
            (owner, before) for owner, before in self.owners.items() if not before.untouched(owner)
        ]


def changes(settings: Settings, code: Code) -> str:
    """A line that lists all changes since the snapshots; empty if there are none."""
    replaced = [f"replaces {name}" for name in code.changed()]
    return ", ".join([*(f"calls {name}" for name in settings.changed()), *replaced])


@contextmanager
def preserving(subject: str) -> Iterator[None]:
    """Run code of plugins in the block and restore the state of the process afterwards.

    Raises PluginError, whose message begins with `subject`, for code that replaces attributes on
    which other measurements rely.  Environment variables that the code sets are kept only in a
    process of its own, which a template has forked.
    """
    settings, environment = Settings.take(), dict(os.environ)
    code = Code.current()
    try:
        with warnings.catch_warnings():
            yield
        if replaced := code.changed():
            raise PluginError(
                f"{subject} replaces {', '.join(replaced[:3])}, on which other estimators and "
                "tasks rely"
            )
    finally:
        settings.restore()
        code.restore()
        if not _own[0]:
            _restore_environment(environment)


_own = [False]
_latest = [Code({}, 0)]  # most blocks begin where the one before them ended


def own_process() -> None:
    """Mark this process as one that a template has forked, which shares no state with others."""
    _own[0] = True


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _owners() -> Iterator[Any]:
    yield from _TORCH
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "gradest" and isinstance(module, ModuleType):
            yield module
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name:
                    yield value


def _counts(owner: Any, name: str, value: Any) -> bool:
    """Whether the attribute is code or a constant, and not state that changes by itself."""
    if owner in _TORCH:
        return isroutine(value) and not name.startswith("_")
    return not name.startswith("__") or isinstance(value, FunctionType)


def _counted(owner: Any, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in values.items() if _counts(owner, name, value)]


def _overriding(touched: list[tuple[Any, _Attributes]]) -> list[_Place]:
    """Attributes added since the snapshot that override inherited ones of a class.

    In a package whose names are loaded on first use, those that take the place of such a name.
    """
    return [
        (owner, name)
        for owner, before in touched
        for name, value in _counted(owner, vars(owner))
        if not (name in before.values and _counts(owner, name, before.values[name]))
        and _overrides(owner, name, value)
    ]


def _overrides(owner: Any, name: str, value: Any) -> bool:
    if isinstance(owner, type):
        return any(name in vars(base) for base in owner.__mro__[1:])
    load = None if owner in _TORCH else vars(owner).get("__getattr__")
    return load is not None and name in vars(owner)["__all__"] and load(name) is not value


def _same(value: Any, current: Any, name: str) -> bool:
    """Whether the attribute is unchanged.

    Constants are compared by value, since loading a plugin again sets the name of its class again.
    A function of torch may be replaced by another one of torch with the same name: torch wraps some
    of them, for example `torch.manual_seed`, when parts of it are first used.
    """
    if current is value:
        return True
    if isinstance(value, str | int | float):
        return type(current) is type(value) and current == value
    own = getattr(current, "__module__", None) or ""
    return own.partition(".")[0] == "torch" and getattr(current, "__name__", None) == name


def _rewritten(value: Any, before: _Attributes) -> bool:
    return type(value) is FunctionType and _substance(value) != before.substance(value)


def _full_name(owner: Any, name: str) -> str:
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}.{name}"
    return f"{owner.__name__}.{name}"
