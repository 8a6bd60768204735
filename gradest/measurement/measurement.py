"""The measurement of one estimator on one task, by replicates or by enumeration."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gradest.contracts import Estimator, Task
from gradest.errors import NonFiniteGradient, UsageError
from gradest.measurement import enumerated_truth
from gradest.measurement.accumulator import COSINES, Accumulator
from gradest.measurement.arguments import check_arguments
from gradest.measurement.cost_checks import find_nonfinite_cost
from gradest.measurement.dtype_error import DtypeError, measure_dtype_error
from gradest.measurement.enumerated_moments import ExactMoments, NotEnumerable
from gradest.measurement.memory import peak_bytes
from gradest.measurement.parameters import LOG_ALPHA, parameter_gradients, projections
from gradest.measurement.precision import Precision, plan_replicates
from gradest.measurement.progress import display, phase
from gradest.measurement.replicator import Replicator
from gradest.measurement.result import ENUMERATED, Measurement
from gradest.measurement.setup import isolated_randomness, prepare, title_of
from gradest.measurement.truth import Reference, exact_truth, truth_from_reference
from gradest.randomness import Draws, drawing_from
from gradest.statistics import Moments, resolution

_REPLICATES = 10_000
_MEMORY_ROWS = 64  # replicates at once whose memory is measured


def measure(
    estimator: Estimator,
    task: Task,
    *,
    replicates: int | None = None,
    precision: Precision | None = None,
    enumerate_draws: bool | None = None,
    seed: int = 0,
    adapt_steps: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    reference: Reference | None = None,
    tolerant: bool = False,
    progress: bool | None = None,
) -> Measurement:
    """Measure an estimator on a task: its mean, variance and bias against the true gradient.

    Where the draws of an estimate have at most 1,000,000 joint outcomes, and these take a few
    seconds at most, all of them are enumerated and weighted by their probabilities: the moments are
    exact.  `method` of the result is then "enumerated"; otherwise `drawn_because` gives the reason
    why not.  With `enumerate_draws` False replicates are drawn nevertheless, unless there is
    nothing to draw; with True it is an error if the draws cannot be enumerated.  The number of
    replicates is `replicates`, or planned for a `precision`; the default is 10,000.

    With `adapt_steps` None the estimator adapts for its own default number of steps.  A `reference`
    of the same task, from other draws (`gradest.measure_reference`), replaces the true gradient
    where that is unknown.  `tolerant` counts estimates that are not finite instead of raising.  The
    global random state is neither read nor changed.  With `progress` None the progress is shown
    after two seconds, on a terminal or in a notebook; with True at once and everywhere; with False
    never.

    Raises Inapplicable when the estimator cannot run on the task, UsageError for fewer than 64
    replicates or for `enumerate_draws` True with draws that cannot be enumerated, NonFiniteGradient
    when an estimate is NaN or infinite.
    """
    if replicates is not None and precision is not None:
        raise UsageError("expected replicates or precision, got both")
    replicates = _REPLICATES if replicates is None else replicates
    check_arguments(
        [estimator],
        task,
        replicates=replicates,
        seed=seed,
        device=device,
        adapt_steps=adapt_steps,
        enumerate_draws=enumerate_draws,
        tolerant=tolerant,
        dtype=dtype,
    )
    for value, kind, name in (
        (precision, Precision, "precision"),
        (reference, Reference, "reference"),
    ):
        if value is not None and not isinstance(value, kind):
            raise UsageError(f"{name} = {value!r}; expected a gradest {kind.__name__}")
    steps = estimator.adapt_steps if adapt_steps is None else adapt_steps
    title = f"{estimator.name} on {task.name}"
    dtype_error = DtypeError(0.0, 0.0)
    if dtype != torch.float64:
        with display(title, progress), isolated_randomness(seed, estimator, task):
            dtype_error = measure_dtype_error(estimator, task, dtype, device, steps, seed)
    with (
        display(title, progress),
        isolated_randomness(seed, estimator, task),
        drawing_from(Draws.seeded(seed, device)) as source,
    ):
        setup = prepare(estimator, task, steps, dtype, device, source)
        replicator, chunk = setup.replicator, setup.chunk
        maps = projections(task, replicator.problem.logits)
        truth = exact_truth(replicator, maps)
        if truth is None and not tolerant and enumerated_truth.enumerable(replicator.problem):
            _check_costs(replicator)
        if truth is None and reference is not None:
            truth = truth_from_reference(reference)
        moments = Accumulator(setup.title, replicator.logits, truth, maps, tolerant)
        with drawing_from(Draws.seeded(seed, device)):  # the number of rows depends on the chunk
            memory = _memory(replicator, min(_MEMORY_ROWS, chunk))
        start = time.perf_counter()
        with _explain_nonfinite(replicator):
            exact = setup.enumerate_moments(enumerate_draws, moments.columns)
            if isinstance(exact, ExactMoments):
                _set_exact(moments, exact, replicator, chunk)
            else:
                if precision is not None:
                    with phase("planning"):
                        replicates = plan_replicates(precision, replicator, chunk, truth)
                start = time.perf_counter()
                for piece in replicator.pieces(replicates, chunk):
                    moments.add(*piece)
        outcomes = exact.outcomes if isinstance(exact, ExactMoments) else None
        seconds = (time.perf_counter() - start) / (outcomes or replicates)
        setup.check_cost_again()
    gradients = {name: Moments.stacked(parts) for name, parts in moments.gradients.items()}
    logits = replicator.problem.logits
    mean = gradients[LOG_ALPHA].pooled.mean.reshape(logits.shape)
    return Measurement(
        gradients=gradients,
        objective=Moments.stacked(moments.objectives),
        cosines=Moments.stacked(moments.cosines),
        logits=logits.detach().double().cpu(),
        truth=truth,
        means=parameter_gradients(task, logits, mean),
        peaks=moments.peaks,
        resolution=max(resolution(dtype), resolution(torch.float32) if moments.single else 0.0),
        method="monte_carlo" if outcomes is None else ENUMERATED,
        outcomes=outcomes,
        precision=precision,
        zero=moments.zero / moments.replicates,
        nonfinite=moments.nonfinite / moments.replicates,
        overflow=moments.overflow / moments.replicates,
        drift=dtype_error,
        evaluations=replicator.evaluations,
        gradient_evaluations=replicator.gradient_evaluations,
        memory=memory,
        seconds=seconds,
        adapt_steps=steps,
        adaptation=setup.adaptation,
        title=f"{title_of(estimator)} on {title_of(task)}",
        drawn_because=exact.reason if isinstance(exact, NotEnumerable) else "",
        identity=_identity(estimator, task, seed, dtype),
    )


def _identity(
    estimator: Estimator, task: Task, seed: int, dtype: torch.dtype
) -> dict[str, str | int]:
    """The columns that identify a measurement among those of a run."""
    return {
        "task": task.name,
        "task_params": json.dumps(task.knobs, sort_keys=True),
        "task_version": task.version,
        "estimator": estimator.name,
        "estimator_params": json.dumps(estimator.knobs, sort_keys=True),
        "estimator_version": estimator.version,
        "seed": seed,
        "dtype": str(dtype).removeprefix("torch."),
        "status": "ok",
    }


@contextmanager
def _explain_nonfinite(replicator: Replicator) -> Iterator[None]:
    """Raise the error of the cost where an estimate is not finite because some cost is not."""
    try:
        yield
    except NonFiniteGradient:
        _check_costs(replicator)
        raise


def _check_costs(replicator: Replicator) -> None:
    """Raise NonFiniteGradient for a code whose cost is not finite, if one is found."""
    estimator = replicator.estimator
    relaxes = estimator.relaxes or estimator.differentiates
    if cause := find_nonfinite_cost(replicator.problem, replicator.logits, relaxes):
        raise NonFiniteGradient(f"{replicator.task.name}: {cause}")


def _set_exact(
    moments: Accumulator, exact: ExactMoments, replicator: Replicator, chunk: int
) -> None:
    """Put exact moments into the accumulator, and cosines from replicates where they need these."""
    moments.set_exact(exact)
    if len(replicator.logits) > 1:  # a cosine depends on the draws of all data points together
        for gradient, *_ in replicator.pieces(COSINES if exact.outcomes > 1 else 1, chunk):
            moments.add_cosines(gradient)


def _memory(replicator: Replicator, rows: int) -> float:
    """The peak memory in bytes, per estimate."""
    return peak_bytes(lambda: replicator(rows)) / rows
