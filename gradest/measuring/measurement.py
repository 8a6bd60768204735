"""One estimator on one task: replicates of the gradient, or all its outcomes, as moments."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.errors import UsageError
from gradest.inference import describe, mean_interval
from gradest.markdown import interval
from gradest.measuring import truth
from gradest.measuring.adaptation import Look, adapted
from gradest.measuring.drift import Drift, drift
from gradest.measuring.memory import peak_bytes
from gradest.measuring.outcomes import LIMIT, enumerated
from gradest.measuring.parameters import LOG_ALPHA, SCALES, projections, pulled_back
from gradest.measuring.precision import Precision, planned, shortfall
from gradest.measuring.replicator import Replicator
from gradest.measuring.schedule import FEWEST
from gradest.measuring.tally import COSINES, Tally
from gradest.measuring.truth import Reference, Truth
from gradest.moments import Moments, decode, encode
from gradest.randomness import Draws, drawing_from

# Differences of so many units in the last place are rounding: sums over all outcomes and over the
# replicates accumulate that much.
_ROUNDING = 1024

_WEIGHED = 64  # replicates at once whose memory is watched

ENUMERATED = "enumerated"


@dataclass(frozen=True, eq=False)
class Measurement:
    """What one estimator does on one task.

    `mean`, `variance`, `standard_error` and `exact` are [B, N, K], in float64 on the CPU and with
    respect to log α; `exact` is None where the truth is unknown.  `row` also speaks of α and of the
    groups of parameters that the task has.
    """

    gradients: Mapping[str, Moments]  # [J, B·N·K] of log α, [J, r] of each group of parameters
    objective: Moments  # [J, 1]
    cosines: Moments  # [J', P], with the true gradient, in the order of `parameters`
    logits: Tensor  # [B, N, K]
    truth: Truth | None
    means: Mapping[str, Tensor]  # [P], with respect to each group's own coordinates
    peaks: Mapping[str, float]  # largest coordinate that was seen, or that an unseen cost gives
    resolution: float  # relative rounding of the dtype that was measured in
    method: str  # monte_carlo or enumerated
    outcomes: int | None  # that were enumerated
    asked: Precision | None
    zero: float  # share of the estimates that are zero throughout
    nonfinite: float  # share of those with a NaN or an infinity
    overflow: float  # share of those with an infinity
    drift: Drift  # of the estimates from those in float64
    evaluations: int  # forward evaluations of f, per estimate
    gradient_evaluations: int  # those of them that a backward pass goes through
    memory: float  # bytes at the peak, per estimate
    seconds: float  # per estimate
    adapt_steps: int
    adaptation: tuple[Look, ...]

    def __repr__(self) -> str:
        row = self.row()
        if self.nonfinite:
            return f"<Measurement: {100 * self.nonfinite:.3g} % of the estimates are not finite>"
        bias = [max(row[f"bias_sq{end}"], 0.0) ** 0.5 for end in ("", "_low", "_high")]
        variance = [row[f"variance{end}"] for end in ("", "_low", "_high")]
        drawn = f"{self.outcomes} outcomes" if self.outcomes else f"{self.replicates} replicates"
        return (
            f"<Measurement in log α: {row['verdict']}, bias {interval(*bias)} for a gradient of "
            f"{row['gradient_norm']:.4g}, variance {interval(*variance)}, {drawn}>"
        )

    @property
    def gradient(self) -> Moments:
        """With respect to log α: [J, B·N·K]."""
        return self.gradients[LOG_ALPHA]

    @property
    def parameters(self) -> tuple[str, ...]:
        """What `row` can speak of."""
        return (*SCALES, *(name for name in self.gradients if name != LOG_ALPHA))

    @property
    def replicates(self) -> int:
        """How many estimates were drawn: none where all outcomes were enumerated."""
        return 0 if self.method == ENUMERATED else int(self.gradient.count.sum())

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
        if self.method == ENUMERATED:
            return torch.zeros_like(self.logits)
        return (self.variance / self.replicates).sqrt()

    @property
    def exact(self) -> Tensor | None:
        if self.truth is None:
            return None
        return self.truth.gradients[LOG_ALPHA].reshape(self.logits.shape)

    @property
    def exact_value(self) -> float | None:
        return None if self.truth is None else float(self.truth.value.mean())

    @property
    def value(self) -> float:
        """The mean objective, averaged over the data points."""
        return mean_interval(self.objective).estimate

    def row(self, parameter: str = LOG_ALPHA) -> dict[str, Any]:
        """The measured columns of a results row, with respect to one of `parameters`.

        Raises UsageError for another parameter.
        """
        if parameter not in self.parameters:
            raise UsageError(
                f"unknown parameter {parameter!r}; known: {', '.join(self.parameters)}"
            )
        points, latents, categories = self.logits.shape
        columns = {
            "parameter": parameter,
            "batch": points,
            "latents": latents,
            "categories": categories,
            "replicates": self.replicates,
            "outcomes": self.outcomes,
            "adapt_steps": self.adapt_steps,
            "method": self.method,
            "reference": None if self.truth is None else self.truth.source,
            "reference_by": None if self.truth is None else self.truth.by,
            "zero": self.zero,
            "nonfinite": self.nonfinite,
            "overflow": self.overflow,
            "drift": self.drift.mean,
            "drift_se": self.drift.standard_error,
            "evaluations": self.evaluations,
            "gradient_evaluations": self.gradient_evaluations,
            "memory": self.memory,
        }
        if self.nonfinite:  # a mean of what is not finite says nothing
            return columns | {"verdict": "inconclusive"}
        value = mean_interval(self.objective)
        cosine = mean_interval(self.cosines.column(self.parameters.index(parameter)))
        said = self._described(parameter)
        return columns | {
            **said,
            "precision": shortfall(self.asked, said),
            "cosine": cosine.estimate,
            "cosine_se": cosine.standard_error,
            "value": value.estimate,
            "value_se": value.standard_error,
            "exact_value": self.exact_value,
        }

    def weight(self, parameter: str) -> Tensor:
        """What ∂/∂log α is multiplied by to give log α or α: [B, N, K]."""
        return SCALES[parameter](self.logits)

    def _described(self, parameter: str) -> dict[str, Any]:
        name = parameter if parameter in self.gradients else LOG_ALPHA
        moments = self.gradients[name]
        scaled = parameter in SCALES
        size = moments.mean.shape[1]
        weight = self.weight(parameter).flatten() if scaled else torch.ones(size).double()
        exact = None if self.truth is None else self.truth.gradients[name]
        noise = None if self.truth is None else self.truth.noise.get(name)
        said = describe(moments, exact, weight, self.peaks[name], self.resolution, noise)
        return {
            "coordinates": size,
            "reference_se": _relative_error(noise, weight, said["gradient_norm"]),
            **said,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes the same measurement, bit by bit."""
        return {
            "gradients": {name: m.to_json() for name, m in self.gradients.items()},
            "objective": self.objective.to_json(),
            "cosines": self.cosines.to_json(),
            "logits": encode(self.logits),
            "means": {name: encode(mean) for name, mean in self.means.items()},
            "truth": None if self.truth is None else self.truth.to_json(),
            "peaks": dict(self.peaks),
            "asked": None if self.asked is None else self.asked.model_dump(),
            "drift": list(self.drift),
            "adaptation": [list(look) for look in self.adaptation],
            **{name: getattr(self, name) for name in _SCALARS},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Measurement":
        return cls(
            gradients={name: Moments.from_json(m) for name, m in data["gradients"].items()},
            objective=Moments.from_json(data["objective"]),
            cosines=Moments.from_json(data["cosines"]),
            logits=decode(data["logits"]),
            means={name: decode(mean) for name, mean in data["means"].items()},
            truth=None if data["truth"] is None else Truth.from_json(data["truth"]),
            peaks=data["peaks"],
            asked=None if data["asked"] is None else Precision(**data["asked"]),
            drift=Drift(*data["drift"]),
            adaptation=tuple(Look(*look) for look in data["adaptation"]),
            **{name: data[name] for name in _SCALARS},
        )


def _relative_error(noise: Moments | None, weight: Tensor, norm: float) -> float:
    """The standard error of the whole reference, relative to ‖g‖."""
    if noise is None or norm == 0:
        return 0.0
    pooled = noise.scaled(weight).pooled()
    replicates = float(pooled.count[0])
    return (float(pooled.m2.sum()) / (replicates - 1) / replicates) ** 0.5 / norm


_SCALARS = (
    *("resolution", "method", "outcomes", "zero", "nonfinite", "overflow", "evaluations"),
    *("gradient_evaluations", "memory", "seconds", "adapt_steps"),
)


def measure(
    estimator: Estimator,
    task: Task,
    *,
    replicates: int = 10_000,
    precision: Precision | None = None,
    enumerate_draws: bool | None = None,
    seed: int = 0,
    adapt_steps: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    reference: Reference | None = None,
    tolerant: bool = False,
) -> Measurement:
    """Measure an estimator on a task: its mean, variance and bias against the true gradient.

    Where the draws of an estimate have at most 1,000,000 joint outcomes, these are all visited and
    weighted by their probabilities: the moments are exact (`method` is enumerated).
    `enumerate_draws` False draws replicates all the same, unless there is nothing to draw; True
    insists.  Replicates are as many as `replicates` says, or as a `precision` asks for.

    `adapt_steps` None: as many as the estimator asks for.  `reference`, of the same task and by
    other draws (`gradest.measure_reference`), stands for the truth where that is unknown.
    `tolerant` counts estimates that are not finite instead of raising.  The global random state is
    neither read nor changed.

    Raises Inapplicable when the estimator cannot run on the task, UsageError for fewer than 64
    replicates or draws that cannot be enumerated though they should, NonFiniteGradient when an
    estimate is NaN or infinite.
    """
    check_subjects([estimator], task, replicates)
    for given, kind, name in (
        (precision, Precision, "precision"),
        (reference, Reference, "reference"),
    ):
        if given is not None and not isinstance(given, kind):
            raise UsageError(f"{name} = {given!r} is no gradest {kind.__name__}")
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"dtype = {dtype!r} is no torch.dtype, such as torch.float32")
    steps = estimator.adapt_steps if adapt_steps is None else adapt_steps
    title = f"{estimator.name} on {task.name}"
    moved = Drift(0.0, 0.0)
    if dtype != torch.float64:
        moved = drift(estimator, task, dtype, device, steps, seed)
    with drawing_from(Draws.seeded(seed, device)) as source:
        replicator = Replicator(estimator, task, dtype, device)
        maps = projections(task, replicator.problem.logits)
        known = truth.known(replicator, maps)
        if known is None and reference is not None:
            known = truth.estimated(reference)
        tally = Tally(title, replicator.logits, known, maps, tolerant)
        chunk = replicator.pilot(source)
        with drawing_from(Draws.seeded(seed, device)):  # what is weighed hangs on the chunk
            memory = _weighed(replicator, min(_WEIGHED, chunk))
        looks = adapted(replicator, steps, chunk)
        start = time.perf_counter()
        outcomes = _enumerate(replicator, tally, chunk, 1 if enumerate_draws is False else LIMIT)
        if outcomes is None:
            if enumerate_draws:
                raise UsageError(
                    f"{title}: the draws cannot be listed: they are continuous, or have more than "
                    f"{LIMIT:,} outcomes"
                )
            if precision is not None:
                replicates = planned(precision, replicator, chunk, known)
            start = time.perf_counter()
            for piece in replicator.pieces(replicates, chunk):
                tally.add(*piece)
        seconds = (time.perf_counter() - start) / (outcomes or replicates)
    gradients = {name: Moments.stacked(parts) for name, parts in tally.gradients.items()}
    logits = replicator.problem.logits
    mean = gradients[LOG_ALPHA].pooled().mean.reshape(logits.shape)
    return Measurement(
        gradients=gradients,
        objective=Moments.stacked(tally.objectives),
        cosines=Moments.stacked(tally.cosines),
        logits=logits.detach().double().cpu(),
        truth=known,
        means=pulled_back(task, logits, mean),
        peaks=tally.peaks,
        resolution=_ROUNDING * torch.finfo(dtype).eps,
        method="monte_carlo" if outcomes is None else ENUMERATED,
        outcomes=outcomes,
        asked=precision,
        zero=tally.zero / tally.replicates,
        nonfinite=tally.nonfinite / tally.replicates,
        overflow=tally.overflow / tally.replicates,
        drift=moved,
        evaluations=replicator.evaluations,
        gradient_evaluations=replicator.gradient_evaluations,
        memory=memory,
        seconds=seconds,
        adapt_steps=steps,
        adaptation=tuple(looks),
    )


