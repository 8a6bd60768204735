"""Exact moments of an estimator: all outcomes of its draws, weighted by their probabilities.

Where all draws are from finite sets they have finitely many joint outcomes.  A source that
prescribes each of these once, one in each row, then replaces the random one, and the sums weighted
by probability are exact.  Estimators need no change for it.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.costs import width
from gradest.measurement.progress import advance, phase
from gradest.measurement.replicator import Replicator
from gradest.randomness import Draws, check_rows, drawing_from
from gradest.support import number

LIMIT = 1_000_000  # joint outcomes of the draws of one estimate
# Numbers computed during an enumeration.  About 20 ns each on one core, for many outcomes of few
# numbers as for few outcomes of many: some seconds, at most.
NUMBERS = 500_000_000
_PASSES = 3  # the work for a gradient and its moments, in evaluations of f
_ROWS = 2**14  # outcomes at once
_REPEATS = 5  # calls of an estimator that draws nothing
_SAME_ROWS = 4  # rows with equal draws, whose estimates must be equal
_REQUESTS = 10_000  # of one estimate; draws from one category add no outcomes, but may never end
_MOST_DIGITS = 15  # of a number of outcomes that is still counted exactly
_TOO_MANY = "too many outcomes"
_UNEQUAL = "the number of draws depends on their outcomes"


class ExactMoments(NamedTuple):
    """Exact moments of one estimate, with respect to log α and with the task's penalty."""

    mean: Tensor  # [B, N, K]
    variance: Tensor  # [B, N, K]
    value: Tensor  # [B], the mean objective
    value_variance: Tensor  # [B]
    more_mean: Tensor  # [B, C], of the further statistics
    more_variance: Tensor  # [B, C]
    outcomes: int


class NotEnumerable(NamedTuple):
    """The reason why the joint outcomes of the draws are not enumerated."""

    reason: str


class _FiniteDraws(Draws):
    """A source for draws from finite sets, equally many for each row, which counts their outcomes.

    It never raises: an exception that passes through an estimator would leave open the resources
    that it has opened, and the estimator may catch it.  Where the outcomes cannot be enumerated,
    `reason` says why, and all further requests get ordinary noise, of its own seed.  So an
    estimator that draws until some condition holds ends as it always does.
    """

    def __init__(self, rows: int, limit: int, device: torch.device | str) -> None:
        super().__init__(torch.Generator(device).manual_seed(0))
        self.reason = ""
        self.radices: list[int] = []  # number of categories of every draw of a row, in order
        self._digits = 0.0  # log₁₀ of the number of outcomes
        self._rows = rows
        self._limit = limit

    @property
    def generator(self) -> torch.Generator:
        self._refuse("the draws include noise from other sources than gradest.categorical")
        return self._generator

    @generator.setter
    def generator(self, generator: torch.Generator) -> None:
        self._generator = generator

    @property
    def outcomes(self) -> int:
        """The number of joint outcomes of the recorded draws, at most the limit."""
        return math.prod(self.radices)

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        index = self._indices(logits, samples)
        return super().categories(logits, samples) if index is None else index

    def _indices(self, logits: Tensor, samples: int) -> Tensor | None:
        """Prescribed indices [R, S, ...]; None where the draws are not enumerated."""
        raise NotImplementedError

    def _count(self, logits: Tensor, samples: int) -> int | None:
        """The number of draws that a row takes at once; None where they cannot be enumerated."""
        check_rows(logits.shape)
        rows, *middle, categories = logits.shape
        self.count += 1
        places = math.prod(middle) * samples
        self._digits += places * math.log10(max(categories, 1))
        if rows != self._rows:
            self._refuse(f"{rows} draws are made in one call for {self._rows} rows")
        elif self.count > _REQUESTS:
            self._refuse(f"an estimate requests draws more than {_REQUESTS:,} times")
        # By logarithms first: for many draws the number itself would have millions of digits.
        elif self._digits > _MOST_DIGITS or self.outcomes * categories**places > self._limit:
            self._refuse("")
        if self.reason:
            return None
        if categories > 1:
            self.radices += [categories] * places
        return places

    def _refuse(self, reason: str) -> None:
        """Keep the first reason; "" stands for too many outcomes, whose number may still grow."""
        self.reason = self.reason or reason or _TOO_MANY

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        self._refuse(f"{distribution.strip('_')} noise has no finite number of outcomes")
        return super()._fill(shape, like, distribution)

    def reason_against(self) -> NotEnumerable | None:
        """The reason why the draws so far cannot be enumerated, if they cannot."""
        if self.reason != _TOO_MANY:
            return NotEnumerable(self.reason) if self.reason else None
        return NotEnumerable(
            f"the draws have {_count_text(self._digits)} joint outcomes, and at most "
            f"{self._limit:,} are enumerated"
        )


