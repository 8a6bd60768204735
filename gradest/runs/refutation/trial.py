"""The trial of a claim on given problems: during a search, and again on fresh draws."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gradest.contracts import Task
from gradest.errors import Inapplicable
from gradest.measurement import ENUMERATED, Measurement, measure
from gradest.runs.claims import Quantity, Relation
from gradest.runs.refutation.quantities import Contestant, Noise, Statistics, Truth, statistics
from gradest.runs.refutation.spaces import Space
from gradest.runs.refutation.violation import LEAST, Violation, against_zero, violation
from gradest.statistics import t_sf

LEVEL = 1e-3  # chance that any of the confirmations of a search is wrong

_SEARCH = (1024, 16)  # replicates of each problem during a search, and their batches
_CHOICE = (2**14, 16)  # of variants of one problem
_FRESH = (2**16, 64)  # of a problem that is confirmed
_UNSEEN = 10**6  # the first seed of confirmations, beyond those of a search
_POWER = 6.0  # standard errors of the violation that a suite shall have
_FEWEST, _MOST = 10_000, 4_000_000  # replicates of such a suite


class Confirmation(NamedTuple):
    """A violation that fresh draws, or an enumeration, confirm."""

    left: float
    right: float
    error: float  # the standard error of their difference
    p_value: float  # 0 where both sides are exact
    replicates: int  # by which a suite shows it; 0 where it enumerates

    @property
    def exact(self) -> bool:
        return self.replicates == 0


@dataclass
class Trial:
    """A claim and the estimators that it is about, with the number of problems evaluated."""

    relation: Relation
    contestants: Mapping[str, Contestant]  # text of a quantity -> its estimator
    seed: int = 0
    evaluated: int = 0
    attempts: int = 0  # confirmations that were tried
    exact: bool = True  # whether every problem so far was enumerated
    _adapting: dict[Contestant, bool] = field(default_factory=dict)

    def on(self, space: Space, x: np.ndarray, noise: int) -> Violation:
        """The violation by the problems of rows x [P, V], in the draws of the seed `noise`.

        Raises Inapplicable where an estimator does not apply to them.
        """
        self.evaluated += len(x)
        result = self._violation(space, x, Noise(self.seed + noise, *_SEARCH))
        self.exact = self.exact and result.exact
        return result

    def choice(self, space: Space, x: np.ndarray) -> Violation:
        """The violation by rows x with less noise, for a choice among variants of one problem."""
        return self._violation(space, x, Noise(self.seed + _UNSEEN - 1, *_CHOICE))

    def confirm(self, space: Space, x: np.ndarray) -> Confirmation | None:
        """The violation by the row x [V] on draws that no search has seen; None without one.

        Where both sides are exact they are measured again, as `measure` does it.  Otherwise the
        excess is tested, or that a bias is not zero, at a level that all confirmations share.
        """
        self.attempts += 1
        task, seed = space.task(x[None]), self.seed + _UNSEEN + self.attempts
        fresh = self._violation(space, x[None], Noise(seed, *_FRESH))
        if fresh.exact:
            return self._measured(task)
        replicates, batches = _FRESH
        p = float(t_sf(fresh.errors[0], batches - 1))
        if against_zero(self.relation):
            p = self._measure(task, self.relation.left, seed).row()["p_value"]
        if not (p < LEVEL * 6 / (math.pi * self.attempts) ** 2 and fresh.score[0] > LEAST):
            return None
        needed = replicates * (_POWER / fresh.unpaired[0]) ** 2
        return Confirmation(
            float(fresh.left[0]),
            float(fresh.right[0]),
            float(fresh.error[0]),
            p,
            math.ceil(min(max(needed, _FEWEST), _MOST)),
        )

    def _measured(self, task: Task) -> Confirmation | None:
        """The violation by exact measurements."""
        rows = {str(q): self._measure(task, q, self.seed) for q in self.relation.quantities()}
        if any(each.method != ENUMERATED for each in rows.values()):
            return None

        def read(quantity: Quantity) -> np.ndarray:
            row = rows[str(quantity)].row()
            row |= {"bias": row["bias_norm"], "work_variance": row["variance"] * row["evaluations"]}
            return np.full((1, 1), row[quantity.name])

        measured = violation(self.relation, read)
        if not measured.score[0] > LEAST:
            return None
        return Confirmation(float(measured.left[0]), float(measured.right[0]), 0.0, 0.0, 0)

    def _measure(self, task: Task, quantity: Quantity, seed: int) -> Measurement:
        contestant = self.contestants[str(quantity)]
        return measure(
            contestant.built(),
            task,
            replicates=_FRESH[0],
            seed=seed,
            adapt_steps=contestant.adapt_steps,
            progress=False,
        )

    @property
    def adaptive(self) -> bool:
        """Whether an estimator adapts to each problem, so that each takes as long as many."""
        return any(self._adapting.values())

    def prepare(self, space: Space, x: np.ndarray) -> None:
        """Examine the estimators before a search.

        Raises Inapplicable where one of them applies to no problem of the rows x [P, V].
        """
        reason = Inapplicable(f"{space}: no valid problem")
        for _, task in space.groups(x):
            try:
                for contestant in self.contestants.values():
                    self._adapting[contestant] = contestant.adapts(task)
            except Inapplicable as error:
                reason = error
            else:
                return
        raise reason

    def _violation(self, space: Space, x: np.ndarray, noise: Noise) -> Violation:
        """Of the rows x.  Raises Inapplicable where an estimator applies to none of them."""
        parts, reason = [], Inapplicable(f"{space}: no valid problem")
        for rows, task in space.groups(x):
            try:
                parts.append((rows, self._of_task(space, x[rows], task, noise)))
            except Inapplicable as error:
                reason = error
        if not parts:
            raise reason
        return Violation.merged(parts, len(x))

    def _adapts(self, contestant: Contestant, task: Task) -> bool:
        if contestant not in self._adapting:
            self._adapting[contestant] = contestant.adapts(task)
        return self._adapting[contestant]

    def _of_task(self, space: Space, x: np.ndarray, task: Task, noise: Noise) -> Violation:
        truth = Truth.of(task)
        known: dict[Contestant, Statistics] = {}
        for contestant in dict.fromkeys(self.contestants.values()):
            if not self._adapts(contestant, task):
                known[contestant] = statistics(contestant, task, truth, noise)
                continue
            # The state of an adaptive estimator belongs to one problem.
            parts = [
                statistics(contestant, space.task(x[i : i + 1]), truth.at(i), noise, adapt=True)
                for i in range(len(x))
            ]
            known[contestant] = {
                name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]
            }
        result = violation(self.relation, lambda q: known[self.contestants[str(q)]][q.name])
        # Where the true gradient is zero there is nothing to estimate.
        flat = truth.gradient.norm(dim=-1).numpy() <= LEAST * truth.size
        return result._replace(score=np.where(flat, -1.0, result.score))
