"""Estimators as parts of a model: samples with a surrogate derivative, and expectations.

    z = Sample("reinmax")(logits)                  # one-hot, with a derivative
    loss = Expectation("relax")(logits, f).mean()  # value E f, with the estimate as its gradient

Alphabet of the shapes: logits are [..., N, K], N latents of K categories behind any leading axes,
or [K].  R is the product of the leading axes, M a number of codes.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradest.categorical import likeliest
from gradest.categorical import sample as sample_categories
from gradest.contracts import Estimator, SurrogateSample, checked_draw, inapplicable_to
from gradest.costs import Cost, Objective, Problem
from gradest.errors import Inapplicable, UsageError
from gradest.measurement import copy_of, problem_for
from gradest.plugins import make_estimator
from gradest.randomness import Draws, drawing_from, draws, seed_of
from gradest.support import (
    Axes,
    Context,
    Questions,
    Ticket,
    answered,
    as_rows,
    convert,
    questions,
    restore,
    state_of,
)


class Sample(nn.Module):
    """A random code whose derivative is the surrogate of an estimator.

        z ~ Cat(logits),    ∂L/∂logits = J ∂L/∂z  with the J of the estimator

    logits [..., N, K] or [K] -> z of the same shape and dtype, one-hot in the last axis unless the
    estimator relaxes.  In place of `F.gumbel_softmax(logits, tau, hard=True)`.  After `eval()` z is
    one-hot in any case and has no derivative: a draw, or the likeliest code with mode="argmax".

    `estimator` is the name of a `SurrogateSample` of the catalogue, with its `knobs`, or an
    instance.  Raises UsageError for another estimator, KnobError for invalid knobs.
    """

    def __init__(
        self,
        estimator: str | Estimator,
        *,
        mode: Literal["sample", "argmax"] = "sample",
        **knobs: Any,
    ) -> None:
        super().__init__()
        self.estimator = _estimator(estimator, knobs)
        if not isinstance(self.estimator, SurrogateSample) or self.estimator.adapt_steps:
            raise UsageError(
                f"{self.estimator.name} needs f for its estimate, not a sample alone; use "
                f"gradest.nn.Expectation({self.estimator.name!r})"
            )
        if mode not in ("sample", "argmax"):
            raise UsageError(f"mode = {mode!r:.60}; expected 'sample' or 'argmax'")
        self.mode = mode

    def forward(self, logits: Tensor) -> Tensor:
        """z like the logits.  Raises UsageError for logits that are not floating-point [..., K]."""
        rows = as_rows(logits)
        z = checked_draw(self.estimator, rows) if self.training else self._discrete(rows.detach())
        return z if rows is logits else z.to(logits.dtype).view_as(logits)

    def _discrete(self, logits: Tensor) -> Tensor:
        if self.mode == "argmax":
            return likeliest(logits)
        if self.estimator.relaxes:
            return sample_categories(logits)
        return checked_draw(self.estimator, logits)  # it may draw from other probabilities

    def extra_repr(self) -> str:
        return f"{_title(self.estimator)}, mode={self.mode!r}"


def sample(name: str, logits: Tensor, **knobs: Any) -> Tensor:
    """A code z like the logits, whose derivative is the surrogate of the estimator of this name.

    `Sample(name, **knobs)(logits)`, which builds the estimator once instead of in every call.
    Raises what that raises.
    """
    return Sample(name, **knobs)(logits)


class Expectation(nn.Module):
    """E f(z), z ~ Cat(logits): its value is estimated, its gradient is that of an estimator.

    expect(logits, f) maps logits [..., N, K] or [K] and a function f: [..., S..., N, K] ->
    [..., S...] to estimates [...], one for each row.  S... are axes that the estimator adds behind
    the leading ones; f broadcasts over them.  f is a function, or a `gradest.Cost`, which may hold
    the parameters of f constant in control variates.

    The state of an estimator that has one is built at the first call for logits like these.  In
    train mode every `adapt_every`-th call adapts it, by draws of its own, so that those of the
    estimate do not depend on it; after `eval()` it rests.  `state_dict` holds all of it.

    `ask` and `tell` serve an f that cannot be called.

    `estimator` is the name of an estimator of the catalogue, with its `knobs`, or an instance;
    `seed` is that of the draws for the state.  Raises PluginError for an unknown name, KnobError
    for invalid knobs.
    """

    def __init__(
        self, estimator: str | Estimator, *, adapt_every: int = 1, seed: int = 0, **knobs: Any
    ) -> None:
        super().__init__()
        self.estimator = _estimator(estimator, knobs)
        whole = isinstance(adapt_every, int) and not isinstance(adapt_every, bool)
        if not whole or adapt_every < 1:
            raise UsageError(
                f"adapt_every = {adapt_every!r:.60}; expected a whole number of at least 1"
            )
        self.adapt_every, self.seed = adapt_every, seed
        self._calls = 0  # in train mode, of an estimator that adapts
        # Dtype, device and shape of the logits for which the state was built.
        self._like: Tensor | None = None
        self._shape: tuple[int, ...] = ()

    def forward(self, logits: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Estimates of E f for each row: [..., N, K] -> [...].

        Raises UsageError for logits that are not floating-point [..., K], CostError for an f that
        breaks its contract and Inapplicable where the estimator does not apply.
        """
        axes, rows = Axes.of(logits), as_rows(logits)
        if not torch.is_grad_enabled():
            # Some estimators differentiate to get their value, and all of them to adapt.
            with torch.inference_mode(False), torch.enable_grad():
                return self(logits.clone().requires_grad_(), f).detach()
        precise, outside = _autocast(logits)
        with precise:
            cost = axes.cost(f, rows, outside)
            self._check_applies(rows, cost)
            self._build(rows, cost)
            if (step := self._due()) is not None:
                with drawing_from(self._draws(step, rows)):
                    self._on(axes.cost(f, rows.detach(), outside), rows.detach(), self._adapt)
            value = self._on(cost, rows, self.estimator)
        return axes.restore(value)

    def ask(
        self, logits: Tensor, *, samples: int = 1, objective: Objective = "bound"
    ) -> tuple[Tensor, Ticket]:
        """The codes at which f is needed, and a ticket for `tell`.

        logits [..., N, K] give z [..., M, N, K], or [..., N, K] where M = 1.  The estimates are the
        same bits as those of the direct call in the same random state.  `samples` and `objective`
        are those of `gradest.Cost`, for an objective of several samples.

        Raises UsageError for an estimator that needs f' or f at codes that are not one-hot, or
        whose next codes depend on costs, and Inapplicable where it does not apply.
        """
        axes, rows = Axes.of(logits), as_rows(logits)
        with _autocast(logits)[0]:
            like = Cost(_no_cost, samples=samples, objective=objective)
            self._check_applies(rows, like)
            self._build(rows, like)
            name, detached, step = self.estimator.name, rows.detach(), self._due()
            adaptation = Questions([], [], False)
            if step is not None:
                adaptation = questions(
                    lambda f: self._on(f, detached, copy_of(self.estimator).adapt),
                    self._draws(step, rows),
                    like,
                    name,
                )
            estimate = questions(
                lambda f: self._on(f, detached.clone().requires_grad_(), self.estimator),
                draws(),
                like,
                name,
            )
        ticket = Ticket(_title(self.estimator), logits, axes, like, step, adaptation, estimate)
        return ticket.codes(), ticket

    def tell(self, ticket: Ticket, cost: Tensor, logits: Tensor | None = None) -> Tensor:
        """The estimates for the costs of the codes asked for: [..., M] or [...] -> [...].

        Tickets are told once each, in any order.  One that was unpickled has lost the graph of its
        logits: pass them, computed anew.

        Raises UsageError for a ticket of another estimator or one that was told, costs of another
        shape, missing logits and logits that have changed.
        """
        rows = self._checked_rows(ticket, logits)
        adaptation, estimate = ticket.answers(cost, rows.dtype)
        with _autocast(rows)[0]:
            if ticket.step is not None:
                source = self._draws(ticket.step, rows)
                run = partial(self._on, logits=rows.detach(), run=self._adapt)
                answered(run, ticket.adaptation, adaptation.detach(), ticket.like, source)
            run = partial(self._on, logits=rows, run=self.estimator)
            value = answered(run, ticket.estimate, estimate, ticket.like)
        ticket.told = True
        return ticket.axes.restore(value)

    def _checked_rows(self, ticket: Ticket, logits: Tensor | None) -> Tensor:
        """The logits of the ticket, or those given, as rows.  Raises UsageError as `tell` does."""
        if not isinstance(ticket, Ticket):
            raise UsageError(
                f"expected the ticket that ask() returned, got a {type(ticket).__name__}; the "
                "order is tell(ticket, cost)"
            )
        if ticket.title != (title := _title(self.estimator)):
            raise UsageError(f"expected a ticket of {title}, got one of {ticket.title}")
        if ticket.told:
            raise UsageError("this ticket was told already; ask again for another estimate")
        if logits is None:
            if not ticket.connected:
                raise UsageError(
                    "a ticket that was unpickled has lost the graph of its logits; compute them "
                    "again and pass tell(ticket, cost, logits=logits)"
                )
            logits = ticket.logits
        elif not _close(logits, ticket.logits):
            raise UsageError(
                "expected the logits with which the codes were asked for; the logits changed, so "
                "that the codes are not drawn from them"
            )
        return as_rows(logits)

    def _on(self, f: Cost, logits: Tensor, run: Callable[[Tensor, Cost], Any]) -> Any:
        return run(*problem_for(self.estimator, logits, f))

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "estimator": self.estimator.name,
            "calls": self._calls,
            "like": self._like,
            "shape": self._shape,
            "state": None if self._like is None else state_of(self.estimator),
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Raises UsageError for the state of another estimator."""
        if state["estimator"] != self.estimator.name:
            raise UsageError(
                f"expected the state of {self.estimator.name}, got that of {state['estimator']}"
            )
        self._calls = state["calls"]
        if state["like"] is not None:
            # The state of a module that was never called is built first, then filled.
            like = state["like"] if self._like is None else self._like.to(state["like"].dtype)
            self._reset(like.expand(state["shape"]))
            restore(self.estimator, state["state"], like.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Expectation":
        super()._apply(fn, recurse)
        convert(self.estimator, fn)
        self._like = None if self._like is None else fn(self._like)
        return self

    def extra_repr(self) -> str:
        return f"{_title(self.estimator)}, adapt_every={self.adapt_every}"

    def _check_applies(self, rows: Tensor, f: Cost) -> None:
        """Raises Inapplicable."""
        if reason := inapplicable_to(self.estimator, Problem(rows, f), "this problem"):
            raise Inapplicable(reason)

    def _build(self, rows: Tensor, f: Cost) -> None:
        """Build the state, if there is to be one and is none yet.

        Raises UsageError for logits of other latents or categories than it was built for.
        """
        if type(self.estimator).reset is Estimator.reset:
            return
        logits = problem_for(self.estimator, rows.detach(), f)[0]
        if self._like is None and vars(self.estimator).keys() > self.estimator.knobs.keys():
            self._like, self._shape = logits.new_zeros(()), tuple(logits.shape)  # it has a state
        elif self._like is None:
            self._reset(logits)
        if self._shape[1:] != logits.shape[1:]:
            raise UsageError(
                f"the state of {self.estimator.name} was built for logits [..., "
                f"{', '.join(map(str, self._shape[1:]))}], got {list(logits.shape)}; make another "
                "gradest.nn.Expectation for them"
            )

    def _reset(self, rows: Tensor) -> None:
        with drawing_from(self._draws("reset", rows)), torch.enable_grad():
            self.estimator.reset(rows)
        self._like, self._shape = rows.new_zeros(()), tuple(rows.shape)

    def _due(self) -> int | None:
        """The number of this call, if it adapts the state."""
        if not self.training or not self.estimator.adapt_steps:
            return None
        self._calls += 1
        return self._calls if (self._calls - 1) % self.adapt_every == 0 else None

    @torch.enable_grad()
    def _adapt(self, logits: Tensor, f: Cost) -> None:
        self.estimator.adapt(logits, f)

    def _draws(self, step: int | str, like: Tensor) -> Draws:
        """Those of one step, so that no generator, which has a device, is a part of the state."""
        return Draws.seeded(seed_of(f"{self.seed} {step}"), like.device)


def _estimator(estimator: str | Estimator, knobs: Mapping[str, Any]) -> Estimator:
    """The estimator of this name with its knobs, or the instance."""
    if isinstance(estimator, str):
        return make_estimator(estimator, **knobs)
    if not isinstance(estimator, Estimator):
        raise UsageError(
            f"estimator = {estimator!r:.60}; expected the name of an estimator or an instance"
        )
    if knobs:
        raise UsageError(
            f"expected no knobs besides an instance of {estimator.name}, got "
            f"{', '.join(knobs)}; set them where it is made"
        )
    return estimator


def _title(estimator: Estimator) -> str:
    knobs = ", ".join(f"{name}={value!r}" for name, value in estimator.knobs.items())
    return f"{estimator.name}({knobs})"


def _no_cost(z: Tensor) -> Tensor:
    raise NotImplementedError("only the shape of the problem is of interest")


def _autocast(logits: Tensor) -> tuple[AbstractContextManager, Context]:
    """A context without autocast for the estimator, and one with it, as it is now, for f."""
    kind = logits.device.type
    if not torch.is_autocast_enabled(kind):
        return nullcontext(), nullcontext
    outside = partial(torch.autocast, kind, torch.get_autocast_dtype(kind))
    return torch.autocast(kind, enabled=False), outside


def _close(some: Tensor, others: Tensor) -> bool:
    """Whether logits that were computed twice are the same up to rounding."""
    if some.shape != others.shape or some.dtype != others.dtype:
        return False
    tolerance = torch.finfo(some.dtype).eps ** 0.5
    return torch.allclose(some, others.to(some.device), rtol=tolerance, atol=tolerance)
