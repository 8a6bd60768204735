"""One estimator on one task: replicates of the gradient, reduced to moments."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradest import enumeration
from gradest.contracts import Estimator, Task
from gradest.enumeration import Truth
from gradest.errors import NonFiniteGradient, UsageError
from gradest.inference import describe, mean_interval
from gradest.moments import Moments, decode, encode
from gradest.randomness import Draws, drawing_from
from gradest.replicator import Replicator

BATCHES = 64  # independent batches of replicates, from which the intervals come
FEWEST = 32  # replicates: four batches of eight

# Differences of so many units in the last place are rounding: sums over all outcomes and over the
# replicates accumulate that much.
_ROUNDING = 1024

# A mean cosine is known to ± 0.016 after so many replicates, whatever the estimator.
_COSINES = 2**14

# ∂/∂α = (1/α) ∂/∂log α, coordinate by coordinate.
PARAMETERS = {"alpha": lambda logits: (-logits).exp(), "log_alpha": torch.ones_like}


@dataclass(frozen=True, eq=False)
class Measurement:
    """What replicates of one estimator on one task say.

    The tensors are [B, N, K], in float64 on the CPU and with respect to log α.  `exact` is None
    where K^N is too large for the truth to be enumerated.
    """

    gradient: Moments  # [J, B·N·K]
    objective: Moments  # [J, 1]
    cosines: Moments  # [J', P], with the true gradient, one for each of PARAMETERS
    logits: Tensor  # [B, N, K]
    exact: Tensor | None  # [B, N, K]
    exact_value: float | None
    peak: float  # the largest size of a coordinate that was seen, or that a cost unseen could give
    resolution: float  # relative rounding of the dtype that was measured in
    method: str  # monte_carlo or enumerated
    evaluations: int  # forward evaluations of f, per estimate
    seconds: float  # per estimate
    adapt_steps: int

    @property
    def replicates(self) -> int:
        return int(self.gradient.count.sum())

    @property
    def mean(self) -> Tensor:
        return self.gradient.pooled().mean[0].reshape(self.logits.shape)

    @property
    def variance(self) -> Tensor:
        """Of one estimate, coordinate by coordinate."""
        m2 = self.gradient.pooled().m2[0]
        return (m2 / max(self.replicates - 1, 1)).reshape(self.logits.shape)

    @property
    def standard_error(self) -> Tensor:
        """Of the mean, coordinate by coordinate."""
        return (self.variance / self.replicates).sqrt()

    @property
    def value(self) -> float:
        """The mean objective, averaged over the data points."""
        return mean_interval(self.objective).estimate

    def row(self, parameter: str = "log_alpha") -> dict[str, Any]:
        """The measured columns of a results row, with respect to alpha or log_alpha.

        Raises UsageError for another parameter.
        """
        weight = self.weight(parameter)
        points, latents, categories = self.logits.shape
        value = mean_interval(self.objective)
        cosine = mean_interval(self.cosines.column(list(PARAMETERS).index(parameter)))
        return {
            "parameter": parameter,
            "batch": points,
            "latents": latents,
            "categories": categories,
            "coordinates": self.logits.numel(),
            "replicates": self.replicates,
            "adapt_steps": self.adapt_steps,
            "method": self.method,
            "reference": None if self.exact is None else "exact",
            **describe(
                self.gradient,
                None if self.exact is None else self.exact.flatten(),
                weight.flatten(),
                self.peak,
                self.resolution,
            ),
            "cosine": cosine.estimate,
            "cosine_se": cosine.standard_error,
            "value": value.estimate,
            "value_se": value.standard_error,
            "exact_value": self.exact_value,
            "evaluations": self.evaluations,
        }

    def weight(self, parameter: str) -> Tensor:
        """What ∂/∂log α is multiplied by: [B, N, K].  Raises UsageError for an unknown name."""
        if parameter not in PARAMETERS:
            raise UsageError(f"unknown parameter {parameter!r}; known: {', '.join(PARAMETERS)}")
        return PARAMETERS[parameter](self.logits)

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes the same measurement, bit by bit."""
        moments = {name: getattr(self, name).to_json() for name in _MOMENTS}
        exact = None if self.exact is None else encode(self.exact)
        scalars = {name: getattr(self, name) for name in _SCALARS}
        return {**moments, "logits": encode(self.logits), "exact": exact, **scalars}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Measurement":
        moments = {name: Moments.from_json(data[name]) for name in _MOMENTS}
        exact = None if data["exact"] is None else decode(data["exact"])
        scalars = {name: data[name] for name in _SCALARS}
        return cls(**moments, logits=decode(data["logits"]), exact=exact, **scalars)


_MOMENTS = ("gradient", "objective", "cosines")
_SCALARS = ("exact_value", "peak", "resolution", "method", "evaluations", "seconds", "adapt_steps")


