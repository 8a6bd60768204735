"""REINFORCE with an exponential moving average of past costs as its baseline.

    ĝ = (f(z) − m) ∇ log p(z),    z ~ p,    m ← β m + (1 − β) f̄

m is made of costs seen before this draw.  Folding the current cost into it first would make the
baseline depend on z, and the mean β ∇ E f instead of ∇ E f.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", Machine Learning 8, 1992.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import Cost, ScoreFunction
from gradest.categorical import sample
from gradest.knobs import Probability


@dataclass(eq=False)
class ReinforceEMA(ScoreFunction):
    evaluations = "1"
    adapt_steps = 200
    stackable = True
    decay: Probability = 0.95

    def reset(self, logits: Tensor) -> None:
        self._mean = None

    def adapt(self, logits: Tensor, f: Cost) -> None:
        cost = f(sample(logits)).detach().unflatten(0, (self.blocks, -1)).mean(1)  # [blocks]
        # Starting at the first cost seen: a start at 0 would take 1/(1 − β) steps to forget.
        self._mean = cost if self._mean is None else self._mean.lerp(cost, 1 - self.decay)

    def advantages(self, cost: Tensor) -> Tensor:
        return cost - (0.0 if self._mean is None else self.per_row(self._mean, cost))  # [R, 1]
