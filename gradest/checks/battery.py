"""An estimator class together with the problems of the battery to which it applies."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gradest.categorical import likeliest
from gradest.checks.controlled_noise import TiltedDraws, UnevenNoise, UniformCounter
from gradest.checks.problems import Changed, battery, of_samples
from gradest.contracts import Estimator, Task, inapplicable
from gradest.knobs import build
from gradest.measurement import (
    ExactMoments,
    Measurement,
    Replicator,
    exact_moments,
    measure,
    owns_kl,
    problem_for,
)
from gradest.plugins import claims
from gradest.randomness import Draws, drawing_from
from gradest.statistics import BATCHES, Moments

LOOKS = (40_000, 400_000)  # replicates; the second number where the first leaves a law open
FALSE_ALARM = 1e-4  # the probability that a statistical law rejects an estimator that obeys it
SHARP = 0.05  # the deviation that a measurement must exclude, relative to gradient or costs
TILTED = 4096  # replicates in each of the batches whose rare events are made common
OUTCOMES = 200_000  # of the draws of one estimate up to which they are enumerated
DEFAULTS: Mapping[str, Any] = MappingProxyType({})

ROWS = 16
# Adaptation steps.  E ĝ has to be right in every state, so it is enough to leave the initial one.
BRIEFLY, LONGER = 5, 100


class Subject:
    """An estimator class, and the problems of the battery to which it applies.

    Raises PluginError for invalid claims, and any error of building the class.
    """

    def __init__(self, cls: type[Estimator]) -> None:
        claims.examine(cls)
        self.cls = cls
        self.create()
        every = battery(cls)
        self.tasks = self.applicable(every)
        self.skipped = [reason for task in every if (reason := self._inapplicable(task))]
        # With a divergence of its own the objective is another one, whose truth is unknown.
        self.with_truth = [task for task in self.tasks if not self._own_kl(task)]
        self._measured: dict[tuple, Measurement] = {}
        self._enumerated: dict[tuple, ExactMoments | None] = {}
        self._tilted: dict[str, tuple[list[Moments], Iterator[Moments]]] = {}

    def applicable(self, tasks: Iterable[Task]) -> list[Task]:
        """The tasks to which the class applies, with its objective if it takes only that."""
        if objective := self.cls.objective:
            tasks = [t if _has_samples(t) else of_samples(t, objective) for t in tasks]
        return [task for task in tasks if not self._inapplicable(task)]

    def _own_kl(self, task: Task) -> bool:
        return owns_kl(self.create(), task.problem().f)

    def _inapplicable(self, task: Task) -> str | None:
        return inapplicable(self.create(), task, task.problem())

    def create(self, knobs: Mapping[str, Any] = DEFAULTS) -> Estimator:
        return build(self.cls, knobs)

    def prepare(
        self,
        task: Task,
        dtype: torch.dtype = torch.float64,
        steps: int = BRIEFLY,
        used: Estimator | None = None,
        knobs: Mapping[str, Any] = DEFAULTS,
        seed: int = 0,
    ) -> Replicator:
        """A new instance, or the used one, on the task, reset and adapted with this seed."""
        with drawing_from(Draws.seeded(seed)):
            replicator = Replicator(used or self.create(knobs), task, dtype)
            replicator.adapt(min(self.cls.adapt_steps, steps))
        return replicator

    def measure(
        self,
        task: Task,
        replicates: int,
        knobs: Mapping[str, Any] = DEFAULTS,
        steps: int = LONGER,
    ) -> Measurement:
        steps = min(self.cls.adapt_steps, steps)  # the key must not depend on a larger limit
        key = (task.name, replicates, steps, *knobs.items())
        if key not in self._measured:
            self._measured[key] = measure(
                self.create(knobs),
                task,
                replicates=replicates,
                enumerate_draws=False,
                seed=replicates,
                adapt_steps=steps,
                progress=False,
            )
        return self._measured[key]

    def exact_moments(
        self, task: Task, knobs: Mapping[str, Any] = DEFAULTS, steps: int = BRIEFLY
    ) -> ExactMoments | None:
        """The exact moments, where the draws have finitely many outcomes and few enough."""
        steps = min(self.cls.adapt_steps, steps)
        key = (task.name, steps, *knobs.items())
        if key not in self._enumerated:
            replicator = self.prepare(task, steps=steps, knobs=knobs)
            self._enumerated[key] = exact_moments(replicator, OUTCOMES)
        return self._enumerated[key]

    def tilted_moments(self, task: Task, batches: int = BATCHES) -> Moments:
        """Moments of ĝ and of the first code at which f is evaluated, with rare events made common.

        They are weighted so that the means are E ĝ and, where that code is a sample, π:
        [1, B · 2 · N · K].  Further batches continue where the last call ended.  Raises UnevenNoise
        where the estimator does not draw row by row, equally often for each row.
        """
        parts, more = self._tilted.setdefault(task.name, ([], self._tilted_batches(task)))
        parts.extend(islice(more, batches - len(parts)))
        return Moments.stacked(parts).pooled

    def _tilted_batches(self, task: Task) -> Iterator[Moments]:
        codes: list[Tensor] = []

        def watch(z: Tensor) -> Tensor:
            codes.append(z.detach())
            return z

        replicator = self.prepare(Changed(task, codes=watch))
        generator, points = torch.Generator().manual_seed(1), len(replicator.logits)
        counted = UniformCounter(points, generator)
        with drawing_from(counted):
            replicator.each(1)
        if counted.uneven:
            raise UnevenNoise(counted.uneven)
        if not counted.each:
            raise UnevenNoise("the estimator draws no uniforms")
        shape = replicator.logits.shape[1:]
        while True:
            codes.clear()
            source = TiltedDraws(points * TILTED, counted.each, generator)
            with drawing_from(source):
                gradient, _ = replicator.each(TILTED)  # [B, R, N · K]
            first = codes[0].reshape(points, TILTED, -1, *shape)[:, :, 0]  # [B, R, N, K]
            code = likeliest(first).flatten(2)
            weight = source.weight.view(points, TILTED, 1)
            both = weight * torch.cat([gradient, code], 2)  # [B, R, 2 · N · K]
            yield Moments.of(both.transpose(0, 1).flatten(1).unsqueeze(0))

    def level(self, looks: int = len(LOOKS)) -> float:
        """The level of each of the tests of a statistical law."""
        return FALSE_ALARM / (looks * len(self.tasks))


def _has_samples(task: Task) -> bool:
    return task.problem().f.samples > 1


def estimates(
    replicator: Replicator,
    change: Callable[[Tensor, Tensor], Tensor] = lambda z, cost: cost,
    rows: int = ROWS,
    source: Draws | None = None,
) -> Tensor:
    """The gradient and the value of each row in one call with a fixed seed: [B · rows, N · K + 1].

    f(z) is replaced by change(z, f(z)), where z is [B, rows, ..., N, K].  Raises ValueError when
    the estimator returns, or evaluates f for, anything but one item a row.
    """
    problem, points = replicator.problem, len(replicator.logits)

    def fn(z: Tensor) -> Tensor:
        if z.shape[1] != rows:
            raise ValueError(f"expected f to be called for all {rows} rows, got {z.shape[1]}")
        return change(z, problem.f.fn(z))

    logits = replicator.logits.repeat_interleave(rows, 0).requires_grad_()
    f = problem.f.changed(fn).replicated(points, logits)
    with drawing_from(source or Draws.seeded(1)):
        value = replicator.estimator(*problem_for(replicator.estimator, logits, f))
    if not isinstance(value, Tensor) or value.shape != logits.shape[:1]:
        got = list(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(f"expected one value a row, shape [{len(logits)}], got {got}")
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return torch.cat([gradient.flatten(1), value.detach().unsqueeze(1)], 1)
