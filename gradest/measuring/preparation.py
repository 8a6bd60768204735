"""What a measurement and a comparison begin with: what is asked for, and an estimator adapted."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task, built_in
from gradest.errors import UsageError
from gradest.measuring.adaptation import Look, adapted
from gradest.measuring.company import refuse_talking_rows
from gradest.measuring.noise import (
    Watched,
    refuse_odd_noise,
    refuse_shared_by_state,
)
from gradest.measuring.outcomes import LIMIT, Enumerated, Unlisted, visit_outcomes
from gradest.measuring.probes import Probed, probe
from gradest.measuring.problems import problem_of
from gradest.measuring.replicator import PILOT_ROWS, Replicator
from gradest.randomness import Draws, drawing_from, global_randomness_kept

_NOT_ASKED_FOR = Unlisted("enumerate_draws is False")


class Prepared(NamedTuple):
    """An estimator on a task, adapted."""

    replicator: Replicator
    chunk: int  # replicates that fit the memory budget at once
    looks: tuple[Look, ...]  # at its variance on the way
    probed: Probed | None  # what the cost was before, where it was tried
    draws: bool  # whether a call asks for noise, as far as one that was looked at tells
    by_reset: bool  # whether reset drew, and no step of adapt has changed the state since

    def repeat(self) -> None:
        """Raises CostError where the cost has become another one."""
        if self.probed is not None:
            self.probed.repeat()

    @property
    def title(self) -> str:
        """Who is measured on what, for complaints."""
        return f"{self.replicator.estimator.name} on {self.replicator.task.name}"

    def listed(
        self, enumerate_draws: bool | None, more: Callable[[Tensor], Tensor] | None = None
    ) -> Enumerated | Unlisted:
        """The exact moments by all outcomes of the draws, or why replicates are to be drawn.

        `enumerate_draws` is as in `measure`, `more` [B, R, N · K] -> [B, R, C] as in `enumerated`.
        Raises UsageError for draws that cannot be enumerated though they should.
        """
        if enumerate_draws is False and self.draws:
            return _NOT_ASKED_FOR
        limit = 1 if enumerate_draws is False else LIMIT
        found = visit_outcomes(self.replicator, limit, more, self.chunk)
        if isinstance(found, Enumerated) and found.outcomes == 1:
            refuse_shared_by_state(self.replicator, self.by_reset)
        if enumerate_draws is False and isinstance(found, Unlisted):
            return _NOT_ASKED_FOR
        if enumerate_draws and isinstance(found, Unlisted):
            raise UsageError(f"{self.title}: the draws cannot be enumerated: {found.reason}")
        return found


def prepared(
    estimator: Estimator,
    task: Task,
    steps: int,
    dtype: torch.dtype,
    device: str | torch.device,
    source: Draws,
) -> Prepared:
    """The estimator bound to the task and adapted, so many steps, by draws of `source`, in use.

    Raises Inapplicable where the estimator does not apply to the task, CostError for a cost that is
    no function of z and ContractError for an estimator whose rows share noise.  Of the catalogue's
    own, which `--check` certifies, neither is asked again.
    """
    drawn = source.count
    replicator = Replicator(estimator, task, dtype, device)
    by_reset = source.count > drawn and steps == 0
    probed = None
    if not built_in(type(task)):
        probed = probe(task.name, replicator.problem, replicator.logits)
        _refuse_another_problem(task, replicator.problem.logits)
    watched = Watched(source.generator)  # the same draws, looked at
    with drawing_from(watched):
        chunk = replicator.pilot(watched)
    if not built_in(type(estimator)):
        refuse_odd_noise(replicator, watched.shapes, PILOT_ROWS, chunk)
        refuse_talking_rows(replicator)
    looks = tuple(adapted(replicator, steps, chunk))
    return Prepared(replicator, chunk, looks, probed, bool(watched.shapes), by_reset)


def _refuse_another_problem(task: Task, logits: Tensor) -> None:
    """Raises UsageError for a task that does not give these logits again."""
    again = problem_of(task).logits
    if again.shape != logits.shape or not torch.equal(again, logits):
        raise UsageError(
            f"{task.name}: problem() returns other logits each time, so that no two estimators "
            "are measured on the same problem; draw them from a torch.Generator with a fixed seed"
        )


def randomness_kept(seed: int, *subjects: Estimator | Task) -> AbstractContextManager[None]:
    """Within the context global random states are those of the seed, and after it as before.

    The catalogue's own draw from none, and threads that measure them share the states.
    """
    if all(built_in(type(subject)) for subject in subjects):
        return nullcontext()
    return global_randomness_kept(seed)


def called(what: Estimator | Task) -> str:
    """`name (knob=value)`, with every knob that is set."""
    chosen = {k: v for k, v in what.knobs.items() if v is not None}
    said = (f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in chosen.items())
    return f"{what.name} ({', '.join(said)})" if chosen else what.name
