"""Variational autoencoders of images, whatever their latents are.

    f(z) = −log p(x | z),    z ~ q(z | x) = Πₙ Cat(αₙ(x)),    log p(z) = Σₙ log Cat(zₙ)

so that E f + KL(q(z | x) ‖ p) is the negative ELBO of a data point.  log α comes from an encoder,
the logits of the pixels from a decoder, which off the vertices reads the relaxed code in place of
the one-hot one.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gradest import Cost, Problem
from gradest.costs import KL
from gradest.errors import KnobError
from gradest.knobs import AtLeast1

from ._codes import Bits, Categories
from ._models import ImageModel, surprise
from ._networks import Activation, Layers, Logits, network, widths


def check_bound(model: ImageModel) -> None:
    """Raise KnobError for a bound of several samples whose divergence is not sampled."""
    if model.samples > 1 and model.kl != "sampled":
        raise KnobError(
            f"{model.name}: expected kl = 'sampled' for samples = {model.samples}, got {model.kl!r}"
        )


def negative_elbo(
    model: ImageModel,
    cost: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor],
    decoder: nn.Module,
    logits: Tensor,
    prior: Tensor,
) -> Problem:
    """The problem whose objective is the negative ELBO, or the bound, of each data point."""
    f = Cost(cost, decoder, prior=prior, kl=model.kl, samples=model.samples, logits=logits)
    return Problem(logits, f)


@dataclass(eq=False)
class VAE(ImageModel):
    """What autoencoders share; a subclass says what its latents are."""

    measured_alone: ClassVar[tuple[str, ...]] = (*ImageModel.measured_alone, "kl")
    latents: AtLeast1 = 4
    decoder: Layers | Literal["mirrored"] = "mirrored"
    activation: Activation = "tanh"
    prior: Literal["uniform", "learned"] = "uniform"
    kl: KL = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound(self)

    @property
    @abstractmethod
    def encoding(self) -> tuple[int, ...]:
        """The widths of the encoder's hidden layers."""

    @property
    @abstractmethod
    def coding(self) -> Categories | Bits:
        """What the encoder's output and the decoder's input are."""

    def networks(self, seed: int) -> nn.ModuleDict:
        generator = torch.Generator().manual_seed(seed)
        pixels, units, encoding = self.side**2, self.coding.units, self.encoding
        decoding = encoding[::-1] if self.decoder == "mirrored" else widths(self.decoder)
        parts: dict[str, nn.Module] = {
            "encoder": network((pixels, *encoding, units), self.activation, generator),
            "decoder": network((units, *decoding, pixels), self.activation, generator),
        }
        if self.prior == "learned":
            parts["prior"] = Logits(*self.coding.logits(torch.zeros(units)).shape)
        return nn.ModuleDict(parts)

    def problem_at(self, networks: nn.ModuleDict, x: Tensor) -> Problem:
        coding = self.coding
        logits = coding.logits(networks["encoder"](x))

        def cost(z: Tensor, decoder: Callable[[Tensor], Tensor]) -> Tensor:
            return surprise(decoder(coding.read(z)), x)  # [B, ...]

        learned = self.prior == "learned"
        prior = networks["prior"]() if learned else logits.new_zeros(logits.shape[1:])
        return negative_elbo(self, cost, networks["decoder"], logits, prior)

    def decode_images(self, networks: nn.ModuleDict, x: Tensor, z: Tensor) -> Tensor:
        pixels = networks["decoder"](self.coding.read(z))
        return pixels.sigmoid().unflatten(-1, (self.side, self.side))