def measure(
    estimator: Estimator,
    task: Task,
    *,
    replicates: int = 10_000,
    seed: int = 0,
    adapt_steps: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> Measurement:
    """Measure an estimator on a task: its mean, variance and bias against the exact gradient.

    `adapt_steps` None: as many as the estimator asks for.  An estimator without randomness is
    measured once (`method` is then enumerated).  The global random state is neither read nor
    changed.

    Raises Inapplicable when the estimator cannot run on the task, UsageError for fewer than 32
    replicates, NonFiniteGradient when an estimate is NaN or infinite.
    """
    if replicates < FEWEST:
        raise UsageError(f"replicates = {replicates}; at least {FEWEST} are needed for intervals")
    steps = estimator.adapt_steps if adapt_steps is None else adapt_steps
    with drawing_from(Draws.seeded(seed, device)) as source:
        replicator = Replicator(estimator, task, dtype, device)
        truth = _truth(replicator)
        replicator.adapt(steps)
        chunk, once = replicator.pilot(source)
        tally = _Tally(estimator, task, replicator, truth)
        start = time.perf_counter()
        for batches, size, joined in [(1, 1, False)] if once else _schedule(replicates, chunk):
            tally.add(*replicator(batches * size), batches, joined)
        seconds = time.perf_counter() - start
    return Measurement(
        gradient=Moments.stacked(tally.gradients),
        objective=Moments.stacked(tally.objectives),
        cosines=Moments.stacked(tally.cosines),
        logits=replicator.problem.logits.detach().double().cpu(),
        exact=None if truth is None else truth.gradient,
        exact_value=None if truth is None else float(truth.value.mean()),
        peak=tally.peak if truth is None else max(tally.peak, truth.spread),
        resolution=_ROUNDING * torch.finfo(dtype).eps,
        method="enumerated" if once else "monte_carlo",
        evaluations=replicator.evaluations,
        seconds=seconds / (1 if once else replicates),
        adapt_steps=steps,
    )


class _Tally:
    """The moments of what the replicates show: gradients, values, cosines with the truth."""

    def __init__(
        self, estimator: Estimator, task: Task, replicator: Replicator, truth: Truth | None
    ) -> None:
        self._names = (estimator.name, task.name)
        self._shape = replicator.logits.shape
        exact = replicator.logits.new_full((), float("nan")) if truth is None else truth.gradient
        exact = exact.to(replicator.logits).expand(self._shape).flatten()  # [D]
        weight = torch.stack([w(replicator.logits).flatten() for w in PARAMETERS.values()], 1)
        self._square = weight.square()  # [D, P]
        self._along = exact.unsqueeze(1) * self._square
        self._along /= (exact.unsqueeze(1) * weight).norm(dim=0)
        self.gradients: list[Moments] = []  # of consecutive batches
        self.objectives: list[Moments] = []
        self.cosines: list[Moments] = []
        self._cosines_left = _COSINES
        self.peak = 0.0

    def add(self, gradient: Tensor, value: Tensor, batches: int, joined: bool) -> None:
        """Count [R, D] gradients and [R] values as so many batches, or as more of the last."""
        part = Moments.of(gradient.unflatten(0, (batches, -1)))
        if not part.mean.isfinite().all() or not value.isfinite().all():
            self._complain(gradient, value)
        self.peak = max(self.peak, *(abs(float(end)) for end in gradient.aminmax()))
        _append(self.gradients, part, joined)
        _append(self.objectives, Moments.of(value.reshape(batches, -1, 1)), joined)
        if self._cosines_left > 0:
            self._cosines_left -= len(gradient)
            _append(self.cosines, Moments.of(self._cosine(gradient).unsqueeze(0)), False)

    def _cosine(self, gradient: Tensor) -> Tensor:
        length = ((gradient * gradient) @ self._square).sqrt()  # [R, P]
        # An estimate of zero has no direction, so it goes nowhere.
        return torch.where(length > 0, gradient @ self._along / length, 0.0)

    def _complain(self, gradient: Tensor, value: Tensor) -> None:
        estimator, task = self._names
        bad = ~gradient.isfinite()
        if not bad.any():
            bad = ~value.isfinite()
            raise NonFiniteGradient(
                f"{estimator} on {task}: the objective is {value[bad][0].item()} in "
                f"{int(bad.sum())} of {len(value)} replicates"
            )
        coordinate = int(bad.any(0).nonzero()[0])
        point, latent, category = (int(i) for i in np.unravel_index(coordinate, self._shape))
        raise NonFiniteGradient(
            f"{estimator} on {task}: the gradient at data point {point}, latent {latent}, "
            f"category {category} is {gradient[bad[:, coordinate], coordinate][0].item()} in "
            f"{int(bad[:, coordinate].sum())} of {len(gradient)} replicates"
        )


def _append(parts: list[Moments], part: Moments, joined: bool) -> None:
    parts.append(parts.pop().merge(part) if joined else part)


def _schedule(replicates: int, chunk: int) -> Iterator[tuple[int, int, bool]]:
    """Pieces of at most `chunk` rows: (batches, replicates of each, more of the last batch).

    Batches are as equal as they can be and the same for every chunk size.
    """
    batches = max(4, min(BATCHES, replicates // 8))
    short, longer = divmod(replicates, batches)
    for count, size in ((longer, short + 1), (batches - longer, short)):
        together = max(1, chunk // size)
        for first in range(0, count, together):
            for start in range(0, size, chunk):
                yield min(together, count - first), min(chunk, size - start), start > 0


def _truth(replicator: Replicator) -> Truth | None:
    """The exact value and gradient, penalty included, where they can be enumerated."""
    latents, categories = replicator.logits.shape[1:]
    if categories**latents > enumeration.LIMIT:
        return None
    value, gradient, spread = enumeration.exact(replicator.problem)
    return Truth(value + replicator.penalty, gradient + replicator.penalty_gradient, spread)
