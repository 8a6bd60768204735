"""Noise that is not each row's own, or not of the seed, is refused; honest draws are not."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradest import Cost, Estimator, Problem, Task, compare, make_estimator, make_task, measure
from gradest.categorical import log_prob, nabla, one_hot, sample
from gradest.errors import ContractError, CostError, NonFiniteGradient, UsageError
from gradest.measurement.precision import Precision
from gradest.randomness import draws
from tools.fuzz import costs

TASK = make_task("categorical")
LOGITS = torch.tensor([[[0.3, -0.8, 0.5], [1.0, 0.2, -0.4]]], dtype=torch.float64)
WEIGHTS = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.9, -1.1]], dtype=torch.float64)


class Score(Estimator):
    """A score function of the codes of a subclass."""

    name = "score"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = self.codes(logits)
        cost = f(z)
        return cost + cost.detach() * nabla(log_prob(logits, z))

    def codes(self, logits: Tensor) -> Tensor:
        return sample(logits)


def perturbed(logits: Tensor, e: Tensor) -> Tensor:
    """The first to arrive."""
    return one_hot((logits.detach() - e.to(logits).log()).argmax(-1), logits)


class OfReset(Score):
    def reset(self, logits: Tensor) -> None:
        self._noise = draws().exponential((1, *logits.shape[1:]), logits)

    def codes(self, logits: Tensor) -> Tensor:
        return perturbed(logits, self._noise)


class SevenShared(Score):
    """As many as the pilot has rows, by chance."""

    def codes(self, logits: Tensor) -> Tensor:
        noise = draws().exponential((7, *logits.shape[1:]), logits).amin(0, keepdim=True)
        return perturbed(logits, draws().exponential(logits.shape, logits) + noise)


class Halves(Score):
    """Rows in pairs: the second half of a batch has the noise of the first."""

    def codes(self, logits: Tensor) -> Tensor:
        half = (len(logits) + 1) // 2
        noise = draws().exponential((half, *logits.shape[1:]), logits)
        return perturbed(logits, torch.cat([noise, noise])[: len(logits)])


class OwnTorch(Score):
    def reset(self, logits: Tensor) -> None:
        self._own = torch.Generator().manual_seed(0)

    def codes(self, logits: Tensor) -> Tensor:
        return perturbed(logits, -torch.rand(logits.shape, generator=self._own).log())


class OwnNumpy(Score):
    def reset(self, logits: Tensor) -> None:
        self._own = np.random.default_rng(0)

    def codes(self, logits: Tensor) -> Tensor:
        u = torch.from_numpy(self._own.random(logits.shape))
        return perturbed(logits, draws().exponential(logits.shape, logits) - u.log())


class Reseeded(Score):
    def codes(self, logits: Tensor) -> Tensor:
        own = torch.Generator().manual_seed(0)
        return perturbed(logits, -torch.rand(logits.shape, generator=own).log())


class ReseededBesideDraws(Score):
    def codes(self, logits: Tensor) -> Tensor:
        u = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        return perturbed(logits, draws().exponential(logits.shape, logits) - u.log())


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (OfReset, "check 'rows'.*reset draws it once"),
        (SevenShared, r"check 'rows'.*2 rows draw noise of shape \[7, 1, 3\]"),
        (Halves, r"2 rows draw noise of shape \[1, 1, 3\], 3 rows of shape \[2, 1, 3\]"),
        (OwnTorch, "draws from _own, a generator of its own"),
        (OwnNumpy, "draws from _own, a generator of its own"),
        (Reseeded, "noise from another source"),
        (ReseededBesideDraws, "noise from another source"),
    ],
)
def test_noise_of_other_sources_is_refused(cls, told):
    for enumerate_draws in (None, False):
        with pytest.raises(ContractError, match=told):
            measure(cls(), TASK, enumerate_draws=enumerate_draws, replicates=64)
    with pytest.raises(ContractError, match=told):
        compare(make_estimator("rloo"), cls(), TASK, replicates=64)


class SamplesInRows(Score):
    """Four samples a row, folded into rows: in an axis of more than the rows."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits.repeat_interleave(4, 0)).unflatten(0, (-1, 4))  # [R, S, N, K]
        cost = f(z)
        return (cost + cost.detach() * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


class UntilUnlike(Score):
    """Draws again, where two are alike, as many times as it takes."""

    def codes(self, logits: Tensor) -> Tensor:
        z, other = sample(logits), sample(logits)
        while (same := (z == other).flatten(1).all(1)).any():
            other[same] = sample(logits[same])
        return z


class RandomBaseline(Score):
    """A state that reset draws may set the variance, and no more."""

    def reset(self, logits: Tensor) -> None:
        self._baseline = draws().uniform((1,), logits)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return cost + (cost.detach() - self._baseline) * nabla(log_prob(logits, z))


CERTAIN = torch.tensor([[[40.0, 0.0, 0.0]]])


@pytest.mark.parametrize("cls", [Score, SamplesInRows, UntilUnlike, RandomBaseline])
def test_honest_draws_are_not_refused(cls):
    # Where one category is certain, two draws are never unlike.
    some = () if cls is UntilUnlike else (CERTAIN,)
    for logits in (LOGITS, torch.zeros(2, 1, 2), *some):
        task = Posed(lambda z: 2 + z[..., 0].sum(-1), logits.double())
        found = measure(cls(), task, replicates=640, enumerate_draws=False)
        assert found.row()["verdict"] != "biased"


class Posed(Task):
    """Any cost at any logits."""

    name = "posed"

    def __init__(self, cost: Any, logits: Tensor = LOGITS) -> None:
        self._cost, self._logits = cost, logits

    def problem(self, batch: Any = None) -> Problem:
        return Problem(
            self._logits, self._cost if isinstance(self._cost, Cost) else Cost(self._cost)
        )


def test_a_cost_that_counts_late_is_refused_after_the_measurement():
    calls = []

    def cost(z: Tensor) -> Tensor:
        calls.append(1)
        return (WEIGHTS.to(z) * z).sum((-2, -1)) + (len(calls) > 8)

    with pytest.raises(CostError, match="different costs before and after the measurement"):
        measure(make_estimator("rloo"), Posed(cost), replicates=64)


def test_a_cost_that_computes_in_float32_whatever_z_is_is_measured():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1)).requires_grad_(False)
    cost = Posed(lambda z: 3.7 * net(z.flatten(-2).float()).squeeze(-1).to(z))
    assert measure(make_estimator("rloo"), cost).row()["verdict"] != "biased"


