"""Checks of the problem of a task, at the start of a measurement."""

from typing import Any

from torch import Tensor

from gradest.contracts import Task
from gradest.costs import Cost, Problem
from gradest.errors import UsageError


def problem_of(task: Task) -> Problem:
    """The task's problem.

    Raises UsageError, with the name of the task, unless that is a Problem with a Cost and with
    floating logits [B, N, K] that are finite or −∞, with a finite one in each latent.
    """
    problem = task.problem()
    if not isinstance(problem, Problem):
        raise UsageError(
            f"{task.name}: expected problem() to return a gradest.Problem of logits and a "
            f"gradest.Cost, got {_type_name(problem)}"
        )
    if reason := _logits_error(problem.logits):
        raise UsageError(f"{task.name}: {reason}")
    if not isinstance(problem.f, Cost):
        raise UsageError(
            f"{task.name}: expected the cost of the Problem to be a gradest.Cost, got "
            f"{_type_name(problem.f)}; write Problem(logits, Cost(fn))"
        )
    if problem.f.prior is not None and (reason := _prior_error(problem.f.prior, problem.logits)):
        raise UsageError(f"{task.name}: {reason}")
    return problem


def _prior_error(prior: Tensor, logits: Tensor) -> str:
    """The reason why this cannot be the prior of these logits, or an empty string."""
    if prior.shape not in (logits.shape[1:], logits.shape, (1, *logits.shape[1:])):
        return (
            f"expected a prior of shape {list(logits.shape[1:])}, as the logits of each data "
            f"point, got {list(prior.shape)}"
        )
    bad = prior.isnan() | prior.isposinf()
    return "expected finite logits of the prior, got NaN or inf" if bad.any() else ""


def _logits_error(logits: Any) -> str:
    """The reason why these cannot be logits, or an empty string."""
    if not isinstance(logits, Tensor):
        return f"expected logits as a torch.Tensor [B, N, K], got {_type_name(logits)}"
    shape = list(logits.shape)
    if logits.ndim != 3:
        remedy = {1: "logits[None, None]", 2: "logits[None]"}.get(logits.ndim)
        hint = f"; {remedy} adds the missing axes" if remedy else ""
        return (
            "expected logits of shape [B, N, K], data points, latents and categories, got "
            f"{shape}{hint}"
        )
    if not logits.is_floating_point():
        return f"expected logits of a floating dtype, got {logits.dtype}; use torch.float64"
    for size, least, axis in zip(shape, (1, 1, 2), ("point", "latent", "categories"), strict=True):
        if size < least:
            return f"expected logits [B, N, K] with at least {least} {axis}, got shape {shape}"
    bad = logits.isnan() | logits.isposinf()
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        return (
            "expected finite logits, or −inf for a masked category, got "
            f"{logits[place].item()} at data point {place[0]}, latent {place[1]}, category "
            f"{place[2]}"
        )
    masked = logits.isneginf().all(-1)
    if masked.any():
        point, latent = masked.nonzero()[0].tolist()
        return (
            f"all categories of latent {latent} at data point {point} are masked by −inf; "
            "expected at least one finite logit"
        )
    return ""


def _type_name(x: Any) -> str:
    return "None" if x is None else f"an object of type {type(x).__name__}"
