"""General costs: a number for each of the K^N codes, extended off the vertices by a polynomial.

    f(z) = Σ_c F_c Πₙ zₙ[cₙ] + Σₙₖ zₙₖ (1 − zₙₖ) (aₙₖ + bₙₖ zₙₖ)

The first sum is the multilinear extension of the table F.  The second is zero at every vertex: it
changes neither the truth nor a method that evaluates f at codes alone, and bends f between them by
degree 2 (a) and degree 3 (b), for methods that evaluate or differentiate f elsewhere.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradest.contracts import Task
from gradest.costs import Cost, Problem

Range = tuple[float, float]

SMALL_PROBLEMS = {"N": (1, 3), "K": (2, 4)}
MOST_CODES = 4096  # of a problem of general costs
LOGITS, COSTS = (-4.0, 4.0), (-1.0, 1.0)
DEGREES = (1, 2, 3)


class Entry(NamedTuple):
    """A task as a suite lists it: its name, its knobs, and the knobs of a plugin to be written."""

    task: str
    knobs: Mapping[str, Any]
    plugin: Mapping[str, Any] | None = None


class Space(ABC):
    """Problems of one size, as points of a box: one row of numbers is one problem."""

    bounds: np.ndarray  # [V, 2], the lowest and the highest value of each number

    @abstractmethod
    def task(self, x: np.ndarray) -> Task:
        """The problems of rows x [P, V] as the data points of one task.

        Raises UsageError where they cannot be built.
        """

    def groups(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, Task]]:
        """The problems of rows x by their size: the indices of rows, and their task.

        Rows that do not make a valid problem are left out.
        """
        yield np.arange(len(x)), self.task(x)

    @abstractmethod
    def entry(self, x: np.ndarray) -> Entry:
        """The problem of one row x [V], for a suite."""

    @abstractmethod
    def smaller(self, x: np.ndarray) -> Iterator[tuple["Space", np.ndarray]]:
        """Problems with a latent or a category less that resemble the one of x [V]."""

    def rounded(self, x: np.ndarray, decimals: int) -> np.ndarray:
        """The problems of x with numbers of so many decimals, within the bounds."""
        return np.clip(np.round(x, decimals), *self.bounds.T)


class CostTables(Task):
    """Problems with general costs, one a data point: F [B, K^N], and a and b [B, N, K] or fewer."""

    def __init__(self, logits: Tensor, costs: Tensor, bends: tuple[Tensor, ...]) -> None:
        self._logits, self._costs, self._bends = logits, costs, bends

    def problem(self, batch: Any = None) -> Problem:
        return Problem(self._logits, Cost(self._cost))

    def _cost(self, z: Tensor) -> Tensor:  # [B, ..., N, K] -> [B, ...]
        rows = z.flatten(1, -3)  # [B, M, N, K]
        value = self._costs.to(z).unsqueeze(1)  # [B, 1, K^N]
        for weight in rows.unbind(-2):  # [B, M, K]
            value = (weight.unsqueeze(-2) @ value.unflatten(-1, (z.shape[-1], -1))).squeeze(-2)
        value = value.squeeze(-1)  # [B, M]
        for power, bend in enumerate(self._bends):
            hump = rows ** (power + 1) * (1 - rows)  # [B, M, N, K]
            value = value + torch.einsum("bmnk,bnk->bm", hump, bend.to(z))
        return value.unflatten(1, z.shape[1:-2])


@dataclass(frozen=True, eq=False)
class GeneralSpace(Space):
    """General costs of N latents with K categories: log α, then F, then a and b up to a degree."""

    latents: int
    categories: int
    degree: int = 3
    logits: Range = LOGITS
    costs: Range = COSTS

    @property
    def bounds(self) -> np.ndarray:
        entries = self.latents * self.categories
        return np.array(
            [self.logits] * entries
            + [self.costs] * self.categories**self.latents
            + [self.costs] * (entries * (self.degree - 1))
        )

    def __str__(self) -> str:
        return f"general costs, N = {self.latents}, K = {self.categories}"

    def task(self, x: np.ndarray) -> Task:
        logits, costs, *bends = (torch.from_numpy(part) for part in self._parts(x))
        return CostTables(logits, costs.flatten(1), tuple(bends))

    def entry(self, x: np.ndarray) -> Entry:
        logits, costs, *bends = (part[0] for part in self._parts(x[None]))
        bends = [*bends, *[np.zeros_like(logits)] * (2 - len(bends))]
        knobs = dict(zip(("quadratic", "cubic"), bends, strict=True))
        knobs = {"logits": logits, "costs": costs} | knobs
        plain = {name: _plain(part) for name, part in knobs.items()}
        return Entry("counterexample", {}, {"categories": self.categories} | plain)

    def smaller(self, x: np.ndarray) -> Iterator[tuple[Space, np.ndarray]]:
        logits, costs, *bends = (part[0] for part in self._parts(x[None]))
        if self.latents > 1:  # one latent is held at a category
            space = replace(self, latents=self.latents - 1)
            for n, k in np.ndindex(self.latents, self.categories):
                kept = [np.delete(part, n, 0) for part in (logits, *bends)]
                yield space, _joined(kept[0], costs.take(k, n), kept[1:])
        if self.categories > 2:  # every latent loses a category
            space = replace(self, categories=self.categories - 1)
            everything = range(self.categories)
            for lost in itertools.product(everything, repeat=self.latents):
                index = [[k for k in everything if k != gone] for gone in lost]
                kept = [np.take_along_axis(p, np.array(index), 1) for p in (logits, *bends)]
                yield space, _joined(kept[0], costs[np.ix_(*index)], kept[1:])

    def _parts(self, x: np.ndarray) -> list[np.ndarray]:
        """log α [P, N, K], F [P, K, …, K], and the bends [P, N, K]."""
        shape = (self.latents, self.categories)
        sizes = [self.latents * self.categories, self.categories**self.latents]
        sizes += [sizes[0]] * (self.degree - 1)
        parts = np.split(x, np.cumsum(sizes)[:-1], axis=1)
        shapes = [shape, (self.categories,) * self.latents, *[shape] * (self.degree - 1)]
        return [part.reshape(-1, *own) for part, own in zip(parts, shapes, strict=True)]


def _joined(logits: np.ndarray, costs: np.ndarray, bends: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([part.ravel() for part in (logits, costs, *bends)])


def _plain(array: np.ndarray) -> tuple[float, ...]:
    """All numbers in a row, without negative zeros."""
    return tuple(float(x) + 0.0 for x in array.ravel())


def general_spaces(
    latents: Range = SMALL_PROBLEMS["N"],
    categories: Range = SMALL_PROBLEMS["K"],
    degree: int = 3,
    logits: Range = LOGITS,
    costs: Range = COSTS,
) -> list[Space]:
    """The spaces of general costs for all these N and K, from few codes to many."""
    sizes = itertools.product(
        range(int(latents[0]), int(latents[1]) + 1),
        range(int(categories[0]), int(categories[1]) + 1),
    )
    ordered = sorted(sizes, key=lambda size: (size[1] ** size[0], size[0]))
    return [GeneralSpace(n, k, degree, logits, costs) for n, k in ordered]
