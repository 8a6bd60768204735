"""What stands between a network's units and the logits and codes of latents."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import pad


class Categories(NamedTuple):
    """A unit for each category: log α is what they are, and the code is z."""

    latents: int
    categories: int

    @property
    def units(self) -> int:
        return self.latents * self.categories

    def logits(self, units: Tensor) -> Tensor:
        """[..., N · K] -> [..., N, K]."""
        return units.unflatten(-1, self)

    def read(self, z: Tensor) -> Tensor:
        """[..., N, K] -> [..., N · K]."""
        return z.flatten(-2)


class Bits(NamedTuple):
    """One unit φ a latent: log α = (0, φ), and the code is the weight of category 1."""

    latents: int

    @property
    def units(self) -> int:
        return self.latents

    def logits(self, units: Tensor) -> Tensor:
        """[..., N] -> [..., N, 2]."""
        return pad(units.unsqueeze(-1), (1, 0))

    def read(self, z: Tensor) -> Tensor:
        """[..., N, 2] -> [..., N]."""
        return z[..., 1]
