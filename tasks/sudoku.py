"""A sudoku: every digit once in each row, column and box.

    f(z) = Σ_u Σ_d (Σ_{n in u} z_nd − 1)²

over the 27 units u and the nine digits d: zero for a solution alone.  A latent is a cell that the
puzzle leaves empty.  Given cells are constants of f, not latents, because nothing of them is
random: they are written in the puzzle, whose empty cells are `.` or `0`, row by row.  A puzzle of
81 empty cells therefore has 81 latents of nine categories.  A puzzle of 16 characters is a sudoku
of four digits.

log α is normal with standard deviation `spread`, from `seed`, minus `hint` for every digit that a
given cell in the same row, column or box rules out.  Off the vertices f is the same polynomial, a
quadratic form in independent one-hot vectors, so that E f is exact at any size:

    E f = Σ_u Σ_d [(Σ_{n in u} π_nd − 1)² + Σ_{n in u} π_nd (1 − π_nd)]

Wang, Donti, Wilder & Kolter, "SATNet: bridging deep learning and logical reasoning using a
differentiable satisfiability solver", 2019, arXiv 1905.12149, has sudoku as a test of
differentiable methods; Lucas, "Ising formulations of many NP problems", 2014, arXiv 1302.5843,
squared penalties for constraints of this kind.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import one_hot

from gradest import Cost, Problem, Task
from gradest.errors import KnobError

_SIDES = {16: 4, 81: 9}  # characters of a puzzle -> digits
# Thirty given cells and one solution.
_PUZZLE = ".......9.376..9.25...54...34.2.3..816........5....47.9.6.9.....941....3.8.....916"


@dataclass(eq=False)
class Sudoku(Task):
    puzzle: str = _PUZZLE
    spread: Annotated[float, Ge(0)] = 1.0
    hint: Annotated[float, Ge(0)] = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.puzzle) not in _SIDES:
            raise KnobError(
                f"{self.name}: puzzle has {len(self.puzzle)} characters; expected 81, or 16 for a "
                "sudoku of four digits"
            )
        digits = "".join(map(str, range(1, self._side + 1)))
        for place, text in enumerate(self.puzzle):
            if text not in f".0{digits}":
                raise KnobError(
                    f"{self.name}: puzzle has {text!r} in {self._cell(place)}; expected a digit "
                    f"from 1 to {self._side}, or . for an empty cell"
                )
        self._check_givens()

    def _check_givens(self) -> None:
        """Raise KnobError for a digit that is given twice in a unit, and if no cell is empty."""
        if not self._empty.any():
            raise KnobError(f"{self.name}: puzzle leaves no cell empty; expected at least one .")
        for unit in self._units:
            cells = [n for n in unit.nonzero().flatten().tolist() if not self._empty[n]]
            first = {self.puzzle[n]: n for n in reversed(cells)}
            for n in cells:
                if first[self.puzzle[n]] != n:
                    raise KnobError(
                        f"{self.name}: puzzle has {self.puzzle[n]} in both "
                        f"{self._cell(first[self.puzzle[n]])} and {self._cell(n)}, which are in "
                        "one row, column or box"
                    )

    def problem(self, batch: Any = None) -> Problem:
        draws = torch.Generator().manual_seed(self.seed)
        shape = (self._side**2, self._side)  # of all cells, so that a given changes no other draw
        normal = torch.randn(shape, generator=draws, dtype=torch.float64)
        neighbours = (self._units.T @ self._units).bool().double()  # [N, N]
        ruled_out = (neighbours @ self._givens > 0).double()  # [N, K]
        logits = self.spread * normal - self.hint * ruled_out
        return Problem(logits[self._empty].unsqueeze(0), Cost(self._cost))

    def expectation(self, logits: Tensor) -> Tensor:
        pi = logits.softmax(-1)
        units = self._units[:, self._empty].sum(0)  # of each latent: three
        return self._cost(pi) + ((pi * (1 - pi)).sum(-1) * units).sum(-1)

    def _cost(self, z: Tensor) -> Tensor:  # [..., N, K] -> [...]
        units = self._units[:, self._empty].to(z)  # [U, N]
        given = (self._units @ self._givens).to(z)  # [U, K]
        return (units @ z + given - 1).square().sum((-2, -1))

    @cached_property
    def _side(self) -> int:
        return _SIDES[len(self.puzzle)]

    @cached_property
    def _empty(self) -> Tensor:
        """The cells that are latents: booleans for all cells."""
        return torch.tensor([text in ".0" for text in self.puzzle])

    @cached_property
    def _givens(self) -> Tensor:
        """The one-hot digits of given cells, and zeros: [cells, K]."""
        digits = torch.tensor([0 if text == "." else int(text) for text in self.puzzle])
        return one_hot(digits, self._side + 1)[:, 1:].double()

    @cached_property
    def _units(self) -> Tensor:
        """Which cells are in each row, column and box: [U, cells]."""
        side = self._side
        place = torch.arange(side**2)
        row, column, size = place // side, place % side, round(side**0.5)
        box = row // size * size + column // size
        return torch.cat([one_hot(each, side).T for each in (row, column, box)]).double()

    def _cell(self, place: int) -> str:
        return f"row {place // self._side + 1}, column {place % self._side + 1}"
