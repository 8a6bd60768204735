"""Structured output prediction: the lower half of an image from its upper half.

    f(z) = −log p(lower | z),    z ~ q(z | upper)

There is no prior and no divergence: E f bounds −log p(lower | upper), and with `samples` = m > 1
the objective is the tighter bound E −log 1/m Σᵢ p(lower | zᵢ).  log α comes from an encoder
D/2-`encoder`-(N × K), the logits of the lower pixels from a decoder (N × K)-`decoder`-D/2, by
default both linear; the decoder is the encoder mirrored, unless it has layers of its own.  With
K = 2 there is one unit a latent in place of two, log α = (0, φ), and what reads z reads the weight
of category 1.  Off the vertices all that reads z reads the relaxed code.

With `layers` = L > 1 there are L layers of N latents, each a linear map of the one before:

    E f = E_{z₁ ~ q₁(z₁ | upper)} E_{z₂ ~ q₂(z₂ | z₁)} ... −log p(lower | z_L)

What is measured is the gradient with respect to the logits of the first; an estimator estimates
the means over the others as well.

All networks are trained for `steps` steps before anything is measured, with a leave-one-out score
function; the trained state is kept in the cache folder.  What is measured is a fixed batch of
`points` held-out images, the first or the one of number `batch`.

Raiko, Berglund, Alain & Dinh, "Techniques for learning binary stochastic feedforward neural
networks", 2015, arXiv 1406.2989; Jang, Gu & Poole, "Categorical reparameterization with
Gumbel-softmax", 2017, arXiv 1611.01144.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gradest import Cost, Problem
from gradest.errors import KnobError
from gradest.knobs import AtLeast1, AtLeast2

from ._codes import Bits, Categories
from ._models import ImageModel, surprise
from ._networks import Activation, Layers, network, widths


@dataclass(eq=False)
class StructuredPrediction(ImageModel):
    latents: AtLeast1 = 4
    categories: AtLeast2 = 6
    layers: AtLeast1 = 1
    encoder: Layers = "linear"
    decoder: Layers | Literal["mirrored"] = "mirrored"
    activation: Activation = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers > 1 and self.samples > 1:
            raise KnobError(
                f"{self.name}: layers = {self.layers} and samples = {self.samples}; expected one "
                "of them to be 1"
            )

    def networks(self, seed: int) -> nn.ModuleDict:
        generator = torch.Generator().manual_seed(seed)
        half, units, encoding = self.side**2 // 2, self._coding.units, widths(self.encoder)
        decoding = encoding[::-1] if self.decoder == "mirrored" else widths(self.decoder)

        def made(*sizes: int) -> nn.Sequential:
            return network(sizes, self.activation, generator)

        return nn.ModuleDict(
            {
                "encoder": made(half, *encoding, units),
                "between": nn.ModuleList(made(units, units) for _ in range(self.layers - 1)),
                "decoder": made(units, *decoding, half),
            }
        )

    def problem_at(self, networks: nn.ModuleDict, x: Tensor) -> Problem:
        coding = self._coding
        upper, lower = x.chunk(2, -1)  # [B, D/2] each

        def cost(z: Tensor, decoder: Callable[[Tensor], Tensor]) -> Tensor:
            return surprise(decoder(coding.read(z)), lower)  # [B, ...]

        def before(f: Cost) -> Callable[..., Problem]:
            return lambda z, layer: Problem(coding.logits(layer(coding.read(z))), f)

        f = Cost(cost, networks["decoder"], samples=self.samples)
        for layer in reversed(networks["between"]):
            f = Cost(before(f), layer, deep=True)
        return Problem(coding.logits(networks["encoder"](upper)), f)

    def decode_images(self, networks: nn.ModuleDict, x: Tensor, z: Tensor) -> Tensor:
        """The upper half as it is given, and the lower as it is generated from the last layer's z.

        [B, D] and [B, ..., N, K] -> [B, ..., H, W].
        """
        lower = networks["decoder"](self._coding.read(z)).sigmoid()  # [B, ..., D/2]
        upper = x.chunk(2, -1)[0].reshape(len(x), *(1,) * (lower.ndim - 2), -1)
        whole = torch.cat([upper.to(lower).expand_as(lower), lower], -1)
        return whole.unflatten(-1, (self.side, self.side))

    @property
    def _coding(self) -> Categories | Bits:
        if self.categories == 2:
            return Bits(self.latents)
        return Categories(self.latents, self.categories)
