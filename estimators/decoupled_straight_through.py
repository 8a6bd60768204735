"""Decoupled straight-through: a temperature for the sample, one for its gradient.

    ĝ = 1/τ_b J(softmax(log α / τ_b)) f'(z),    z ~ Cat(softmax(log α / τ_f))

τ_f acts on the logits alone; were their Gumbel noise divided too, it would not change z.  τ_f ≠ 1
draws z from another law than Cat(α), so value and gradient then speak of that law; they are held
against E f under Cat(α), where τ_f = 1.  τ_f = τ_b = 1 is straight_through.  Biased: with τ_b ≠ 1
even for affine f.

The paper's first version divides log α + G, the Gumbel noise being common to both passes; at
τ_f = 1 that is st_gumbel_softmax.  This is the second, as far as its abstract says.

f must be differentiable at the vertices; one evaluation and one derivative.

Shah, Yan, Mozer & Liu, "Improving discrete optimisation via decoupled straight-through
estimator", 2024, arXiv 2410.13331.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import sample, softmax, straight_through
from gradest.knobs import Positive


@dataclass(eq=False)
class DecoupledStraightThrough(SurrogateSample):
    degree = 1
    limit = {"temperature_backward": 1.0}
    temperature_forward: Positive = 1.0
    temperature_backward: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        z = sample(logits / self.temperature_forward)  # [R, N, K]
        return straight_through(z, softmax(logits / self.temperature_backward))  # [R]
