"""A Monte Carlo reference gradient, for tasks with neither an enumeration nor a closed form.

It is the mean of the best unbiased estimator of the catalogue for the task, on draws of its own,
until it is as precise as requested.  Its noise enters every interval and test that uses it.
"""

import math
from typing import Annotated

import torch
from annotated_types import Gt
from pydantic import AllowInfNan, BaseModel, ConfigDict
from torch import Tensor

from gradest.contracts import Estimator, Task, inapplicable
from gradest.costs import Problem, width
from gradest.errors import Inapplicable, UsageError
from gradest.measurement import enumerated_truth
from gradest.measurement.arguments import check_arguments
from gradest.measurement.measurement import measure
from gradest.measurement.progress import advance, display, phase
from gradest.measurement.result import Measurement
from gradest.measurement.truth import Reference
from gradest.plugins import catalogue_estimators, formula
from gradest.statistics import FEWEST

_PILOT = 512  # replicates by which the candidates are compared
# Numbers in the codes of all evaluations of f, of a pilot or of the reference: a minute or two.
_NUMBERS = 2**32


class ReferencePrecision(BaseModel):
    """The standard error requested for the whole mean, relative to ‖g‖, and the budget."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    standard_error: Annotated[float, Gt(0), AllowInfNan(False)] = 0.002
    # Evaluations of f at each data point; fewer where the codes have many numbers.
    max_evaluations: Annotated[int, Gt(0)] = 2_000_000


DEFAULT = ReferencePrecision()


def needs_reference(problem: Problem, closed: Tensor | None) -> bool:
    """Whether the true gradient can neither be enumerated nor has a closed form."""
    return closed is None and not enumerated_truth.enumerable(problem)


def measure_reference(
    task: Task,
    precision: ReferencePrecision = DEFAULT,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool | None = None,
) -> Reference:
    """Measure the gradient of a task whose true gradient is unknown.

    Candidates are the catalogue's unbiased estimators that do not adapt.  The one with the smallest
    variance × evaluations of f is chosen, by a pilot whose draws are not used again.  Candidates
    whose pilot alone would take more than 2³² numbers in its codes are left out.  `progress` is as
    in `gradest.measure`.  Raises UsageError where no candidate applies to the task.
    """
    check_arguments([], task, seed=seed, device=device)
    with display(f"reference of {task.name}", progress):
        return _measure_reference(task, precision, seed, device)


def _measure_reference(
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
        raise UsageError(
            f"{task.name}: expected an unbiased estimator of the catalogue that applies to the "
            "task, got none; enumerate a smaller problem, or define Task.expectation"
        )
    pilot = _measure_replicates(best, task, _PILOT, seed, device)
    # E‖mean − g‖² = tr Σ/R; ‖mean‖² of a pilot is too large by just that.
    noise = float(pilot.variance.sum())
    length = max(float(pilot.mean.square().sum()) - noise / _PILOT, 0.0)
    target = precision.standard_error**2 * length
    most = min(precision.max_evaluations, _NUMBERS // _numbers(problem))
    affordable = most // (pilot.evaluations + pilot.gradient_evaluations)
    replicates = affordable if target == 0 else min(affordable, math.ceil(noise / target))
    replicates = max(FEWEST, replicates)
    measurement = _measure_replicates(best, task, replicates, seed + 1, device)
    return Reference(best.name, measurement.gradients, measurement.objective)


def _numbers(problem: Problem) -> int:
    """The numbers in one code of each data point."""
    return len(problem.logits) * width(problem) // problem.f.samples


def _affordable(estimator: Estimator, task: Task, problem: Problem) -> bool:
    """Whether the estimator applies and its claimed evaluations of f are few enough for a pilot."""
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
        pilot = _measure_replicates(estimator, task, _PILOT, seed, device)
    except Inapplicable:
        return float("inf")
    return float(pilot.variance.sum()) * (pilot.evaluations + pilot.gradient_evaluations)


def _measure_replicates(
    estimator: Estimator, task: Task, replicates: int, seed: int, device: str | torch.device
) -> Measurement:
    # Replicates also where all draws could be enumerated: the noise needs their number, and there
    # are more outcomes than the true gradient was to be summed over.
    return measure(
        estimator, task, replicates=replicates, enumerate_draws=False, seed=seed, device=device
    )
