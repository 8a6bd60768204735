"""Knobs: the typed, validated fields of estimators and tasks.

A knob is a dataclass field whose annotation says what it can be, `Annotated[float, Gt(0)]`
for instance.  The same annotation validates a suite's YAML, a call from Python and fills `--list`.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from gradest.errors import KnobError, PluginError
from gradest.text import shortened

Positive = Annotated[float, Gt(0)]
Probability = Annotated[float, Gt(0), Lt(1)]
AtLeast1 = Annotated[int, Ge(1)]
AtLeast2 = Annotated[int, Ge(2)]

# No infinities or NaN, and "3" is not 3.
_CONFIG = ConfigDict(strict=True, allow_inf_nan=False)


_LONGEST_NAME = 100  # of which a likeness is looked for, which takes quadratic time


class Knobs:
    """Base of everything that is configured by typed dataclass fields.

    Raises KnobError on construction when a value does not fit its annotation.
    """

    name: ClassVar[str]  # the file's stem; of a class that no registry has seen, its own name

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def __post_init__(self) -> None:
        for knob, value in _validated(self):
            setattr(self, knob, value)

    @property
    def knobs(self) -> dict[str, Any]:
        """Every knob with its value, as plain JSON data."""
        return {k: _plain(getattr(self, k)) for k in sorted(knob_types(type(self)))}


@cache
def knob_types(cls: type) -> Mapping[str, Any]:
    """name -> annotation of the knobs of `cls`.

    Raises PluginError when annotated fields would silently not be knobs.
    """
    hints = get_type_hints(cls, include_extras=True)
    own = [k for k in vars(cls).get("__annotations__", {}) if get_origin(hints[k]) is not ClassVar]
    if own and "__dataclass_fields__" not in vars(cls):
        raise PluginError(
            f"{cls.__name__} declares the knobs {', '.join(own)} "
            "but lacks the decorator @dataclass(eq=False)"
        )
    return {f.name: hints[f.name] for f in fields(cls) if f.init} if is_dataclass(cls) else {}


def examine(cls: type) -> None:
    """Raises PluginError for a knob whose annotation says nothing that can be checked."""
    try:
        hints = knob_types(cls)
    except (NameError, TypeError) as error:
        raise PluginError(f"{cls.__name__} has an annotation that means nothing: {error}") from None
    for knob, hint in hints.items():
        try:
            _adapter(hint)
        except PydanticSchemaGenerationError:
            raise PluginError(
                f"{cls.__name__}: the knob {knob} is annotated {hint}; a knob is a number, a "
                "string, a truth value or a tuple of them"
            ) from None


def knob_defaults(cls: type) -> dict[str, Any]:
    """The defaults of the knobs that have one."""
    known = {f.name: f for f in fields(cls)} if is_dataclass(cls) else {}
    return {
        k: known[k].default if known[k].default is not MISSING else known[k].default_factory()
        for k in knob_types(cls)
        if known[k].default is not MISSING or known[k].default_factory is not MISSING
    }


def build(cls: type, knobs: Mapping[str, Any]) -> Any:
    """`cls(**knobs)`, with unknown and missing knobs reported by name.

    Raises KnobError.
    """
    known = knob_types(cls)
    for knob in knobs:
        if knob not in known:
            raise KnobError(f"{cls.name} has no knob {shortened(knob)}{suggestion(knob, known)}")
    missing = [k for k in known if k not in knobs and k not in knob_defaults(cls)]
    if missing:
        raise KnobError(f"{cls.name} needs the knob {missing[0]!r}")
    return cls(**knobs)


def check_knobs(instance: Knobs) -> None:
    """Raises KnobError for a knob that has been set to what it cannot be since construction."""
    for _ in _validated(instance):
        pass


def grid(cls: type, knob: str, value: Any) -> list[Any]:
    """The values that a suite's entry stands for.

    A list is a grid for a scalar knob, and one value for a knob that may be a sequence; there a
    list of lists, and of words that the knob takes as well, is the grid.  Raises KnobError for an
    empty list.
    """
    if value == []:
        raise KnobError(f"{cls.name}: {knob} is an empty list")
    hint = knob_types(cls).get(knob)
    words = _words(hint)
    is_grid = isinstance(value, list) and (
        not _is_sequence(hint) or all(isinstance(v, list) or v in words for v in value)
    )
    return value if is_grid else [value]


def suggestion(name: str, known: Iterable[str]) -> str:
    """What the user may have meant, as the tail of an error message."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name)[:_LONGEST_NAME], known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else "; it has none"


def _validated(instance: Knobs) -> Iterator[tuple[str, Any]]:
    cls = type(instance)
    for knob, hint in knob_types(cls).items():
        yield knob, _validate(cls, knob, hint, getattr(instance, knob))


def _validate(cls: type, knob: str, hint: Any, value: Any) -> Any:
    if isinstance(value, list) and tuple in map(_origin, _arms(hint)):  # YAML knows no tuples
        value = tuple(value)
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        # Of the arms of a union, the one that the value got furthest into.
        problem = max(error.errors(), key=lambda e: len(e["loc"]))
        where = "".join(f"[{i}]" for i in problem["loc"] if isinstance(i, int))
        wrong = f"{cls.name}: {knob}{where} = {shortened(problem['input'])}"
        raise KnobError(f"{wrong}: {problem['msg'].lower()}") from None


@cache
def _adapter(hint: Any) -> TypeAdapter:
    return TypeAdapter(hint, config=_CONFIG)


def _is_sequence(hint: Any) -> bool:
    return any(_origin(arm) in (tuple, list, Sequence) for arm in _arms(hint))


def _words(hint: Any) -> list[Any]:
    return [word for arm in _arms(hint) if get_origin(arm) is Literal for word in get_args(arm)]


def _arms(hint: Any) -> Iterator[Any]:
    """The types of a union, or the one type there is, without their constraints."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _arms(get_args(hint)[0])
    elif origin in (Union, UnionType):
        for arm in get_args(hint):
            yield from _arms(arm)
    else:
        yield hint


def _origin(hint: Any) -> Any:
    return get_origin(hint) or hint


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