def test_a_batch_statistic_is_seen_under_a_cost_a_million_times_as_large():
    def cost(z: Tensor) -> Tensor:
        c = 2 + (WEIGHTS.to(z) * z).sum((-2, -1))
        return 1e6 + c / c.max()

    with pytest.raises(CostError, match="check 'middle axes'"):
        measure(make_estimator("rloo"), Posed(cost))


@pytest.mark.parametrize(
    ("cost", "estimator", "told"),
    [
        (
            lambda z: z[..., 0, 0].sqrt(),
            "straight_through",
            r"derivative of the cost is inf at the",
        ),
        (lambda z: (z * (z - 1)).sum((-2, -1)).clamp(max=0).sqrt(), "concrete", "cost is nan at"),
    ],
)
def test_the_cost_is_to_blame_off_the_vertices_too(cost, estimator, told):
    with pytest.raises(NonFiniteGradient, match=f"posed: .*{told}"):
        measure(make_estimator(estimator), Posed(cost), replicates=64)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"points": 0}, "points = 0; expected a whole number of at least 1"),
        ({"module": 3}, "module = 3; expected a torch.nn.Module"),
        ({"prior": 0.5}, "prior = 0.5; expected logits"),
        (
            {"prior": torch.zeros(3)},
            "expected prior as a floating tensor \\[N, K\\], got torch.float32",
        ),
        ({"prior": torch.zeros(2, 3, dtype=torch.long)}, "expected prior as .* got torch.int64"),
        ({"deep": 1}, "deep = 1; expected True or False"),
        ({"kl": []}, "kl = \\[\\]; expected"),
    ],
)
def test_arguments_of_a_cost_are_named(options, told):
    with pytest.raises(UsageError, match=told):
        Cost(lambda z: z.sum((-2, -1)), **options)


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        (
            Cost(lambda z: z[..., 0].sum(-1), prior=torch.zeros(7, 9)),
            r"expected a prior of shape .* got \[7, 9\]",
        ),
        (
            Cost(lambda z: z[..., 0].sum(-1), prior=torch.full((2, 3), torch.nan)),
            "finite logits of the prior, got NaN",
        ),
        (lambda z: z[..., 0].sum(-1).to_sparse(), "return value.to_dense"),
    ],
)
def test_what_does_not_fit_the_logits_is_named(cost, told):
    with pytest.raises(UsageError, match=f"posed: .*{told}"):
        measure(make_estimator("exact"), Posed(cost))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"replicates": 10**5000}, "replicates = an integer of about 5000 digits"),
        ({"seed": 10**5000}, "seed = an integer of about 5000 digits"),
        ({"adapt_steps": 2**60}, "expected at most 1,000,000,000"),
        ({"replicates": 10**13}, "replicates = 10000000000000; expected at most 1,000,000,00"),
        (
            {"replicates": 64, "precision": Precision(bias=0.1)},
            "expected replicates or precision, got both",
        ),
        ({"dtype": torch.complex64}, "expected one of torch.float64"),
        ({"dtype": torch.float8_e5m2}, "expected one of torch.float64"),
        ({"device": None}, "device = None; expected"),
        ({"device": "meta"}, "device = 'meta' cannot be used: expected cpu or cuda"),
    ],
)
def test_arguments_out_of_range_are_refused_in_a_line(options, told):
    with pytest.raises(UsageError, match=told) as caught:
        measure(make_estimator("rloo"), TASK, **options)
    assert len(str(caught.value)) < 200


