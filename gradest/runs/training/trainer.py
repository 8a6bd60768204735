"""The steps of one training, in which an estimator descends the objective of a model.

There is only the step itself here: no logging, no evaluation, no waiting for the device.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradest.contracts import Estimator, Model, inapplicable
from gradest.costs import Problem
from gradest.errors import Inapplicable
from gradest.knobs import build
from gradest.measurement import analytic_terms, owns_kl, problem_for
from gradest.randomness import Draws, drawing_from, seed_of
from gradest.runs.training.settings import Annealing
from gradest.support import restore, state_of


class Trainer:
    """The state of a training: the networks of a model, an optimiser and an estimator.

    Raises Inapplicable where the estimator does not apply to the model, KnobError for a knob that
    cannot be annealed.
    """

    def __init__(
        self,
        estimator: Estimator,
        model: Model,
        *,
        learning_rate: float,
        batch: int,
        seed: int,
        anneal: Mapping[str, Annealing],
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.estimator, self.model, self.dtype = estimator, model, dtype
        self.step = 0
        self.device = torch.device(device)
        self.networks: nn.Module = model.networks(seed).to(device, dtype)
        # Fused, one kernel for all parameters: a step of a small network is mostly overhead.
        self._optimiser = torch.optim.Adam(self.networks.parameters(), lr=learning_rate, fused=True)
        self._items = model.data("train").to(device)
        self._batch = min(batch, len(self._items))
        self._seed = seed
        self._anneal = {k: v for k, v in anneal.items() if k in estimator.knobs}
        for knob, annealing in self._anneal.items():  # later steps set it without validation
            build(type(estimator), {**estimator.knobs, knob: annealing.at(0)})
        self._draws = Draws.seeded(stream_seed("steps", seed), device)
        self._epoch, self._order = -1, torch.empty(0)
        with drawing_from(Draws.seeded(stream_seed("reset", seed), device)), torch.no_grad():
            problem = self.problem(self._items[: self._batch])
            if reason := inapplicable(estimator, model, problem):
                raise Inapplicable(reason)
            self.samples = problem.f.samples  # of the bound, if the objective is one
            estimator.reset(problem_for(estimator, problem.logits, problem.f)[0])

    def problem(self, items: Tensor) -> Problem:
        """The problem of stored items at the present networks."""
        return self.model.problem_at(self.networks, self.model.preprocess(items, self.dtype))

    def objective(self, problem: Problem) -> Tensor:
        """The objective that is descended, for each data point: [B]."""
        value = self.estimator(*problem_for(self.estimator, *problem))
        if owns_kl(self.estimator, problem.f):
            return value
        return value + analytic_terms(self.model, problem.logits, problem.f)

    def advance(self) -> Tensor:
        """One step; returns the mean objective before it, which stays on the device."""
        for knob, annealing in self._anneal.items():
            setattr(self.estimator, knob, annealing.at(self.step))
        with drawing_from(self._draws):
            problem = self.problem(self._items[self._indices()])
            if self.estimator.adapt_steps:
                logits = problem.logits.detach()
                f = problem.f.replicated(None, logits)
                self.estimator.adapt(*problem_for(self.estimator, logits, f))
            loss = self.objective(problem).mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self.step += 1
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """The state that the next steps depend on: live tensors, to be written at once."""
        return {
            "step": self.step,
            "networks": self.networks.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "estimator": state_of(self.estimator),
            "draws": self._draws.generator.get_state(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Resume from this state."""
        self.step = state["step"]
        self.networks.load_state_dict(state["networks"])
        self._optimiser.load_state_dict(state["optimiser"])
        restore(self.estimator, state["estimator"], self._items.device)
        self._draws.generator.set_state(state["draws"])

    def _indices(self) -> Tensor:
        """The items of the present minibatch; every epoch has a new order and omits a remainder."""
        whole = len(self._items) // self._batch
        epoch, number = divmod(self.step, whole)
        if epoch != self._epoch:
            # From seed and epoch alone, so that an interrupted epoch resumes in the same order.
            generator = torch.Generator().manual_seed(stream_seed("order", self._seed, epoch))
            self._order = torch.randperm(len(self._items), generator=generator)
            self._order = self._order.to(self._items.device)
            self._epoch = epoch
        return self._order[number * self._batch : (number + 1) * self._batch]


def stream_seed(*name: str | int) -> int:
    """The seed of the draws with this name, which differs for every other name."""
    return seed_of(json.dumps(name))
