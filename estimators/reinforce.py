"""REINFORCE: the score-function estimator, with a constant baseline.

    ĝ = (f(z) − c) ∇ log p(z),    z ~ p

Unbiased for every constant c, since E ∇ log p = 0.  The variance depends on where c lies, and is
at its worst when f is far from c: adding 10 to f changes no gradient but multiplies the noise.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", Machine Learning 8, 1992.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, ScoreFunction


@dataclass(eq=False)
class Reinforce(ScoreFunction):
    laws = LAWS - {"constant"}
    evaluations = "1"
    baseline: float = 0.0

    def advantages(self, cost: Tensor) -> Tensor:
        return cost - self.baseline  # [R, 1]
