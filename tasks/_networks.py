"""Fully connected networks in float64, initialised from a generator of their own."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gradest.knobs import AtLeast1

# The widths of the hidden layers.
Layers = Literal["linear"] | Annotated[tuple[AtLeast1, ...], MinLen(1)]
Activation = Literal["tanh", "relu"]

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def widths(layers: Layers) -> tuple[int, ...]:
    """Of the hidden layers: none in a linear network."""
    return () if layers == "linear" else layers


def network(sizes: Sequence[int], activation: Activation, draws: torch.Generator) -> nn.Sequential:
    """Linear maps between layers of these sizes, input and output included.

    Weights as in Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010; biases are zero.
    """
    parts: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layer = skip_init(nn.Linear, i, o, dtype=torch.float64)
        nn.init.xavier_uniform_(layer.weight, generator=draws)
        nn.init.zeros_(layer.bias)
        parts += [layer, _ACTIVATIONS[activation]()]
    return nn.Sequential(*parts[:-1])


class Logits(nn.Module):
    """Logits that are learnt as they are, from zero."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.logits
