"""What a narrower dtype changes in the estimates, under the same noise."""

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import gumbel, log_prob, nabla, sample
from gradest.contracts import inapplicable_to
from gradest.measurement.dtype_error import DtypeError, measure_dtype_error
from gradest.randomness import draws

DOUBLE, SINGLE, HALF = torch.float64, torch.float32, torch.float16


def drifted(estimator: Estimator, task: Task, dtype: torch.dtype, steps: int = 0, seed: int = 0):
    return measure_dtype_error(estimator, task, dtype, "cpu", steps, seed)


def applicable(task: Task) -> list[str]:
    problem = task.problem()
    return [
        name
        for name, cls in sorted(gradest.all_estimators().items())
        if inapplicable_to(cls(), problem, task.name) is None
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", applicable(gradest.make_task("categorical")))
def test_the_same_dtype_does_not_drift_and_a_narrower_one_by_its_rounding(name):
    """The noise is the same, draw for draw: else the distance would be of the size of √2."""
    task, estimator = gradest.make_task("categorical"), gradest.make_estimator(name)
    steps = min(estimator.adapt_steps, 3)
    assert drifted(estimator, task, DOUBLE, steps) == (0.0, 0.0)
    single = drifted(gradest.make_estimator(name), task, SINGLE, steps)
    # Perturbed maximisers are whole numbers, and jump where rounding changes an argmax; none of 256
    # is expected to.  A difference quotient or a low temperature magnifies what is rounded.
    assert 0 <= single.mean < 1e-4
    assert 0 <= single.standard_error < 1e-4


@pytest.mark.parametrize("name", ["reinforce", "rloo", "straight_through", "concrete"])
def test_simple_methods_drift_by_the_unit_of_the_dtype(name):
    task = gradest.make_task("categorical")
    for dtype in (SINGLE, HALF):
        unit = torch.finfo(dtype).eps
        found = drifted(gradest.make_estimator(name), task, dtype)
        assert unit / 20 < found.mean < 20 * unit


def test_an_estimate_with_an_error_of_a_known_size_drifts_by_just_that():
    class Off(Estimator):
        """A tenth too long wherever it is not computed in float64."""

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            factor = 1.0 if logits.dtype == DOUBLE else 1.1
            return f(z) + factor * f(z) * nabla(log_prob(logits, z))

    class Normal(Estimator):
        """A normal of standard deviation 3 in float64, half as much again else."""

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            n = draws().normal((len(logits),), logits)
            factor = 1.0 if logits.dtype == DOUBLE else 1.5
            return f(sample(logits)) + factor * 3 * n * nabla(logits)[:, 0, 0]

    task = gradest.make_task("categorical")
    found = drifted(Normal(), task, SINGLE)
    # 3 E|n|/2 over 3 √E n² = √(2/π)/2, each of 256 with the noise √(1 − 2/π)/2.
    expected = (2 / math.pi) ** 0.5 / 2
    error = (1 - 2 / math.pi) ** 0.5 / 2 / 16
    assert abs(found.mean - expected) <= 4.5 * error
    assert found.standard_error == pytest.approx(error, rel=0.25)
    off = drifted(Off(), task, SINGLE)
    assert 0.05 < off.mean < 0.1  # a tenth of E‖ĝ‖ over √E‖ĝ‖²


def test_an_estimator_that_computes_in_half_precision_inside_drifts():
    class Inside(Estimator):
        """Casts to float16 where it is not given float64."""

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            cost = f(z)
            if logits.dtype != DOUBLE:
                cost = cost.half().to(logits)
            return cost + cost * nabla(log_prob(logits, z))

    class Outside(Estimator):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            return f(z) + f(z) * nabla(log_prob(logits, z))

    task = gradest.make_task("categorical")
    inside, outside = (drifted(cls(), task, SINGLE) for cls in (Inside, Outside))
    assert 1e-5 < inside.mean < 1e-2
    assert outside.mean < 1e-6


class Adapting(Estimator):
    """Keeps the mean of the noise that it was shown, and what it then used."""

    adapt_steps = 5
    name = "adapting"
    kept: ClassVar[list[tuple[torch.dtype, Tensor, int]]] = []

    def reset(self, logits: Tensor) -> None:
        self.shown = [draws().normal((), logits)]

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self.shown.append(gumbel(logits).mean() + f(sample(logits)).mean())

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        baseline = torch.stack(self.shown).sum()
        self.kept.append((logits.dtype, baseline.double(), len(self.shown)))
        return f(z) + (f(z) - baseline) * nabla(log_prob(logits, z))


def test_both_adapt_under_the_same_noise():
    Adapting.kept.clear()
    estimator = Adapting()
    found = drifted(estimator, gradest.make_task("categorical"), SINGLE, steps=5)
    assert found.mean < 1e-5
    assert not hasattr(estimator, "shown")  # copies adapt
    single = [(b, n) for dtype, b, n in Adapting.kept if dtype == SINGLE]
    double = [(b, n) for dtype, b, n in Adapting.kept if dtype == DOUBLE]
    assert {n for _, n in single} == {n for _, n in double} == {6}
    assert abs(float(single[0][0] - double[0][0])) < 1e-5
    assert float(double[0][0]) != 0


def test_a_measurement_tells_its_drift_and_draws_no_less_for_it():
    task, estimator = gradest.make_task("bernoulli"), gradest.make_estimator("concrete")
    double, single = (
        gradest.measure(estimator, task, replicates=200, dtype=dtype, seed=3)
        for dtype in (DOUBLE, SINGLE)
    )
    assert double.drift == DtypeError(0.0, 0.0)
    assert (double.row()["drift"], double.row()["drift_se"]) == (0.0, 0.0)
    row = single.row()
    assert 0 < row["drift"] < 1e-5 and 0 < row["drift_se"] < 1e-5
    assert row["drift"] == single.drift.mean
    alone = drifted(gradest.make_estimator("concrete"), task, SINGLE, seed=3)
    assert single.drift == alone


def test_the_state_of_the_estimator_that_is_measured_is_its_own():
    """The copies that drift adapts leave no state behind: as many steps as without."""
    calls = []

    class Counting(Adapting):
        def adapt(self, logits: Tensor, f: Cost) -> None:
            calls.append(id(self))
            super().adapt(logits, f)

    estimator = Counting()
    task = gradest.make_task("categorical")
    gradest.measure(estimator, task, replicates=64, dtype=SINGLE)
    assert calls.count(id(estimator)) == 5
    assert len(calls) == 15


def test_the_drift_is_reproducible_and_leaves_the_global_state_alone():
    task = gradest.make_task("categorical")
    before = torch.get_rng_state()
    first, again, other = (
        drifted(gradest.make_estimator("concrete"), task, HALF, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


class Zero(Estimator):
    """No gradient in float64, the one asked for else."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        slope = 0.0 if logits.dtype == DOUBLE else self.slope
        return f(sample(logits)) + slope * nabla(logits).sum((-2, -1))


def test_against_no_gradient_at_all_any_is_infinitely_far():
    task = gradest.make_task("categorical")
    assert drifted(Zero(0.0), task, SINGLE) == (0.0, 0.0)
    assert drifted(Zero(1.0), task, SINGLE) == (math.inf, 0.0)


def test_what_is_not_finite_has_no_drift():
    task = gradest.make_task("extreme", cost="nan")
    found = drifted(gradest.make_estimator("reinforce"), task, SINGLE)
    assert math.isnan(found.mean)


class Wide(Task):
    """So many logits that 256 replicates come in pieces."""

    def problem(self, batch=None) -> Problem:
        logits = torch.linspace(-1, 1, 30_000, dtype=DOUBLE).reshape(1, 10_000, 3)
        return Problem(logits, Cost(lambda z: z[..., 0].mean(-1)))


@pytest.mark.slow
def test_pieces_are_drawn_alike_too():
    found = drifted(gradest.make_estimator("reinforce"), Wide(), SINGLE)
    assert 0 < found.mean < 1e-5


@pytest.mark.parametrize("narrow", [1, 3])
def test_draws_that_depend_on_the_dtype_leave_no_drift_and_raise_nothing(narrow):
    """As those of a rejection that rounding decides: fewer or more draws than in float64."""

    class Rejecting(Estimator):
        name = "rejecting"

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            for _ in range(narrow if logits.dtype == SINGLE else 2):
                z = sample(logits)
            return f(z) + f(z) * nabla(log_prob(logits, z))

    task = gradest.make_task("categorical")
    found = gradest.measure(Rejecting(), task, replicates=64, dtype=SINGLE)
    assert math.isnan(found.drift.mean) and math.isnan(found.drift.standard_error)


def test_noise_past_the_vocabulary_is_the_same_in_both_precisions_too():
    class Own(Estimator):
        name = "own"

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            noise = torch.rand(len(logits), generator=draws().generator, dtype=DOUBLE)
            return f(z) + (f(z) + noise.to(logits)) * nabla(log_prob(logits, z))

    state = torch.get_rng_state()
    found = drifted(Own(), gradest.make_task("categorical"), SINGLE)
    assert 0 < found.mean < 1e-5
    assert torch.equal(torch.get_rng_state(), state)
