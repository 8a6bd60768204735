"""Numerical checks of the properties of a distribution.

Each property is a class with knobs; `PROPERTIES` lists them all.  Statistical ones draw from a
seed.
"""

from collections.abc import Mapping
from typing import Any

from gradest.checks.properties.convexity import Convexity
from gradest.checks.properties.densities import Divergence, Integrates, Rounding
from gradest.checks.properties.limits import ColdLimit, HotLimit
from gradest.checks.properties.pathwise import Pathwise
from gradest.checks.properties.rows import LEVEL, ROWS, Property, Row
from gradest.errors import KnobError
from gradest.knobs import build
from gradest.support import suggestion

__all__ = [
    "LEVEL",
    "PROPERTIES",
    "ROWS",
    "Property",
    "Row",
    "find_property",
    "names",
    "run_property",
]

PROPERTIES: dict[str, type[Property]] = {
    each.name: each
    for each in (Integrates, Rounding, ColdLimit, HotLimit, Convexity, Pathwise, Divergence)
}


def names() -> list[str]:
    return list(PROPERTIES)


def find_property(name: str) -> type[Property]:
    """The property of this name.  Raises KnobError."""
    if name not in PROPERTIES:
        raise KnobError(f"unknown property {name!r}{suggestion(name, PROPERTIES)}")
    return PROPERTIES[name]


def run_property(name: str, settings: Mapping[str, Any], seed: int) -> list[Row]:
    """Check a property with these knobs.  Raises KnobError."""
    return build(find_property(name), settings).rows(seed)
