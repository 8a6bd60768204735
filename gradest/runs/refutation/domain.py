"""What a claim is to hold for all of: the keys of `for_all` in a suite, as spaces of problems."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradest.errors import UsageError
from gradest.plugins import Registry
from gradest.runs.claims import Relation
from gradest.runs.refutation.families import family_spaces
from gradest.runs.refutation.quantities import Contestant
from gradest.runs.refutation.search import EVALUATIONS
from gradest.runs.refutation.spaces import (
    DEGREES,
    MOST_CODES,
    SMALL_PROBLEMS,
    Range,
    Space,
    general_spaces,
)
from gradest.support import shortened, suggestion

GENERAL = "general"  # the word for general costs in place of a task
MOST_EVALUATIONS = 10**8

_SIZES = ("N", "K")
_OF_GENERAL = (*_SIZES, "degree", "logits", "costs")
_LARGEST = {"N": (1, 12), "K": (2, 64)}


def evaluations_of(for_all: Mapping[str, Any]) -> int:
    """The number of problems to search.  Raises UsageError for anything but a positive integer."""
    number = for_all.get("evaluations", EVALUATIONS)
    if not _is_integer(number) or not 1 <= number <= MOST_EVALUATIONS:
        raise UsageError(
            f"evaluations: expected an integer from 1 to {MOST_EVALUATIONS:,}, got "
            f"{shortened(number)}"
        )
    return number


def spaces_of(
    for_all: Mapping[str, Any], registry: Registry, contestants: Sequence[Contestant]
) -> list[Space]:
    """The spaces of problems, from small to large.  Raises UsageError for keys or values."""
    name = for_all.get("task", GENERAL)
    if not isinstance(name, str):
        raise UsageError(f"task: expected the name of a task, got {shortened(name)}")
    ranges = {key: v for key, v in for_all.items() if key not in ("task", "evaluations")}
    if name != GENERAL:
        lengths = [_size(key, ranges.pop(key)) for key in _SIZES if key in ranges]
        if len(lengths) > 1:
            raise UsageError("expected N or K, whichever the knobs of the task list, got both")
        numbers = [n for low, high in lengths for n in range(low, high + 1)]
        return family_spaces(registry.task(name), ranges, numbers)
    for key in ranges:
        if key not in _OF_GENERAL:
            raise UsageError(f"unknown key {shortened(key)}{suggestion(key, _OF_GENERAL)}")
    sizes = {key: _size(key, ranges.get(key, SMALL_PROBLEMS[key])) for key in _SIZES}
    if sizes["K"][1] ** sizes["N"][1] > MOST_CODES:
        raise UsageError(f"expected at most {MOST_CODES:,} codes, K^N, of general costs")
    # Off the codes f matters only to methods that go there.
    everywhere = any(each.cls.relaxes or each.cls.differentiates for each in contestants)
    degree = ranges.get("degree", DEGREES[-1] if everywhere else DEGREES[0])
    if not _is_integer(degree) or degree not in DEGREES:
        raise UsageError(f"degree: expected 1, 2 or 3, got {shortened(degree)}")
    boxes = {key: _range(key, ranges[key]) for key in ("logits", "costs") if key in ranges}
    return general_spaces(sizes["N"], sizes["K"], degree, **boxes)


def contestants_of(
    relation: Relation,
    estimators: Sequence[tuple[str, Mapping[str, Any], int]],
    registry: Registry,
) -> dict[str, Contestant]:
    """The estimator of every quantity, of these names, knobs and steps of adaptation."""
    known = {}
    for quantity, (name, knobs, steps) in zip(relation.quantities(), estimators, strict=True):
        plain = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in knobs.items())
        known[str(quantity)] = Contestant(registry.estimator(name), plain, steps)
    return known


def _size(key: str, value: Any) -> tuple[int, int]:
    """The least and the largest N or K, from an integer or a pair of them."""
    pair = value if isinstance(value, list | tuple) else [value, value]
    low, high = _LARGEST[key]
    if len(pair) != 2 or not all(map(_is_integer, pair)) or not low <= pair[0] <= pair[1] <= high:
        raise UsageError(
            f"{key}: expected an integer or a range [low, high] of them from {low} to {high}, got "
            f"{shortened(value)}"
        )
    return pair[0], pair[1]


def _range(key: str, value: Any) -> Range:
    numbers = isinstance(value, list | tuple) and len(value) == 2
    numbers = numbers and all(isinstance(v, int | float) and v is not True for v in value)
    if not numbers or not -1e6 <= value[0] < value[1] <= 1e6:
        raise UsageError(f"{key}: expected a range [low, high], got {shortened(value)}")
    return float(value[0]), float(value[1])


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
