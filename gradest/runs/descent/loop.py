"""The descents of all seeds of a cell, in batches of as many seeds as one batch can hold."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gradest.contracts import built_in
from gradest.errors import NonFiniteGradient
from gradest.measurement import block_gap, stackable
from gradest.randomness import drawing_from
from gradest.runs.descent.curves import Curves
from gradest.runs.descent.descent import Descent
from gradest.runs.descent.recording import Recorder
from gradest.runs.training import ProgressFile

_NUMBERS = 2**22  # in the codes of one step of all seeds of a batch
_ROUNDING = 1e-6  # relative; blocks that notice each other differ by far more
_ADAPTED = 3  # steps, after which states differ
_TRIAL_STEPS = 5

Begin = Callable[[Sequence[int]], Descent]  # the descent of these seeds at its start


def descend(begin: Begin, seeds: Sequence[int], steps: int, folder: Path) -> Curves:
    """The curves of all seeds over these steps; `folder` is that of the progress file.

    Raises NonFiniteGradient where the objective is not finite before the first step, OSError where
    the folder cannot be written, and the errors of `Descent`.
    """
    size = batch_size(begin, seeds)
    batches = [seeds[i : i + size] for i in range(0, len(seeds), size)]
    progress = ProgressFile(folder, steps * len(batches))
    parts = []
    for number, own in enumerate(batches):
        parts.append(_descend_batch(begin(own), steps, progress, number * steps))
    progress.write(steps * len(batches))
    return Curves.of_batches(parts)


def batch_size(begin: Begin, seeds: Sequence[int]) -> int:
    """The number of seeds in a batch: one, where the estimator cannot serve several at once."""
    descent = begin(seeds[:1])
    estimator, task = descent.estimator, descent.task.base
    if not stackable(estimator):
        return 1
    # What the check `blocks` certifies for the catalogue is tested here for other code.
    certified = built_in(type(estimator)) and built_in(type(task))
    steps = min(estimator.adapt_steps, _ADAPTED)
    if not certified and block_gap(estimator, task, steps) > _ROUNDING:
        return 1
    with drawing_from(descent.draws("size")):
        descent.replicator.each(1)
    numbers = descent.logits.numel() * max(descent.replicator.evaluations, 1)
    return max(1, min(_NUMBERS // numbers, len(seeds)))


def _descend_batch(descent: Descent, steps: int, progress: ProgressFile, before: int) -> Curves:
    recorder, every = Recorder(descent), descent.settings.every
    at, seconds, records = [], [], []
    spent = 0.0
    start = time.perf_counter()
    while True:
        if descent.step % every == 0 or descent.step == steps:
            spent += time.perf_counter() - start
            at.append(descent.step)
            seconds.append(spent)
            records.append(recorder.measure())
            if descent.step == 0 and not records[0]["value"].isfinite().all():
                raise NonFiniteGradient(
                    f"{descent.estimator.name} on {descent.task.name}: expected a finite "
                    "objective at step 0, got NaN or inf"
                )
            start = time.perf_counter()
        if descent.step == steps:
            break
        progress.write(before + descent.step)
        descent.advance()
    metrics = {name: torch.stack([each[name] for each in records]) for name in records[0]}
    return Curves(at, seconds, metrics)


def seconds_expected(begin: Begin, seeds: Sequence[int], steps: int) -> float:
    """The time of all steps and records, from a trial of a batch."""
    size = batch_size(begin, seeds)
    descent = begin(seeds[:size])
    recorder = Recorder(descent)
    descent.advance()  # the first step also creates the state of the optimiser
    start = time.perf_counter()
    for _ in range(_TRIAL_STEPS):
        descent.advance()
    stepped = time.perf_counter()
    recorder.measure()
    recorded = time.perf_counter()
    records = 1 + -(-steps // descent.settings.every)
    one = (stepped - start) / _TRIAL_STEPS * steps + (recorded - stepped) * records
    return one * len(seeds) / size
