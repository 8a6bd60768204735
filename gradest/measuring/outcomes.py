"""The moments of an estimator without replicates: every outcome of its draws, by probability.

Where all draws are from finite sets there are finitely many of them in all.  A source that
prescribes each joint outcome once, one a row, then takes the place of the random one, and the sums
weighted by probability are exact.  No estimator knows of it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.measuring.replicator import Replicator
from gradest.randomness import Draws, drawing_from

LIMIT = 1_000_000  # joint outcomes of the draws of one estimate
_ROWS = 2**14  # at once
_ALIKE = 4  # rows whose draws are the same, and so must be the estimates


class Enumerated(NamedTuple):
    """Exact moments of one estimate, with respect to log α and with the task's penalty."""

    mean: Tensor  # [B, N, K]
    variance: Tensor  # [B, N, K]
    value: Tensor  # [B], the mean objective
    value_variance: Tensor  # [B]
    more_mean: Tensor  # [B, C], of what else was asked for
    more_variance: Tensor  # [B, C]
    outcomes: int


class _NotListed(Exception):
    """Draws whose joint outcomes cannot be listed beforehand."""


class _Finite(Draws):
    """Draws from finite sets alone, as many for each of so many rows; it counts the outcomes.

    Raises _NotListed for all others, and past `limit` outcomes: also an estimator that draws until
    it is content comes to an end.
    """

    def __init__(self, rows: int, limit: int) -> None:
        super().__init__()
        self.radices: list[int] = []  # of every single draw of a row, in order
        self.outcomes = 1
        self._rows = rows
        self._limit = limit

    @property
    def generator(self) -> None:
        raise _NotListed("noise past the vocabulary")

    @generator.setter
    def generator(self, generator: None) -> None:
        """There is none."""

    def _took(self, logits: Tensor, samples: int) -> int:
        """Counts the single draws that a row takes at once, and returns their number."""
        rows, *middle, categories = logits.shape
        if rows != self._rows:
            raise _NotListed(f"{rows} draws side by side for {self._rows} rows")
        self.count += 1
        places = torch.Size(middle).numel() * samples
        self.radices += [categories] * places
        self.outcomes *= categories**places
        if self.outcomes > self._limit:
            raise _NotListed(f"more than {self._limit} outcomes")
        return places

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        raise _NotListed(f"{law} noise has no finite number of outcomes")


class _Recorded(_Finite):
    """Each draw is the likeliest."""

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        self._took(logits, samples)
        likeliest = logits.argmax(-1).unsqueeze(1)  # [R, 1, ...]
        return likeliest.expand(-1, samples, *likeliest.shape[2:])


class _Prescribed(_Finite):
    """Row by row the joint outcome of that number, in mixed radix: [R] numbers."""

    def __init__(self, number: Tensor, outcomes: int) -> None:
        super().__init__(len(number), outcomes)
        self.log_p: Tensor | float = 0.0
        self._number = number

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        places, categories = self._took(logits, samples), logits.shape[-1]
        place = categories ** torch.arange(places, device=logits.device)
        digits = self._number.unsqueeze(1) // place % categories  # [R, S · ...]
        self._number = self._number // categories**places
        index = digits.unflatten(1, (samples, *logits.shape[1:-1]))
        log_pi = logits.detach().double().log_softmax(-1).unsqueeze(1)  # [R, 1, ..., K]
        chosen = log_pi.expand(-1, samples, *logits.shape[1:]).gather(-1, index.unsqueeze(-1))
        self.log_p = self.log_p + chosen.flatten(1).sum(1)  # [R]
        return index


def enumerated(
    replicator: Replicator,
    limit: int = LIMIT,
    more: Callable[[Tensor], Tensor] | None = None,
    rows: int = _ROWS,
) -> Enumerated | None:
    """The exact moments, or None where the joint outcomes of the draws cannot be listed.

    So it is where the draws are endless, have more outcomes than `limit`, are not as many whatever
    their outcome, do not come row by row, or do not decide the estimate: a plugin may draw past the
    vocabulary.  `more` maps gradients [B, R, N · K] to further statistics [B, R, C].  No more than
    `rows` outcomes are looked at together.
    """
    try:
        return _summed(replicator, _recorded(replicator, limit), more, min(rows, _ROWS))
    except _NotListed:
        return None


def outcomes(replicator: Replicator, limit: int = LIMIT) -> int | None:
    """How many joint outcomes `enumerated` would visit, without visiting them."""
    try:
        return _recorded(replicator, limit).outcomes
    except _NotListed:
        return None


def _recorded(replicator: Replicator, limit: int) -> _Recorded:
    """The draws of an estimate.  Raises _NotListed where they cannot be listed."""
    recorded = _Recorded(_ALIKE * len(replicator.logits), limit)
    state = torch.get_rng_state()
    with drawing_from(recorded):
        gradient, _ = replicator.each(_ALIKE)  # [B, R, N · K]
    rounding = 64 * torch.finfo(gradient.dtype).eps * gradient.abs().max()
    alike = not (gradient - gradient[:, :1]).abs().max() > rounding  # NaN where all are NaN
    if not alike or not torch.equal(torch.get_rng_state(), state):
        raise _NotListed("randomness past the vocabulary")
    return recorded


def _summed(
    replicator: Replicator,
    recorded: _Recorded,
    more: Callable[[Tensor], Tensor] | None,
    rows: int,
) -> Enumerated:
    """Raises _NotListed where other outcomes lead to other draws than those recorded."""
    outcomes = recorded.outcomes
    points, device = len(replicator.logits), replicator.logits.device
    total = torch.zeros(points, 1, dtype=torch.float64, device=device)
    mean = square = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, outcomes, rows):
        number = torch.arange(start, min(start + rows, outcomes), device=device)
        source = _Prescribed(number.repeat(points), outcomes)
        with drawing_from(source):
            gradient, value = replicator.each(len(number))  # [B, R, N · K], [B, R]
        if source.radices != recorded.radices:
            raise _NotListed("how many draws there are depends on them")
        weight = torch.as_tensor(source.log_p, device=device).exp()
        weight = weight.expand(points * len(number)).unflatten(0, (points, -1)).unsqueeze(-1)
        asked = () if more is None else (more(gradient.double()),)
        x = torch.cat([value.unsqueeze(-1).double(), gradient.double(), *asked], -1)
        # What cannot happen may be infinite or NaN.
        x = torch.where(weight > 0, x, 0.0)
        # Merged about the running mean, so that no E x² − (E x)² appears.
        here = weight.sum(1)  # [B, 1]
        centre = (weight * x).sum(1) / here.clamp(min=torch.finfo(here.dtype).tiny)
        spread = (weight * (x - centre.unsqueeze(1)).square()).sum(1)
        share = here / (total + here).clamp(min=torch.finfo(here.dtype).tiny)
        square = square + spread + (centre - mean).square() * total * share
        mean = mean + (centre - mean) * share
        total = total + here
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
