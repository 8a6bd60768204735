"""Enumerated draws: the exact moments of an estimator, without a replicate."""

import itertools

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import log_prob, nabla, sample
from gradest.measurement import enumerated_moments
from gradest.measurement.enumerated_moments import NotEnumerable, exact_moments, visit_outcomes
from gradest.measurement.enumerated_truth import exact_gradient
from gradest.measurement.replicator import Replicator
from gradest.randomness import draws
from tests.support import EXACT


class Coupled(Task):
    """Two data points, and a penalty."""

    logits = torch.tensor(
        [[[0.5, -0.7, 0.2], [-0.3, 0.9, 0.0]], [[-0.8, 0.4, 0.3], [0.6, 0.0, -0.7]]],
        dtype=torch.float64,
    )

    def problem(self, batch=None) -> Problem:
        def cost(z: Tensor) -> Tensor:
            v = (z * torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.1, -1.2]]).to(z)).sum((-2, -1))
            return v + v**3

        return Problem(self.logits, Cost(cost))

    def penalty(self, logits: Tensor) -> Tensor:
        return logits.square().sum((-2, -1))


def by_hand(estimator: Estimator, task: Task, samples: int) -> tuple[Tensor, Tensor]:
    """Mean and variance [B, N, K] by a loop over all outcomes, without the penalty."""
    logits, f = task.problem()
    mean = second = torch.zeros_like(logits)

    class One(type(draws())):
        def categories(self, logits: Tensor, count: int) -> Tensor:
            return index.expand(len(logits), -1, -1)

    _, latents, categories = logits.shape
    cells = []
    for number in itertools.product(range(categories), repeat=samples * latents):
        index = torch.tensor(number).view(1, samples, latents)
        leaf = logits.clone().requires_grad_()
        with gradest.randomness.drawing_from(One()):
            value = estimator(leaf, f)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        log_p = logits.log_softmax(-1)[:, torch.arange(latents), index[0]].sum((1, 2))  # [B]
        cells.append((log_p.exp()[:, None, None], gradient))
    mean = sum(p * g for p, g in cells)
    second = sum(p * (g - mean).square() for p, g in cells)
    return mean, second


@pytest.mark.parametrize(
    ("name", "samples"), [("reinforce", 1), ("rloo", 2), ("straight_through", 1), ("reinmax", 1)]
)
@pytest.mark.parametrize("rows", [7, 10_000])
def test_agrees_with_a_loop_over_all_outcomes(name, samples, rows, monkeypatch):
    monkeypatch.setattr(enumerated_moments, "_ROWS", rows)
    task, estimator = Coupled(), gradest.make_estimator(name)
    found = exact_moments(Replicator(estimator, task))
    mean, variance = by_hand(estimator, task, samples)
    penalty = 2 * task.logits
    assert found.outcomes == 3 ** (2 * samples)
    assert torch.allclose(found.mean, mean + penalty, rtol=0, atol=EXACT)
    assert torch.allclose(found.variance, variance, rtol=0, atol=EXACT)
    truth = exact_gradient(task.problem()).value + task.penalty(task.logits)
    assert torch.allclose(found.value, truth, rtol=0, atol=EXACT)


def test_draws_that_depend_on_earlier_ones_are_enumerated_too():
    """The measure-valued derivative draws its second term among the other categories."""
    found = exact_moments(Replicator(gradest.make_estimator("measure_valued"), Coupled()))
    truth = exact_gradient(Coupled().problem()).gradient + 2 * Coupled.logits
    assert found.outcomes == 3**2 * 3**6
    assert torch.allclose(found.mean, truth, rtol=0, atol=EXACT)


def test_agrees_with_replicates():
    task, estimator = Coupled(), gradest.make_estimator("measure_valued")
    found = exact_moments(Replicator(estimator, task))
    measured = gradest.measure(estimator, task, replicates=100_000, enumerate_draws=False)
    # 12 coordinates, two moments: 4.5 standard errors are exceeded once in 6,000 seeds.
    z = (measured.mean - found.mean) / measured.standard_error
    assert z.abs().max() < 4.5
    assert torch.allclose(measured.variance, found.variance, rtol=0.05)


def test_what_cannot_happen_may_be_infinite():
    class Masked(Coupled):
        def problem(self, batch=None) -> Problem:
            logits = torch.tensor([[[0.3, -torch.inf, 0.0]]], dtype=torch.float64)
            values = torch.tensor([1.0, torch.nan, 3.0], dtype=torch.float64)
            return Problem(logits, Cost(lambda z: values[z[..., 0, :].argmax(-1)]))

        def penalty(self, logits: Tensor) -> Tensor:
            return logits.new_zeros(len(logits))

    found = exact_moments(Replicator(gradest.make_estimator("reinforce"), Masked()))
    p = torch.tensor(0.3, dtype=torch.float64).sigmoid()
    assert float(found.value) == pytest.approx(float(p + 3 * (1 - p)), abs=EXACT)
    assert found.mean.isfinite().all()


@pytest.mark.parametrize("name", ["concrete", "carms", "relax"])
def test_continuous_noise_has_no_outcomes(name):
    assert exact_moments(Replicator(gradest.make_estimator(name), Coupled())) is None


