"""The laws of LAWS and PATHWISE that a class claims to obey.

Four of them, and the pathwise law, hold draw by draw, so they are tested under one seed; only
relabelling permutes the draws as well, and is a law of distributions.  A law that is not claimed
is looked at all the same, and the finding says what was seen.
"""

from collections.abc import Callable
from functools import partial

import torch
from scipy import stats
from torch import Tensor

from gradest.checks.finding import EQUAL, QUOTIENT, STEP, Outcome, relative_gap
from gradest.checks.problems import Changed
from gradest.checks.subject import LOOKS, Subject, estimates
from gradest.contracts import LAWS, PATHWISE, Task
from gradest.measuring.result import Measurement

_CONSTANT = 10.0
_FACTOR = -2.0  # negative, so that a size in the place of a signed number shows
# Replicates, and the relative standard error of the second moment that is enough of them: few show
# whether an estimator of many samples needs more.
_LOOKS = {4_000: 0.02, **dict.fromkeys(LOOKS, 0.05)}


def _symmetry(law: str, violation: Callable[[Subject, Task], float], subject: Subject) -> Outcome:
    claimed, worst, where = law in subject.cls.laws, 0.0, ""
    tolerance = QUOTIENT if law == PATHWISE else EQUAL
    # A multiple of f is none of an objective that has a divergence of the estimator's own besides.
    for task in subject.with_truth if law == "scale" else subject.tasks:
        gap = violation(subject, task)
        if not gap <= worst:
            worst, where = gap, task.name
    if not worst <= tolerance:
        told = f"broken by {worst:.2g}, relative to the largest estimate ({where})"
        mend = f"; mend it, or claim laws without {law!r}"
        return ("failed", told + mend) if claimed else ("skipped", f"not claimed, and {told}")
    if claimed:
        return "passed", "holds draw by draw"
    return "skipped", f"not claimed, yet it holds: `laws` may hold {law!r}"


def _gradients(subject: Subject, task: Task) -> Tensor:
    """[B · rows, N, K]"""
    return estimates(subject.ready(task))[:, :-1].unflatten(1, task.problem().logits.shape[1:])


def _zero_sum(subject: Subject, task: Task) -> float:
    found = _gradients(subject, task)
    size = found.abs().max()
    return float(found.sum(-1).abs().max() / size) if size > 0 else 0.0


def _shift(subject: Subject, task: Task) -> float:
    def shifted(logits: Tensor) -> Tensor:
        return logits + torch.arange(3.0, 3.0 + logits.shape[1]).to(logits).unsqueeze(-1)

    return _moved(subject, task, Changed(task, logits=shifted), 1.0)


def _constant(subject: Subject, task: Task) -> float:
    return _moved(subject, task, Changed(task, costs=lambda cost: cost + _CONSTANT), 1.0)


def _scale(subject: Subject, task: Task) -> float:
    return _moved(subject, task, Changed(task, costs=lambda cost: _FACTOR * cost), _FACTOR)


def _moved(subject: Subject, task: Task, other: Task, factor: float) -> float:
    return relative_gap(factor * _gradients(subject, task), _gradients(subject, other))


def _pathwise(subject: Subject, task: Task) -> float:
    """ĝ along a direction against the difference quotient of the value, draw by draw."""
    logits = task.problem().logits
    direction = torch.linspace(-1.0, 1.0, logits.numel(), dtype=torch.float64).sin()
    direction = direction.view_as(logits)
    found = _gradients(subject, task).unflatten(0, (len(logits), -1))  # [B, rows, N, K]
    slope = (found * direction.unsqueeze(1)).sum((-2, -1)).flatten()
    up, down = (
        estimates(subject.ready(Changed(task, logits=lambda x, s=step: x + s * direction)))[:, -1]
        for step in (STEP, -STEP)
    )
    return relative_gap(slope, (up - down) / (2 * STEP))


def _labels(subject: Subject) -> Outcome:
    """Mean and second moment of every coordinate, when the categories are renamed cyclically.

    In the initial state, since adapting to other draws leads to another state.
    """
    if "labels" not in subject.cls.laws:
        return "skipped", "not claimed"
    worst = 0.0
    for task in subject.tasks:
        renamed = Changed(task, logits=_renamed, codes=lambda z: z.roll(-1, -1), prior=_renamed)
        renamed.name = f"{task.name}, relabelled"
        pair = tuple(subject.enumerated(t, steps=0) for t in (task, renamed))
        if all(pair):
            a, b = (torch.stack([x.mean, x.variance]) for x in pair)
            gap = relative_gap(a, b.roll(-1, -1))
            if gap > EQUAL:
                return "failed", f"mean or variance moves by {gap:.2g} ({task.name})"
            continue
        for replicates, enough in _LOOKS.items():
            a, b = (subject.measured(t, replicates, steps=0) for t in (task, renamed))
            z, freedom, error = _compared(a, b)
            if 2 * stats.t.sf(z, freedom) * 2 * a.logits.numel() < subject.level(len(_LOOKS)):
                return "failed", f"mean or second moment moves, |z| = {z:.1f} ({task.name})"
            if error <= enough:
                break
        else:
            return "inconclusive", f"second moment known to {error:.0%} only ({task.name})"
        worst = max(worst, error)
    return "passed", "mean and second moment stay" + (f", to {worst:.1%}" if worst else ", exactly")


def _renamed(x: Tensor) -> Tensor:
    return x.roll(1, -1)


def _compared(a: Measurement, relabelled: Measurement) -> tuple[float, int, float]:
    """The largest |z| over coordinates and moments, its degrees of freedom, and how precise."""
    (m, s), (n, t) = (_batches(a, 0), _batches(relabelled, -1))
    batches, worst = len(m), 0.0
    for x, y in ((m, n), (s, t)):
        # Batch by batch: both are made of the same noise, so that they are not independent.
        difference = x - y  # [J, D]
        size, error = difference.mean(0).abs(), difference.std(0) / batches**0.5
        z = torch.where(size > EQUAL * x.abs().max(), size / error, 0.0)
        worst = max(worst, float(z.max()))
    total = s.sum(1)
    return worst, batches - 1, float(total.std() / batches**0.5 / total.mean())


def _batches(found: Measurement, roll: int) -> tuple[Tensor, Tensor]:
    """Mean and second moment of each batch: [J, D] each, in the order of the first labels."""
    moments, shape = found.gradient, found.logits.shape
    second = moments.m2 / moments.count.unsqueeze(1) + moments.mean.square()
    return tuple(x.unflatten(1, shape).roll(roll, -1).flatten(1) for x in (moments.mean, second))


def _known(subject: Subject) -> Outcome:
    unknown = subject.cls.laws - LAWS - {PATHWISE}
    if unknown:
        return "failed", f"laws has {sorted(unknown)}; possible: {sorted(LAWS | {PATHWISE})}"
    return "passed", f"claims {len(subject.cls.laws)} of {len(LAWS) + 1} laws"


SYMMETRY_LAWS: dict[str, Callable[[Subject], Outcome]] = {
    "laws": _known,
    "zero sum": partial(_symmetry, "zero sum", _zero_sum),
    "shift": partial(_symmetry, "shift", _shift),
    "constant": partial(_symmetry, "constant", _constant),
    "scale": partial(_symmetry, "scale", _scale),
    PATHWISE: partial(_symmetry, PATHWISE, _pathwise),
    "labels": _labels,
}
