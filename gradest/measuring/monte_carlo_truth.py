"""A stand-in for the truth where neither enumeration nor a closed form reaches.

The best unbiased estimator of the catalogue for the task, on draws of its own, until the mean is
as precise as asked.  Its noise enters every interval and test that the truth enters.
"""

import math
from typing import Annotated

import torch
from annotated_types import Gt
from pydantic import AllowInfNan, BaseModel, ConfigDict
from torch import Tensor

from gradest import formula
from gradest.contracts import Estimator, Task, inapplicable
from gradest.costs import Problem, width
from gradest.errors import Inapplicable, UsageError
from gradest.measuring import enumeration
from gradest.measuring.arguments import check_arguments
from gradest.measuring.measurement import measure
from gradest.measuring.progress import advance, display, phase
from gradest.measuring.result import Measurement
from gradest.measuring.schedule import FEWEST
from gradest.measuring.truth import Reference
from gradest.registry import catalogue_estimators

_PILOT = 512  # replicates by which the candidates are compared
# In the codes of all evaluations of f, of a pilot or of the reference: a minute or two.
_NUMBERS = 2**32


class ReferencePrecision(BaseModel):
    """The standard error of the whole mean that is wanted, relative to ‖g‖, and the budget."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    standard_error: Annotated[float, Gt(0), AllowInfNan(False)] = 0.002
    # Of f, at each data point; fewer where the codes have many numbers.
    max_evaluations: Annotated[int, Gt(0)] = 2_000_000


DEFAULT = ReferencePrecision()


def needed(problem: Problem, closed: Tensor | None) -> bool:
    """Whether a truth can be neither enumerated nor, in closed form, written down."""
    return closed is None and not enumeration.enumerable(problem)


def measure_reference(
    task: Task,
    precision: ReferencePrecision = DEFAULT,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool | None = None,
) -> Reference:
    """Measure the gradient of a task whose truth is unknown.

    Candidates are the catalogue's unbiased estimators that need no adapting; the one with the least
    variance × evaluations of f is taken, judged by a pilot whose draws are not used again.  Those
    whose pilot alone would take more than 2³² numbers in its codes are left out.  `progress` is as
    in `gradest.measure`.  Raises UsageError where none applies to the task.
    """
    check_arguments([], task, seed=seed, device=device)
    with display(f"reference of {task.name}", progress):
        return _measured(task, precision, seed, device)


def _measured(
    task: Task, precision: ReferencePrecision, seed: int, device: str | torch.device
) -> Reference:
    best, least = None, float("inf")
    problem = task.problem()
    candidates = [
        cls()
        for cls in catalogue_estimators().values()
        if cls.unbiased and cls.adapt_steps == 0 and _affordable(cls(), task, problem)
    ]
    with phase("choosing an estimator", len(candidates)):
        for estimator in candidates:
            work = _work(estimator, task, seed, device)
            if work < least:
                best, least = estimator, work
            advance()
    if best is None:
        raise UsageError(f"{task.name}: no unbiased estimator of the catalogue applies")
    pilot = _sampled(best, task, _PILOT, seed, device)
    # E‖mean − g‖² = tr Σ/R; ‖mean‖² of a pilot is too large by just that.
    noise = float(pilot.variance.sum())
    length = max(float(pilot.mean.square().sum()) - noise / _PILOT, 0.0)
    wanted = precision.standard_error**2 * length
    most = min(precision.max_evaluations, _NUMBERS // _numbers(problem))
    affordable = most // (pilot.evaluations + pilot.gradient_evaluations)
    replicates = affordable if wanted == 0 else min(affordable, math.ceil(noise / wanted))
    replicates = max(FEWEST, replicates)
    found = _sampled(best, task, replicates, seed + 1, device)
    return Reference(best.name, found.gradients, found.objective)


def _numbers(problem: Problem) -> int:
    """In one code of each data point."""
    return len(problem.logits) * width(problem) // problem.f.samples


def _affordable(estimator: Estimator, task: Task, problem: Problem) -> bool:
    """Whether it applies to the task, and does not claim too many evaluations of f for a pilot."""
    if inapplicable(estimator, task, problem):
        return False
    if not estimator.evaluations:
        return True
    _, latents, categories = problem.logits.shape
    sizes = {"N": latents, "K": categories, "m": problem.f.samples}
    claimed = formula.value(estimator.evaluations, estimator.knobs | sizes, estimator.name)
    return _PILOT * claimed * _numbers(problem) <= _NUMBERS


def _work(estimator: Estimator, task: Task, seed: int, device: str | torch.device) -> float:
    try:
        pilot = _sampled(estimator, task, _PILOT, seed, device)
    except Inapplicable:
        return float("inf")
    return float(pilot.variance.sum()) * (pilot.evaluations + pilot.gradient_evaluations)


def _sampled(
    estimator: Estimator, task: Task, replicates: int, seed: int, device: str | torch.device
) -> Measurement:
    # Replicates also where all draws could be listed: noise needs their number, and the listing is
    # of more outcomes than the truth was to be summed over.
    return measure(
        estimator, task, replicates=replicates, enumerate_draws=False, seed=seed, device=device
    )
