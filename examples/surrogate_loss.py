"""A surrogate loss, wrapped: REINFORCE as it is written for `loss.backward()`.

    loss = f(z) log p(z) with f(z) held constant,    ∇ loss = f(z) ∇ log p(z),    z ~ p

The loss has the right gradient and a value that estimates nothing: its mean is no E f.  So it goes
behind nabla, which leaves its gradient, beside the cost, which is the value.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", Machine Learning 8, 1992.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import OneHotCategorical

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, sample


def surrogate_loss(logits: Tensor, z: Tensor, cost: Tensor) -> Tensor:
    """Stands for code from elsewhere: one loss a row, to call backward on."""
    return cost.detach() * OneHotCategorical(logits=logits).log_prob(z).sum(-1)


@dataclass(eq=False)
class SurrogateLoss(Estimator):
    laws = LAWS - {"constant"}
    evaluations = "1"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        cost = f(z)  # [R]
        return cost + nabla(surrogate_loss(logits, z, cost))  # [R]
