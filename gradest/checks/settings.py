"""Values of the knobs other than their defaults."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin

from gradest.contracts import Estimator
from gradest.errors import KnobError
from gradest.knobs import build, knob_defaults, knob_types

_TYPICAL: Mapping[type, tuple[Any, ...]] = {
    bool: (False, True),
    int: (1, 2, 3),
    float: (0.5, 1.0, 2.0),
}


def alternatives(cls: type[Estimator], knob: str) -> list[Any]:
    """Values that the knob can take and that differ from its default; none for free text."""
    default = knob_defaults(cls)[knob]
    hint = knob_types(cls)[knob]
    tried = [*_options(hint), *(_typical(hint) if default is None else _near(default))]
    return [value for value in tried if value != default and _possible(cls, knob, value)]


def variations(cls: type[Estimator]) -> list[dict[str, Any]]:
    """Settings with one other value of one knob, and the other knobs at their defaults."""
    return [{knob: value} for knob in knob_defaults(cls) for value in alternatives(cls, knob)]


def setting_text(knobs: Mapping[str, Any], *where: str) -> str:
    """The knobs as text, `temperature = 0.1, samples = 2`, followed by the place."""
    return ", ".join([*(f"{knob} = {value!r}" for knob, value in knobs.items()), *where])


@contextmanager
def naming(knobs: Mapping[str, Any], *where: str) -> Iterator[None]:
    """Add the values of the knobs to an error that is raised at them."""
    try:
        yield
    except Exception as error:
        if knobs:
            error.add_note(f"raised at {setting_text(knobs, *where)}")
        raise


def _near(default: Any) -> Iterator[Any]:
    if isinstance(default, bool):
        yield not default
    elif isinstance(default, int):
        yield from (default + 1, default - 1, 2 * default)
    elif isinstance(default, float):
        yield from (2 * default, default / 2, default + 1.0, (default + 1.0) / 2)


def _typical(hint: Any) -> Iterator[Any]:
    """Typical values that the annotation of a knob allows, where its default is None."""
    if isinstance(hint, type) and hint in _TYPICAL:
        yield from _TYPICAL[hint]
    for inner in get_args(hint):
        yield from _typical(inner)


def _options(hint: Any) -> Iterator[Any]:
    """The values of every Literal within the annotation."""
    for inner in get_args(hint):
        if get_origin(hint) is Literal:
            yield inner
        else:
            yield from _options(inner)


def _possible(cls: type[Estimator], knob: str, value: Any) -> bool:
    try:
        build(cls, {knob: value})
    except KnobError:
        return False
    return True
