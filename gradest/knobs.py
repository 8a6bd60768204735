"""Knobs: the typed, validated fields of estimators and tasks.

A knob is a hyperparameter: a dataclass field whose annotation defines its valid values, for
example `Annotated[float, Gt(0)]`.  The annotation validates the values in a suite and in a call
from Python.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from gradest.errors import KnobError, PluginError
from gradest.support import shortened, suggestion

Positive = Annotated[float, Gt(0)]
Probability = Annotated[float, Gt(0), Lt(1)]
AtLeast1 = Annotated[int, Ge(1)]
AtLeast2 = Annotated[int, Ge(2)]

# Infinities, NaN and the string "3" in place of the number 3 are invalid.
_CONFIG = ConfigDict(strict=True, allow_inf_nan=False)


class Knobs:
    """Base class of everything that is configured by typed dataclass fields.

    Its construction raises KnobError for a value that its annotation does not allow.
    """

    name: ClassVar[str]  # the stem of the plugin's file; the class name before it is registered

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def __post_init__(self) -> None:
        for knob, value in _validated(self):
            setattr(self, knob, value)

    @property
    def knobs(self) -> dict[str, Any]:
        """The values of all knobs as plain JSON data."""
        return {k: _plain(getattr(self, k)) for k in sorted(knob_types(type(self)))}


@cache
def knob_types(cls: type) -> Mapping[str, Any]:
    """knob -> annotation for all knobs of `cls`.

    Raises PluginError for annotated fields of a class that is not a dataclass, since they would
    silently not become knobs.
    """
    hints = get_type_hints(cls, include_extras=True)
    own = [k for k in vars(cls).get("__annotations__", {}) if get_origin(hints[k]) is not ClassVar]
    if own and "__dataclass_fields__" not in vars(cls):
        raise PluginError(
            f"{cls.__name__} declares the knobs {', '.join(own)} "
            "but is not a dataclass; add the decorator @dataclass(eq=False)"
        )
    return {f.name: hints[f.name] for f in fields(cls) if f.init} if is_dataclass(cls) else {}


def examine(cls: type) -> None:
    """Raises PluginError for a knob whose annotation cannot be used for validation."""
    try:
        hints = knob_types(cls)
    except (NameError, TypeError) as error:
        raise PluginError(f"{cls.__name__}: invalid annotation: {error}") from None
    for knob, hint in hints.items():
        try:
            _adapter(hint)
        except PydanticSchemaGenerationError:
            raise PluginError(
                f"{cls.__name__}: the knob {knob!r}: expected an annotation for numbers, strings, "
                f"booleans or tuples of them, got {hint}"
            ) from None


def knob_defaults(cls: type) -> dict[str, Any]:
    """knob -> default for the knobs that have one."""
    by_name = {f.name: f for f in fields(cls)} if is_dataclass(cls) else {}
    return {
        k: by_name[k].default if by_name[k].default is not MISSING else by_name[k].default_factory()
        for k in knob_types(cls)
        if by_name[k].default is not MISSING or by_name[k].default_factory is not MISSING
    }


def build(cls: type, knobs: Mapping[str, Any]) -> Any:
    """`cls(**knobs)`.

    Raises KnobError that names an unknown, missing or invalid knob.
    """
    types = knob_types(cls)
    for knob in knobs:
        if knob not in types:
            raise KnobError(f"{cls.name} has no knob {shortened(knob)}{suggestion(knob, types)}")
    missing = [k for k in types if k not in knobs and k not in knob_defaults(cls)]
    if missing:
        raise KnobError(f"{cls.name}: the knob {missing[0]!r} has no default; set it")
    return cls(**knobs)


def check_knobs(instance: Knobs) -> None:
    """Raises KnobError for a knob that was set to an invalid value after construction."""
    for _ in _validated(instance):
        pass


def grid(cls: type, knob: str, value: Any) -> list[Any]:
    """The list of values that a suite gives for a knob.

    For a scalar knob, a list is a grid.  For a knob that accepts sequences, a list is one value,
    and a list of lists, or of words that the knob accepts as well, is a grid.  Raises KnobError for
    an empty list.
    """
    if value == []:
        raise KnobError(f"{cls.name}: {knob}: expected at least one value, got an empty list")
    hint = knob_types(cls).get(knob)
    words = _words(hint)
    is_grid = isinstance(value, list) and (
        not _is_sequence(hint) or all(isinstance(v, list) or v in words for v in value)
    )
    return value if is_grid else [value]


def _validated(instance: Knobs) -> Iterator[tuple[str, Any]]:
    cls = type(instance)
    for knob, hint in knob_types(cls).items():
        yield knob, _validate(cls, knob, hint, getattr(instance, knob))


def _validate(cls: type, knob: str, hint: Any, value: Any) -> Any:
    if isinstance(value, list) and tuple in map(_origin, _members(hint)):  # YAML has no tuples
        value = tuple(value)
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        # Report the member of a union that accepts the longest part of the value.
        problem = max(error.errors(), key=lambda e: len(e["loc"]))
        where = "".join(f"[{i}]" for i in problem["loc"] if isinstance(i, int))
        assignment = f"{cls.name}: {knob}{where} = {shortened(problem['input'])}"
        raise KnobError(f"{assignment}: {problem['msg'].lower()}") from None


@cache
def _adapter(hint: Any) -> TypeAdapter:
    return TypeAdapter(hint, config=_CONFIG)


def _is_sequence(hint: Any) -> bool:
    return any(_origin(member) in (tuple, list, Sequence) for member in _members(hint))


def _words(hint: Any) -> list[Any]:
    return [
        word
        for member in _members(hint)
        if get_origin(member) is Literal
        for word in get_args(member)
    ]


def _members(hint: Any) -> Iterator[Any]:
    """The members of a union without their constraints; of another type, the type itself."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _members(get_args(hint)[0])
    elif origin in (Union, UnionType):
        for member in get_args(hint):
            yield from _members(member)
    else:
        yield hint


def _origin(hint: Any) -> Any:
    return get_origin(hint) or hint


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
