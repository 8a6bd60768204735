"""The result of a search in words, and as a row of plain data."""

from collections.abc import Sequence
from typing import Any

from gradest.runs.claims import Expression, Number, Operation, Relation
from gradest.runs.refutation.search import Refutation
from gradest.support import counted, number

REFUTED, NOT_REFUTED = "refuted", "not refuted"
# The columns of a search in the tables of a run, besides the claim.
COLUMNS = ("verdict", "left", "right", "place", "searched", "seconds", "exact", "p_value")


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
            f"  {_sides(relation, found.left, found.right)}\n"
            f"  {space} ({proof}); searched {searched}"
        )
    how = "enumerated exactly" if result.exact else "estimated on common random numbers"
    closest = "both sides were equal up to rounding on all of them, or could not be compared"
    if result.closest is not None:
        sides = _sides(relation, result.closest.left, result.closest.right)
        closest = f"closest approach: {sides} ({result.closest.place})"
    return (
        f"not refuted: {claim}\n"
        f"  searched {searched}, {how}: {_range(result.spaces)}\n"
        f"  {closest}\n"
        "  this is no proof: other problems may refute the claim"
    )


def row(result: Refutation) -> dict[str, Any]:
    """COLUMNS as plain data: the sides at the counterexample, or at the closest approach."""
    common = {"searched": result.searched, "seconds": result.seconds}
    if result.counterexample is not None:
        point, found = result.counterexample
        sides = {"left": found.left, "right": found.right, "place": str(point.space)}
        tested = {"exact": found.exact, "p_value": found.p_value}
        return {"verdict": REFUTED, **sides, **common, **tested}
    closest = result.closest
    sides = {
        "left": None if closest is None else closest.left,
        "right": None if closest is None else closest.right,
        "place": _range(result.spaces),
    }
    return {"verdict": NOT_REFUTED, **sides, **common, "exact": result.exact, "p_value": None}


def _sides(relation: Relation, left: float, right: float) -> str:
    texts = (
        text if (text := _text(side)) == number(value) else f"{text} = {number(value)}"
        for side, value in ((relation.left, left), (relation.right, right))
    )
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
