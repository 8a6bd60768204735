"""The moments of an estimator without replicates: every outcome of its draws, by probability.

Where all draws are from finite sets there are finitely many of them in all.  A source that
prescribes each joint outcome once, one a row, then takes the place of the random one, and the sums
weighted by probability are exact.  No estimator knows of it.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.costs import width
from gradest.measuring.progress import advance, phase
from gradest.measuring.replicator import Replicator
from gradest.quantities import number
from gradest.randomness import Draws, drawing_from

LIMIT = 1_000_000  # joint outcomes of the draws of one estimate
# Computed while they are visited.  About 20 ns each on one core, whether there are many outcomes of
# a few numbers or few of many: some seconds, at most.
NUMBERS = 500_000_000
_PASSES = 3  # over a gradient and for its moments, as much work as so many evaluations of f
_ROWS = 2**14  # at once
_AGAIN = 5  # calls of an estimator that draws nothing
_ALIKE = 4  # rows whose draws are the same, and so must be the estimates
_REQUESTS = 10_000  # from one estimate; draws from a single category never are too many outcomes
_MOST = 15  # decimal digits of a number of outcomes that is still counted exactly
_TOO_MANY = "too many outcomes"
_UNEQUAL = "how many draws there are depends on their outcomes"


class Enumerated(NamedTuple):
    """Exact moments of one estimate, with respect to log α and with the task's penalty."""

    mean: Tensor  # [B, N, K]
    variance: Tensor  # [B, N, K]
    value: Tensor  # [B], the mean objective
    value_variance: Tensor  # [B]
    more_mean: Tensor  # [B, C], of what else was asked for
    more_variance: Tensor  # [B, C]
    outcomes: int


class Unlisted(NamedTuple):
    """Why the joint outcomes of the draws are not all visited."""

    reason: str


class _Counted(Draws):
    """Draws from finite sets alone, as many for each of so many rows; it counts their outcomes.

    It never raises: an exception on its way through an estimator would leave open what that has
    opened, and may not even come out.  Where the outcomes cannot be listed, `reason` says why, and
    all that is still asked for is ordinary noise, of its own seed.  So an estimator that draws
    until it is content comes to an end as it always does.
    """

    def __init__(self, rows: int, limit: int, device: torch.device | str) -> None:
        super().__init__(torch.Generator(device).manual_seed(0))
        self.reason = ""
        self.radices: list[int] = []  # of every single draw of a row, in order
        self._digits = 0.0  # log₁₀ of the number of outcomes
        self._rows = rows
        self._limit = limit

    @property
    def generator(self) -> torch.Generator:
        self._refuse("they include noise past the vocabulary")
        return self._generator

    @generator.setter
    def generator(self, generator: torch.Generator) -> None:
        self._generator = generator

    @property
    def outcomes(self) -> int:
        """Of what is listed: no more than the limit."""
        return math.prod(self.radices)

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        index = self._listed(logits, samples)
        return super().categories(logits, samples) if index is None else index

    def _listed(self, logits: Tensor, samples: int) -> Tensor | None:
        """Indices [R, S, ...] as they are listed; None where they are not."""
        raise NotImplementedError

    def _counts(self, logits: Tensor, samples: int) -> int | None:
        """How many single draws a row takes at once; None where they cannot be listed."""
        rows, *middle, categories = logits.shape
        self.count += 1
        places = torch.Size(middle).numel() * samples
        self._digits += places * math.log10(max(categories, 1))
        if rows != self._rows:
            self._refuse(f"{rows} of them are drawn side by side for {self._rows} rows")
        elif self.count > _REQUESTS:
            self._refuse(f"they are asked for more than {_REQUESTS:,} times")
        # By logarithms first: of many draws the number itself would have millions of digits.
        elif self._digits > _MOST or self.outcomes * categories**places > self._limit:
            self._refuse("")
        if self.reason:
            return None
        if categories > 1:
            self.radices += [categories] * places
        return places

    def _refuse(self, reason: str) -> None:
        """The first reason counts; too many outcomes, of which more may come, are told as ""."""
        self.reason = self.reason or reason or _TOO_MANY

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        self._refuse(f"{law.strip('_')} noise has no finite number of outcomes")
        return super()._fill(shape, like, law)

    def unlisted(self) -> Unlisted | None:
        """Why the draws so far cannot be listed, if they cannot."""
        if self.reason != _TOO_MANY:
            return Unlisted(self.reason) if self.reason else None
        return Unlisted(
            f"they have {_counted(self._digits)} joint outcomes, and at most {self._limit:,} are "
            "enumerated"
        )


class _Recorded(_Counted):
    """Each draw is the likeliest, as long as all can be listed."""

    def _listed(self, logits: Tensor, samples: int) -> Tensor | None:
        if self._counts(logits, samples) is None:
            return None
        likeliest = logits.argmax(-1).unsqueeze(1)  # [R, 1, ...]
        return likeliest.expand(-1, samples, *likeliest.shape[2:])


