"""Relaxed samples and their densities, in log space.

Alphabet: R rows, S samples, N latents, K categories.  `logits` are log α, unnormalised and finite.
A sample x on the simplex is held as y = log x: in float32 a softmax at logits ±30 and λ = 0.1 is
zero beside its largest entry, while its logarithm is −600.  One temperature λ > 0 holds for all
latents; as a tensor it carries a gradient.

torch.distributions has ExpRelaxedCategorical, whose log p is right, and the one here agrees with it
to the last bits.  It is spelled out, since the object checks its logits whatever `validate_args`
says: twice the time on a CPU, and on a GPU a wait for the device in every step, 72 ms instead of 5
where ten trainings share one.  The samplers are our own, since those of torch draw from its global
state and clamp the uniforms of a float32 to [2⁻²³, 1 − 2⁻²³]: no Gumbel exceeds 15.94, and
LogitRelaxedBernoulli clamps probabilities too, so that its samples at log α = 80 and λ = 1 have the
mean 15.94.

Maddison, Mnih & Teh, "The Concrete distribution: a continuous relaxation of discrete random
variables", 2017, arXiv 1611.00712; Jang, Gu & Poole, "Categorical reparameterization with
Gumbel-softmax", 2017, arXiv 1611.01144.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gradest.categorical import gumbel
from gradest.randomness import draws

Temperature = float | Tensor


def exp_concrete(logits: Tensor, temperature: Temperature) -> Tensor:
    """y = log x of a Concrete x, reparameterised: [..., N, K] -> [..., N, K].

        y = log softmax((log α + G) / λ),    G ~ Gumbel

    Raises ValueError for a temperature that is not one positive number.
    """
    z = logits + gumbel(logits)
    return (z / _positive(temperature, z)).log_softmax(-1)


def exp_concrete_log_prob(y: Tensor, logits: Tensor, temperature: Temperature) -> Tensor:
    """The log density of y = log x, for each latent: [..., N, K] twice -> [..., N].

        log p(y) = log (K − 1)! + (K − 1) log λ + Σₖ (log αₖ − λ yₖ) − K log Σₖ exp(log αₖ − λ yₖ)

    With respect to the log-ratios yₖ − y_j, k ≠ j, of whichever j.  It is −∞ where some yₖ is.
    Raises ValueError for a temperature that is not one positive number.
    """
    temperature = _positive(temperature, logits)
    density = _exp_concrete_log_prob(y, logits, temperature)
    return torch.where((y == -torch.inf).any(-1), -torch.inf, density)


def _exp_concrete_log_prob(y: Tensor, logits: Tensor, temperature: Tensor) -> Tensor:
    """Of finite y."""
    categories = logits.shape[-1]
    score = logits - temperature * y
    # Each term by itself, before the sum: K log Σ, taken off at once, would round K times as much.
    apart = (score - score.logsumexp(-1, keepdim=True)).sum(-1)
    return apart + math.lgamma(categories) + (categories - 1) * temperature.log()


def concrete_log_prob(log_x: Tensor, logits: Tensor, temperature: Temperature) -> Tensor:
    """The log density of x on the simplex, for each latent: [..., N, K] twice -> [..., N].

        p(x) = (K − 1)! λ^(K−1) Πₖ αₖ xₖ^(−λ−1) / (Σₖ αₖ xₖ^(−λ))^K

    With respect to K − 1 of the coordinates.  Of log x, since RelaxedOneHotCategorical takes x and
    is NaN where a coordinate has underflowed.

    On the boundary, where n coordinates are 0, it is the limit as they go to 0 alike, ε say: there
    p(x) behaves like ε^(Kλ − n(λ + 1)), so that it is ∞, or 0, or finite if that exponent is zero.
    At a vertex, n = K − 1, the density is infinite for λ < K − 1.

    Raises ValueError for a temperature that is not one positive number.
    """
    temperature = _positive(temperature, logits)
    gone = log_x == -torch.inf
    # Inside ε stands for 1, outside for what the exponent says of it.
    inside = torch.where(gone, 0.0, log_x)
    density = _exp_concrete_log_prob(inside, logits, temperature) - inside.sum(-1)
    if not gone.any():
        return density
    number, categories = gone.sum(-1), logits.shape[-1]
    exponent = categories * temperature - number * (temperature + 1)
    at_zero = _boundary(inside, logits, temperature, gone)
    limit = torch.where(exponent > 0, -torch.inf, torch.where(exponent < 0, torch.inf, at_zero))
    return torch.where(number > 0, limit, density)


def _boundary(inside: Tensor, logits: Tensor, temperature: Tensor, gone: Tensor) -> Tensor:
    """The log density where the powers of ε cancel: in Σ only the coordinates that are 0 count."""
    categories = logits.shape[-1]
    score = logits - temperature * inside
    total = score.masked_fill(~gone, -torch.inf).logsumexp(-1)
    constant = math.lgamma(categories) + (categories - 1) * temperature.log()
    return constant + score.sum(-1) - categories * total - inside.sum(-1)


def binary_concrete(logits: Tensor, temperature: Temperature) -> Tensor:
    """l = logit x of a binary Concrete x, reparameterised: [..., N] -> [..., N].

        l = (log α + logit u) / λ,    u ~ U(0, 1)

    With log α = log α₁ − log α₀ these are the log-ratios y₁ − y₀ of two categories.
    Raises ValueError for a temperature that is not one positive number.
    """
    z = logits + logistic(logits)
    return z / _positive(temperature, z)


def binary_concrete_log_prob(l: Tensor, logits: Tensor, temperature: Temperature) -> Tensor:  # noqa: E741
    """The log density of l = logit x: [..., N] twice -> [..., N].

        log p(l) = log λ + log α − λ l − 2 log(1 + exp(log α − λ l))

    LogitRelaxedBernoulli forms the exponential, which overflows in float32 at log α − λ l > 88.7:
    at log α = 80, l = −80 and λ = 1 it has the log density −∞ for −160, and a NaN for its gradient.
    Raises ValueError for a temperature that is not one positive number.
    """
    temperature = _positive(temperature, logits)
    z = logits - temperature * l
    # Beyond the threshold softplus is z itself: by default from 20 on, where that is off by 2e-9.
    return temperature.log() + z - 2 * softplus(z, threshold=40)


def logistic(like: Tensor) -> Tensor:
    """Standard logistic noise, logit u = E + log(1 − e^−E) with E = −log(1 − u), like `like`.

    From exponentials, whose tails u itself could not resolve in float32.
    """
    e = draws().exponential(like.shape, like)
    return (e + (-torch.expm1(-e)).log()).to(like.dtype)


def _positive(temperature: Temperature, like: Tensor) -> Tensor:
    """As a scalar tensor like `like`."""
    held = isinstance(temperature, Tensor)
    # Asking a GPU for the number would wait for everything that it still has to do.
    known = not held or temperature.device.type == "cpu"
    if (held and temperature.ndim) or (known and not temperature > 0):
        raise ValueError(f"the temperature is {temperature}; it must be one positive number")
    return temperature.to(like) if held else like.new_full((), temperature)
