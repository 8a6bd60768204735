"""What a task gives, checked where a measurement begins: logits that are a distribution's."""

from typing import Any

from torch import Tensor

from gradest.contracts import Task
from gradest.costs import Cost, Problem
from gradest.errors import UsageError


def problem_of(task: Task) -> Problem:
    """The task's problem.

    Raises UsageError, naming the task, where that is no Problem, its cost is no Cost, or its logits
    are no [B, N, K] of floating numbers that are finite or −∞, with a finite one in each latent.
    """
    problem = task.problem()
    if not isinstance(problem, Problem):
        raise UsageError(
            f"{task.name}: problem() returned {_described(problem)}; expected a gradest.Problem of "
            "logits and a gradest.Cost"
        )
    if wrong := _wrong(problem.logits):
        raise UsageError(f"{task.name}: {wrong}")
    if not isinstance(problem.f, Cost):
        raise UsageError(
            f"{task.name}: the cost of its Problem is {_described(problem.f)}; expected a "
            "gradest.Cost, as Cost(fn)"
        )
    if problem.f.prior is not None and (wrong := _wrong_prior(problem.f.prior, problem.logits)):
        raise UsageError(f"{task.name}: {wrong}")
    return problem


def _wrong_prior(prior: Tensor, logits: Tensor) -> str:
    """What is wrong with the prior of these logits, or nothing."""
    if prior.shape not in (logits.shape[1:], logits.shape, (1, *logits.shape[1:])):
        return (
            f"the prior has shape {list(prior.shape)}; expected {list(logits.shape[1:])}, as the "
            "logits of each data point"
        )
    bad = prior.isnan() | prior.isposinf()
    return "the logits of the prior are NaN or inf" if bad.any() else ""


def _wrong(logits: Any) -> str:
    """What is wrong with the logits, or nothing."""
    if not isinstance(logits, Tensor):
        return f"the logits are {_described(logits)}; expected a torch.Tensor [B, N, K]"
    shape = list(logits.shape)
    if logits.ndim != 3:
        mend = {1: "logits[None, None]", 2: "logits[None]"}.get(logits.ndim)
        told = f"; {mend} adds the axes that are missing" if mend else ""
        return (
            f"the logits have shape {shape}; expected [B, N, K], data points, latents and "
            f"categories{told}"
        )
    if not logits.is_floating_point():
        return f"the logits are of {logits.dtype}; expected a floating dtype, as torch.float64"
    for axis, least, what in ((0, 1, "data point"), (1, 1, "latent"), (2, 2, "category")):
        if shape[axis] < least:
            few = f"{shape[axis]} {what}"
            return f"the logits have shape {shape}, {few}; expected [B, N, K] with K of at least 2"
    bad = logits.isnan() | logits.isposinf()
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        return (
            f"the logit at data point {place[0]}, latent {place[1]}, category {place[2]} is "
            f"{logits[place].item()}; expected finite numbers, or −inf for a masked category"
        )
    masked = logits.isneginf().all(-1)
    if masked.any():
        point, latent = masked.nonzero()[0].tolist()
        return f"all categories of latent {latent} at data point {point} are masked by −inf"
    return ""


def _described(given: Any) -> str:
    return "None" if given is None else f"a {type(given).__name__}"
