"""The codes at which an estimator needs f, asked for first and answered later.

An estimator calls f as a function.  Where f cannot be called, a first run notes the codes and the
noise; when their costs are known, a second run on the same noise gets them as answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest.categorical import likeliest
from gradest.costs import Cost
from gradest.errors import UsageError
from gradest.randomness import Draws, drawing_from
from gradest.support.recorded_draws import Drawn, RecordedDraws, ReplayedDraws
from gradest.support.row_axes import Axes


@dataclass
class Questions:
    """The codes of one run, call by call, and its noise."""

    codes: list[Tensor]  # [R, S..., N, K] each
    record: list[Drawn]
    lean: bool

    @property
    def number(self) -> int:
        """M: of the codes of a row."""
        return sum(z.shape[1:-2].numel() for z in self.codes)

    def flat(self) -> list[Tensor]:
        """Each as [R, M, N, K]."""
        return [z.reshape(len(z), z.shape[1:-2].numel(), *z.shape[-2:]) for z in self.codes]


@dataclass
class Ticket:
    """What `Expectation.tell` needs of a call of `ask`, besides the costs.

    It can be pickled, without the graph of the logits.
    """

    title: str  # of the estimator
    logits: Tensor  # [..., N, K]
    axes: Axes
    like: Cost  # with the objective of the costs
    step: int | None  # of the adaptation that is due
    adaptation: Questions
    estimate: Questions
    connected: bool = True  # whether the logits have their graph
    told: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "logits": self.logits.detach(), "connected": False}

    def codes(self) -> Tensor:
        """All of them: [..., M, N, K], without the axis M where M = 1."""
        z = torch.cat([*self.adaptation.flat(), *self.estimate.flat()], 1)
        return self.axes.codes(z[:, 0] if z.shape[1] == 1 else z)

    def answers(self, cost: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The costs [..., M] of the adaptation and of the estimate, as [R, M] each.

        Raises UsageError for another shape.
        """
        numbers = [self.adaptation.number, self.estimate.number]
        total = sum(numbers)
        shape = [*self.axes.leading, *((total,) if total > 1 else ())]
        if not isinstance(cost, Tensor) or list(cost.shape) != shape:
            tensor = isinstance(cost, Tensor)
            got = list(cost.shape) if tensor else f"a {type(cost).__name__}; use torch.as_tensor"
            raise UsageError(
                f"expected a torch.Tensor of costs of shape {shape}, one for each code, got {got}"
            )
        adaptation, estimate = cost.reshape(-1, total).to(dtype).split(numbers, 1)
        return adaptation, estimate


def questions(run: Callable[[Cost], Any], source: Draws, like: Cost, name: str) -> Questions:
    """The codes at which `run` evaluates a cost of the objective of `like`, with this noise.

    It runs twice on the same noise, with other costs.  Raises UsageError where f' is needed, a code
    is not one-hot or the codes depend on the costs.
    """
    recorder = RecordedDraws(source)
    first = _Placeholders(name, 1)
    with drawing_from(recorder):
        run(like.changed(first))
    again = _Placeholders(name, -3)
    with drawing_from(ReplayedDraws(recorder.record, source.lean)):
        run(like.changed(again))
    if not _equal(first.codes, again.codes):
        raise UsageError(
            f"{name} chooses codes by the costs of earlier ones, so that they cannot be asked for "
            "at once; call the expectation with f instead"
        )
    return Questions(first.codes, recorder.record, source.lean)


def answered(
    run: Callable[[Cost], Tensor | None],
    asked: Questions,
    cost: Tensor,
    like: Cost,
    source: Draws | None = None,
) -> Tensor | None:
    """What `run` returns with the costs [R, M] of the codes asked for, on their noise.

    The noise is that of the record unless a `source` draws it anew.  Raises UsageError where `run`
    now asks for other codes.
    """
    answers = _Answers(asked.codes, cost)
    with drawing_from(source or ReplayedDraws(asked.record, asked.lean)):
        return run(like.changed(answers))


class _Placeholders:
    """A cost that keeps the codes it is called with."""

    def __init__(self, name: str, scale: float) -> None:
        self.codes: list[Tensor] = []
        self._name, self._scale = name, scale

    def __call__(self, z: Tensor) -> Tensor:
        if z.requires_grad and torch.is_grad_enabled():
            raise UsageError(
                f"{self._name} needs the derivative of f, which costs that are told do not have; "
                "call the expectation with f instead"
            )
        if not torch.equal(z, likeliest(z)):
            raise UsageError(
                f"{self._name} needs f at codes that are not one-hot; call the expectation with f "
                "instead"
            )
        self.codes.append(z.detach().clone())
        number = z.shape[:-2].numel()
        # Unlike each other, and not in order: 0.618… is the golden ratio.
        value = (torch.arange(number, device=z.device) * 0.6180339887) % 1
        return (self._scale * value + len(self.codes)).to(z).view(z.shape[:-2])


class _Answers:
    """A cost that knows its values at the codes asked for, in their order."""

    def __init__(self, codes: Sequence[Tensor], cost: Tensor) -> None:
        self._codes = list(codes)
        self._costs = list(cost.split([z.shape[1:-2].numel() for z in codes], 1))

    def __call__(self, z: Tensor) -> Tensor:
        if not self._codes or not _equal([self._codes.pop(0)], [z]):
            raise UsageError(
                "expected the logits and the state with which the codes were asked for: these ask "
                "for other codes, since the logits changed"
            )
        return self._costs.pop(0).reshape(z.shape[:-2])


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))
