"""The truth: E f and its gradient, summed over all K^N outcomes in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.categorical import one_hot
from gradest.costs import Cost, Problem, outcomes, width
from gradest.measuring.progress import advance, phase
from gradest.objectives import joined, nested

LIMIT = 100_000  # outcomes up to which the truth is enumerated
NUMBERS = 500_000_000  # in all their codes, for all data points: a few seconds on one core
_RAREST = 1e-12  # an outcome below this probability says nothing of the costs that occur
_CHUNK = 2**21  # numbers in one block of codes, 16 MiB in float64


class Truth(NamedTuple):
    """E f, ∇ E f with respect to log α, and how far costs lie apart."""

    value: Tensor  # [B]
    gradient: Tensor  # [B, N, K]
    spread: float  # between the largest and the smallest cost of a data point


def codes(latents: int, categories: int, like: Tensor, start: int, stop: int) -> Tensor:
    """Outcomes number `start` to `stop` of the K^N as one-hot codes: [C, N, K]."""
    digits = _digits(latents, categories, like, start, stop)
    return one_hot(digits, like.new_empty(categories))


def _digits(latents: int, categories: int, like: Tensor, start: int, stop: int) -> Tensor:
    """The same as the category of each latent: [C, N]."""
    number = torch.arange(start, stop, device=like.device)
    place = categories ** torch.arange(latents - 1, -1, -1, device=like.device)
    return number.unsqueeze(-1) // place % categories


def all_codes(logits: Tensor) -> Tensor:
    """All K^N one-hot codes for logits [..., N, K]: [K^N, N, K]."""
    latents, categories = logits.shape[-2:]
    return codes(latents, categories, logits, 0, categories**latents)


def enumerable(problem: Problem) -> bool:
    """Whether the outcomes, of all samples of a bound and all layers together, are few enough.

    So must be the numbers in their codes: one latent of 65,536 categories has no more outcomes than
    16 bits, and 2,000 times the numbers.
    """
    count = outcomes(problem)
    return count <= LIMIT and count * len(problem.logits) * width(problem) <= NUMBERS


def exact(problem: Problem) -> Truth:
    """The exact expectation and its gradient, without a derivative of f.

        ∂ E f / ∂ log α_nk = Σ_z p(z) f(z) (z_nk − π_nk) = E[f z_nk] − π_nk E f

    in float64, with the cost of the likeliest outcome taken off f: where that is nearly certain,
    what is left of the sums would else drown in its rounding.  Where f depends on the logits beside
    z, as in a multi-sample bound, E ∂f/∂ log α is added.  The layers of a deep cost are summed over
    one within the other.  Cost: K^N evaluations of f for each data point, (K^N)^m for a bound of m
    samples, and the product of the K^N of all layers.
    """
    own = problem.logits.detach().double().requires_grad_(problem.f.depends)  # [B, N, K]
    f = problem.f.replicated(None, own)
    logits, f = joined(own, nested(f, _mean))  # [B, m · N, K]
    value, gradient, spread = _summed(Problem(logits.detach(), f))
    gradient = gradient.unflatten(1, (problem.f.samples, -1)).sum(1)
    if problem.f.depends:
        gradient = gradient + _direct(Problem(logits, f), own)
    return Truth(value, gradient, spread)


def _direct(problem: Problem, own: Tensor) -> Tensor:
    """E ∂f/∂ log α at fixed z: [B, N, K]."""
    total = torch.zeros_like(own)
    logits = problem.logits.detach()
    for z, log_p in _blocks(logits):
        p = log_p.exp()  # [B, C]
        cost = problem.f(z.expand(len(logits), *z.shape))
        total += torch.autograd.grad((p * cost).sum(), own)[0]
    return total


@torch.no_grad()
def _summed(problem: Problem) -> Truth:
    """E f and its score-function gradient, [B, N, K]."""
    logits = problem.logits
    points = len(logits)
    value = logits.new_zeros(points)  # E f
    joint = torch.zeros_like(logits)  # E[f z]
    least, most = value + torch.inf, value - torch.inf
    likeliest = problem.f(one_hot(logits.argmax(-1), logits).unsqueeze(1))  # [B, 1]
    with phase("true gradient", logits.shape[2] ** logits.shape[1]):
        for z, log_p in _blocks(logits):
            p = log_p.exp()  # [B, C]
            cost = problem.f(z.expand(points, *z.shape)) - likeliest  # [B, C]
            # An outcome of probability zero adds nothing, whatever its cost.
            weighted = torch.where(p > 0, p * cost, 0.0)
            value += weighted.sum(1)
            seen = p >= _RAREST
            least = torch.minimum(least, torch.where(seen, cost, torch.inf).amin(1))
            most = torch.maximum(most, torch.where(seen, cost, -torch.inf).amax(1))
            joint += torch.einsum("bc,cnk->bnk", weighted, z)
            advance(len(z))
    gradient = joint - logits.softmax(-1) * value[:, None, None]
    return Truth(value + likeliest.squeeze(1), gradient, float((most - least).max()))


def _mean(logits: Tensor, f: Cost) -> Tensor:
    """E f: [R, N, K] -> [R]."""
    total = logits.new_zeros(len(logits))
    for z, log_p in _blocks(logits):
        p = log_p.exp()  # [R, C]
        cost = f(z.expand(len(logits), *z.shape))
        total = total + torch.where(p > 0, p * cost, 0.0).sum(1)
    return total


def _blocks(logits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes [C, N, K] and their log p under logits [R, N, K]: [R, C]."""
    latents, categories = logits.shape[1:]
    count = categories**latents
    step = max(1, _CHUNK // logits.numel())
    log_pi = logits - logits.logsumexp(-1, keepdim=True)
    latent = torch.arange(latents, device=logits.device)
    for start in range(0, count, step):
        digits = _digits(latents, categories, logits, start, min(start + step, count))  # [C, N]
        z = one_hot(digits, logits.new_empty(categories))
        # Gathered by the digits: it takes a pass over all codes to read them off again.
        yield z, log_pi[:, latent, digits].sum(-1)
