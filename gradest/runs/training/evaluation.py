"""The discrete objectives of a trained model, which do not depend on the estimator.

Codes are discrete samples of q: argmax replaces softmax and nothing else changes.  All numbers are
costs in nats, for each data point.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.categorical import sample
from gradest.costs import Cost, Problem
from gradest.measurement import analytic_terms
from gradest.runs.training.trainer import Trainer

_NUMBERS = 2**21  # generated at once: 8 MiB in float32, which fit into caches


class MeanEstimate(NamedTuple):
    """A mean over data points and its standard error, which is NaN for a single point."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, each: Tensor) -> "MeanEstimate":
        """The mean of [B] numbers."""
        each = each.double()
        spread = float(each.std()) if len(each) > 1 else math.nan
        return cls(float(each.mean()), spread / len(each) ** 0.5)


@torch.no_grad()
def negative_elbo(trainer: Trainer, items: Tensor) -> Tensor:
    """The negative ELBO, by one discrete code for each data point: [B].

    The divergence is in closed form, for any objective that the model was trained with.
    """
    parts = []
    for logits, f in _problems(trainer, items, 1):
        f = _without_logarithms(f)
        parts.append(f(sample(logits)) + analytic_terms(trainer.model, logits, f))
    return torch.cat(parts)


def discrete_objective(trainer: Trainer, items: Tensor) -> Tensor:
    """The training objective of the model, evaluated at discrete codes: [B]."""
    if trainer.samples > 1:
        return negative_bound(trainer, items, trainer.samples)
    return negative_elbo(trainer, items)


@torch.no_grad()
def objective(trainer: Trainer, items: Tensor) -> Tensor:
    """The objective that the estimator descends, which may be relaxed: [B]."""
    with torch.enable_grad():  # an estimator may compute its value by a derivative
        parts = [trainer.objective(problem).detach() for problem in _problems(trainer, items, 1)]
    return torch.cat(parts)


@torch.no_grad()
def negative_bound(trainer: Trainer, items: Tensor, samples: int) -> Tensor:
    """The negative bound −log 1/m Σᵢ p(x, zᵢ)/q(zᵢ | x) with m = `samples` discrete codes: [B].

    The memory is bounded for any m: data points and codes are processed in blocks, and the sum over
    codes is accumulated as its logarithm.

    Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016, arXiv 1509.00519.
    """
    parts = []
    for problem in _problems(trainer, items, samples):
        f = problem.f.bounded(samples)
        per_block = max(1, _NUMBERS // (len(problem.logits) * items.shape[1]))
        total = torch.full_like(problem.logits[:, 0, 0], -torch.inf).double()  # log Σ wᵢ
        for start in range(0, samples, per_block):
            z = sample(problem.logits, min(per_block, samples - start))  # [B, S, N, K]
            total = torch.logaddexp(total, (-f(z).double()).logsumexp(1))
        parts.append(math.log(samples) - total)
    return torch.cat(parts)


def _without_logarithms(f: Cost) -> Cost:
    """f without log q and log p, whose divergence is added in closed form."""
    kl = None if f.prior is None else "exact"
    return Cost(f.fn, f.module, f.points, prior=f.prior, kl=kl, deep=f.deep)


def _problems(trainer: Trainer, items: Tensor, samples: int) -> Iterator[Problem]:
    """The problems of the items, in blocks of as many as `samples` codes of each leave room for."""
    room = _NUMBERS // (min(samples, 64) * items.shape[1])
    for part in items.split(max(1, room)):
        yield trainer.problem(part)
