"""The bias at rare categories, which ordinary replicates cannot show."""

from typing import NamedTuple

import torch

from gradest.checks.battery import Subject
from gradest.checks.controlled_noise import UnevenNoise
from gradest.checks.problems import rare
from gradest.checks.problems import truth as truth_of
from gradest.checks.result import Outcome, percent
from gradest.contracts import Task
from gradest.measurement import ExactMoments
from gradest.statistics import BATCHES

# Logits that make categories rare, and the relative bias that rounding may cause there: 1 − π has a
# relative error of 10⁻¹⁶/(1 − π), and enters squared.  A guard of 10⁻¹² in a logarithm passes.
_RARE = {14.0: 1e-5, 23.0: 2e-2}
_TILTED = 14.0  # the size at which rare events can be made common
_MISSED = 5.0  # standard errors: twelve coordinates reach them once in 10⁵ seeds
_FEW = 16  # batches, which are enough if they are precise and show nothing suspicious
_CLEARLY_SHARP, _UNSUSPICIOUS = 0.1, 3.5
_RARELY_SHARP = 0.2  # the standard error of a coordinate; without rare events its error is 1


def rare_bias(subject: Subject) -> Outcome:
    """The bias of each coordinate at categories with a probability of 10⁻⁶ or 10⁻¹⁰.

    The norm of the whole gradient would not show an error at such categories.
    """
    if not subject.cls.unbiased:
        return "skipped", "unbiased = False"
    detail = "does not apply to the problems with rare categories"
    for size, tolerance in _RARE.items():
        for task in subject.applicable(rare(size)):
            if moments := subject.exact_moments(task):
                outcome = _exactly(moments, task, tolerance)
            elif size == _TILTED:
                outcome = _with_tilted_draws(subject, task)
            else:
                continue
            status, detail = outcome
            if status != "passed":
                return status, f"{detail} ({task.name})"
    return "passed", detail


def _exactly(moments: ExactMoments, task: Task, tolerance: float) -> Outcome:
    truth = truth_of(task).gradient
    gap = float(((moments.mean - truth) / truth).abs().max())
    detail = f"relative bias of a coordinate at most {percent(gap)}, enumerated"
    return ("passed" if gap <= tolerance else "failed"), detail


def _with_tilted_draws(subject: Subject, task: Task) -> Outcome:
    try:
        gradient, code = _deviations(subject, task, _FEW)
        if not _clear(gradient, code):
            gradient, code = _deviations(subject, task)
    except UnevenNoise as error:
        return "skipped", f"rare events cannot be made common: {error}"
    # Where an event depends on several draws the tilt covers only a part of it, and the standard
    # error does not show the rest.
    if code.error > _RARELY_SHARP or code.seldom > _MISSED:
        return "skipped", "its rare events depend on several draws at once"
    if code.often > _MISSED or code.never:
        ordinary = [_deviations(subject, task)[1] for task in subject.with_truth]
        if any(max(each.often, each.seldom) > _MISSED for each in ordinary):
            return "skipped", "the first code at which f is evaluated is not a sample"
        frequency = f"too often, z = {code.often:.1f}" if code.often > _MISSED else "never"
        return "failed", f"f is evaluated at a rare category {frequency}"
    detail = f"rare events made common, |z| = {gradient.z:.1f}"
    if gradient.z > _MISSED:
        return "failed", detail
    if gradient.error > _RARELY_SHARP:
        # No reason to reject: an estimator without a bias elsewhere may be noisy at small
        # coordinates.
        return (
            "skipped",
            f"the standard error is {gradient.error:.1g} times the smallest coordinate",
        )
    return "passed", f"{detail}, standard error {gradient.error:.1g} of its coordinate"


class _OfGradient(NamedTuple):
    """Over coordinates: the largest |z| and the largest relative standard error."""

    z: float
    error: float


class _OfCode(NamedTuple):
    """Over the categories of the first code: their deviations in frequency and their precision."""

    often: float  # the largest z
    seldom: float  # the largest −z
    error: float  # the largest standard error relative to the frequency seen
    never: bool  # some category does not occur


def _clear(gradient: _OfGradient, code: _OfCode) -> bool:
    """Whether few batches are precise enough and show no deviation."""
    sharp = gradient.error <= _CLEARLY_SHARP and code.error <= _RARELY_SHARP and not code.never
    return sharp and max(gradient.z, code.often, code.seldom) <= _UNSUSPICIOUS


def _deviations(
    subject: Subject, task: Task, batches: int = BATCHES
) -> tuple[_OfGradient, _OfCode]:
    """The deviations of ĝ from the gradient, and of the first code from π, with tilted draws."""
    moments, pi = subject.tilted_moments(task, batches), task.problem().logits.softmax(-1)
    error = (moments.m2[0] / moments.count).sqrt() / moments.count.sqrt()
    # Data points first, then the gradient or the code: [B, 2, N · K] each.
    error, mean = (x.unflatten(0, (len(pi), 2, -1)) for x in (error, moments.mean[0]))
    truth = truth_of(task).gradient.flatten(1)
    size = torch.maximum(mean[:, 0].abs(), truth.abs())
    gradient = _OfGradient(
        float(((mean[:, 0] - truth).abs() / error[:, 0]).max()), float((error[:, 0] / size).max())
    )
    occurs = mean[:, 1] > 0
    frequency, error, pi = mean[:, 1][occurs], error[:, 1][occurs], pi.flatten(1)[occurs]
    z = (frequency - pi) / error
    never = not bool(occurs.all())
    return gradient, _OfCode(
        float(z.max()), -float(z.min()), float((error / frequency).max()), never
    )
