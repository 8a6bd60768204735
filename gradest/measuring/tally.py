"""What replicates show, reduced to moments as they come: no replicate is kept."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gradest.errors import NonFiniteGradient
from gradest.measuring.outcomes import Enumerated
from gradest.measuring.parameters import LOG_ALPHA, SCALES
from gradest.measuring.truth import Truth
from gradest.moments import Moments

# A mean cosine is known to ± 0.016 after so many replicates, whatever the estimator.
COSINES = 2**14


class Tally:
    """The moments of gradients, values and cosines with the truth, and counts of odd replicates."""

    def __init__(
        self,
        title: str,
        logits: Tensor,
        truth: Truth | None,
        projections: Mapping[str, Tensor],
        tolerant: bool = False,
    ) -> None:
        self._title = title  # who is measured on what, for complaints
        self._shape = logits.shape
        self._tolerant = tolerant  # of estimates that are not finite: they are counted
        self._maps = {name: map_.to(logits.device) for name, map_ in projections.items()}
        weight = torch.stack([w(logits.double()).flatten() for w in SCALES.values()], 1)
        self._square = weight.square()  # [D, scales]
        known = {} if truth is None else truth.gradients
        self._directions = {name: g.to(logits.device) for name, g in known.items()}
        if truth is not None:
            along = self._directions[LOG_ALPHA].unsqueeze(1)  # [D, 1]
            self._along = along * self._square / (along * weight).norm(dim=0)
        self.gradients: dict[str, list[Moments]] = {name: [] for name in (LOG_ALPHA, *self._maps)}
        self.objectives: list[Moments] = []
        self.cosines: list[Moments] = []  # [1, scales + groups]
        self.peaks = self._bounds(0.0 if truth is None else truth.spread)
        self.replicates = 0
        self.zero = self.nonfinite = self.overflow = 0.0  # how many of them
        self.single = False  # whether all estimates seen are numbers of single precision
        self._seen = False
        self._cosines_left = COSINES

    def add(self, gradient: Tensor, value: Tensor, batches: int, joined: bool) -> None:
        """Count [R, D] gradients and [R] values as so many batches, or as more of the last."""
        self.replicates += len(gradient)
        self.zero += float((~gradient.any(1)).sum())
        self._look(gradient)
        part = Moments.of(gradient.unflatten(0, (batches, -1)))
        if not part.mean.isfinite().all() or not value.isfinite().all():
            self._examine(gradient, value)
        projected = self._projected(gradient)
        self._append(LOG_ALPHA, gradient, part, joined)
        for name, each in projected.items():
            self._append(name, each, Moments.of(each.unflatten(0, (batches, -1))), joined)
        _append(self.objectives, Moments.of(value.reshape(batches, -1, 1)), joined)
        if self._cosines_left > 0:
            self._count_cosines(gradient, projected)

    def add_cosines(self, gradient: Tensor) -> None:
        """Count the cosines with the truth of [R, D] gradients, and nothing else of them."""
        self._count_cosines(gradient, self._projected(gradient))

    def columns(self, gradient: Tensor) -> Tensor:
        """What an enumeration adds up besides the gradient: [B, R, N · K] -> [B, R, C].

        Whether the estimate is zero, not finite, infinite; its part in each projection; and, where
        a single data point makes up the whole of it, the cosines.
        """
        self._look(gradient)
        points = self._shape[0]
        odd = (~gradient.any(-1), ~gradient.isfinite().all(-1), gradient.isinf().any(-1))
        columns = [torch.stack(odd, -1).double()]
        projected = {}
        for name, map_ in self._maps.items():
            projected[name] = gradient @ map_.unflatten(0, (points, -1))  # [B, R, r]
            columns.append(projected[name])
        if points == 1:
            first = {name: each[0] for name, each in projected.items()}
            columns.append(self._cosines(gradient[0], first).unsqueeze(0))
        return torch.cat(columns, -1)

    def settle(self, found: Enumerated) -> None:
        """Take over exact moments, of every outcome weighted by its probability.

        Data points draw independently of each other: their variances add up.
        """
        points, self.replicates = self._shape[0], 1
        self._keep(LOG_ALPHA, found.mean.flatten(), found.variance.flatten())
        self.objectives = [_population(found.value.mean(), found.value_variance.mean() / points)]
        sizes = [3, *(map_.shape[1] for map_ in self._maps.values())]
        if points == 1:
            sizes.append(len(SCALES) + len(self._maps))
        mean = found.more_mean.split(sizes, -1)
        variance = found.more_variance.split(sizes, -1)
        self.zero = float(mean[0][:, 0].prod())
        self.nonfinite, self.overflow = (float(1 - (1 - m).prod()) for m in mean[0].T[1:])
        for name, m, v in zip(self._maps, mean[1:], variance[1:], strict=False):
            self._keep(name, m.sum(0), v.sum(0))
        if points == 1:
            self.cosines = [_population(mean[-1][0], torch.zeros_like(mean[-1][0]))]
        if not self._tolerant:
            self._refuse(~found.mean.flatten().isfinite(), "not finite in some of its outcomes")
            if not found.value.isfinite().all():
                raise NonFiniteGradient(f"{self._title}: the objective is not finite")

    def _look(self, gradient: Tensor) -> None:
        """Code that computes in float32 inside a float64 measurement gives float32 numbers."""
        if self.single or not self._seen:
            self._seen = self._seen or bool(gradient.any())
            self.single = self._seen and bool((gradient.float() == gradient).all())

    def _bounds(self, spread: float) -> dict[str, float]:
        """How large a coordinate an unseen cost, so far from the others, could make."""
        points, latents, _ = self._shape
        # |z − π| is at most √2, so this is how long a score function's estimate can be.
        length = spread * (2 * points * latents) ** 0.5
        widest = {name: float(m.norm(dim=0).max()) for name, m in self._maps.items()}
        return {LOG_ALPHA: spread} | {name: length * w for name, w in widest.items()}

    def _keep(self, name: str, mean: Tensor, variance: Tensor) -> None:
        self.gradients[name] = [_population(mean, variance)]

    def _append(self, name: str, seen: Tensor, part: Moments, joined: bool) -> None:
        self.peaks[name] = max(self.peaks[name], *(abs(float(end)) for end in seen.aminmax()))
        _append(self.gradients[name], part, joined)

    def _projected(self, gradient: Tensor) -> dict[str, Tensor]:
        """[R, D] -> [R, r] of each group, in float64."""
        return {name: gradient.double() @ map_ for name, map_ in self._maps.items()}

    def _count_cosines(self, gradient: Tensor, projected: Mapping[str, Tensor]) -> None:
        self._cosines_left -= len(gradient)
        self.cosines.append(Moments.of(self._cosines(gradient.double(), projected).unsqueeze(0)))

    def _cosines(self, gradient: Tensor, projected: Mapping[str, Tensor]) -> Tensor:
        """With the truth: [R, D] -> [R, scales + groups], NaN where it is unknown."""
        if not self._directions:
            return gradient.new_full((len(gradient), len(SCALES) + len(projected)), torch.nan)
        length = (gradient.square() @ self._square).sqrt()  # [R, scales]
        cosines = [gradient @ self._along / length]
        lengths = [length]
        for name, each in projected.items():
            lengths.append(each.norm(dim=1, keepdim=True))
            direction = self._directions[name] / self._directions[name].norm()
            cosines.append((each @ direction).unsqueeze(1) / lengths[-1])
        # An estimate of zero has no direction, so it goes nowhere.
        return torch.where(torch.cat(lengths, 1) > 0, torch.cat(cosines, 1), 0.0)

    def _examine(self, gradient: Tensor, value: Tensor) -> None:
        """Counts what is not finite.  Raises NonFiniteGradient unless that is tolerated."""
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

    def _refuse(self, bad: Tensor, what: str) -> None:
        """Raises NonFiniteGradient that names the first bad one of the [D] coordinates, if any."""
        if not bad.any():
            return
        place = np.unravel_index(int(bad.nonzero()[0]), self._shape)
        point, latent, category = (int(i) for i in place)
        raise NonFiniteGradient(
            f"{self._title}: the gradient at data point {point}, latent {latent}, "
            f"category {category} is {what}"
        )


def _append(parts: list[Moments], part: Moments, joined: bool) -> None:
    parts.append(parts.pop().merge(part) if joined else part)


def _population(mean: Tensor, variance: Tensor) -> Moments:
    """Moments whose every outcome is weighted by its probability: their count is one in all."""
    return Moments(torch.ones(1, dtype=torch.float64), mean.reshape(1, -1), variance.reshape(1, -1))
