"""What a record of a journal has to hold, so that whoever derives from it can rely on it.

Checked are keys and kinds, which takes no time.  What is inside a payload, such as the shapes of
tensors, is checked by what decodes it.
"""

from collections.abc import Callable, Mapping
from typing import Any

_Check = Callable[[Any], bool]

STATUSES = ("ok", "skipped", "failed")


def problem(record: Mapping[str, Any]) -> str:
    """What is wrong with a record, or nothing."""
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return "is not a record"
    if missing := _missing(record, _KINDS[kind]):
        return missing
    if not _is_count(record.get("version", 1)):  # of a header
        return "'version' is not what it should be"
    if kind != "cell":
        return ""
    of, status = record["of"], record["status"]
    if of not in _CELLS or status not in STATUSES:
        return f"is a cell of an unknown kind or status ({of!r}, {status!r})"
    if missing := _missing(record["cell"], _CELLS[of]):
        return f"its cell: {missing}"
    return _missing(record, _PAYLOADS[of]) if status == "ok" else ""


def _missing(data: Mapping[str, Any], checks: Mapping[str, _Check]) -> str:
    for key, right in checks.items():
        if key not in data:
            return f"lacks {key!r}"
        if not right(data[key]):
            return f"{key!r} is not what it should be"
    return ""


def _is(*kinds: type) -> _Check:
    return lambda value: isinstance(value, kinds) and (bool in kinds or value is not True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _is_training(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("pictures"), dict):
        return False
    points = value.get("points")
    return isinstance(points, list) and all(isinstance(p, list) and len(p) == 7 for p in points)


_text, _mapping = _is(str), _is(dict)
_member = {
    **{"task": _text, "task_knobs": _mapping, "estimator": _text, "estimator_knobs": _mapping},
    "seed": _is_count,
}
_KINDS: dict[str, dict[str, _Check]] = {
    "journal": {"suite": _text, "id": _text},
    "cell": {
        **{"of": _text, "key": _text, "cell": _mapping, "status": _text},
        "reason": _is(str, type(None)),
    },
    "reference": {"key": _text, "cell": _mapping, "reference": _mapping},
    "seconds": {"key": _text, "samples": _is_numbers},
}
_CELLS: dict[str, dict[str, _Check]] = {
    "measurement": {**_member, "dtype": _text},
    "training": {**_member, "learning_rate": _is_number},
    "property": {"name": _text, "knobs": _mapping},
}
_PAYLOADS: dict[str, dict[str, _Check]] = {
    "measurement": {"measurement": _mapping, "reference": _is(str, type(None))},
    "training": {"training": _is_training},
    "property": {"rows": _is_table},
}
