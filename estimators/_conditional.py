"""What f' pulls at the logits through relaxed samples whose hard sample is given."""

from collections.abc import Callable

from torch import Tensor

from gradest.categorical import conditional_gumbel, softmax

from ._derivative import softmax_pull


def conditional_pulls(
    logits: Tensor, z: Tensor, temperature: float, samples: int
) -> Callable[[Tensor], Tensor]:
    """f' ↦ 1/τ J(yₛ) f' for S draws yₛ = softmax(xₛ/τ),  xₛ = log α + G given argmax xₛ = z.

    logits, z and f' as [R, N, K] -> [R, S, N, K], without a gradient: multiplied out here, because
    S samples in the graph of a backward pass take three times as long.
    """
    y = softmax(conditional_gumbel(logits.detach(), z, samples) / temperature)  # [R, S, N, K]

    def pulls(slope: Tensor) -> Tensor:
        return softmax_pull(y, (slope / temperature).unsqueeze(1))

    return pulls