def check_subjects(estimators: Sequence[Estimator], task: Task, replicates: int) -> None:
    """Raises UsageError for what is no estimator or no task, and for too few replicates."""
    made = [
        *((estimator, Estimator, "estimator") for estimator in estimators),
        (task, Task, "task"),
    ]
    for given, kind, name in made:
        if not isinstance(given, kind):
            raise UsageError(f"{given!r} is no {name}; gradest.make_{name}(name) makes one")
    if not isinstance(replicates, int):
        raise UsageError(f"replicates = {replicates!r} is no whole number")
    if replicates < FEWEST:
        raise UsageError(f"replicates = {replicates}; at least {FEWEST} are needed for intervals")


def _enumerate(replicator: Replicator, tally: Tally, chunk: int, limit: int) -> int | None:
    """Settle the tally by all outcomes of the draws; how many, None where they cannot be listed."""
    found = enumerated(replicator, limit, tally.columns, chunk)
    if found is None:
        return None
    tally.settle(found)
    if len(replicator.logits) > 1:  # it takes the draws of all data points to tell the cosine
        for gradient, *_ in replicator.pieces(COSINES if found.outcomes > 1 else 1, chunk):
            tally.add_cosines(gradient)
    return found.outcomes


def _weighed(replicator: Replicator, rows: int) -> float:
    """Bytes at the peak, per estimate."""
    return peak_bytes(lambda: replicator(rows)) / rows
