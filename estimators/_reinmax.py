"""The surrogate that ReinMax differentiates."""

from torch import Tensor

from gradest.categorical import nabla, softmax


def reinmax(logits: Tensor, z: Tensor, temperature: float = 1.0) -> Tensor:
    """Zero in value, 2 J(½(π_τ + z)) − ½ J(π) in its Jacobian: [R, N, K] -> [R, N, K].

    As 2 J(½(p + z)) = J(p) + ½ (z − p)(z − p)ᵀ for a vertex z: a mixture's covariance is that
    within and that between.  No logarithm of a probability is needed, so no logits break it.
    """
    phi = nabla(logits)
    p = softmax(logits.detach() / temperature + phi)  # its Jacobian is J(π_τ), without 1/τ
    s = (z - p).detach()
    between = s * (s * phi).sum(-1, keepdim=True)
    return nabla(p + between / 2 - softmax(logits) / 2)
