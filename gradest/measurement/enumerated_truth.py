"""The exact E f and its gradient, summed over all K^N outcomes in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.categorical import likeliest, one_hot
from gradest.costs import Cost, Problem, outcomes, width
from gradest.measurement.objectives import merge_samples, nested_cost
from gradest.measurement.progress import advance, phase

LIMIT = 100_000  # outcomes up to which the true gradient is enumerated
NUMBERS = 500_000_000  # in all their codes, for all data points: a few seconds on one core
_RAREST = 1e-12  # outcomes below this probability do not count for the range of the costs
_CHUNK = 2**21  # numbers in one block of codes, 16 MiB in float64


class ExactGradient(NamedTuple):
    """E f, ∇ E f with respect to log α, and the range of the costs."""

    value: Tensor  # [B]
    gradient: Tensor  # [B, N, K]
    spread: float  # between the largest and the smallest cost of a data point


def codes(latents: int, categories: int, like: Tensor, start: int, stop: int) -> Tensor:
    """The outcomes from number `start` to `stop` of the K^N as one-hot codes: [C, N, K]."""
    digits = _digits(latents, categories, like, start, stop)
    return one_hot(digits, like.new_empty(categories))


def _digits(latents: int, categories: int, like: Tensor, start: int, stop: int) -> Tensor:
    """The same outcomes as the category of each latent: [C, N]."""
    number = torch.arange(start, stop, device=like.device)
    place = categories ** torch.arange(latents - 1, -1, -1, device=like.device)
    return number.unsqueeze(-1) // place % categories


def all_codes(logits: Tensor) -> Tensor:
    """All K^N one-hot codes for logits [..., N, K]: [K^N, N, K]."""
    latents, categories = logits.shape[-2:]
    return codes(latents, categories, logits, 0, categories**latents)


def enumerable(problem: Problem) -> bool:
    """Whether all outcomes can be enumerated: they are few enough, and so are their numbers.

    The outcomes are those of all samples of a bound and of all layers together.  The numbers in
    their codes count because one latent of 65,536 categories has no more outcomes than 16 bits, and
    2,000 times the numbers.
    """
    count = outcomes(problem)
    return count <= LIMIT and count * len(problem.logits) * width(problem) <= NUMBERS


def exact_gradient(problem: Problem) -> ExactGradient:
    """The exact expectation and its gradient, computed without a derivative of f.

        ∂ E f / ∂ log α_nk = Σ_z p(z) f(z) (z_nk − π_nk) = E[f z_nk] − π_nk E f

    in float64, with the cost of the likeliest outcome subtracted from f: where that outcome is
    nearly certain, its rounding would otherwise exceed the rest of the sums.  Where f depends on
    the logits besides z, as in a multi-sample bound, E ∂f/∂ log α is added.  The layers of a deep
    cost are summed over one inside the other.  Cost: K^N evaluations of f for each data point,
    (K^N)^m for a bound of m samples, and the product of the K^N of all layers.
    """
    own = problem.logits.detach().double().requires_grad_(problem.f.depends)  # [B, N, K]
    f = problem.f.replicated(None, own)
    logits, f = merge_samples(own, nested_cost(f, _expectation))  # [B, m · N, K]
    value, gradient, spread = _score_function_sum(Problem(logits.detach(), f))
    gradient = gradient.unflatten(1, (problem.f.samples, -1)).sum(1)
    if problem.f.depends:
        gradient = gradient + _direct_gradient(Problem(logits, f), own)
    return ExactGradient(value, gradient, spread)


def _direct_gradient(problem: Problem, own: Tensor) -> Tensor:
    """E ∂f/∂ log α at fixed z: [B, N, K]."""
    total = torch.zeros_like(own)
    logits = problem.logits.detach()
    for z, log_p in _blocks(logits):
        p = log_p.exp()  # [B, C]
        cost = problem.f(z.expand(len(logits), *z.shape))
        total += torch.autograd.grad((p * cost).sum(), own)[0]
    return total


@torch.no_grad()
def _score_function_sum(problem: Problem) -> ExactGradient:
    """E f and its score-function gradient, [B, N, K]."""
    logits = problem.logits
    points = len(logits)
    value = logits.new_zeros(points)  # E f
    joint = torch.zeros_like(logits)  # E[f z]
    least, most = value + torch.inf, value - torch.inf
    offset = problem.f(likeliest(logits).unsqueeze(1))  # [B, 1]
    with phase("true gradient", logits.shape[2] ** logits.shape[1]):
        for z, log_p in _blocks(logits):
            p = log_p.exp()  # [B, C]
            cost = problem.f(z.expand(points, *z.shape)) - offset  # [B, C]
            # An outcome of probability zero adds nothing, whatever its cost.
            weighted = torch.where(p > 0, p * cost, 0.0)
            value += weighted.sum(1)
            likely = p >= _RAREST
            least = torch.minimum(least, torch.where(likely, cost, torch.inf).amin(1))
            most = torch.maximum(most, torch.where(likely, cost, -torch.inf).amax(1))
            joint += torch.einsum("bc,cnk->bnk", weighted, z)
            advance(len(z))
    gradient = joint - logits.softmax(-1) * value[:, None, None]
    return ExactGradient(value + offset.squeeze(1), gradient, float((most - least).max()))


def _expectation(logits: Tensor, f: Cost) -> Tensor:
    """E f, differentiable: [R, N, K] -> [R]."""
    total = logits.new_zeros(len(logits))
    for z, log_p in _blocks(logits):
        p = log_p.exp()  # [R, C]
        cost = f(z.expand(len(logits), *z.shape))
        total = total + torch.where(p > 0, p * cost, 0.0).sum(1)
    return total


def _blocks(logits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """All codes in blocks [C, N, K], with their log p under logits [R, N, K]: [R, C]."""
    latents, categories = logits.shape[1:]
    count = categories**latents
    step = max(1, _CHUNK // logits.numel())
    log_pi = logits - logits.logsumexp(-1, keepdim=True)
    latent = torch.arange(latents, device=logits.device)
    for start in range(0, count, step):
        digits = _digits(latents, categories, logits, start, min(start + step, count))  # [C, N]
        z = one_hot(digits, logits.new_empty(categories))
        # Gathered by the digits: to find them from the codes would take a pass over all codes.
        yield z, log_pi[:, latent, digits].sum(-1)