class _RecordedDraws(_FiniteDraws):
    """A source whose draws are the likeliest categories, as long as all can be enumerated."""

    def _indices(self, logits: Tensor, samples: int) -> Tensor | None:
        if self._count(logits, samples) is None:
            return None
        likeliest = logits.argmax(-1).unsqueeze(1)  # [R, 1, ...]
        return likeliest.expand(-1, samples, *likeliest.shape[2:])


class _PrescribedDraws(_FiniteDraws):
    """A source that gives each row the joint outcome of its number, in mixed radix: [R] numbers.

    The estimator has to request the recorded draws again, of these radices.
    """

    def __init__(self, number: Tensor, radices: Sequence[int]) -> None:
        super().__init__(len(number), math.prod(radices), number.device)
        self.log_p: Tensor | float = 0.0
        self._number = number
        self._recorded = radices

    def _indices(self, logits: Tensor, samples: int) -> Tensor | None:
        places, categories = self._count(logits, samples), logits.shape[-1]
        if places is None:
            return None
        if self.radices != self._recorded[: len(self.radices)]:
            self._refuse(_UNEQUAL)
            return None
        place = categories ** torch.arange(places, device=logits.device)
        digits = self._number.unsqueeze(1) // place % categories  # [R, S · ...]
        self._number = self._number // categories**places
        index = digits.unflatten(1, (samples, *logits.shape[1:-1]))
        log_pi = logits.detach().double().log_softmax(-1).unsqueeze(1)  # [R, 1, ..., K]
        chosen = log_pi.expand(-1, samples, *logits.shape[1:]).gather(-1, index.unsqueeze(-1))
        self.log_p = self.log_p + chosen.flatten(1).sum(1)  # [R]
        return index

    def deviates(self) -> bool:
        """Whether the estimator has requested other draws than the recorded ones."""
        return bool(self.reason) or self.radices != self._recorded


def exact_moments(
    replicator: Replicator,
    limit: int = LIMIT,
    more: Callable[[Tensor], Tensor] | None = None,
    rows: int = _ROWS,
) -> ExactMoments | None:
    """The exact moments, or None where `visit_outcomes` says why there are none."""
    moments = visit_outcomes(replicator, limit, more, rows)
    return moments if isinstance(moments, ExactMoments) else None


def visit_outcomes(
    replicator: Replicator,
    limit: int = LIMIT,
    more: Callable[[Tensor], Tensor] | None = None,
    rows: int = _ROWS,
) -> ExactMoments | NotEnumerable:
    """The exact moments, or the reason why the joint outcomes of the draws are not enumerated.

    The draws are not enumerated where they are infinitely many, have more outcomes than `limit`,
    are not equally many for all outcomes, do not come row by row, or do not determine the estimate:
    a plugin may draw from elsewhere.  Nor are they where it takes too long: there are B · N · K
    numbers for each outcome and evaluation of f, and some more for the gradient and its moments.
    `more` maps gradients [B, R, N · K] to further statistics [B, R, C].  At most `rows` outcomes
    are evaluated together.
    """
    recorded = _record_draws(replicator, limit)
    if isinstance(recorded, NotEnumerable):
        return recorded
    with phase("outcomes of the draws", recorded.outcomes):
        return _sum_outcomes(replicator, recorded, more, min(rows, _ROWS))


def outcome_count(replicator: Replicator, limit: int = LIMIT) -> int | None:
    """The number of joint outcomes that `exact_moments` would enumerate, if it would."""
    recorded = _record_draws(replicator, limit)
    return None if isinstance(recorded, NotEnumerable) else recorded.outcomes