def test_no_more_than_the_limit():
    replicator = Replicator(gradest.make_estimator("rloo", samples=3), Coupled())
    assert exact_moments(replicator, limit=3**6 - 1) is None
    assert exact_moments(replicator, limit=3**6).outcomes == 3**6


def test_without_draws_there_is_one_outcome():
    found = exact_moments(Replicator(gradest.make_estimator("exact"), Coupled()))
    assert found.outcomes == 1 and not found.variance.any()


class DrawsUntilContent(Estimator):
    """Draws z again while it is the first category: how often depends on the outcome."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        while (again := z[:, 0, 0] > 0).any():
            z = torch.where(again[:, None, None], sample(logits), z)
        return f(z) + f(z) * nabla(log_prob(logits, z))


class DrawsASecondTime(Estimator):
    """Only where some row asks for it, which the likeliest outcome does not."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        if (z.argmax(-1) != logits.argmax(-1)).any():
            z = sample(logits)
        return f(z) + f(z) * nabla(log_prob(logits, z))


class DrawsOnceLess(Estimator):
    """Only where every row is the likeliest."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        if (z.argmax(-1) == logits.argmax(-1)).all():
            z = sample(logits)
        return f(z) + f(z) * nabla(log_prob(logits, z))


class SamplesAsRows(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits.repeat_interleave(2, 0)).unflatten(0, (-1, 2))
        return (f(z) * (1 + nabla(log_prob(logits.unsqueeze(1), z)))).mean(1)


class NoiseOfItsOwn(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        noise = torch.rand(len(logits), generator=draws().generator)
        return f(z) + (f(z) - noise) * nabla(log_prob(logits, z))


@pytest.mark.parametrize(
    "kind", [DrawsUntilContent, DrawsASecondTime, DrawsOnceLess, SamplesAsRows, NoiseOfItsOwn]
)
def test_what_cannot_be_listed_beforehand_is_refused(kind):
    state = torch.get_rng_state()
    assert exact_moments(Replicator(kind(), Coupled())) is None
    assert torch.equal(torch.get_rng_state(), state)


class Noisy(Estimator):
    """Relaxed noise, beside a draw."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        noise = draws().uniform(logits.shape[:1], logits)
        return f(z) + noise * nabla(log_prob(logits, z))


class Watched(Estimator):
    """What another library does by hand around an estimator: it opens, and closes without a try."""

    def __init__(self, inner: Estimator) -> None:
        self.inner, self.open = inner, 0
        self.raised: list[BaseException] = []

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        self.open += 1
        try:
            value = self.inner(logits, f)
        except BaseException as error:
            self.raised.append(error)
            raise
        self.open -= 1
        return value


@pytest.mark.parametrize(
    "kind",
    [
        *(DrawsUntilContent, DrawsASecondTime, DrawsOnceLess, SamplesAsRows, NoiseOfItsOwn, Noisy),
        lambda: gradest.make_estimator("rloo", samples=9),  # 3^18 outcomes
    ],
)
@pytest.mark.parametrize("limit", [1, enumerated_moments.LIMIT])
def test_nothing_is_raised_through_the_estimator(kind, limit):
    watched = Watched(kind())
    assert exact_moments(Replicator(watched, Coupled()), limit) is None
    assert (watched.raised, watched.open) == ([], 0)


class Swallows(Estimator):
    """Falls back on another estimate whatever happens to it."""

    failures = 0

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        try:
            noise = draws().uniform(logits.shape[:1], logits)
        except BaseException:
            self.failures += 1
            noise = logits.new_zeros(len(logits))
        return f(z) + (f(z) + noise) * nabla(log_prob(logits, z))


def test_an_estimator_that_swallows_exceptions_is_not_mistaken_for_another():
    """Were noise refused by an exception, its own estimate would be listed as one without noise."""
    estimator = Swallows()
    found = visit_outcomes(Replicator(estimator, Coupled()))
    assert found == NotEnumerable("uniform noise has no finite number of outcomes")
    measured = gradest.measure(estimator, Coupled(), replicates=64)
    assert (measured.method, measured.drawn_because) == ("monte_carlo", found.reason)
    assert estimator.failures == 0


class Fails(Estimator):
    """Where a row has drawn the last category of the first latent, or at once."""

    def __init__(self, at_once: bool) -> None:
        self.at_once = at_once

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        if self.at_once or (z[:, 0, -1] > 0).any():
            raise RuntimeError("of its own")
        return f(z) + f(z) * nabla(log_prob(logits, z))


@pytest.mark.parametrize("at_once", [True, False])
def test_an_exception_of_the_estimator_itself_comes_out(at_once):
    with pytest.raises(RuntimeError, match="of its own"):
        exact_moments(Replicator(Fails(at_once), Coupled()))


