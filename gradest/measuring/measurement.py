"""One estimator on one task: replicates of the gradient, or all its outcomes, as moments."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gradest.contracts import Estimator, Task
from gradest.errors import NonFiniteGradient, UsageError
from gradest.measuring import enumeration, truth
from gradest.measuring.arguments import check_arguments
from gradest.measuring.drift import Drift, drift
from gradest.measuring.memory import peak_bytes
from gradest.measuring.outcomes import Enumerated, Unlisted
from gradest.measuring.parameters import LOG_ALPHA, projections, pulled_back
from gradest.measuring.precision import Precision, planned
from gradest.measuring.preparation import called, prepared, randomness_kept
from gradest.measuring.probes import blame
from gradest.measuring.progress import display, phase
from gradest.measuring.replicator import Replicator
from gradest.measuring.result import ENUMERATED, Measurement
from gradest.measuring.rounding import resolution
from gradest.measuring.tally import COSINES, Tally
from gradest.measuring.truth import Reference
from gradest.moments import Moments
from gradest.randomness import Draws, drawing_from

_REPLICATES = 10_000
_WEIGHED = 64  # replicates at once whose memory is watched


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

    Where the draws of an estimate have at most 1,000,000 joint outcomes, which take a few seconds
    to visit, these are all visited and weighted by their probabilities: the moments are exact
    (`method` is enumerated; `drawn_because` says why it is not).  `enumerate_draws` False draws
    replicates all the same, unless there is nothing to draw; True insists.  Replicates are as many
    as `replicates` says, or as a `precision` asks for, by default 10,000.

    `adapt_steps` None: as many as the estimator asks for.  `reference`, of the same task and by
    other draws (`gradest.measure_reference`), stands for the truth where that is unknown.
    `tolerant` counts estimates that are not finite instead of raising.  The global random state is
    neither read nor changed.  `progress` None shows how far the measurement is after two seconds,
    on a terminal or in a notebook; True at once and everywhere; False never.

    Raises Inapplicable when the estimator cannot run on the task, UsageError for fewer than 64
    replicates or draws that cannot be enumerated though they should, NonFiniteGradient when an
    estimate is NaN or infinite.
    """
    if replicates is not None and precision is not None:
        raise UsageError("replicates and precision are both given; expected one of them")
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
    for given, kind, name in (
        (precision, Precision, "precision"),
        (reference, Reference, "reference"),
    ):
        if given is not None and not isinstance(given, kind):
            raise UsageError(f"{name} = {given!r}; expected a gradest {kind.__name__}")
    steps = estimator.adapt_steps if adapt_steps is None else adapt_steps
    shown = f"{estimator.name} on {task.name}"
    moved = Drift(0.0, 0.0)
    if dtype != torch.float64:
        with display(shown, progress), randomness_kept(seed, estimator, task):
            moved = drift(estimator, task, dtype, device, steps, seed)
    with (
        display(shown, progress),
        randomness_kept(seed, estimator, task),
        drawing_from(Draws.seeded(seed, device)) as source,
    ):
        subject = prepared(estimator, task, steps, dtype, device, source)
        replicator, chunk = subject.replicator, subject.chunk
        maps = projections(task, replicator.problem.logits)
        known = truth.known(replicator, maps)
        if known is None and not tolerant and enumeration.enumerable(replicator.problem):
            _refuse_costs(replicator)
        if known is None and reference is not None:
            known = truth.estimated(reference)
        tally = Tally(subject.title, replicator.logits, known, maps, tolerant)
        with drawing_from(Draws.seeded(seed, device)):  # what is weighed hangs on the chunk
            memory = _weighed(replicator, min(_WEIGHED, chunk))
        start = time.perf_counter()
        with _blaming(replicator):
            found = subject.listed(enumerate_draws, tally.columns)
            if isinstance(found, Enumerated):
                _settle(tally, found, replicator, chunk)
            else:
                if precision is not None:
                    with phase("planning"):
                        replicates = planned(precision, replicator, chunk, known)
                start = time.perf_counter()
                for piece in replicator.pieces(replicates, chunk):
                    tally.add(*piece)
        outcomes = found.outcomes if isinstance(found, Enumerated) else None
        seconds = (time.perf_counter() - start) / (outcomes or replicates)
        subject.repeat()
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
        resolution=max(resolution(dtype), resolution(torch.float32) if tally.single else 0.0),
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
        adaptation=subject.looks,
        title=f"{called(estimator)} on {called(task)}",
        drawn_because=found.reason if isinstance(found, Unlisted) else "",
    )


@contextmanager
def _blaming(replicator: Replicator) -> Iterator[None]:
    """An estimate that is not finite is the cost's fault where some code's cost is not."""
    try:
        yield
    except NonFiniteGradient:
        _refuse_costs(replicator)
        raise


def _refuse_costs(replicator: Replicator) -> None:
    """Raises NonFiniteGradient for a code whose cost is not finite, if one is found."""
    estimator = replicator.estimator
    relaxes = estimator.relaxes or estimator.differentiates
    if cause := blame(replicator.problem, replicator.logits, relaxes):
        raise NonFiniteGradient(f"{replicator.task.name}: {cause}")


def _settle(tally: Tally, found: Enumerated, replicator: Replicator, chunk: int) -> None:
    """By all outcomes of the draws."""
    tally.settle(found)
    if len(replicator.logits) > 1:  # it takes the draws of all data points to tell the cosine
        for gradient, *_ in replicator.pieces(COSINES if found.outcomes > 1 else 1, chunk):
            tally.add_cosines(gradient)


def _weighed(replicator: Replicator, rows: int) -> float:
    """Bytes at the peak, per estimate."""
    return peak_bytes(lambda: replicator(rows)) / rows
