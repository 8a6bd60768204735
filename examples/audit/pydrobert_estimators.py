"""pydrobert-pytorch: REINFORCE, and RELAX with the control variate of REBAR."""

from dataclasses import dataclass

import torch
from pydrobert.torch import estimators
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.foreign import redirected
from gradest.knobs import Positive

from ._gradient import bits, one_hot_bits, with_gradient


class Reinforce(Estimator):
    laws = LAWS - {"constant"}
    evaluations = "1"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        with redirected(logits):
            b = estimators.to_b(estimators.to_z(logits, "onehot"), "onehot")
        cost = f(b.detach())  # [R]
        fb = cost.detach().unsqueeze(-1)  # [R, 1], for each latent
        return with_gradient(cost, estimators.reinforce(fb, b.detach(), logits, "onehot"), logits)


@dataclass(eq=False)
class RebarOfBits(Estimator):
    categories = 2
    relaxes = True
    laws = LAWS
    evaluations = "3"
    temperature: Positive = 0.5

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        theta = bits(logits)  # [R, N]

        def relaxed(x: Tensor) -> Tensor:
            return f.frozen(one_hot_bits(x)).unsqueeze(-1)  # [R, 1], for each latent

        control = estimators.REBARControlVariate(
            relaxed, "bern", start_temp=self.temperature, start_eta=1.0
        ).to(logits)
        with redirected(logits):
            z = estimators.to_z(theta, "bern")
            b = estimators.to_b(z, "bern").detach()
            cost = f(one_hot_bits(b))  # [R]
            g = estimators.relax(cost.detach().unsqueeze(-1), b, theta, z, control, "bern")
        return with_gradient(cost, torch.stack([-g, g], -1), logits)
