"""A stochastic vector-quantised autoencoder of images.

    f(z) = −log p(x | z C),    zₙ ~ Cat(αₙ(x)),    log αₙₖ = −‖eₙ(x) − cₖ‖² / τ

The encoder D-`hidden`-(N × d) gives N vectors eₙ of `dimension` d; the codebook C holds K vectors
cₖ, which are the likelier to be chosen the closer they are; a decoder (N × d)-`hidden`-D reads the
chosen ones.  In the limit τ → 0 this is the vector quantisation of VQ-VAE.  E f + KL(q(z | x) ‖ p)
with a uniform prior p is the negative ELBO of a data point.  Off the vertices the decoder reads the
mean z C of the codebook's vectors.

Encoder, codebook and decoder are trained for `steps` steps before anything is measured, with a
leave-one-out score function, which favours no relaxation; the trained state is kept in the cache
folder.  What is measured is a fixed batch of `points` held-out images, the first or the one of
number `batch`.

van den Oord, Vinyals & Kavukcuoglu, "Neural discrete representation learning", 2017,
arXiv 1711.00937; Sønderby, Poole & Mnih, "Continuous relaxation training of discrete latent
variable image models", 2017; Roy, Vaswani, Neelakantan & Parmar, "Theory and experiments on vector
quantized autoencoders", 2018, arXiv 1805.11063.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from gradest import Problem
from gradest.costs import KL
from gradest.knobs import AtLeast1, AtLeast2, Positive

from ._models import ImageModel, surprise
from ._networks import network
from ._vae import check_bound, negative_elbo


class Codebook(nn.Module):
    """K vectors of d numbers, and the mixture of them that a code stands for."""

    def __init__(self, categories: int, dimension: int, draws: torch.Generator) -> None:
        super().__init__()
        vectors = torch.randn(categories, dimension, generator=draws, dtype=torch.float64)
        self.vectors = nn.Parameter(vectors)

    def forward(self, z: Tensor) -> Tensor:
        """[..., N, K] -> [..., N · d]."""
        return (z @ self.vectors).flatten(-2)

    def distances(self, e: Tensor) -> Tensor:
        """‖e − c‖² for each vector c: [..., d] -> [..., K]."""
        return (e.unsqueeze(-2) - self.vectors).square().sum(-1)


@dataclass(eq=False)
class VQ(ImageModel):
    measured_alone: ClassVar[tuple[str, ...]] = (*ImageModel.measured_alone, "kl")
    latents: AtLeast1 = 4
    categories: AtLeast2 = 8
    dimension: AtLeast1 = 2
    temperature: Positive = 1.0
    hidden: AtLeast1 = 64
    kl: KL = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound(self)

    def networks(self, seed: int) -> nn.ModuleDict:
        generator = torch.Generator().manual_seed(seed)
        pixels, units = self.side**2, self.latents * self.dimension
        codebook = Codebook(self.categories, self.dimension, generator)
        decoder = network((units, self.hidden, pixels), "tanh", generator)
        return nn.ModuleDict(
            {
                "encoder": network((pixels, self.hidden, units), "tanh", generator),
                "decoder": nn.Sequential(codebook, decoder),
            }
        )

    def problem_at(self, networks: nn.ModuleDict, x: Tensor) -> Problem:
        codebook = networks["decoder"][0]
        e = networks["encoder"](x).unflatten(-1, (self.latents, self.dimension))  # [B, N, d]
        logits = -codebook.distances(e) / self.temperature  # [B, N, K]

        def cost(z: Tensor, decoder: Callable[[Tensor], Tensor]) -> Tensor:
            return surprise(decoder(z), x)  # [B, ...]

        prior = logits.new_zeros(logits.shape[1:])
        return negative_elbo(self, cost, networks["decoder"], logits, prior)

    def decode_images(self, networks: nn.ModuleDict, x: Tensor, z: Tensor) -> Tensor:
        return networks["decoder"](z).sigmoid().unflatten(-1, (self.side, self.side))
