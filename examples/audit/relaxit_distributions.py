"""relaxit: its relaxed and straight-through distributions.

Kornilov, Gasnikov & others, "Just Relax It", a library of relaxed discrete distributions, 2024.
"""

from dataclasses import dataclass

import torch
from relaxit import distributions
from torch import Tensor

from gradest import SurrogateSample
from gradest.foreign import redirected
from gradest.knobs import Positive

from ._gradient import bits, one_hot_bits


@dataclass(eq=False)
class TopK(SurrogateSample):
    """A hard sample of one category, for the logits that are given."""

    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return distributions.GumbelSoftmaxTopK(
                logits=logits, tau=torch.tensor(self.temperature)
            ).rsample()


@dataclass(eq=False)
class Generalized(SurrogateSample):
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        values = torch.arange(logits.shape[-1]).to(logits)
        with redirected(logits):
            return distributions.GeneralizedGumbelSoftmax(
                values, logits=logits, tau=torch.tensor(self.temperature), hard=True
            ).rsample()


@dataclass(eq=False)
class Decoupled(SurrogateSample):
    """A hard sample at one temperature, with the derivative of a soft one at another."""

    forward_temperature: Positive = 0.5
    backward_temperature: Positive = 1.0

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return distributions.DecoupledStraightThroughGumbelSoftmax(
                self.forward_temperature, self.backward_temperature, logits=logits
            ).rsample()


class StraightThroughBits(SurrogateSample):
    categories = 2
    degree = 1

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            b = distributions.StraightThroughBernoulli(logits=bits(logits)).rsample()
        return one_hot_bits(b)


@dataclass(eq=False)
class HardConcrete(SurrogateSample):
    categories = 2
    relaxes = True
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        constants = (torch.tensor(x) for x in (self.temperature, 1.1, -0.1))
        with redirected(logits):
            b = distributions.HardConcrete(bits(logits).exp(), *constants).rsample()
        return one_hot_bits(b).to(logits)


@dataclass(eq=False)
class Rebar(SurrogateSample):
    categories = 2
    relaxes = True
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        theta = bits(logits).sigmoid()
        with redirected(logits):
            b = distributions.RebarRelaxation(theta, torch.tensor(self.temperature)).rsample()
        return one_hot_bits(b).to(logits)


class GaussianBits(SurrogateSample):
    categories = 2
    relaxes = True

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            b = distributions.GaussianRelaxedBernoulli(
                bits(logits).sigmoid(), torch.tensor(0.5)
            ).rsample()
        return one_hot_bits(b).to(logits)
