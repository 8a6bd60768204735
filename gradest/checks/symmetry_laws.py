"""The laws of LAWS and PATHWISE that a class claims to obey.

Four of them, and the pathwise law, hold draw by draw, so they are tested with one seed; only
relabelling permutes the draws as well, and holds in distribution.  A law that is not claimed is
tested too, and reported as skipped with the result in the detail.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gradest.checks.battery import LOOKS, Subject, estimates
from gradest.checks.problems import Changed
from gradest.checks.result import EQUAL, QUOTIENT, STEP, Outcome, percent, relative_gap
from gradest.contracts import LAWS, PATHWISE, Task
from gradest.measurement import Measurement
from gradest.statistics import t_sf

_CONSTANT = 10.0
_FACTOR = -2.0  # negative, so that an absolute value in place of a signed number shows
# Numbers of replicates, each with the relative standard error of the second moment at which they
# are enough: a few are enough for an estimator of many samples.
_LOOKS = {4_000: 0.02, **dict.fromkeys(LOOKS, 0.05)}


def _symmetry(law: str, violation: Callable[[Subject, Task], float], subject: Subject) -> Outcome:
    claimed, worst, where = law in subject.cls.laws, 0.0, ""
    tolerance = QUOTIENT if law == PATHWISE else EQUAL
    # A divergence of the estimator's own is part of the objective and not multiplied with f.
    for task in subject.with_truth if law == "scale" else subject.tasks:
        gap = violation(subject, task)
        if not gap <= worst:
            worst, where = gap, task.name
    if not worst <= tolerance:
        violation = f"violated, with a relative error of {worst:.2g} ({where})"
        if claimed:
            return "failed", f"{violation}; correct the code, or claim laws without {law!r}"
        return "skipped", f"not claimed, and {violation}"
    if claimed:
        return "passed", "holds draw by draw"
    return "skipped", f"not claimed, but it holds: add {law!r} to `laws`"


def _gradients(subject: Subject, task: Task) -> Tensor:
    """The estimates under a fixed seed, [B · rows, N, K]."""
    return estimates(subject.prepare(task))[:, :-1].unflatten(1, task.problem().logits.shape[1:])


def _zero_sum(subject: Subject, task: Task) -> float:
    gradients = _gradients(subject, task)
    size = gradients.abs().max()
    return float(gradients.sum(-1).abs().max() / size) if size > 0 else 0.0


def _shift(subject: Subject, task: Task) -> float:
    def shifted(logits: Tensor) -> Tensor:
        return logits + torch.arange(3.0, 3.0 + logits.shape[1]).to(logits).unsqueeze(-1)

    return _gap(subject, task, Changed(task, logits=shifted), 1.0)


def _constant(subject: Subject, task: Task) -> float:
    return _gap(subject, task, Changed(task, costs=lambda cost: cost + _CONSTANT), 1.0)


def _scale(subject: Subject, task: Task) -> float:
    return _gap(subject, task, Changed(task, costs=lambda cost: _FACTOR * cost), _FACTOR)


def _gap(subject: Subject, task: Task, other: Task, factor: float) -> float:
    return relative_gap(factor * _gradients(subject, task), _gradients(subject, other))


def _pathwise(subject: Subject, task: Task) -> float:
    """The gap of ĝ along a direction to the difference quotient of the value, draw by draw."""
    logits = task.problem().logits
    direction = torch.linspace(-1.0, 1.0, logits.numel(), dtype=torch.float64).sin()
    direction = direction.view_as(logits)
    gradients = _gradients(subject, task).unflatten(0, (len(logits), -1))  # [B, rows, N, K]
    slope = (gradients * direction.unsqueeze(1)).sum((-2, -1)).flatten()
    up, down = (
        estimates(subject.prepare(Changed(task, logits=lambda x, s=step: x + s * direction)))[:, -1]
        for step in (STEP, -STEP)
    )
    return relative_gap(slope, (up - down) / (2 * STEP))


def _labels(subject: Subject) -> Outcome:
    """Mean and second moment of every coordinate after a cyclic permutation of the categories.

    They are tested in the initial state, since adaptation to other draws leads to another state.
    """
    if "labels" not in subject.cls.laws:
        return "skipped", "not claimed"
    worst = 0.0
    for task in subject.tasks:
        relabelled = Changed(task, logits=_relabel, codes=lambda z: z.roll(-1, -1), prior=_relabel)
        relabelled.name = f"{task.name}, relabelled"
        pair = tuple(subject.exact_moments(t, steps=0) for t in (task, relabelled))
        if all(pair):
            a, b = (torch.stack([x.mean, x.variance]) for x in pair)
            gap = relative_gap(a, b.roll(-1, -1))
            if gap > EQUAL:
                return "failed", f"mean or variance changes by {gap:.2g} ({task.name})"
            continue
        for replicates, enough in _LOOKS.items():
            a, b = (subject.measure(t, replicates, steps=0) for t in (task, relabelled))
            z, freedom, error = _compare(a, b)
            if 2 * t_sf(z, freedom) * 2 * a.logits.numel() < subject.level(len(_LOOKS)):
                return "failed", f"mean or second moment changes, |z| = {z:.1f} ({task.name})"
            if error <= enough:
                break
        else:
            return (
                "inconclusive",
                f"too noisy: standard error {percent(error)} of the second moment ({task.name})",
            )
        worst = max(worst, error)
    return "passed", "mean and second moment do not change" + (
        f", to {percent(worst)}" if worst else ", exactly"
    )


def _relabel(x: Tensor) -> Tensor:
    return x.roll(1, -1)


def _compare(a: Measurement, relabelled: Measurement) -> tuple[float, int, float]:
    """The largest |z| over coordinates and moments, its degrees of freedom, a relative error."""
    (m, s), (n, t) = (_batches(a, 0), _batches(relabelled, -1))
    batches, worst = len(m), 0.0
    for x, y in ((m, n), (s, t)):
        # Batch by batch: both use the same noise, so that they are not independent.
        difference = x - y  # [J, D]
        size, error = difference.mean(0).abs(), difference.std(0) / batches**0.5
        z = torch.where(size > EQUAL * x.abs().max(), size / error, 0.0)
        worst = max(worst, float(z.max()))
    total = s.sum(1)
    return worst, batches - 1, float(total.std() / batches**0.5 / total.mean())


def _batches(measurement: Measurement, roll: int) -> tuple[Tensor, Tensor]:
    """Mean and second moment of each batch, [J, D] each, in the order of the original labels."""
    moments, shape = measurement.gradient, measurement.logits.shape
    second = moments.m2 / moments.count.unsqueeze(1) + moments.mean.square()
    return tuple(x.unflatten(1, shape).roll(roll, -1).flatten(1) for x in (moments.mean, second))


def _laws(subject: Subject) -> Outcome:
    unknown = subject.cls.laws - LAWS - {PATHWISE}
    if unknown:
        return "failed", f"expected laws from {sorted(LAWS | {PATHWISE})}, got {sorted(unknown)}"
    return "passed", f"{len(subject.cls.laws)} of the {len(LAWS) + 1} laws are claimed"


SYMMETRY_LAWS: dict[str, Callable[[Subject], Outcome]] = {
    "laws": _laws,
    "zero sum": partial(_symmetry, "zero sum", _zero_sum),
    "shift": partial(_symmetry, "shift", _shift),
    "constant": partial(_symmetry, "constant", _constant),
    "scale": partial(_symmetry, "scale", _scale),
    PATHWISE: partial(_symmetry, PATHWISE, _pathwise),
    "labels": _labels,
}
