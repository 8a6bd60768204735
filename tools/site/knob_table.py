"""The knobs of a plugin, what each accepts and its default."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from gradest.knobs import knob_defaults, knob_types

_BOUNDS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


class Knob(NamedTuple):
    name: str
    accepts: str
    default: str


def knobs(cls: type) -> list[Knob]:
    """Every knob of a class, in the order of its fields."""
    defaults = knob_defaults(cls)
    return [
        Knob(name, _words(TypeAdapter(hint).json_schema()), _shown(defaults, name))
        for name, hint in knob_types(cls).items()
    ]


def _shown(defaults: Mapping[str, Any], name: str) -> str:
    return repr(defaults[name]) if name in defaults else "required"


def _words(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(map(_words, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        inside = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of: {_words(inside)}"
    kind = {"null": "null", "string": "text"}.get(schema.get("type", ""), schema.get("type", "any"))
    bounds = [f"{sign} {schema[key]}" for key, sign in _BOUNDS if key in schema]
    return " ".join([kind, ", ".join(bounds)]).strip()
