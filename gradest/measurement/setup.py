"""The setup of a measurement and of a comparison: the estimator bound to the task and adapted."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task, built_in
from gradest.errors import UsageError
from gradest.measurement.adaptation import AdaptationStep, adapt_and_measure
from gradest.measurement.cost_checks import CostProbe, probe_cost
from gradest.measurement.enumerated_moments import (
    LIMIT,
    ExactMoments,
    NotEnumerable,
    visit_outcomes,
)
from gradest.measurement.noise_checks import (
    RequestRecorder,
    check_noise,
    check_state_noise,
)
from gradest.measurement.problem_checks import problem_of
from gradest.measurement.replicator import PILOT_ROWS, Replicator
from gradest.measurement.row_independence import check_row_independence
from gradest.randomness import Draws, drawing_from, isolated_global_randomness

_NOT_REQUESTED = NotEnumerable("enumerate_draws is False")


class Setup(NamedTuple):
    """An estimator on a task, adapted."""

    replicator: Replicator
    chunk: int  # replicates that fit the memory budget at once
    adaptation: tuple[AdaptationStep, ...]
    probe: CostProbe | None  # the costs of some codes before the measurement, of a foreign task
    draws: bool  # whether a call requests noise, judged by one call
    by_reset: bool  # whether reset drew, and no step of adapt has changed the state since

    def check_cost_again(self) -> None:
        """Raise CostError where the cost differs from the one that was probed."""
        if self.probe is not None:
            self.probe.repeat()

    @property
    def title(self) -> str:
        """The names of estimator and task, for error messages."""
        return f"{self.replicator.estimator.name} on {self.replicator.task.name}"

    def enumerate_moments(
        self, enumerate_draws: bool | None, more: Callable[[Tensor], Tensor] | None = None
    ) -> ExactMoments | NotEnumerable:
        """The exact moments over all outcomes of the draws, or the reason to draw replicates.

        `enumerate_draws` is as in `measure`, `more` [B, R, N · K] -> [B, R, C] as in
        `exact_moments`.  Raises UsageError for True and draws that cannot be enumerated.
        """
        if enumerate_draws is False and self.draws:
            return _NOT_REQUESTED
        limit = 1 if enumerate_draws is False else LIMIT
        moments = visit_outcomes(self.replicator, limit, more, self.chunk)
        if isinstance(moments, ExactMoments) and moments.outcomes == 1:
            check_state_noise(self.replicator, self.by_reset)
        if enumerate_draws is False and isinstance(moments, NotEnumerable):
            return _NOT_REQUESTED
        if enumerate_draws and isinstance(moments, NotEnumerable):
            raise UsageError(
                f"{self.title}: the draws cannot be enumerated: {moments.reason}; pass "
                "enumerate_draws=None to draw replicates instead"
            )
        return moments


def prepare(
    estimator: Estimator,
    task: Task,
    steps: int,
    dtype: torch.dtype,
    device: str | torch.device,
    source: Draws,
) -> Setup:
    """Bind the estimator to the task and adapt it by `steps` steps; `source` is the one in use.

    Raises Inapplicable where the estimator does not apply to the task, CostError for a cost that is
    not a function of z and ContractError for an estimator whose rows share noise.  Tasks and
    estimators of the catalogue, which `--check` certifies, are not checked here again.
    """
    count = source.count
    replicator = Replicator(estimator, task, dtype, device)
    by_reset = source.count > count and steps == 0
    cost_probe = None
    if not built_in(type(task)):
        cost_probe = probe_cost(task.name, replicator.problem, replicator.logits)
        _check_same_problem(task, replicator.problem.logits)
    recorder = RequestRecorder(source.generator)  # the same draws
    with drawing_from(recorder):
        chunk = replicator.pilot(recorder)
    if not built_in(type(estimator)):
        check_noise(replicator, recorder.shapes, PILOT_ROWS, chunk)
        check_row_independence(replicator)
    adaptation = tuple(adapt_and_measure(replicator, steps, chunk))
    return Setup(replicator, chunk, adaptation, cost_probe, bool(recorder.shapes), by_reset)


def _check_same_problem(task: Task, logits: Tensor) -> None:
    """Raise UsageError for a task that does not give these logits again."""
    again = problem_of(task).logits
    if again.shape != logits.shape or not torch.equal(again, logits):
        raise UsageError(
            f"{task.name}: expected the same logits from each call of problem(), got other "
            "ones, so that two estimators would be measured on different problems; draw the logits "
            "from a torch.Generator with a fixed seed"
        )


def isolated_randomness(seed: int, *subjects: Estimator | Task) -> AbstractContextManager[None]:
    """Set the global random states by the seed within the context, and restore them after it.

    Nothing is done for the catalogue's own, which use no global state: threads that measure them
    share the states.
    """
    if all(built_in(type(subject)) for subject in subjects):
        return nullcontext()
    return isolated_global_randomness(seed)


def title_of(subject: Estimator | Task) -> str:
    """`name (knob=value)`, with every knob that is set."""
    knobs = {k: v for k, v in subject.knobs.items() if v is not None}
    parts = (f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in knobs.items())
    return f"{subject.name} ({', '.join(parts)})" if knobs else subject.name
