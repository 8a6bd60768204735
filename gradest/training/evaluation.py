"""What a trained model is worth: its discrete objectives, whatever it was trained with.

Codes are hard samples of q: argmax in the place of softmax and nothing else changes.  All figures
are costs in nats, data point by data point.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.categorical import sample
from gradest.costs import Cost, Problem
from gradest.objectives import analytic_terms
from gradest.training.trainer import Trainer

_NUMBERS = 2**21  # at once, of what is generated: 8 MiB in float32, which caches hold


class MeanEstimate(NamedTuple):
    """A mean over data points, with its standard error over them: NaN where there is one alone."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, each: Tensor) -> "MeanEstimate":
        """[B] -> the mean and its error."""
        each = each.double()
        spread = float(each.std()) if len(each) > 1 else math.nan
        return cls(float(each.mean()), spread / len(each) ** 0.5)


@torch.no_grad()
def negative_elbo(trainer: Trainer, items: Tensor) -> Tensor:
    """E f at hard codes, one each, with what is beside it: [B].

    Of one code and with the divergence in closed form, whatever the model is trained on.
    """
    parts = []
    for logits, f in _problems(trainer, items, 1):
        f = _apart(f)
        parts.append(f(sample(logits)) + analytic_terms(trainer.model, logits, f))
    return torch.cat(parts)


def discrete_objective(trainer: Trainer, items: Tensor) -> Tensor:
    """What the model is trained on, were it at hard codes: [B]."""
    if trainer.samples > 1:
        return negative_bound(trainer, items, trainer.samples)
    return negative_elbo(trainer, items)


@torch.no_grad()
def objective(trainer: Trainer, items: Tensor) -> Tensor:
    """What the estimator descends, be it relaxed: [B]."""
    with torch.enable_grad():  # a value may be read off a derivative
        parts = [trainer.objective(problem).detach() for problem in _problems(trainer, items, 1)]
    return torch.cat(parts)


@torch.no_grad()
def negative_bound(trainer: Trainer, items: Tensor, samples: int) -> Tensor:
    """−log 1/m Σᵢ p(x, zᵢ)/q(zᵢ | x) with m = `samples` hard codes: [B].

    In bounded memory whatever m: data points and codes are taken in blocks, and the sum over codes
    is carried on as its logarithm.

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


def _apart(f: Cost) -> Cost:
    """f without the logarithms of q and p, whose divergence is beside it."""
    kl = None if f.prior is None else "exact"
    return Cost(f.fn, f.module, f.points, prior=f.prior, kl=kl, deep=f.deep)


def _problems(trainer: Trainer, items: Tensor, samples: int) -> Iterator[Problem]:
    """Of the items in turn, as many as `samples` codes of each leave room for."""
    room = _NUMBERS // (min(samples, 64) * items.shape[1])
    for part in items.split(max(1, room)):
        yield trainer.problem(part)
