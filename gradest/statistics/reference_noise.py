"""The covariance Σ of a mean, as far as tests and intervals need it, without a D × D matrix."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from gradest.statistics.moments import Moments


class Noise:
    """The noise of a difference of independent means, with covariance Σ.

    Each of them has a scatter S [J, D], whose Gram matrix SᵀS is the covariance of the mean; Σ is
    their sum.  Variances are estimated from all replicates; the batch means, of which there are
    few, are used only for the correlations of the coordinates.
    """

    def __init__(self, parts: Sequence[Moments]) -> None:
        self._parts = parts
        self._counts = [float(part.count.sum()) for part in parts]
        self.batches = min(len(part.count) for part in parts)  # the fewest of a part
        self.replicates = min(self._counts)

    @classmethod
    def of(cls, *means: Moments | None) -> "Noise | None":
        """The noise of a difference of these means; None where all are exact (a count of one)."""
        parts = [part for part in means if part is not None and part.count.sum() > 1]
        return cls(parts) if parts else None

    @cached_property
    def variances(self) -> list[Tensor]:
        """The variances of the means: [D] each."""
        pairs = zip(self._parts, self._counts, strict=True)
        return [part.pooled.m2[0] / (count - 1) / count for part, count in pairs]

    @cached_property
    def variance(self) -> Tensor:
        """The diagonal of Σ: [D]."""
        return torch.stack(self.variances).sum(0)

    @property
    def t1(self) -> float:
        """tr Σ."""
        return float(self.variance.sum())

    @cached_property
    def t2(self) -> float:
        """tr Σ²."""
        return self._trace_of_square(torch.ones_like(self.variance))

    def _trace_of_square(self, weight: Tensor) -> float:
        """tr (W Σ W)², which is at least what the diagonal alone gives.

        From f + 1 batches the square of a correlation ρ has the mean ρ² + (1 − ρ²)/f, but for
        higher orders; that of a coordinate with itself is one.  So ‖SSᵀ‖² is too large by
        (tr² Σ − tr Σ²)/f.  The parts are independent: tr Σ₁Σ₂ needs no correction.
        """
        total, weighted = 0.0, [scatter * weight for scatter in self.scatters]
        for number, scatter in enumerate(weighted):
            freedom = len(scatter) - 1
            gram = scatter @ scatter.T  # [J, J]
            total += float(freedom * gram.square().sum() - gram.trace().square()) / (freedom - 1)
            for other in weighted[:number]:
                total += 2 * float((scatter @ other.T).square().sum())
        return max(total, float((self.variance * weight.square()).square().sum()))

    def correlated_share(self, direction: Tensor) -> float:
        """The share, 0 to 1, of dᵀ Σ d that depends on correlations estimated from the batches.

        It is 0 for one coordinate, and for several that are equal up to a factor.
        """
        total = float((self.variance * direction.square()).sum())
        return max(1 - self._trace_of_square(direction) / total**2, 0.0) if total > 0 else 0.0

    @cached_property
    def scatters(self) -> list[Tensor]:
        return [_scatter(part, v) for part, v in zip(self._parts, self.variances, strict=True)]

    def along(self, direction: Tensor) -> float:
        """dᵀ Σ d."""
        return sum(float((scatter @ direction).square().sum()) for scatter in self.scatters)

    def standard_error_along(self, direction: Tensor) -> Tensor:
        """Σ d / √(dᵀ Σ d), the difference expected at one standard error along d: [D]."""
        error = self.along(direction) ** 0.5
        if error == 0:
            return torch.zeros_like(direction)
        parts = [(scatter @ direction) @ scatter for scatter in self.scatters]
        return torch.stack(parts).sum(0) / error


def _scatter(moments: Moments, variance: Tensor) -> Tensor:
    """The batch means, centred, and scaled to the variances of the mean: [J, D].

    A coordinate whose batch means are all equal has unknown correlations; its column is the one
    that is orthogonal to all centred ones.
    """
    share = (moments.count / moments.count.sum()).sqrt().unsqueeze(1)  # [J, 1]
    centred = share * (moments.mean - moments.pooled.mean)  # [J, D], orthogonal to share
    length = centred.norm(dim=0)
    deviation = variance.sqrt()
    return torch.where(length > 1e-12 * deviation, centred / length, share) * deviation
