"""vector-quantize-pytorch: the sampling of a code by Gumbel noise."""

from dataclasses import dataclass

from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import gumbel_sample

from gradest import SurrogateSample
from gradest.foreign import redirected
from gradest.knobs import Positive


@dataclass(eq=False)
class GumbelSample(SurrogateSample):
    """A sample of the tempered distribution, with the softmax without noise as its derivative.

    At the temperature 1 this is straight-through.
    """

    degree = 1
    temperature: Positive = 1.0

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return gumbel_sample(
                logits, temperature=self.temperature, stochastic=True, straight_through=True
            )[1]
