"""Code for one row, as an estimator of many rows whose draws and costs stay those of a batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradest.categorical import nabla
from gradest.costs import Cost
from gradest.errors import ContractError
from gradest.randomness import Draws, drawing_from, draws

Estimate = Callable[[Tensor, Cost], Tensor]


def value_and_frozen(f: Cost, z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z) and f.frozen(z), by one evaluation: [R, ..., N, K] -> [R, ...] twice.

    The first carries gradients to z and to the parameters of f, the second to z alone, as a control
    variate needs it.  The gradient to z is of first order: it has no derivative of its own.
    """
    if not (z.requires_grad and torch.is_grad_enabled()):
        value = f(z)
        return value, value.detach()
    leaf = z.detach().requires_grad_()
    value = f(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
    to_z = (slope * nabla(z)).sum((-2, -1))
    return value + to_z, value.detach() + to_z


def per_row(fn: Estimate) -> Estimate:
    """An estimator of rows that calls fn for one row at a time.

        estimate(logits, f)[r] = fn(logits[r : r + 1], f bound to row r)

    For code that averages or normalises over its batch, or that takes one item only: fn gets logits
    [1, N, K] and f: [1, ..., N, K] -> [1, ...], and returns one number, whose gradient is the
    estimate.  It may draw by `redirected` or by `gradest.categorical`.

    Draws and evaluations of f are still requested for all rows together, so that they can be
    enumerated, and equal those of an estimator that is written for a batch.  For this fn is called
    again after each of its requests, with the same answers as before and one more; what follows the
    last answer is discarded.  Rows with equal answers share a call.  So fn must depend on its
    arguments and draws alone, and keep no state between calls.  The gradient is of first order.

    Raises ContractError for a result that is not one number with a gradient, and for draws that are
    not of one row.
    """

    def estimate(logits: Tensor, f: Cost) -> Tensor:
        batch = _Batch(logits, f, draws())
        rows = torch.arange(len(logits), device=logits.device)
        waiting = [_Group(rows[same], ()) for same in _equal_rows(logits.detach())]
        finished: list[tuple[Tensor, Tensor]] = []  # rows and their estimates
        while waiting:
            asking: dict[Any, list[tuple[_Group, _Request]]] = {}
            for group in waiting:
                run = _Run(fn, logits[group.rows[0]], f, group.answers)
                if run.request is None:
                    finished.append((group.rows, run.estimates(logits, group.rows)))
                else:
                    asking.setdefault(run.request.signature, []).append((group, run.request))
            waiting = [group for asked in asking.values() for group in _answered(asked, batch)]
        rows, estimates = (torch.cat(parts) for parts in zip(*finished, strict=True))
        return estimates[rows.argsort()]

    return estimate


class _Batch(NamedTuple):
    """What serves the requests of all rows together."""

    logits: Tensor
    f: Cost
    source: Draws


class _Answer(NamedTuple):
    """What one row, or all rows, get for a request: noise, or costs with their slope in z."""

    value: Tensor
    slope: Tensor | None = None  # of costs whose z requires a gradient
    costs: Tensor | None = None  # of all rows, with the graph to the parameters of f


class _Request(NamedTuple):
    """Noise, categories or costs that a row asks for."""

    signature: tuple[Any, ...]  # equal for requests that are served together
    serve: Callable[[_Batch, Tensor, Tensor], _Answer]  # for these rows and their payloads
    payload: Tensor  # [1, ...]


class _Group(NamedTuple):
    """Rows with equal answers so far, so that one call serves them all."""

    rows: Tensor
    answers: tuple[_Answer, ...]


class _Run:
    """One call of fn, with the answers to its first requests; `request` is the next one, if any."""

    def __init__(self, fn: Estimate, logits: Tensor, f: Cost, answers: Sequence[_Answer]) -> None:
        self.request: _Request | None = None
        self._answers = answers
        self._asked = 0
        self._costs: list[tuple[_Answer, Tensor]] = []  # with the leaves that stand for them
        self._logits = logits.detach().unsqueeze(0).requires_grad_()
        with drawing_from(_RowDraws(self, logits.device)):
            self._value = fn(self._logits, _RowCost(self, f))

    def answer(self, request: _Request) -> _Answer | None:
        """The answer to the next request; None where there is none yet."""
        number, self._asked = self._asked, self._asked + 1
        if number < len(self._answers):
            return self._answers[number]
        self.request = self.request or request
        return None

    def leaf(self, answer: _Answer) -> Tensor:
        """Costs of the row as an input of fn, to which its result has a derivative."""
        leaf = answer.value.clone().requires_grad_(torch.is_grad_enabled())
        self._costs.append((answer, leaf))
        return leaf

    def estimates(self, logits: Tensor, rows: Tensor) -> Tensor:
        """The result for each of these rows, with its gradient to logits and parameters."""
        value = self._value
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
            raise ContractError(f"per_row: expected fn to return one number, got {got}")
        leaves = [leaf for _, leaf in self._costs if leaf.requires_grad]
        slope, weights = None, []
        if value.requires_grad:
            inputs = [self._logits, *leaves]
            slope, *weights = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
        if slope is None:
            raise ContractError(
                "per_row: expected fn to return a number with a gradient to the logits, got one "
                "without; keep the logits in its graph"
            )
        result = value.detach().reshape(1) + (slope * nabla(logits[rows])).sum((-2, -1))
        answers = [answer for answer, leaf in self._costs if leaf.requires_grad]
        for answer, weight in zip(answers, weights, strict=True):
            if weight is not None and answer.costs.requires_grad:
                costs = (weight * nabla(answer.costs[rows])).reshape(len(rows), -1)
                result = result + costs.sum(1)
        return result


class _RowDraws(Draws):
    """Draws of one row, which are asked for; until they are answered there are others instead."""

    def __init__(self, run: _Run, device: torch.device) -> None:
        super().__init__()
        self._run = run
        self._instead = Draws.seeded(0, device)

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        _check_one_row(logits.shape)

        def serve(batch: _Batch, rows: Tensor, payload: Tensor) -> _Answer:
            return _Answer(batch.source.categories(payload, samples))

        self.count += 1
        signature = ("categories", logits.shape, logits.dtype, samples)
        answer = self._run.answer(_Request(signature, serve, logits.detach()))
        return self._instead.categories(logits, samples) if answer is None else answer.value.clone()

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        _check_one_row(shape)

        def serve(batch: _Batch, rows: Tensor, payload: Tensor) -> _Answer:
            noise = batch.source._fill((len(rows), *shape[1:]), payload, distribution)
            return _Answer(noise)

        self.count += 1
        signature = (distribution, tuple(shape), like.dtype)
        answer = self._run.answer(_Request(signature, serve, like.new_empty(1)))
        if answer is None:
            return self._instead._fill(shape, like, distribution)
        return answer.value.clone()


class _RowCost(Cost):
    """f bound to a row: [1, ..., N, K] -> [1, ...]."""

    def __init__(self, run: _Run, f: Cost) -> None:
        vars(self).update(vars(f), _run=run)

    def _evaluate(self, z: Tensor, frozen: bool) -> Tensor:
        slope = z.requires_grad and torch.is_grad_enabled()

        def serve(batch: _Batch, rows: Tensor, payload: Tensor) -> _Answer:
            return _costs(batch, rows, payload, slope, frozen)

        signature = ("costs", z.shape, slope, frozen, torch.is_grad_enabled())
        answer = self._run.answer(_Request(signature, serve, z.detach()))
        if answer is None:
            value = z.new_zeros(z.shape[:-2])
            return value + 0 * z.sum((-2, -1)) if slope else value
        value = answer.value.clone() if frozen else self._run.leaf(answer)
        return value + (answer.slope * nabla(z)).sum((-2, -1)) if slope else value


def _costs(batch: _Batch, rows: Tensor, z: Tensor, slope: bool, frozen: bool) -> _Answer:
    """The costs of these rows.  f takes all rows, so that the others get one of these codes."""
    every = z[:1].expand(len(batch.logits), *z.shape[1:]).clone()
    every[rows] = z
    every.requires_grad_(slope)
    costs = batch.f.frozen(every) if frozen else batch.f(every)
    if not slope:
        return _Answer(costs[rows].detach(), None, costs)
    (slopes,) = torch.autograd.grad(costs.sum(), every, retain_graph=True)
    return _Answer(costs[rows].detach(), slopes[rows], costs)


def _answered(asked: Sequence[tuple[_Group, _Request]], batch: _Batch) -> Iterator[_Group]:
    """The groups after their requests, of one signature, are served: those of equal answers."""
    rows = torch.cat([group.rows for group, _ in asked])
    payload = torch.cat(
        [
            request.payload.expand(len(group.rows), *request.payload.shape[1:])
            for group, request in asked
        ]
    )
    order = rows.argsort()  # as an estimator of a batch draws
    place = order.argsort()  # of every row of the groups, one group after the other
    answer = asked[0][1].serve(batch, rows[order], payload[order])
    for group, own in zip(
        (group for group, _ in asked), place.split([len(g.rows) for g, _ in asked]), strict=True
    ):
        value = answer.value[own]
        slope = None if answer.slope is None else answer.slope[own]
        for same in _equal_rows(value, *(() if slope is None else (slope,))):
            one = same[:1]
            part = _Answer(value[one], None if slope is None else slope[one], answer.costs)
            yield _Group(group.rows[same], (*group.answers, part))


def _equal_rows(*tensors: Tensor) -> list[Tensor]:
    """The indices of rows that are equal in all of these tensors [R, ...], group by group."""
    key = torch.cat([x.reshape(len(x), -1).double() for x in tensors], 1)
    _, number = torch.unique(key, dim=0, return_inverse=True)
    return list(number.argsort(stable=True).split(number.bincount().tolist()))


def _check_one_row(shape: Sequence[int]) -> None:
    if tuple(shape[:1]) != (1,):
        raise ContractError(
            f"per_row: expected draws of one row, shape [1, ...], got {list(shape)}; draw by "
            "redirected(logits), with the logits of the row"
        )
