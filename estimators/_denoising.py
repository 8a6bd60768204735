"""Chains that denoise a Gaussian to a one-hot sample, for the estimators of the ReDGE family."""

from collections.abc import Callable

from torch import Tensor

Posterior = Callable[[Tensor, float], Tensor]  # (x_t, a_t) -> the logits of z given x_t

_LAST = 1e-4  # a of the noisiest point


def schedule(steps: int, start: float) -> list[float]:
    """a₁ … a_{n−1}, evenly from 1 − t₁ down to almost zero; x_t = a_t z + (1 − a_t) noise."""
    between = max(steps - 2, 1)
    return [1 - start + (_LAST - 1 + start) * t / between for t in range(steps - 1)]


def denoised(x: Tensor, schedule: list[float], posterior: Posterior) -> tuple[Tensor, Tensor]:
    """x₁ and the logits of z given x₁, from x = x_{n−1}, with the gradient through the chain.

        x_{t−1} = a_{t−1} y_t + σ_{t−1} (x_t − a_t y_t)/σ_t,    σ = 1 − a,    y_t = E[z | x_t]

    [R, N, K] -> [R, N, K] twice.
    """
    for a, less_noisy in zip(schedule[:0:-1], schedule[-2::-1], strict=True):
        y = posterior(x, a).softmax(-1)
        x = less_noisy * y + (1 - less_noisy) * (x - a * y) / (1 - a)
    return x, posterior(x, schedule[0])


def gain(a: float) -> float:
    """a/σ², by which x enters the logits where the noise is standard normal."""
    return a / (1 - a) ** 2


def of_standard_noise(logits: Tensor) -> Posterior:
    """The posterior for standard normal noise: log α + a x/σ²."""
    return lambda x, a: logits + gain(a) * x
