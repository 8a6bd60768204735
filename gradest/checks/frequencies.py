"""The distribution of the samples of a biased estimator, from the values of indicators as costs.

A value that estimates E f for every f is π for the indicator of a category.  On skewed categories
that shows another distribution of z far below the precision to which a cost of its own range does.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.checks.battery import Subject, estimates
from gradest.checks.problems import Linear, skewed
from gradest.checks.result import SINGLE, percent
from gradest.contracts import Task
from gradest.randomness import Draws
from gradest.statistics import normal_sf

_LOOKS = (40_000, 400_000)  # values of each category; the second number where the first is open
_ROWS = 2**16  # at once
_SHARP = 0.005  # the deviation of a probability that the values of a category must exclude


class Frequencies(NamedTuple):
    """The largest deviation of the mean value of an indicator from π, over the skewed problems."""

    size: float
    most: float  # the upper end of its interval
    deviates: bool  # chance does not explain it
    name: str  # of the problem

    @property
    def sharp(self) -> bool:
        return self.most <= _SHARP

    def text(self) -> str:
        return f"{percent(self.size)} in the probability of a category ({self.name})"


def frequencies(subject: Subject) -> Frequencies | None:
    """The deviation on the worst problem; it is exact where the draws are enumerated.

    None for an estimator that applies to none of them, and for bounds, which are not linear in f.
    """
    tasks = [task for task in skewed() if not subject.cls.objective and subject.applicable([task])]
    return max(
        (_exactly(subject, task) or _measured(subject, task) for task in tasks),
        key=lambda result: (result.deviates, result.most),
        default=None,
    )


def _exactly(subject: Subject, task: Linear) -> Frequencies | None:
    pi = task.problem().logits.softmax(-1).flatten()  # [N · K], of the only data point
    values = []
    for indicator in task.indicators():
        if not (moments := subject.exact_moments(indicator)):
            return None
        values.append(float(moments.value))
    size = float((torch.tensor(values, dtype=torch.float64) - pi).abs().max())
    return Frequencies(size, size, not size <= SINGLE, task.name)


def _measured(subject: Subject, task: Linear) -> Frequencies:
    """The same from values of each category, all of them in one call with a cost for each row."""
    pi = task.problem().logits.softmax(-1).flatten()  # [N · K]
    level = subject.level(len(_LOOKS)) / len(pi)
    for replicates in _LOOKS:
        values = _values(subject, task, replicates)  # [R, N · K]
        error = values.std(0) / len(values) ** 0.5
        deviation = (values.mean(0) - pi).abs()
        z = float((deviation / error.clamp(min=SINGLE)).max())
        result = Frequencies(
            float(deviation.max()),
            float((deviation + 2 * error).max()),
            2 * normal_sf(z) < level,
            task.name,
        )
        if result.deviates or result.sharp:
            break
    return result


def _values(subject: Subject, task: Task, replicates: int) -> Tensor:
    replicator, source = subject.prepare(task), Draws.seeded(replicates)
    _, latents, categories = replicator.logits.shape
    size = latents * categories
    rows = _ROWS // size * size
    change = _indicators(rows, latents, categories)
    parts = [
        estimates(replicator, change, rows, source)[:, -1].unflatten(0, (-1, size))
        for _ in range(-(-replicates * size // rows))
    ]
    return torch.cat(parts)


def _indicators(rows: int, latents: int, categories: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The cost z_nk in row r, with (n, k) the entry r mod N · K of a code."""
    size = latents * categories
    own = torch.eye(size, dtype=torch.float64).repeat(rows // size, 1)

    def change(z: Tensor, cost: Tensor) -> Tensor:  # z [1, rows, ..., N, K]
        middle = (1,) * (z.ndim - 4)
        return (z * own.view(1, rows, *middle, latents, categories).to(z)).sum((-2, -1))

    return change
