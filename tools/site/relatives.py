"""Which estimators are related, read off the classes and their docstrings."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from gradest.contracts import Estimator
from gradest.errors import PluginError
from gradest.plugins import citations


class Relative(NamedTuple):
    """Another estimator, and what connects it."""

    name: str
    why: str


def relatives(name: str, estimators: Mapping[str, type[Estimator]]) -> list[Relative]:
    """The relatives of an estimator: first those that docstrings compare, then the family."""
    cls = estimators[name]
    found: dict[str, str] = {}
    for other, theirs in estimators.items():
        if other == name:
            continue
        if _mentions(cls, theirs, estimators):
            found.setdefault(other, "compared in the description above")
        elif _mentions(theirs, cls, estimators):
            found.setdefault(other, f"its description refers to {name}")
        elif shared := _papers(cls) & _papers(theirs):
            found.setdefault(other, f"from the same publication: {min(shared)}")
    for other, theirs in estimators.items():
        if other not in found and other != name and (family := _family(cls) & _family(theirs)):
            found[other] = f"of the same family: {min(family)}"
    return [Relative(other, why) for other, why in found.items()]


def _mentions(
    cls: type[Estimator], other: type[Estimator], estimators: Mapping[str, type[Estimator]]
) -> bool:
    """Whether the docstring of a class has the name or an alias of another one.

    A name that is also a word, such as `exact`, counts in backticks alone.
    """
    text = citations.body(cls)
    taken = set(estimators) - {other.name}
    for word in {other.name, *other.aliases} - taken:
        pattern = rf"(?<![\w]){re.escape(word)}(?!\w)" if "_" in word else rf"`{re.escape(word)}`"
        if re.search(pattern, text):
            return True
    acronym = other.__name__
    distinct = sum(c.isupper() for c in acronym) > 1 and acronym != cls.__name__
    return distinct and bool(re.search(rf"(?<![\w-]){re.escape(acronym)}(?![\w-])", text))


def _papers(cls: type[Estimator]) -> set[str]:
    try:
        return {each.short for each in citations.parse(citations.citation(cls))}
    except PluginError:
        return set()


def _family(cls: type[Estimator]) -> set[str]:
    """The named bases between Estimator and the class."""
    return {
        base.__name__
        for base in cls.__mro__[1:]
        if issubclass(base, Estimator) and base is not Estimator
    }
