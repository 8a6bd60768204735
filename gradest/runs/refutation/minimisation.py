"""A counterexample made simple: fewer latents, fewer categories, rounder numbers.

A variant is kept as long as it violates the claim by at least a share of what the first did, so
that a reader, or a suite with a moderate number of replicates, sees it as well.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from gradest.errors import UsageError
from gradest.runs.refutation.spaces import Space
from gradest.runs.refutation.trial import Trial
from gradest.runs.refutation.violation import LEAST

_SHARE = 0.25  # of the first violation that must remain
_DECIMALS = (0, 1, 2, 3)


class Point(NamedTuple):
    """A problem: a row of numbers of a space."""

    space: Space
    x: np.ndarray  # [V]


def minimise(trial: Trial, point: Point) -> Point:
    """The simplest variant of a problem that still violates the claim."""
    first = float(trial.choice(point.space, point.x[None]).score[0])
    least = max(_SHARE * first, LEAST)
    while (smaller := _best_smaller(trial, point, least)) is not None:
        point = smaller
    return _rounded(trial, point, least)


def _best_smaller(trial: Trial, point: Point, least: float) -> Point | None:
    """The variant with a latent or a category less that violates the claim most, if one does."""
    best, most = None, least
    for space, rows in _by_space(point.space.smaller(point.x)):
        x = np.stack(rows)
        try:
            score = trial.choice(space, x).score
        except UsageError:  # no task, or no estimator, has that size
            continue
        if score.max() > most:
            best, most = Point(space, x[score.argmax()]), float(score.max())
    return best


def _by_space(
    variants: Iterator[tuple[Space, np.ndarray]],
) -> Iterator[tuple[Space, list[np.ndarray]]]:
    for _, group in groupby(variants, lambda variant: id(variant[0])):
        members = list(group)
        yield members[0][0], [x for _, x in members]


def _rounded(trial: Trial, point: Point, least: float) -> Point:
    """With as few decimals as possible in every number, all of them first, then one by one."""
    space, x = point
    for decimals in _DECIMALS:
        candidate = space.rounded(x, decimals)
        if trial.choice(space, candidate[None]).score[0] > least:
            x = candidate
            break
    for i in range(len(x)):
        variants = np.repeat(x[None], 1 + len(_DECIMALS), 0)
        variants[0, i] = np.clip(0.0, *space.bounds[i])
        for row, decimals in zip(variants[1:], _DECIMALS, strict=True):
            row[i] = space.rounded(x, decimals)[i]
        variants = variants[np.sort(np.unique(variants[:, i], return_index=True)[1])]
        kept = np.flatnonzero(trial.choice(space, variants).score > least)
        if len(kept):
            x = variants[kept[0]]
    return Point(space, x)
