"""The parameters of a gradient: log α, α, or parameters that log α depends on.

Estimates are with respect to log α; all others follow by the chain rule, which is linear.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradest.contracts import Task

LOG_ALPHA = "log_alpha"
SYMBOLS = {LOG_ALPHA: "log α", "alpha": "α"}

# ∂/∂α = (1/α) ∂/∂log α, coordinate by coordinate: factors [B, N, K].
SCALES = {"alpha": lambda logits: (-logits).exp(), LOG_ALPHA: torch.ones_like}

# Of D: a map of D × D numbers is built for each group.
LARGEST = 2048

MOST = 2**17  # parameters of a group whose mean gradient is kept


def projections(task: Task, logits: Tensor) -> dict[str, Tensor]:
    """A map L [B·N·K, r] that stands for ∂/∂φ, for each group φ of the task's parameters.

    With the Jacobian J = ∂ log α/∂φ, [B·N·K, P], the gradient of the mean over the data points is
    ĝ_φ = Jᵀ ĝ/B.  It has P coordinates, but lies in the range of Jᵀ.  With the eigenvectors U and
    eigenvalues Λ of J Jᵀ/B², L = U Λ^½ gives Lᵀ ĝ every length and angle of ĝ_φ, since
    L Lᵀ = J Jᵀ/B²: bias, variance and cosine are those of all P coordinates, in at most B·N·K.

    There is none for more than 2,048 logits, where L would take longer than the estimates.
    """
    if logits.numel() > LARGEST:
        return {}
    return {name: _projection(logits, tuple(task.group(name))) for name in task.parameters}


def parameter_gradients(task: Task, logits: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """The gradient ∂/∂φ itself for each group: Jᵀ g/B, [P], for g [B, N, K] and live logits.

    Unlike the coordinates of a projection, those of two batches, or of two states of one network,
    are the same.  Groups of more than 131,072 parameters are left out.
    """
    gradients = {}
    for name in task.parameters:
        group = tuple(task.group(name))
        if sum(p.numel() for p in group) <= MOST:
            weights = (gradient / len(logits)).to(logits)
            gradients[name] = _flat(torch.autograd.grad(logits, group, weights, retain_graph=True))
    return gradients


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([g.flatten().double() for g in gradients])


def _projection(logits: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
    flat = logits.flatten()  # [D]
    rows = [_flat(torch.autograd.grad(x, parameters, retain_graph=True)) for x in flat]
    jacobian = torch.stack(rows) / len(logits)  # [D, P]
    values, vectors = torch.linalg.eigh(jacobian @ jacobian.T)
    # Eigenvalues below the rounding of the largest are zero.
    nonzero = values > len(flat) * torch.finfo(values.dtype).eps * values[-1]
    return (vectors[:, nonzero] * values[nonzero].sqrt()).detach()
