"""Validation of the types and names of an estimator's claims, before tests of their truth."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from typing import Any, get_args

from gradest.contracts import Estimator
from gradest.costs import Objective
from gradest.errors import PluginError
from gradest.knobs import knob_types
from gradest.plugins import formula
from gradest.support import suggestion


def _is_count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 0


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


VERSION = "an integer of at least 1"


def is_version(x: Any) -> bool:
    """Whether x can be the version of a task or an estimator."""
    return _is_count(x) and x >= 1


_BOOLEAN = (lambda x: isinstance(x, bool), "True or False")
_STRING = (lambda x: isinstance(x, str), "a string")
_COUNT = (lambda x: x is None or _is_count(x), "a nonnegative integer or None")
_NAMES = (
    lambda x: isinstance(x, AbstractSet) and all(isinstance(name, str) for name in x),
    "a set of names",
)


def _are_aliases(x: Any) -> bool:
    """Whether x is a tuple of distinct names that a suite and a command line can give."""
    named = isinstance(x, tuple) and all(
        isinstance(name, str) and name.isidentifier() for name in x
    )
    return named and len(set(x)) == len(x)


EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "unbiased": _BOOLEAN,
    "relaxes": _BOOLEAN,
    "differentiates": _BOOLEAN,
    "categories": _COUNT,
    "outcomes": _COUNT,
    "owns_kl": _BOOLEAN,
    "objective": (lambda x: x in (None, *get_args(Objective)), "'bound', 'minimum' or None"),
    "evaluations": _STRING,
    "adapt_steps": (_is_count, "a nonnegative integer"),
    "version": (is_version, VERSION),
    "laws": _NAMES,
    "degree": (lambda x: x is None or _is_number(x), "a number or None"),
    "limit": (lambda x: isinstance(x, Mapping), "a mapping of knobs to values"),
    "aligned": _BOOLEAN,
    "own_distribution": _BOOLEAN,
    "aliases": (_are_aliases, "a tuple of distinct identifiers"),
    "slow": _STRING,
    "stackable": _BOOLEAN,
}


def examine(cls: type[Estimator]) -> None:
    """Raises PluginError for a claim of the wrong type and for names that are unknown."""
    knobs = knob_types(cls)
    for name, (fits, expected) in EXPECTED.items():
        claim = getattr(cls, name)
        if name in knobs:
            raise PluginError(
                f"{cls.__name__}: the claim {name!r} is annotated like a knob; "
                f"write `{name} = ...` without annotation"
            )
        if not fits(claim):
            raise PluginError(f"{cls.__name__}: {name}: expected {expected}, got {claim!r}")
    for name in vars(cls):
        near = get_close_matches(name, EXPECTED, n=1, cutoff=0.85)
        if near and name not in EXPECTED and name not in knobs:
            raise PluginError(f"{cls.__name__}: unknown claim {name!r}; did you mean {near[0]!r}?")
    if cls.evaluations:
        formula.examine(cls.evaluations, knobs, cls.__name__)
    for knob in cls.limit:
        if knob not in knobs:
            raise PluginError(
                f"{cls.__name__}: limit: unknown knob {knob!r}{suggestion(knob, knobs)}"
            )
    if cls.name in cls.aliases:
        raise PluginError(f"{cls.__name__}: aliases: {cls.name!r} is the name of the estimator")
    for name in ("aligned", "own_distribution"):
        if getattr(cls, name) and cls.unbiased:
            raise PluginError(f"{cls.__name__}: {name} is for methods with unbiased = False")
    if cls.limit and cls.degree is None:
        raise PluginError(f"{cls.__name__}: limit requires degree; declare degree as well")
