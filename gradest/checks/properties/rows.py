"""The results of a property of a distribution: rows with simultaneous intervals."""

import json
from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

import scipy
import torch
from torch import Tensor

from gradest.concrete import exp_concrete
from gradest.knobs import Knobs
from gradest.randomness import Draws, drawing_from, seed_of
from gradest.statistics import normal_isf

LEVEL = 1e-3  # the share of seeds for which some true property is reported not to hold
ROWS = 1000  # that share LEVEL; the shipped suite has fewer
_ROW_LEVEL = LEVEL / ROWS

Relation = Literal["=", "≥", "≤", "<"]


class Row(NamedTuple):
    """A quantity with its interval and its expected value.

    The interval is simultaneous: if the properties are true, then some interval of up to `ROWS`
    rows misses in one of 1/`LEVEL` seeds.  A row `holds` if the interval agrees with the relation
    to `expected` and is narrow enough to show an error that matters.
    """

    property: str
    settings: dict[str, Any]  # the knobs, as plain JSON data
    quantity: str
    value: float
    low: float
    high: float
    relation: Relation
    expected: float
    holds: bool
    how: str

    def record(self) -> dict[str, Any]:
        """Columns for a frame, with the settings as JSON text."""
        return {**self._asdict(), "settings": json.dumps(self.settings, sort_keys=True)}


class Estimate(NamedTuple):
    """A value, its simultaneous interval, and the method of its computation."""

    value: float
    low: float
    high: float
    how: str

    @classmethod
    def mean(cls, x: Tensor) -> "Estimate":
        """The mean of independent draws [R], by the central limit theorem."""
        mean, quantile = float(x.mean()), float(normal_isf(_ROW_LEVEL / 2))
        half = quantile * float(x.std()) / len(x) ** 0.5
        return cls(mean, mean - half, mean + half, _draws(len(x)))

    @classmethod
    def share(cls, events: Tensor) -> "Estimate":
        """The probability of events [R], by Clopper & Pearson, 1934."""
        hits, total = int(events.sum()), len(events)
        low = scipy.stats.beta.ppf(_ROW_LEVEL / 2, hits, total - hits + 1) if hits else 0.0
        high = scipy.stats.beta.isf(_ROW_LEVEL / 2, hits + 1, total - hits) if hits < total else 1.0
        return cls(hits / total, float(low), float(high), _draws(total))

    @classmethod
    def within(cls, value: float, error: float, how: str) -> "Estimate":
        """A value that is not random, with a bound on its error."""
        return cls(value, value - error, value + error, how)

    def over(self, unit: float) -> "Estimate":
        """The estimate in multiples of `unit` > 0."""
        return self._replace(value=self.value / unit, low=self.low / unit, high=self.high / unit)

    def root(self) -> "Estimate":
        """The square root of an estimate of a quantity that cannot be negative."""
        ends = (max(end, 0.0) ** 0.5 for end in self[:3])
        return Estimate(*ends, self.how)


class Property(Knobs, ABC):
    """A property of a distribution that can be checked, with its settings as knobs."""

    @abstractmethod
    def rows(self, seed: int) -> list[Row]:
        """Check the property, with draws from `seed`."""

    def source(self, seed: int) -> Draws:
        """A source of draws for this property, its settings and the seed."""
        return Draws.seeded(seed_of(json.dumps([self.name, self.knobs, seed])))

    def draw_samples(self, logits: Tensor, temperature: float, draws: int, seed: int) -> Tensor:
        """Samples y = log x: [K] -> [R, K]."""
        with drawing_from(self.source(seed)):
            return exp_concrete(logits.expand(draws, -1), temperature)

    def row(
        self,
        quantity: str,
        estimate: Estimate,
        relation: Relation,
        expected: float,
        resolution: float = 0.0,
        expected_error: float = 0.0,
    ) -> Row:
        """Compare an estimate with its expected value; `resolution` is the error that must show.

        Equal: the expected value is in the interval, and both ends are within the resolution of it.
        At least and at most: the interval reaches the right side, and reaches into the wrong side
        by at most the resolution, since a bound may be attained.  Less: the whole interval is on
        the right side.
        """
        above = estimate.high - expected + expected_error
        below = expected + expected_error - estimate.low
        holds = {
            "=": min(above, below) >= 0 and max(above, below) <= resolution,
            "≥": above >= 0 and below <= resolution,
            "≤": below >= 0 and above <= resolution,
            "<": above < 0,
        }
        return Row(
            self.name,
            self.knobs,
            quantity,
            *estimate[:3],
            relation,
            expected,
            holds[relation],
            estimate.how,
        )


_ALPHA = (2.0, 0.5, 1.0)
_BETA = (0.7, 1.1, 1.9, 0.4, 1.3)


def log_alpha(categories: int) -> Tensor:
    """log α, [K], for α = 2, 1/2, 1 in turn."""
    return torch.tensor([_ALPHA[k % 3] for k in range(categories)], dtype=torch.float64).log()


def log_beta(categories: int) -> Tensor:
    """log β, [K], of another distribution, whose ratios to α all differ up to five categories."""
    return torch.tensor([_BETA[k % 5] for k in range(categories)], dtype=torch.float64).log()


def subscript(k: int) -> str:
    return str(k).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _draws(count: int) -> str:
    return f"Monte Carlo, {count:,} draws"
