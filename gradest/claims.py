"""Whether the claims of an estimator can be read, before anybody asks whether they are true."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from typing import Any

from gradest import formula
from gradest.contracts import Estimator
from gradest.errors import PluginError
from gradest.knobs import knob_types, suggestion


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 0


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


VERSION = "a whole number from 1 on"


def is_version(x: Any) -> bool:
    """Whether it can be the version of a task or an estimator."""
    return _whole(x) and x >= 1


_TRUTH = (lambda x: isinstance(x, bool), "True or False")
_TEXT = (lambda x: isinstance(x, str), "a string")
_COUNT = (lambda x: x is None or _whole(x), "a whole number or None")
_NAMES = (
    lambda x: isinstance(x, AbstractSet) and all(isinstance(each, str) for each in x),
    "a set of names",
)
EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "unbiased": _TRUTH,
    "relaxes": _TRUTH,
    "differentiates": _TRUTH,
    "categories": _COUNT,
    "outcomes": _COUNT,
    "owns_kl": _TRUTH,
    "bounds": _TRUTH,
    "evaluations": _TEXT,
    "adapt_steps": (_whole, "a whole number"),
    "version": (is_version, VERSION),
    "laws": _NAMES,
    "degree": (lambda x: x is None or _number(x), "a number or None"),
    "limit": (lambda x: isinstance(x, Mapping), "a mapping of knobs to values"),
    "slow": _TEXT,
}


def examine(cls: type[Estimator]) -> None:
    """Raises PluginError for a claim of another kind than it is read as, or of unknown names."""
    knobs = knob_types(cls)
    for name, (fits, expected) in EXPECTED.items():
        claim = getattr(cls, name)
        if name in knobs:
            raise PluginError(
                f"{cls.__name__}: {name} is a claim, and annotated as a knob; "
                "leave the annotation out, or write ClassVar"
            )
        if not fits(claim):
            raise PluginError(f"{cls.__name__}: {name} = {claim!r}; {expected} was expected")
    for name in vars(cls):
        near = get_close_matches(name, EXPECTED, n=1, cutoff=0.85)
        if near and name not in EXPECTED and name not in knobs:
            raise PluginError(f"{cls.__name__}: {name} claims nothing; is {near[0]!r} meant?")
    if cls.evaluations:
        formula.examine(cls.evaluations, knobs, cls.__name__)
    for knob in cls.limit:
        if knob not in knobs:
            raise PluginError(
                f"{cls.__name__}: limit names no knob {knob!r}{suggestion(knob, knobs)}"
            )
    if cls.limit and cls.degree is None:
        raise PluginError(f"{cls.__name__}: limit says nothing without degree")