def _record_draws(replicator: Replicator, limit: int) -> _RecordedDraws | NotEnumerable:
    """The draws of an estimate, where their outcomes can be enumerated."""
    logits = replicator.logits
    recorded = _RecordedDraws(_SAME_ROWS * len(logits), limit, logits.device)
    state = torch.get_rng_state()
    with drawing_from(recorded):
        gradient, _ = replicator.each(_SAME_ROWS)  # [B, R, N · K]
    if reason := recorded.reason_against():
        return reason
    calls = [gradient]
    # Noise from elsewhere may be equal by chance, so that an estimator without draws is called more
    # often.
    for _ in range(1 if recorded.count else _REPEATS):
        with drawing_from(_RecordedDraws(_SAME_ROWS * len(logits), limit, logits.device)):
            calls.append(replicator.each(_SAME_ROWS)[0])
    rounding = 64 * torch.finfo(gradient.dtype).eps * gradient.abs().max()
    spread = (torch.cat(calls, 1) - gradient[:, :1]).abs().max()
    equal = not spread > rounding  # NaN where all are NaN
    if not equal or not torch.equal(torch.get_rng_state(), state):
        return NotEnumerable(
            "the draws include randomness from other sources than gradest.categorical"
        )
    count = recorded.outcomes
    problem = replicator.problem
    numbers = len(logits) * width(problem) // problem.f.samples  # of the codes of one evaluation
    work = count * numbers * (_PASSES + replicator.evaluations)
    if count > 1 and work > NUMBERS:
        return NotEnumerable(
            f"the draws have {count:,} joint outcomes, whose estimates take {number(work)} "
            f"numbers, and at most {number(NUMBERS)} are computed"
        )
    return recorded


def _count_text(digits: float) -> str:
    """A number as text, from its decimal logarithm."""
    return f"{round(10**digits):,}" if digits < _MOST_DIGITS else f"10^{digits:.0f}"


def _sum_outcomes(
    replicator: Replicator,
    recorded: _RecordedDraws,
    more: Callable[[Tensor], Tensor] | None,
    rows: int,
) -> ExactMoments | NotEnumerable:
    """The exact moments; NotEnumerable where other outcomes lead to other draws."""
    outcomes = recorded.outcomes
    points, device = len(replicator.logits), replicator.logits.device
    total = torch.zeros(points, 1, dtype=torch.float64, device=device)
    mean = square = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, outcomes, rows):
        numbers = torch.arange(start, min(start + rows, outcomes), device=device)
        source = _PrescribedDraws(numbers.repeat(points), recorded.radices)
        with drawing_from(source):
            gradient, value = replicator.each(len(numbers))  # [B, R, N · K], [B, R]
        if source.deviates():
            return NotEnumerable(_UNEQUAL)
        weight = torch.as_tensor(source.log_p, device=device).exp()
        weight = weight.expand(points * len(numbers)).unflatten(0, (points, -1)).unsqueeze(-1)
        further = () if more is None else (more(gradient.double()),)
        x = torch.cat([value.unsqueeze(-1).double(), gradient.double(), *further], -1)
        x.masked_fill_(weight == 0, 0.0)  # impossible outcomes may be infinite or NaN
        # Merged about the running mean, so that no E x² − (E x)² appears.
        here = weight.sum(1)  # [B, 1]
        centre = (weight * x).sum(1) / here.clamp(min=torch.finfo(here.dtype).tiny)
        spread = x.sub_(centre.unsqueeze(1)).square_().mul_(weight).sum(1)
        share = here / (total + here).clamp(min=torch.finfo(here.dtype).tiny)
        square = square + spread + (centre - mean).square() * total * share
        mean = mean + (centre - mean) * share
        total = total + here
        advance(len(numbers))
    shape = replicator.logits.shape
    size = 1 + shape[1:].numel()
    return ExactMoments(
        mean[:, 1:size].reshape(shape).cpu(),
        square[:, 1:size].reshape(shape).cpu(),
        mean[:, 0].cpu(),
        square[:, 0].cpu(),
        mean[:, size:].cpu(),
        square[:, size:].cpu(),
        outcomes,
    )