def test_a_knob_that_is_set_to_what_it_cannot_be_is_refused():
    estimator = make_estimator("rloo")
    estimator.samples = 1
    with pytest.raises(UsageError, match="rloo: samples = 1"):
        measure(estimator, TASK)


def test_a_task_that_gives_another_problem_each_time_is_refused():
    class Drawn(Task):
        name = "drawn"

        def problem(self, batch: Any = None) -> Problem:
            return Problem(
                torch.randn(1, 2, 3, dtype=torch.float64), Cost(lambda z: z.sum((-2, -1)))
            )

    with pytest.raises(
        UsageError, match=r"drawn: expected the same logits from each call of problem\(\)"
    ):
        measure(make_estimator("rloo"), Drawn())


def test_generated_cases_end_well_and_hang_on_their_seed_alone():
    endings = costs.examine(seed=0, count=20)
    assert endings == costs.examine(seed=0, count=20)
    assert endings.total() == 20 and set(endings) == {"refused", "right"}


def test_a_generator_sees_what_is_wrong(monkeypatch, capsys):
    case = costs.Case(lambda z: z[..., 0].sum(-1), lambda z: z[..., 1].sum(-1))
    monkeypatch.setattr(costs, "CASES", {"unlike": lambda setting: case})
    assert costs.examine(0, 1) == {"wrong": 1}
    assert "unlike: the true gradient is" in capsys.readouterr().out
    monkeypatch.setattr(costs, "SECONDS", 0.2)
    hangs = costs.Case(lambda z: next(iter(int, 1) if not all(iter(int, 1)) else None))
    monkeypatch.setattr(costs, "CASES", {"hangs": lambda setting: hangs})
    assert costs.examine(0, 1).total() == 1
