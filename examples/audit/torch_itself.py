"""torch: the relaxations of torch.nn.functional and torch.distributions."""

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import (
    Categorical,
    OneHotCategoricalStraightThrough,
    RelaxedOneHotCategorical,
)
from torch.nn import functional

from gradest import LAWS, PATHWISE, Cost, Estimator, SurrogateSample
from gradest.categorical import nabla, one_hot
from gradest.foreign import redirected
from gradest.knobs import Positive


@dataclass(eq=False)
class Score(Estimator):
    """Categorical.sample and log_prob, as REINFORCE is written with torch.distributions."""

    laws = LAWS - {"constant"}
    evaluations = "1"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        distribution = Categorical(logits=logits)
        with redirected(logits):
            index = distribution.sample()  # [R, N]
        cost = f(one_hot(index, logits))  # [R]
        return cost + cost.detach() * nabla(distribution.log_prob(index).sum(-1))


@dataclass(eq=False)
class GumbelSoftmax(SurrogateSample):
    relaxes = True
    laws = LAWS | {PATHWISE}
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return functional.gumbel_softmax(logits, tau=self.temperature)


@dataclass(eq=False)
class HardGumbelSoftmax(SurrogateSample):
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return functional.gumbel_softmax(logits, tau=self.temperature, hard=True)


@dataclass(eq=False)
class Relaxed(SurrogateSample):
    relaxes = True
    laws = LAWS | {PATHWISE}
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return RelaxedOneHotCategorical(
                logits.new_tensor(self.temperature), logits=logits
            ).rsample()


@dataclass(eq=False)
class StraightThrough(SurrogateSample):
    degree = 1

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return OneHotCategoricalStraightThrough(logits=logits).rsample()
