"""The claims of a run in its report and on the terminal."""

import math
from collections.abc import Iterator, Sequence

from gradest.report.claims.judgement import (
    NOT_REFUTED,
    REFUTED,
    REPRODUCED,
    UNDECIDED,
    Judgement,
    Place,
    judge,
)
from gradest.report.documents.document import Folded, Part, Table, Tagged
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.ranking import LEVEL
from gradest.support import counted, measured, stated

_TAGS = {REPRODUCED: "good", REFUTED: "bad", UNDECIDED: "unsure", NOT_REFUTED: "unsure"}
HEADERS = ("claim", "source", "on", "published", "measured", "verdict")
_SEARCHED = ("claim", "counterexample, or closest approach", "problems searched", "verdict")
READING = (
    "A claim that compares two quantities is measured as their ratio, or as their difference where "
    "one may be negative; *published* is the value or the bound that the claim states. Brackets "
    "are 95 % intervals, each without correction. The verdicts are corrected for all claims of "
    f"this run together (Holm): with {100 * (1 - LEVEL):g} % probability none of them is wrong. "
    "Enumerated numbers are compared exactly. *Cannot tell* means that the noise is too large "
    "(use more replicates), or that an equality has no tolerance (replicates cannot confirm it "
    "without one). For a claim about all problems, a counterexample was searched for; the "
    "measured value is the left side minus the right one, at the counterexample or at the problem "
    "that came closest to one. *Not refuted* does not prove a claim."
)


def section(judgements: Sequence[Judgement]) -> Iterator[Part]:
    """The table of claims, in the order of the suite."""
    if not judgements:
        return
    yield "## Claims"
    yield f"{summary(judgements)}."
    yield Table(HEADERS, [line_of(each, each.decisive) for each in judgements], left=3)
    several = [each for each in judgements if len(each.places) > 1]
    if several:
        yield Folded(
            "Claims on each task",
            [Table(HEADERS, [line_of(j, p) for j in several for p in j.places], left=3)],
        )
    if reasons := list(reasons_of(judgements)):
        yield Table(("claim", "on", "why it has no number"), reasons, left=3)
    if searches := [each for each in judgements if each.decisive.searched]:
        yield Table(_SEARCHED, list(map(_search, searches)), left=2)
    yield Folded("How to read the claims", [READING])
    yield "Unrounded: `claims.csv`"


def summary(judgements: Sequence[Judgement]) -> str:
    """`12 claims: 10 reproduced, 1 refuted, 1 cannot tell`."""
    verdicts = [each.verdict for each in judgements]
    counts = [f"{verdicts.count(word)} {word}" for word in _TAGS if word in verdicts]
    return f"{counted(len(judgements), 'claim')}: {', '.join(counts)}"


def refuted_claims(run: LoadedRun) -> list[str]:
    """A line of plain text for each claim that is refuted."""
    return refutations(judge(run))


def refutations(judgements: Sequence[Judgement]) -> list[str]:
    """A line of plain text for each of them that is refuted."""
    return [
        f"claim refuted: {each.holds} {_described(each)}"
        for each in judgements
        if each.verdict == REFUTED
    ]


def _described(judgement: Judgement) -> str:
    place = judgement.decisive
    bound = f"{judgement.symbol} {stated(place.published)}"
    return f"on {place.name}: measured {measured(*place.interval.ends)}, claimed {bound}"


def line_of(judgement: Judgement, place: Place) -> list[str]:
    """The cells of a claim at one place, as `HEADERS` names them."""
    verdict = judgement.verdict if place is judgement.decisive else place.verdict
    published = "" if math.isnan(place.published) else stated(place.published)
    bound = published if place.symbol == "==" or not published else f"{place.symbol} {published}"
    return [
        judgement.says or judgement.holds,
        judgement.source,
        place.name,
        bound,
        measured(*place.interval.ends),
        Tagged(verdict, _TAGS[verdict]),
    ]


def _search(judgement: Judgement) -> list[str]:
    place = judgement.decisive
    verdict = Tagged(judgement.verdict, _TAGS[judgement.verdict])
    return [judgement.holds, place.nearest, f"{place.searched:,}", verdict]


def reasons_of(judgements: Sequence[Judgement]) -> Iterator[list[str]]:
    """The claims and places without a number, each with the reason."""
    for judgement in judgements:
        for place in judgement.places:
            if place.reason:
                yield [judgement.holds, place.name, place.reason]
