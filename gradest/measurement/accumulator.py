"""Moments of replicates, accumulated piece by piece: no replicate is kept."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gradest.errors import NonFiniteGradient
from gradest.measurement.enumerated_moments import ExactMoments
from gradest.measurement.parameters import LOG_ALPHA, SCALES
from gradest.measurement.truth import Truth
from gradest.statistics import Moments

# Replicates after which the standard error of a mean cosine is below 0.008, for any estimator.
COSINES = 2**14


class Accumulator:
    """The moments of gradients, values and cosines with the truth, and counts of anomalies."""

    def __init__(
        self,
        title: str,
        logits: Tensor,
        truth: Truth | None,
        projections: Mapping[str, Tensor],
        tolerant: bool = False,
    ) -> None:
        self._title = title  # estimator and task, for error messages
        self._shape = logits.shape
        self._tolerant = tolerant  # count estimates that are not finite, instead of raising
        self._maps = {name: map_.to(logits.device) for name, map_ in projections.items()}
        weight = torch.stack([w(logits.double()).flatten() for w in SCALES.values()], 1)
        self._square = weight.square()  # [D, scales]
        gradients = {} if truth is None else truth.gradients
        self._directions = {name: g.to(logits.device) for name, g in gradients.items()}
        if truth is not None:
            along = self._directions[LOG_ALPHA].unsqueeze(1)  # [D, 1]
            self._along = along * self._square / (along * weight).norm(dim=0)
        self.gradients: dict[str, list[Moments]] = {name: [] for name in (LOG_ALPHA, *self._maps)}
        self.objectives: list[Moments] = []
        self.cosines: list[Moments] = []  # [1, scales + groups]
        self.peaks = self._bounds(0.0 if truth is None else truth.spread)
        self.replicates = 0
        self.zero = self.nonfinite = self.overflow = 0.0  # numbers of such replicates
        self.single = False  # whether all estimates so far are representable in single precision
        self._any_nonzero = False
        self._cosines_left = COSINES

    def add(self, gradient: Tensor, value: Tensor, batches: int, continued: bool) -> None:
        """Add [R, D] gradients and [R] values, as `batches` batches or as part of the last one."""
        self.replicates += len(gradient)
        self.zero += float((~gradient.any(1)).sum())
        self._check_single_precision(gradient)
        part = Moments.of(gradient.unflatten(0, (batches, -1)))
        if not part.mean.isfinite().all() or not value.isfinite().all():
            self._count_nonfinite(gradient, value)
        projected = self._projections(gradient)
        self._append(LOG_ALPHA, gradient, part, continued)
        for name, each in projected.items():
            self._append(name, each, Moments.of(each.unflatten(0, (batches, -1))), continued)
        _append(self.objectives, Moments.of(value.reshape(batches, -1, 1)), continued)
        if self._cosines_left > 0:
            self._count_cosines(gradient, projected)

    def add_cosines(self, gradient: Tensor) -> None:
        """Add only the cosines of [R, D] gradients with the truth."""
        self._count_cosines(gradient, self._projections(gradient))

    def columns(self, gradient: Tensor) -> Tensor:
        """The statistics that an enumeration sums besides the gradient: [B, R, N · K] -> [B, R, C].

        They are whether the estimate is zero, not finite or infinite, its projections, and, for a
        single data point, the cosines.
        """
        self._check_single_precision(gradient)
        points = self._shape[0]
        anomalies = (~gradient.any(-1), ~gradient.isfinite().all(-1), gradient.isinf().any(-1))
        columns = [torch.stack(anomalies, -1).double()]
        projected = {}
        for name, map_ in self._maps.items():
            projected[name] = gradient @ map_.unflatten(0, (points, -1))  # [B, R, r]
            columns.append(projected[name])
        if points == 1:
            first = {name: each[0] for name, each in projected.items()}
            columns.append(self._cosines(gradient[0], first).unsqueeze(0))
        return torch.cat(columns, -1)

    def set_exact(self, exact: ExactMoments) -> None:
        """Set the moments to exact ones, of all outcomes weighted by their probabilities.

        Data points draw independently of each other: their variances add up.
        """
        points, self.replicates = self._shape[0], 1
        self._set_gradient(LOG_ALPHA, exact.mean.flatten(), exact.variance.flatten())
        self.objectives = [_population(exact.value.mean(), exact.value_variance.mean() / points)]
        sizes = [3, *(map_.shape[1] for map_ in self._maps.values())]
        if points == 1:
            sizes.append(len(SCALES) + len(self._maps))
        mean = exact.more_mean.split(sizes, -1)
        variance = exact.more_variance.split(sizes, -1)
        self.zero = float(mean[0][:, 0].prod())
        self.nonfinite, self.overflow = (float(1 - (1 - m).prod()) for m in mean[0].T[1:])
        for name, m, v in zip(self._maps, mean[1:], variance[1:], strict=False):
            self._set_gradient(name, m.sum(0), v.sum(0))
        if points == 1:
            self.cosines = [_population(mean[-1][0], torch.zeros_like(mean[-1][0]))]
        if not self._tolerant:
            self._refuse(~exact.mean.flatten().isfinite(), "NaN or infinite in some outcomes")
            if not exact.value.isfinite().all():
                raise NonFiniteGradient(
                    f"{self._title}: expected a finite objective, got NaN or inf"
                )

    def _check_single_precision(self, gradient: Tensor) -> None:
        """Note whether the numbers are those of code that computes in float32 inside float64."""
        if self.single or not self._any_nonzero:
            self._any_nonzero = self._any_nonzero or bool(gradient.any())
            self.single = self._any_nonzero and bool((gradient.float() == gradient).all())

    def _bounds(self, spread: float) -> dict[str, float]:
        """The largest coordinates that a cost not yet drawn can give, `spread` from the others."""
        points, latents, _ = self._shape
        # |z − π| is at most √2, so this is how long a score function's estimate can be.
        length = spread * (2 * points * latents) ** 0.5
        widest = {name: float(m.norm(dim=0).max()) for name, m in self._maps.items()}
        return {LOG_ALPHA: spread} | {name: length * w for name, w in widest.items()}

    def _set_gradient(self, name: str, mean: Tensor, variance: Tensor) -> None:
        self.gradients[name] = [_population(mean, variance)]

    def _append(self, name: str, block: Tensor, part: Moments, continued: bool) -> None:
        self.peaks[name] = max(self.peaks[name], *(abs(float(end)) for end in block.aminmax()))
        _append(self.gradients[name], part, continued)

    def _projections(self, gradient: Tensor) -> dict[str, Tensor]:
        """The projections on each group, in float64: [R, D] -> [R, r]."""
        return {name: gradient.double() @ map_ for name, map_ in self._maps.items()}

    def _count_cosines(self, gradient: Tensor, projected: Mapping[str, Tensor]) -> None:
        self._cosines_left -= len(gradient)
        self.cosines.append(Moments.of(self._cosines(gradient.double(), projected).unsqueeze(0)))

    def _cosines(self, gradient: Tensor, projected: Mapping[str, Tensor]) -> Tensor:
        """Cosines with the truth: [R, D] -> [R, scales + groups], NaN where it is unknown."""
        if not self._directions:
            return gradient.new_full((len(gradient), len(SCALES) + len(projected)), torch.nan)
        length = (gradient.square() @ self._square).sqrt()  # [R, scales]
        cosines = [gradient @ self._along / length]
        lengths = [length]
        for name, each in projected.items():
            lengths.append(each.norm(dim=1, keepdim=True))
            direction = self._directions[name] / self._directions[name].norm()
            cosines.append((each @ direction).unsqueeze(1) / lengths[-1])
        # An estimate of zero has no direction; its cosine counts as zero.
        return torch.where(torch.cat(lengths, 1) > 0, torch.cat(cosines, 1), 0.0)

    def _count_nonfinite(self, gradient: Tensor, value: Tensor) -> None:
        """Count replicates that are not finite; raises NonFiniteGradient unless tolerant."""
        bad = ~gradient.isfinite()
        if self._tolerant:
            self.nonfinite += float((bad.any(1) | ~value.isfinite()).sum())
            self.overflow += float((gradient.isinf().any(1) | value.isinf()).sum())
            return
        if not bad.any():
            bad = ~value.isfinite()
            raise NonFiniteGradient(
                f"{self._title}: the objective is {value[bad][0].item()} in "
                f"{int(bad.sum())} of {len(value)} replicates"
            )
        column = int(bad.any(0).nonzero()[0])
        value, count = gradient[bad[:, column], column][0].item(), int(bad[:, column].sum())
        self._refuse(bad.any(0), f"{value} in {count} of {len(gradient)} replicates")

    def _refuse(self, bad: Tensor, problem: str) -> None:
        """Raise NonFiniteGradient with the first bad one of the [D] coordinates, if any."""
        if not bad.any():
            return
        place = np.unravel_index(int(bad.nonzero()[0]), self._shape)
        point, latent, category = (int(i) for i in place)
        raise NonFiniteGradient(
            f"{self._title}: the gradient at data point {point}, latent {latent}, "
            f"category {category} is {problem}"
        )


def _append(parts: list[Moments], part: Moments, continued: bool) -> None:
    parts.append(parts.pop().merge(part) if continued else part)


def _population(mean: Tensor, variance: Tensor) -> Moments:
    """Exact moments, which have a total count of one."""
    return Moments(torch.ones(1, dtype=torch.float64), mean.reshape(1, -1), variance.reshape(1, -1))
