"""Streaming moments of blocks of replicates: mergeable, in float64.

Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979: means and centred sums of squares are merged, so that no difference of two large
numbers (E x² − (E x)²) ever appears.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

_FIELDS = ("count", "mean", "m2")


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and centred sum of squares of J independent batches of replicates.

    count [J], mean [J, D], m2 [J, D] with m2 = Σ (x − mean)², on the CPU in float64.  An empty
    batch has count 0 and is the neutral element of `merge`.  None of these tensors is changed.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    @classmethod
    def empty(cls, batches: int, coordinates: int) -> "Moments":
        zeros = torch.zeros(batches, coordinates, dtype=torch.float64)
        return cls(torch.zeros(batches, dtype=torch.float64), zeros, zeros.clone())

    @classmethod
    def of(cls, block: Tensor) -> "Moments":
        """The moments of J batches of n replicates each: [J, n, D]."""
        block = block.detach().to(torch.float64, copy=True)  # changed in place below
        mean = block.mean(1)
        centred = block.sub_(mean.unsqueeze(1))
        m2 = centred.mul_(centred).sum(1)
        count = torch.full((block.shape[0],), float(block.shape[1]), dtype=torch.float64)
        return cls(count, mean.cpu(), m2.cpu())

    def merge(self, other: "Moments") -> "Moments":
        """The moments of the replicates of both together, batch by batch."""
        count = self.count + other.count
        share = (other.count / count.clamp(min=1)).unsqueeze(-1)  # [J, 1]
        delta = other.mean - self.mean
        mean = self.mean + delta * share
        m2 = self.m2 + other.m2 + delta.square() * self.count.unsqueeze(-1) * share
        return Moments(count, mean, m2)

    @classmethod
    def stacked(cls, parts: Sequence["Moments"]) -> "Moments":
        """The batches of all parts, in order."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in _FIELDS))

    def in_batches(self, most: int) -> "Moments":
        """The same replicates in at most so many batches, of sizes as equal as theirs allow."""
        batches, coordinates = self.mean.shape
        merged = Moments.empty(min(batches, most), coordinates)
        for start in range(0, batches, most):
            part = Moments(*(getattr(self, name)[start : start + most] for name in _FIELDS))
            missing = len(merged.count) - len(part.count)
            merged = merged.merge(Moments.stacked([part, Moments.empty(missing, coordinates)]))
        return merged

    # Cached, since the columns of one row ask for them a dozen times.
    @cached_property
    def pooled(self) -> "Moments":
        """All batches merged into one: count [1], mean [1, D], m2 [1, D]."""
        count = self.count.sum(0, keepdim=True)
        weight = (self.count / count).unsqueeze(-1)
        mean = (weight * self.mean).sum(0, keepdim=True)
        between = (self.count.unsqueeze(-1) * (self.mean - mean).square()).sum(0, keepdim=True)
        return Moments(count, mean, self.m2.sum(0, keepdim=True) + between)

    @cached_property
    def mean_square(self) -> Tensor:
        """E x² of each coordinate: [D]."""
        pooled = self.pooled
        return pooled.mean[0].square() + pooled.m2[0] / pooled.count

    def column(self, number: int) -> "Moments":
        """The moments of one coordinate: [J, 1]."""
        column = slice(number, number + 1)
        return Moments(self.count, self.mean[:, column], self.m2[:, column])

    def scaled(self, weight: Tensor) -> "Moments":
        """The moments of weight · x, with a weight for each coordinate."""
        return Moments(self.count, self.mean * weight, self.m2 * weight.square())

    def to_json(self) -> dict[str, Any]:
        """Plain data, bit by bit."""
        return {name: encode(getattr(self, name)) for name in _FIELDS}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Moments":
        return cls(*(decode(data[name]) for name in _FIELDS))


def encode(x: Tensor) -> dict[str, Any]:
    """A float64 tensor as plain data, bit by bit."""
    raw = x.numpy().astype("<f8").tobytes()
    return {"shape": list(x.shape), "float64": base64.b64encode(raw).decode()}


def decode(data: dict[str, Any]) -> Tensor:
    """The tensor that `encode` has written."""
    raw = np.frombuffer(base64.b64decode(data["float64"]), "<f8").astype(np.float64)
    return torch.from_numpy(raw.reshape(data["shape"]))


BATCHES = 64  # independent batches of replicates, from which the intervals come
FEWER = 16  # batches for many coordinates, where the moments of 64 would take too much memory
_WIDE = 2**14  # coordinates above which there are fewer batches
PER_BATCH = 8  # replicates, at least
FEWEST = (
    64  # replicates, eight batches of eight; with fewer, intervals of skewed ones miss too often
)


def batches_of(replicates: int, coordinates: int = 1) -> int:
    """The number of batches that so many replicates of so many coordinates are divided into."""
    most = BATCHES if coordinates <= _WIDE else FEWER
    return max(1, min(most, replicates // PER_BATCH))


def schedule(replicates: int, chunk: int, coordinates: int = 1) -> Iterator[tuple[int, int, bool]]:
    """Pieces of at most `chunk` rows: (batches, replicates of each, continues the last batch).

    Batches are as equal as they can be and the same for every chunk size.
    """
    batches = batches_of(replicates, coordinates)
    short, longer = divmod(replicates, batches)
    for count, size in ((longer, short + 1), (batches - longer, short)):
        together = max(1, chunk // size)
        for first in range(0, count, together):
            for start in range(0, size, chunk):
                yield min(together, count - first), min(chunk, size - start), start > 0
