"""Validation of journal records, so that code that reads them can rely on their structure.

Only keys and types are checked, which is fast.  The contents of a payload, such as the shapes of
tensors, are checked by the code that decodes it.
"""

from collections.abc import Callable, Mapping
from typing import Any

_Check = Callable[[Any], bool]

STATUSES = ("ok", "skipped", "failed")


def problem(record: Mapping[str, Any]) -> str:
    """The problem with a record, or an empty string."""
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return "not a record"
    if message := _mismatch(record, _KINDS[kind]):
        return message
    if not _is_count(record.get("version", 1)):  # in a header
        return "invalid value of 'version'"
    if not _is_blocks(record.get("blocks", [])):
        return "invalid value of 'blocks'"
    if kind != "cell":
        return ""
    kind, status = record["of"], record["status"]
    if kind not in _CELLS or status not in STATUSES:
        return f"unknown kind or status of a cell ({kind!r}, {status!r})"
    if message := _mismatch(record["cell"], _CELLS[kind]):
        return f"its cell: {message}"
    return _mismatch(record, _PAYLOADS[kind]) if status == "ok" else ""


def kind_of(cell: Mapping[str, Any]) -> str | None:
    """The kind of a cell, from its fields; None if it is of no kind."""
    return next((kind for kind, checks in _CELLS.items() if not _mismatch(cell, checks)), None)


def _mismatch(data: Mapping[str, Any], checks: Mapping[str, _Check]) -> str:
    """A message about the first missing key or invalid value, or an empty string."""
    for key, is_valid in checks.items():
        if key not in data:
            return f"missing key {key!r}"
        if not is_valid(data[key]):
            return f"invalid value of {key!r}"
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


def _is_blocks(value: Any) -> bool:
    return _is_table(value) and not any(_mismatch(block, _BLOCK) for block in value)


def _is_keys(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(key, str) for key in value)


def _is_size(value: Any) -> bool:
    return _is_count(value) and value >= 0


def _is_training(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("pictures"), dict):
        return False
    points = value.get("points")
    return isinstance(points, list) and all(isinstance(p, list) and len(p) == 7 for p in points)


def _is_descent(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("metrics"), dict):
        return False
    return _is_numbers(value.get("steps")) and _is_numbers(value.get("seconds"))


def _is_counts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_count, value))


_text, _mapping = _is(str), _is(dict)
_pair = {"task": _text, "task_knobs": _mapping, "estimator": _text, "estimator_knobs": _mapping}
_member = {**_pair, "seed": _is_count}
_KINDS: dict[str, dict[str, _Check]] = {
    "journal": {"suite": _text, "id": _text},
    "cell": {
        **{"of": _text, "key": _text, "cell": _mapping, "status": _text},
        "reason": _is(str, type(None)),
    },
    "reference": {"key": _text, "cell": _mapping, "reference": _mapping},
    "seconds": {"key": _text, "samples": _is_numbers},
}
_BLOCK: dict[str, _Check] = {
    "keys": _is_keys,
    "start": _is_size,
    "length": _is_size,
    "crc": _is_size,
}
_CELLS: dict[str, dict[str, _Check]] = {
    "measurement": {**_member, "dtype": _text},
    "training": {**_member, "learning_rate": _is_number},
    "descent": {**_pair, "learning_rate": _is_number, "seeds": _is_counts},
    "property": {"name": _text, "knobs": _mapping},
    "search": {"holds": _text, "for_all": _mapping, "estimators": _is(list)},
}
_PAYLOADS: dict[str, dict[str, _Check]] = {
    "measurement": {"measurement": _mapping, "reference": _is(str, type(None))},
    "training": {"training": _is_training},
    "descent": {"descent": _is_descent},
    "property": {"rows": _is_table},
    "search": {"search": _mapping, "files": _mapping},
}
