"""The result of a search in words, and as a row of plain data."""

from collections.abc import Sequence
from typing import Any

from gradest.runs.claims import Expression, Number, Operation, Relation
from gradest.runs.refutation.search import Approach, Refutation
from gradest.runs.refutation.trial import Confirmation
from gradest.statistics import Interval
from gradest.support import counted, interval, number

REFUTED, NOT_REFUTED = "refuted", "not refuted"
# The columns of a search in the tables of a run, besides the claim.
COLUMNS = ("verdict", "left", "right", "error", "place", "searched", "seconds", "exact", "p_value")


def describe(claim: str, relation: Relation, result: Refutation) -> str:
    """The result of a search as lines of text."""
    searched = f"{counted(result.searched, 'problem')} in {result.seconds:.1f} s"
    if result.counterexample is not None:
        (space, _), found = result.counterexample
        proof = (
            "all outcomes enumerated" if found.exact else f"on fresh draws, p = {found.p_value:.1g}"
        )
        return (
            f"refuted: {claim}\n"
            f"  {_sides(relation, found)}\n"
            f"  {space} ({proof}); searched {searched}"
        )
    how = "enumerated exactly" if result.exact else "estimated on common random numbers"
    closest = "both sides were equal up to rounding on all of them, or could not be compared"
    if result.closest is not None and result.closest.score > -1:
        sides = _sides(relation, result.closest)
        closest = f"closest approach: {sides} ({result.closest.place})"
    return (
        f"not refuted: {claim}\n"
        f"  searched {searched}, {how}: {_range(result.spaces)}\n"
        f"  {closest}\n"
        "  this does not prove the claim: other problems may refute it"
    )


def row(result: Refutation) -> dict[str, Any]:
    """COLUMNS as plain data: the sides at the counterexample, or at the closest approach."""
    common = {"searched": result.searched, "seconds": result.seconds}
    if result.counterexample is not None:
        point, found = result.counterexample
        sides = _numbers(found) | {"place": str(point.space)}
        tested = {"exact": found.exact, "p_value": found.p_value}
        return {"verdict": REFUTED, **sides, **common, **tested}
    closest = result.closest
    sides = _numbers(closest) | {"place": _range(result.spaces)}
    return {"verdict": NOT_REFUTED, **sides, **common, "exact": result.exact, "p_value": None}


def _numbers(sides: Approach | Confirmation | None) -> dict[str, float | None]:
    names = ("left", "right", "error")
    return {name: None if sides is None else getattr(sides, name) for name in names}


def _sides(relation: Relation, sides: Approach | Confirmation) -> str:
    """Both sides, and their difference with its interval where it is estimated."""
    texts = [
        f"{_text(side)} = {number(value)}"
        for side, value in ((relation.left, sides.left), (relation.right, sides.right))
        if not isinstance(side, Number)
    ]
    if sides.error > 0:
        difference = Interval.normal(sides.left - sides.right, sides.error)
        texts.append(f"left − right = {interval(*difference.ends)}")
    return ", ".join(texts)


def _text(expression: Expression) -> str:
    match expression:
        case Number(value):
            return number(value)
        case Operation(symbol, left, right):
            return f"{_text(left)} {symbol} {_text(right)}"
    return str(expression)


def _range(spaces: Sequence[str]) -> str:
    """The first space and the last one, which is the largest."""
    return spaces[0] if len(spaces) == 1 else f"{spaces[0]}, to {spaces[-1]}"
