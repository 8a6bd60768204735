"""The steps of a descent: the logits of a task are the parameters that an optimiser moves.

All seeds are blocks of one batch.  Each has logits, draws and a state of the estimator of its own,
so that a seed takes the same steps alone and next to any others.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.costs import Problem
from gradest.knobs import build
from gradest.measurement import BlockedTask, Replicator, analytic_terms, owns_kl, problem_for
from gradest.randomness import BlockDraws, drawing_from
from gradest.runs.training import Annealing, DescentSettings, stream_seed

_OPTIMISERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}


class Descent:
    """The logits of a task for every seed, an optimiser, and an estimator of their gradients.

    The gradient is that of Σ_b E f_b: the data points do not share their logits.  `seeds` are those
    of the draws.  Raises Inapplicable where the estimator does not apply to the task, KnobError for
    a knob that cannot be annealed, and UsageError where the task does not give a valid problem.
    """

    def __init__(
        self,
        estimator: Estimator,
        task: Task,
        settings: DescentSettings,
        *,
        learning_rate: float,
        seeds: Sequence[int],
        anneal: Mapping[str, Annealing],
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> None:
        self.estimator, self.settings, self.seeds = estimator, settings, seeds
        self.step = 0
        self.task = BlockedTask(task, len(seeds))
        self._device = device
        if estimator.stackable:
            estimator.blocks = len(seeds)
        self._anneal = {k: v for k, v in anneal.items() if k in estimator.knobs}
        for knob, annealing in self._anneal.items():  # later steps set it without validation
            build(type(estimator), {**estimator.knobs, knob: annealing.at(0)})
        with drawing_from(self.draws("reset")):
            self._replicator = Replicator(estimator, self.task, dtype, device)
        self.f = self._replicator.problem.f
        self.logits = self._replicator.logits.clone().requires_grad_()  # [M · B, N, K]
        ((name, own),) = settings.optimiser.chosen.items()
        self._optimiser = _OPTIMISERS[name](
            [self.logits], lr=learning_rate, maximize=settings.maximise, **own
        )
        self._draws = self.draws("steps")
        closed = type(task).penalty is not Task.penalty or self.f.prior is not None
        self._has_terms = closed and not owns_kl(estimator, self.f)

    def draws(self, *stream: str | int) -> BlockDraws:
        """The source of this name, with a generator for each seed."""
        return BlockDraws([stream_seed(*stream, seed) for seed in self.seeds], self._device)

    def advance(self) -> None:
        """One step: the estimator adapts, estimates the gradient once, and the optimiser moves."""
        for knob, annealing in self._anneal.items():
            setattr(self.estimator, knob, annealing.at(self.step))
        with drawing_from(self._draws):
            if self.estimator.adapt_steps:
                logits = self.logits.detach()
                f = self.f.replicated(None, logits)
                self.estimator.adapt(*problem_for(self.estimator, logits, f))
            f = self.f.replicated(None, self.logits)
            objective = self.estimator(*problem_for(self.estimator, self.logits, f))  # [M · B]
        if self._has_terms:
            objective = objective + analytic_terms(self.task, self.logits, self.f)
        (self.logits.grad,) = torch.autograd.grad(objective.sum(), self.logits)
        self._optimiser.step()
        self.step += 1

    @property
    def replicator(self) -> Replicator:
        """Replicates of the estimator at the present logits and state."""
        self._replicator.logits = self.logits.detach()
        return self._replicator

    @property
    def problem(self) -> Problem:
        """The problem at the present logits, in float64."""
        logits = self.logits.detach().double()
        return Problem(logits, self.f.replicated(None, logits))

    def per_seed(self, x: Tensor) -> Tensor:
        """[M · B, ...] -> [M, B, ...]."""
        return x.unflatten(0, (len(self.seeds), -1))
