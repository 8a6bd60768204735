"""The search for a problem on which a claim fails.

Differential evolution maximises the violation in each space, from few codes to many, and starts
again with twice as many generations until the budget is spent.  The first violation that fresh
draws confirm is minimised, and confirmed again.

Storn & Price, "Differential evolution: a simple and efficient heuristic for global optimization
over continuous spaces", Journal of Global Optimization 11, 1997.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy

from gradest.errors import Inapplicable, UsageError
from gradest.runs.refutation.minimisation import Point, minimise
from gradest.runs.refutation.spaces import Space
from gradest.runs.refutation.trial import Confirmation, Trial
from gradest.runs.refutation.violation import LEAST

EVALUATIONS = 10_000  # problems, by default

_POPULATION = 32
_GENERATIONS = 8  # of the first round


class Approach(NamedTuple):
    """How close to a violation, or how far beyond, a problem comes."""

    score: float  # the relative excess, less its noise
    left: float
    right: float
    error: float  # the standard error of their difference
    place: str  # the space


class Counterexample(NamedTuple):
    """A confirmed counterexample, minimised."""

    point: Point
    confirmation: Confirmation


@dataclass(frozen=True)
class Refutation:
    """The result of a search."""

    searched: int  # problems evaluated
    seconds: float
    exact: bool  # whether all of them were enumerated
    spaces: tuple[str, ...]
    closest: Approach | None  # of problems that do not violate the claim
    counterexample: Counterexample | None


def refute(
    trial: Trial,
    spaces: Sequence[Space],
    evaluations: int | None = EVALUATIONS,
    seconds: float | None = None,
    progress: Callable[[int, float], None] = lambda searched, score: None,
) -> Refutation:
    """Search the spaces for a counterexample until the budget is spent.

    `progress` is called with the number of problems and the highest score.  Raises UsageError
    where the estimators of the claim apply to none of the spaces.
    """
    search = _Search(trial, evaluations, seconds, progress)
    open_spaces = search.applicable(spaces)
    for generations in (_GENERATIONS * 2**i for i in itertools.count()):
        for space in open_spaces:
            if search.counterexample or search.spent:
                return search.result(open_spaces)
            search.explore(space, generations)


class _Search:
    """The state of a search: what was spent, the closest problem, and a counterexample."""

    def __init__(
        self,
        trial: Trial,
        evaluations: int | None,
        seconds: float | None,
        progress: Callable[[int, float], None],
    ) -> None:
        self._trial, self._evaluations, self._seconds = trial, evaluations, seconds
        self._progress = progress
        self._start = time.monotonic()
        self._runs = 0  # of the optimiser
        self._closest: Approach | None = None
        self._promising: Point | None = None
        self._error: ValueError | None = None
        self.counterexample: Counterexample | None = None

    def applicable(self, spaces: Sequence[Space]) -> list[Space]:
        """The spaces to which the estimators apply.  Raises UsageError where there is none."""
        kept, reason = [], "no problem"
        for space in spaces:
            try:
                self._trial.prepare(space, _population(space, np.random.default_rng(0)))
            except Inapplicable as error:
                reason = str(error)
            else:
                kept.append(space)
        if not kept:
            raise UsageError(f"the claim applies to no problem of the search: {reason}")
        return kept

    @property
    def spent(self) -> bool:
        used = time.monotonic() - self._start
        return (self._evaluations is not None and self._trial.evaluated >= self._evaluations) or (
            self._seconds is not None and used >= self._seconds
        )

    @property
    def _stopped(self) -> bool:
        return self.spent or self._promising is not None or self._error is not None

    def explore(self, space: Space, generations: int) -> None:
        """One run of the optimiser, which ends with the first violation that may be one."""
        self._runs += 1
        rng = np.random.default_rng((self._trial.seed, self._runs))
        self._promising = None
        scipy.optimize.differential_evolution(
            lambda x: -self._scores(space, x.T),
            space.bounds,
            strategy="rand1bin",
            maxiter=generations,
            init=_population(space, rng),
            atol=-1,  # equal violations in a population are not convergence
            polish=False,
            updating="deferred",
            vectorized=True,
            callback=lambda x, convergence: self._stopped,
            seed=rng,
        )
        if self._error is not None:
            raise self._error
        if self._promising is not None:
            self._conclude(self._promising)

    def _scores(self, space: Space, x: np.ndarray) -> np.ndarray:
        """The scores of rows x [P, V]; −1 where no more shall be evaluated."""
        # The budget is looked at between problems that take long.
        pieces = len(x) if self._trial.adaptive else 1
        parts = [self._scores_at_once(space, part) for part in np.array_split(x, pieces)]
        return np.concatenate(parts)

    def _scores_at_once(self, space: Space, x: np.ndarray) -> np.ndarray:
        idle = np.full(len(x), -1.0)
        if self._stopped:
            return idle
        try:
            tried = self._trial.on(space, x, self._runs)
        except Inapplicable:  # to none of these problems, but to others of the space
            return idle
        except ValueError as error:  # which scipy would replace by one of its own
            self._error = error
            return idle
        best = tried.best
        sides = (float(y[best]) for y in (tried.left, tried.right, tried.error))
        score = float(tried.score[best])
        highest = self._closest.score if self._closest else -1.0
        if score > LEAST:
            self._promising = Point(space, x[best])
        elif score > highest or self._closest is None:
            self._closest = Approach(score, *sides, str(space))
        self._progress(self._trial.evaluated, max(score, highest))
        return tried.score

    def _conclude(self, point: Point) -> None:
        """Confirm a violation, minimise it and confirm it again."""
        first = self._trial.confirm(*point)
        if first is None:
            return
        simple = minimise(self._trial, point)
        second = self._trial.confirm(*simple)
        self.counterexample = (
            Counterexample(point, first) if second is None else Counterexample(simple, second)
        )

    def result(self, spaces: Sequence[Space]) -> Refutation:
        return Refutation(
            self._trial.evaluated,
            time.monotonic() - self._start,
            self._trial.exact,
            tuple(map(str, spaces)),
            self._closest,
            self.counterexample,
        )


def _population(space: Space, rng: np.random.Generator) -> np.ndarray:
    """Half of it anywhere in the box, half at its ends and its middle, where extremes lie."""
    low, high = space.bounds.T
    u = rng.random((_POPULATION, len(low)))
    coarse = np.round(2 * u) / 2
    u[::2] = coarse[::2]
    return low + u * (high - low)
