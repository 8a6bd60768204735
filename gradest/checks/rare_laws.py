"""The bias where categories are rare, which replicates would never show."""

from typing import NamedTuple

import torch

from gradest.checks.finding import Outcome, percent
from gradest.checks.problems import rare
from gradest.checks.problems import truth as truth_of
from gradest.checks.rigged import UnevenNoise
from gradest.checks.subject import Subject
from gradest.contracts import Task
from gradest.measuring.outcomes import Enumerated
from gradest.measuring.schedule import BATCHES

# Logits that make categories rare, and what rounding may do there: 1 − π has a relative error of
# 10⁻¹⁶/(1 − π), and enters squared.
_RARE = {14.0: 1e-6, 23.0: 1e-2}
_TILTED = 14.0  # the one where rare events can be made common
_MISSED = 5.0  # standard errors: twelve coordinates reach them once in 10⁵ seeds
_FEW = 16  # batches, which are enough where they show everything clearly and nothing odd
_CLEARLY_SHARP, _UNSUSPICIOUS = 0.1, 3.5
_RARELY_SHARP = 0.2  # the standard error of a coordinate; to lose every rare event is an error of 1


def rare_bias(subject: Subject) -> Outcome:
    """Where categories have a probability of 10⁻⁶ or 10⁻¹⁰, coordinate by coordinate.

    What is clamped or rounded away there is lost in the norm of the whole gradient.
    """
    if not subject.cls.unbiased:
        return "skipped", "unbiased = False"
    told = "applies to no such problem"
    for size, tolerance in _RARE.items():
        for task in subject.applicable(rare(size)):
            if found := subject.enumerated(task):
                outcome = _exactly(found, task, tolerance)
            elif size == _TILTED:
                outcome = _tilted(subject, task)
            else:
                continue
            status, told = outcome
            if status != "passed":
                return status, f"{told} ({task.name})"
    return "passed", told


def _exactly(found: Enumerated, task: Task, tolerance: float) -> Outcome:
    truth = truth_of(task).gradient
    gap = float(((found.mean - truth) / truth).abs().max())
    told = f"relative bias of a coordinate at most {percent(gap)}, enumerated"
    return ("passed" if gap <= tolerance else "failed"), told


def _tilted(subject: Subject, task: Task) -> Outcome:
    try:
        gradient, code = _deviations(subject, task, _FEW)
        if not _clear(gradient, code):
            gradient, code = _deviations(subject, task)
    except UnevenNoise as error:
        return "skipped", f"rare events cannot be made common: {error}"
    # Where an event hangs on several draws the tilt reaches a part of it, and what it misses leaves
    # no trace in the error.
    if code.error > _RARELY_SHARP or code.seldom > _MISSED:
        return "skipped", "its rare events hang on several draws at once"
    if code.often > _MISSED or code.never:
        ordinary = [_deviations(subject, task)[1] for task in subject.with_truth]
        if any(max(found.often, found.seldom) > _MISSED for found in ordinary):
            return "skipped", "what f sees first is no sample"
        how = f"too often, z = {code.often:.1f}" if code.often > _MISSED else "never"
        return "failed", f"f sees a rare category {how}"
    told = f"rare events made common, |z| = {gradient.z:.1f}"
    if gradient.z > _MISSED:
        return "failed", told
    if gradient.error > _RARELY_SHARP:
        # No reason to reject: who has no bias elsewhere may well be noisy where little is at stake.
        return "skipped", f"the noise is {gradient.error:.1g} times the smallest coordinate"
    return "passed", f"{told}, standard error {gradient.error:.1g} of its coordinate"


class _OfGradient(NamedTuple):
    """Over coordinates: the largest |z|, the largest standard error relative to what is there."""

    z: float
    error: float


class _OfCode(NamedTuple):
    """Over the categories that are seen: how surely too often or too seldom, and how well known."""

    often: float  # the largest z
    seldom: float  # the largest −z
    error: float  # the largest standard error relative to the frequency seen
    never: bool  # some category is not seen at all


def _clear(gradient: _OfGradient, code: _OfCode) -> bool:
    """Whether few batches already show all to be well."""
    sharp = gradient.error <= _CLEARLY_SHARP and code.error <= _RARELY_SHARP and not code.never
    return sharp and max(gradient.z, code.often, code.seldom) <= _UNSUSPICIOUS


def _deviations(
    subject: Subject, task: Task, batches: int = BATCHES
) -> tuple[_OfGradient, _OfCode]:
    """Of ĝ from the gradient, and of the first code that f sees from π, under tilted draws."""
    found, pi = subject.tilted(task, batches), task.problem().logits.softmax(-1)
    error = (found.m2[0] / found.count).sqrt() / found.count.sqrt()
    # Data points first, then the gradient or the code: [B, 2, N · K] each.
    error, mean = (x.unflatten(0, (len(pi), 2, -1)) for x in (error, found.mean[0]))
    truth = truth_of(task).gradient.flatten(1)
    size = torch.maximum(mean[:, 0].abs(), truth.abs())
    gradient = _OfGradient(
        float(((mean[:, 0] - truth).abs() / error[:, 0]).max()), float((error[:, 0] / size).max())
    )
    seen = mean[:, 1] > 0
    frequency, error, pi = mean[:, 1][seen], error[:, 1][seen], pi.flatten(1)[seen]
    z = (frequency - pi) / error
    never = not bool(seen.all())
    return gradient, _OfCode(
        float(z.max()), -float(z.min()), float((error / frequency).max()), never
    )