class _Prescribed(_Counted):
    """Row by row the joint outcome of that number, in mixed radix: [R] numbers.

    The draws have to be those that were recorded, of these radices.
    """

    def __init__(self, number: Tensor, radices: Sequence[int]) -> None:
        super().__init__(len(number), math.prod(radices), number.device)
        self.log_p: Tensor | float = 0.0
        self._number = number
        self._recorded = radices

    def _listed(self, logits: Tensor, samples: int) -> Tensor | None:
        places, categories = self._counts(logits, samples), logits.shape[-1]
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
        """Whether other draws were taken than those recorded, once all are taken."""
        return bool(self.reason) or self.radices != self._recorded


def enumerated(
    replicator: Replicator,
    limit: int = LIMIT,
    more: Callable[[Tensor], Tensor] | None = None,
    rows: int = _ROWS,
) -> Enumerated | None:
    """The exact moments, or None where `visit_outcomes` says why there are none."""
    found = visit_outcomes(replicator, limit, more, rows)
    return found if isinstance(found, Enumerated) else None


def visit_outcomes(
    replicator: Replicator,
    limit: int = LIMIT,
    more: Callable[[Tensor], Tensor] | None = None,
    rows: int = _ROWS,
) -> Enumerated | Unlisted:
    """The exact moments, or why the joint outcomes of the draws are not all visited.

    They are not where the draws are endless, have more outcomes than `limit`, are not as many
    whatever their outcome, do not come row by row, or do not decide the estimate: a plugin may draw
    past the vocabulary.  Nor are they where a visit is too much work: B · N · K numbers for each
    outcome and evaluation of f, some passes of the gradient and its moments beside.  `more` maps
    gradients [B, R, N · K] to further statistics [B, R, C].  No more than `rows` outcomes are
    looked at together.
    """
    recorded = _recorded(replicator, limit)
    if isinstance(recorded, Unlisted):
        return recorded
    with phase("outcomes of the draws", recorded.outcomes):
        return _summed(replicator, recorded, more, min(rows, _ROWS))


def outcomes(replicator: Replicator, limit: int = LIMIT) -> int | None:
    """How many joint outcomes `enumerated` would visit, without visiting them."""
    recorded = _recorded(replicator, limit)
    return None if isinstance(recorded, Unlisted) else recorded.outcomes


def _recorded(replicator: Replicator, limit: int) -> _Recorded | Unlisted:
    """The draws of an estimate, where their outcomes can be visited."""
    logits = replicator.logits
    recorded = _Recorded(_ALIKE * len(logits), limit, logits.device)
    state = torch.get_rng_state()
    with drawing_from(recorded):
        gradient, _ = replicator.each(_ALIKE)  # [B, R, N · K]
    if unlisted := recorded.unlisted():
        return unlisted
    seen = [gradient]
    # Noise from elsewhere may be the same by chance: what draws nothing is looked at more often.
    for _ in range(1 if recorded.count else _AGAIN):
        with drawing_from(_Recorded(_ALIKE * len(logits), limit, logits.device)):
            seen.append(replicator.each(_ALIKE)[0])
    rounding = 64 * torch.finfo(gradient.dtype).eps * gradient.abs().max()
    spread = (torch.cat(seen, 1) - gradient[:, :1]).abs().max()
    alike = not spread > rounding  # NaN where all are NaN
    if not alike or not torch.equal(torch.get_rng_state(), state):
        return Unlisted("they include randomness past the vocabulary")
    count = recorded.outcomes
    problem = replicator.problem
    numbers = len(logits) * width(problem) // problem.f.samples  # of the codes of one evaluation
    work = count * numbers * (_PASSES + replicator.evaluations)
    if count > 1 and work > NUMBERS:
        return Unlisted(
            f"they have {count:,} joint outcomes, whose estimates take {number(work)} numbers, and "
            f"at most {number(NUMBERS)} are computed"
        )
    return recorded


def _counted(digits: float) -> str:
    """So many, from its decimal logarithm."""
    return f"{round(10**digits):,}" if digits < _MOST else f"10^{digits:.0f}"


def _summed(
    replicator: Replicator,
    recorded: _Recorded,
    more: Callable[[Tensor], Tensor] | None,
    rows: int,
) -> Enumerated | Unlisted:
    """Unlisted where other outcomes lead to other draws than those recorded."""
    outcomes = recorded.outcomes
    points, device = len(replicator.logits), replicator.logits.device
    total = torch.zeros(points, 1, dtype=torch.float64, device=device)
    mean = square = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, outcomes, rows):
        numbers = torch.arange(start, min(start + rows, outcomes), device=device)
        source = _Prescribed(numbers.repeat(points), recorded.radices)
        with drawing_from(source):
            gradient, value = replicator.each(len(numbers))  # [B, R, N · K], [B, R]
        if source.deviates():
            return Unlisted(_UNEQUAL)
        weight = torch.as_tensor(source.log_p, device=device).exp()
        weight = weight.expand(points * len(numbers)).unflatten(0, (points, -1)).unsqueeze(-1)
        asked = () if more is None else (more(gradient.double()),)
        x = torch.cat([value.unsqueeze(-1).double(), gradient.double(), *asked], -1)
        x.masked_fill_(weight == 0, 0.0)  # what cannot happen may be infinite or NaN
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
    return Enumerated(
        mean[:, 1:size].reshape(shape).cpu(),
        square[:, 1:size].reshape(shape).cpu(),
        mean[:, 0].cpu(),
        square[:, 0].cpu(),
        mean[:, size:].cpu(),
        square[:, size:].cpu(),
        outcomes,
    )
