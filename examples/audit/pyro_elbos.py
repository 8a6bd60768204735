"""Pyro: the gradients of its ELBOs, where the divergence cancels and −f is left.

The model has the distribution of the guide, and a factor −f(z): the loss estimates E f.

Bingham et al., "Pyro: deep universal probabilistic programming", 2018, arXiv 1810.09538.
"""

import pyro
import torch
from pyro.distributions import OneHotCategorical
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, config_enumerate
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.foreign import redirected

from ._gradient import with_gradient


def estimate(elbo: ELBO, logits: Tensor, f: Cost) -> Tensor:
    """Estimates with the gradient of `loss_and_grads`, a sum over the rows of a plate."""
    costs: list[Tensor] = []

    def sites(parameter: Tensor) -> Tensor:
        z = [
            pyro.sample(f"z{n}", OneHotCategorical(logits=parameter[:, n]))
            for n in range(logits.shape[1])
        ]
        codes = torch.stack(torch.broadcast_tensors(*z), -2)
        return codes.expand(*codes.shape[:-3], *logits.shape)  # [..., R, N, K]

    def guide() -> None:
        with pyro.plate("rows", len(logits)):
            sites(pyro.param("logits", logits.detach()))

    def model() -> None:
        with pyro.plate("rows", len(logits)):
            costs.append(f(sites(logits.detach()).movedim(-3, 0)))  # [R, ...]
            pyro.factor("f", -costs[-1].detach().movedim(0, -1))

    enumerates = isinstance(elbo, TraceEnum_ELBO)
    pyro.clear_param_store()
    with redirected(logits):
        elbo.loss_and_grads(model, config_enumerate(guide) if enumerates else guide)
    gradient = pyro.get_param_store()["logits"].grad
    cost = costs[-1]
    if enumerates:  # the costs of all codes [R, K, ..., K], with the last latent first
        for n in range(logits.shape[1]):
            pi = logits.detach()[:, n].softmax(-1)  # [R, K]
            cost = (cost * pi.reshape(len(pi), *(1,) * (cost.ndim - 2), -1)).sum(-1)
    return with_gradient(cost, gradient, logits)


class TraceElbo(Estimator):
    laws = LAWS - {"constant"}
    evaluations = "1"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return estimate(Trace_ELBO(), logits, f)


class TraceGraphElbo(Estimator):
    laws = LAWS - {"constant"}
    evaluations = "1"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return estimate(TraceGraph_ELBO(), logits, f)


class TraceEnumElbo(Estimator):
    laws = LAWS
    evaluations = "K**N"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return estimate(TraceEnum_ELBO(max_plate_nesting=1), logits, f)
