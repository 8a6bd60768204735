"""What f' pulls at the logits through relaxed samples whose hard sample is given."""

from torch import Tensor

from gradest.categorical import conditional_gumbel, softmax


def conditional_pulls(
    logits: Tensor, z: Tensor, slope: Tensor, temperature: float, samples: int
) -> Tensor:
    """1/τ J(yₛ) f' for S draws yₛ = softmax(xₛ/τ),  xₛ = log α + G given argmax xₛ = z.

    logits, z and slope, which is f', as [R, N, K] -> [R, S, N, K], without a gradient: multiplied
    out here, because S samples in the graph of a backward pass take three times as long.
    """
    x = conditional_gumbel(logits.detach(), z, samples)  # [R, S, N, K]
    y = softmax(x / temperature)
    pull = y * (slope / temperature).unsqueeze(1)
    return pull - y * pull.sum(-1, keepdim=True)
