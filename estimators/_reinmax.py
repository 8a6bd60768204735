"""The surrogate that ReinMax differentiates."""

from torch import Tensor, zeros_like

from gradest.categorical import nabla, softmax, with_pullback
from gradest.randomness import draws

from ._derivative import softmax_pull


def reinmax(logits: Tensor, z: Tensor, temperature: float = 1.0) -> Tensor:
    """Zero in value, 2 J(½(π_τ + z)) − ½ J(π) in its Jacobian: [R, N, K] -> [R, N, K].

    As 2 J(½(p + z)) = J(p) + ½ (z − p)(z − p)ᵀ for a vertex z: a mixture's covariance is that
    within and that between.  No logarithm of a probability is needed, so no logits break it.
    """
    if draws().lean:
        return _multiplied_out(logits, z, temperature)
    phi = nabla(logits)
    p = softmax(logits.detach() / temperature + phi)  # its Jacobian is J(π_τ), without 1/τ
    s = (z - p).detach()
    between = s * (s * phi).sum(-1, keepdim=True)
    return nabla(p + between / 2 - softmax(logits) / 2)


def _multiplied_out(logits: Tensor, z: Tensor, temperature: float) -> Tensor:
    """The same up to rounding, in a third of the operations, of which a single step consists."""
    phi = logits.detach()
    pi = softmax(phi)
    mixture = ((pi if temperature == 1 else softmax(phi / temperature)) + z) / 2

    def pullback(g: Tensor) -> Tensor:
        return 2 * softmax_pull(mixture, g) - softmax_pull(pi, g) / 2

    return with_pullback(zeros_like(z), logits, pullback)
