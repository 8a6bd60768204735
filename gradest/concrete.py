"""Relaxed samples and their densities, in log space.

Alphabet: R rows, S samples, N latents, K categories.  `logits` are log α, unnormalised and finite.
A sample x on the simplex is represented by y = log x: in float32 a softmax at logits ±30 and λ =
0.1 is zero except for its largest entry, while its logarithm is −600.  All latents have one
temperature λ > 0, which may be a tensor with a gradient.

torch.distributions has ExpRelaxedCategorical, whose log p is right, and the one here agrees with it
to the last bits.  It is implemented here because that class checks its logits for any value of
`validate_args`: this takes twice the time on a CPU, and on a GPU a wait for the device in every
step, 72 ms instead of 5 where ten trainings share one.  The samplers of torch draw from its global
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

    The density is with respect to the log-ratios yₖ − y_j, k ≠ j, for any j; it is −∞ where a yₖ
    is.  Raises ValueError for a temperature that is not one positive number.
    """
    temperature = _positive(temperature, logits)
    density = _exp_concrete_log_prob(y, logits, temperature)
    return torch.where((y == -torch.inf).any(-1), -torch.inf, density)


def _exp_concrete_log_prob(y: Tensor, logits: Tensor, temperature: Tensor) -> Tensor:
    """The log density for finite y."""
    categories = logits.shape[-1]
    score = logits - temperature * y
    # Subtracted from each term before the sum: K log Σ at once would round K times as much.
    total = (score - score.logsumexp(-1, keepdim=True)).sum(-1)
    return total + math.lgamma(categories) + (categories - 1) * temperature.log()


def concrete_log_prob(log_x: Tensor, logits: Tensor, temperature: Temperature) -> Tensor:
    """The log density of x on the simplex, for each latent: [..., N, K] twice -> [..., N].

        p(x) = (K − 1)! λ^(K−1) Πₖ αₖ xₖ^(−λ−1) / (Σₖ αₖ xₖ^(−λ))^K

    The density is with respect to K − 1 of the coordinates.  The argument is log x, since
    RelaxedOneHotCategorical takes x and is NaN where a coordinate has underflowed.

    On the boundary, where n coordinates are 0, it is the limit as all of them equal ε → 0: there
    p(x) behaves like ε^(Kλ − n(λ + 1)), so that it is ∞, or 0, or finite if that exponent is zero.
    At a vertex, n = K − 1, the density is infinite for λ < K − 1.

    Raises ValueError for a temperature that is not one positive number.
    """
    temperature = _positive(temperature, logits)
    zero = log_x == -torch.inf
    # Here ε is replaced by 1; the exponent accounts for it below.
    inside = torch.where(zero, 0.0, log_x)
    density = _exp_concrete_log_prob(inside, logits, temperature) - inside.sum(-1)
    if not zero.any():
        return density
    number, categories = zero.sum(-1), logits.shape[-1]
    exponent = categories * temperature - number * (temperature + 1)
    at_zero = _boundary(inside, logits, temperature, zero)
    limit = torch.where(exponent > 0, -torch.inf, torch.where(exponent < 0, torch.inf, at_zero))
    return torch.where(number > 0, limit, density)


def _boundary(inside: Tensor, logits: Tensor, temperature: Tensor, zero: Tensor) -> Tensor:
    """The log density where the powers of ε cancel: in Σ only the coordinates that are 0 count."""
    categories = logits.shape[-1]
    score = logits - temperature * inside
    total = score.masked_fill(~zero, -torch.inf).logsumexp(-1)
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
    # Above the threshold softplus returns z itself: by default above 20, with an error of 2e-9.
    return temperature.log() + z - 2 * softplus(z, threshold=40)


def logistic(like: Tensor) -> Tensor:
    """Standard logistic noise, logit u = E + log(1 − e^−E) with E = −log(1 − u), like `like`.

    From exponentials, since a float32 u could not resolve the tails.
    """
    e = draws().exponential(like.shape, like)
    return (e + (-torch.expm1(-e)).log()).to(like.dtype)


def _positive(temperature: Temperature, like: Tensor) -> Tensor:
    """The temperature as a scalar tensor like `like`."""
    is_tensor = isinstance(temperature, Tensor)
    # To read the number from a GPU would wait for all of its pending work.
    readable = not is_tensor or temperature.device.type == "cpu"
    if (is_tensor and temperature.ndim) or (readable and not temperature > 0):
        raise ValueError(f"expected one positive number as temperature, got {temperature}")
    return temperature.to(like) if is_tensor else like.new_full((), temperature)