class DrawsAnother(Estimator):
    """Draws until no row has the likeliest category, again for all rows or for those alone."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        while (again := z[:, 0].argmax(-1) == logits[:, 0].argmax(-1)).any():
            if self.alone:
                z[again] = sample(logits[again])
            else:
                z = torch.where(again[:, None, None], sample(logits), z)
        return f(z) + f(z) * nabla(log_prob(logits, z))


@pytest.mark.parametrize("alone", [True, False])
def test_draws_until_the_likeliest_is_left_come_to_an_end(alone):
    assert exact_moments(Replicator(DrawsAnother(alone), Coupled())) is None


class AsksForever(Estimator):
    """From a single category, until it is served noise: no number of outcomes would stop it."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        source, asked = draws(), 0
        while asked < 50_000 and not source.nbytes:
            sample(logits[..., :1])
            asked += 1
        assert asked < 50_000
        z = sample(logits)
        return f(z) + f(z) * nabla(log_prob(logits, z))


def test_requests_without_a_choice_are_bounded_too():
    found = visit_outcomes(Replicator(AsksForever(), Coupled()))
    assert found == NotEnumerable("an estimate requests draws more than 10,000 times")


def test_draws_from_a_single_category_are_one_outcome():
    class Single(Estimator):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            draws().categories(logits[..., :1], 10**6)
            z = sample(logits)
            return f(z) + f(z) * nabla(log_prob(logits, z))

    assert exact_moments(Replicator(Single(), Coupled())).outcomes == 3**2


class Table(Task):
    """A random cost of the first category alone, at many categories and latents."""

    def __init__(self, categories: int, latents: int = 1, points: int = 1) -> None:
        self.size = (points, latents, categories)
        self.name = "table"

    def problem(self, batch=None) -> Problem:
        logits = torch.arange(self.size[2], dtype=torch.float64).sin().expand(self.size)
        return Problem(logits.contiguous(), Cost(lambda z: z[..., 0].square().sum(-1)))


@pytest.mark.parametrize(
    ("categories", "latents", "samples", "count"),
    [
        (2**16, 4, 1, "10^19"),  # 2⁶⁴ of int64 would be none
        (2**16, 4, 50, "10^963"),
        (2, 1, 40, "1,099,511,627,776"),
        (3, 2, 40_000, "10^38170"),
    ],
)
def test_no_number_of_outcomes_overflows(categories, latents, samples, count):
    class Draws(Estimator):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            draws().categories(logits, samples)
            return f(logits.softmax(-1))

    found = visit_outcomes(Replicator(Draws(), Table(categories, latents)))
    assert (
        found.reason
        == f"the draws have {count} joint outcomes, and at most 1,000,000 are enumerated"
    )


def test_outcomes_are_bounded_by_their_work_and_the_measurement_says_so():
    """2¹⁵ outcomes are few, of 2¹⁵ numbers each; so they are for 16 latents of two categories."""
    reinforce, wide, deep = gradest.make_estimator("reinforce"), Table(2**15), Table(2, 15)
    measured = gradest.measure(reinforce, wide, replicates=64)
    said = "32,768 joint outcomes, whose estimates take 4.29 × 10⁹ numbers, and at most "
    assert measured.method == "monte_carlo"
    assert measured.drawn_because.startswith(f"the draws have {said}")
    back = type(measured).from_json(measured.to_json())
    assert back.drawn_because == measured.drawn_because
    with pytest.raises(
        gradest.errors.UsageError, match=f"reinforce on table: .*: the draws have {said}"
    ):
        gradest.measure(reinforce, wide, enumerate_draws=True)
    listed = gradest.measure(reinforce, deep, replicates=64)
    assert (listed.outcomes, listed.drawn_because) == (2**15, "")
    drawn = gradest.measure(reinforce, deep, replicates=64, enumerate_draws=False)
    assert drawn.drawn_because == "enumerate_draws is False"


def test_work_counts_data_points_and_evaluations(monkeypatch):
    def refused(numbers: int, name: str, points: int, **knobs: int) -> bool:
        monkeypatch.setattr(enumerated_moments, "NUMBERS", numbers)
        task = Table(3, 2, points)
        return exact_moments(Replicator(gradest.make_estimator(name, **knobs), task)) is None

    # Outcomes, data points, N · K, evaluations of f and three passes beside.
    for name, knobs, points, work in (
        ("reinforce", {}, 1, 3**2 * 1 * 6 * (1 + 3)),
        ("reinforce", {}, 5, 3**2 * 5 * 6 * (1 + 3)),
        ("rloo", {"samples": 3}, 1, 3**6 * 1 * 6 * (3 + 3)),
    ):
        assert refused(work - 1, name, points, **knobs)
        assert not refused(work, name, points, **knobs)
    # Where there is nothing to draw there is nothing to bound.
    assert not refused(0, "exact", 1)


def test_the_variance_keeps_its_digits_far_from_zero():
    """An offset of 10⁶ would cost twelve digits if E x² − (E x)² were taken."""

    class Shifted(Estimator):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            return f(z) + 1e6 * nabla(logits).sum((-2, -1)) + f(z) * nabla(log_prob(logits, z))

    class Twice(Estimator):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            return f(z) + f(z) * nabla(log_prob(logits, z))

    far, near = (exact_moments(Replicator(kind(), Coupled())) for kind in (Shifted, Twice))
    assert torch.allclose(far.variance, near.variance, rtol=1e-8)
