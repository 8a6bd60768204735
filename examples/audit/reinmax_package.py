"""reinmax: the implementation by the authors of the paper.

Liu, Dong, Liu, Yu & Gao, "Bridging discrete and backpropagation: straight-through and beyond",
2023, arXiv 2304.08612.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from reinmax import reinmax
from torch import Tensor

from gradest import SurrogateSample
from gradest.foreign import redirected


@dataclass(eq=False)
class ReinMax(SurrogateSample):
    degree = 2
    temperature: Annotated[float, Ge(1)] = 1.0

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return reinmax(logits, self.temperature)[0]
