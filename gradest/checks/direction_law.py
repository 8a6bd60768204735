"""The direction of a biased mean: for an affine f, and for every f where `aligned` is claimed.

An estimator whose mean is the gradient times a positive number has the bias of a step size, which a
learning rate absorbs.  The number may differ between data points, whose logits differ.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gradest.checks.battery import LOOKS, SHARP, Subject
from gradest.checks.problems import of_degree, skewed, truth
from gradest.checks.result import SINGLE, Outcome, percent
from gradest.contracts import Task
from gradest.statistics import t_isf, t_sf


class _Direction(NamedTuple):
    """The part of a mean across the gradient relative to the whole, and whether it is certain."""

    cosine: float  # the smallest over data points
    across: float
    most: float  # the upper end of its 95 % interval; equal to it where the moments are exact
    certain: bool  # chance does not explain the part across

    @property
    def deviates(self) -> bool:
        return self.certain or self.cosine <= 0


def direction(subject: Subject) -> Outcome:
    """The mean of a biased estimator, which for an affine f has to point along the gradient."""
    if subject.cls.unbiased:
        return "skipped", "unbiased = True"
    for task in subject.applicable(of_degree(1)):
        low, high = _along(subject, task)
        if high <= 0:
            return "failed", f"for an affine f the mean points away from the gradient ({task.name})"
        if low <= 0:
            return "inconclusive", f"too noisy to show the direction of the mean ({task.name})"
    return _aligned(subject) if subject.cls.aligned else _not_aligned(subject)


def _aligned(subject: Subject) -> Outcome:
    most, worst = 0.0, ""
    for task in (*subject.with_truth, *subject.applicable(skewed())):
        current = _exactly(subject, task) or _measured(subject, task)
        where = f"{percent(current.across)} of the mean is across the gradient ({task.name})"
        if current.deviates:
            return "failed", f"aligned = True, but the cosine is {current.cosine:.4f}; {where}"
        if current.most > SHARP:
            return "inconclusive", f"too noisy: up to {percent(current.most)} of the mean, {where}"
        if current.most >= most:
            most, worst = current.most, task.name
    return "passed", f"the mean is a multiple of the gradient, to {percent(most)} ({worst})"


def _not_aligned(subject: Subject) -> Outcome:
    """Where the draws are enumerated, a mean that is a multiple of the gradient shows."""
    along = "for an affine f the mean points along the gradient"
    tasks = (*subject.with_truth, *subject.applicable(skewed()))
    exact = {task.name: _exactly(subject, task) for task in tasks}
    if all(exact.values()) and not any(each.deviates for each in exact.values()):
        return "passed", f"{along}; for every f, not claimed, but it holds: add aligned = True"
    hard = [f"{exact[t.name].cosine:.2f} ({t.name})" for t in skewed() if exact.get(t.name)]
    return "passed", f"{along}; its cosine where f is skewed: {', '.join(hard)}" if hard else along


def _along(subject: Subject, task: Task) -> tuple[float, float]:
    """An interval of the mean along the gradient; without noise the ends are equal."""
    gradient = truth(task).gradient.flatten()
    if moments := subject.exact_moments(task):
        mean = float(moments.mean.flatten() @ gradient)
        return mean, mean
    for replicates in LOOKS:
        low, high = _measured_along(subject, task, replicates, gradient)
        if low > 0 or high <= 0:
            break
    return low, high


def _measured_along(
    subject: Subject, task: Task, replicates: int, gradient: Tensor
) -> tuple[float, float]:
    """Each end of the interval misses at the level of a test."""
    batches = subject.measure(task, replicates).gradient.mean @ gradient  # [J]
    mean = float(batches.mean())
    if len(batches) == 1:
        return mean, mean
    half = float(t_isf(subject.level(), len(batches) - 1) * batches.std())
    half /= len(batches) ** 0.5
    return mean - half, mean + half


def _exactly(subject: Subject, task: Task) -> _Direction | None:
    """The direction where the draws are enumerated."""
    if not (moments := subject.exact_moments(task)):
        return None
    mean, gradient = moments.mean.flatten(1), truth(task).gradient.flatten(1)  # [B, N · K]
    across = _across(mean, gradient).norm(dim=1) / mean.norm(dim=1)
    cosine = torch.cosine_similarity(mean, gradient, dim=1)
    size = float(across.max())
    return _Direction(float(cosine.min()), size, size, not size <= SINGLE)


def _measured(subject: Subject, task: Task) -> _Direction:
    gradient = truth(task).gradient.flatten(1)  # [B, N · K]
    for replicates in LOOKS:
        batches = subject.measure(task, replicates).gradient.mean.unflatten(1, gradient.shape)
        mean, count = batches.mean(0), len(batches)  # [B, N · K], J
        across = _across(batches, gradient)  # [J, B, N · K]
        error = across.std(0) / count**0.5
        size, length = across.mean(0), mean.norm(dim=1)
        z = float(torch.where(error > 0, size.abs() / error, 0.0).max())
        p = 2 * t_sf(z, count - 1) * size.numel()
        most = (size.norm(dim=1) + 2 * error.norm(dim=1)) / length
        result = _Direction(
            float(torch.cosine_similarity(mean, gradient, dim=1).min()),
            float((size.norm(dim=1) / length).max()),
            float(most.max()),
            p < subject.level(),
        )
        if result.deviates or result.most <= SHARP:
            break
    return result


def _across(mean: Tensor, gradient: Tensor) -> Tensor:
    """The mean less its part along the gradient, for each data point: [..., B, N · K]."""
    share = (mean * gradient).sum(-1, keepdim=True) / gradient.square().sum(-1, keepdim=True)
    return mean - share * gradient
