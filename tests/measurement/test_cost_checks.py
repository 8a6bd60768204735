"""Costs, logits, arguments and noise that no number can be measured of are refused by name."""

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradest
from gradest import Cost, Estimator, Problem, Task, compare, make_estimator, make_task, measure
from gradest.categorical import log_prob, nabla, one_hot, sample
from gradest.checks.problems import SeveralSamples
from gradest.concrete import concrete_log_prob, exp_concrete_log_prob
from gradest.contracts import inapplicable
from gradest.errors import CostError, NonFiniteGradient, UsageError
from gradest.measurement.cost_checks import probe_cost
from gradest.measurement.replicator import Replicator
from gradest.measurement.row_independence import check_row_independence
from gradest.randomness import draws
from gradest.report.plots import simplex, simplex_panels

LOGITS = torch.tensor([[[0.3, -0.8, 0.5], [1.0, 0.2, -0.4]]], dtype=torch.float64)
TWO = torch.cat([LOGITS, LOGITS.roll(1, -1)])
WEIGHTS = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.9, -1.1]], dtype=torch.float64)


def good(z: Tensor) -> Tensor:
    s = (WEIGHTS.to(z) * z).sum((-2, -1))
    return 2 + s + s * s / 2


class Asked(Task):
    """Any cost, or what is given for one, at any logits."""

    def __init__(self, cost: Any, logits: Any = LOGITS) -> None:
        self.name = "asked"
        self._cost, self._logits = cost, logits

    def problem(self, batch: Any = None) -> Problem:
        f = self._cost if isinstance(self._cost, Cost) else Cost(self._cost)
        return Problem(self._logits, f)


def rloo_on(cost: Any, logits: Any = LOGITS, **options: Any) -> gradest.Measurement:
    return measure(make_estimator("rloo"), Asked(cost, logits), **options)


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, z: Tensor) -> Tensor:
        self.calls += 1
        return good(z) + 0.01 * self.calls


def seeded(z: Tensor) -> Tensor:
    torch.manual_seed(0)
    return good(z) + torch.rand(())


LINEAR = nn.Linear(6, 1)
DROPOUT = nn.Sequential(nn.Dropout(0.5))
NORM = nn.BatchNorm1d(6).double()
NORMED = nn.Sequential(nn.Flatten(-2), nn.Linear(6, 6), nn.LayerNorm(6)).double()

NO_FUNCTIONS = {
    "dropout": (lambda z: good(DROPOUT(z)), "deterministic.*Dropout is in train mode"),
    "torch": (lambda z: good(z) + torch.rand(()), "deterministic.*global random state of torch"),
    "numpy": (lambda z: good(z) + np.random.rand(), "deterministic.*global random state of numpy"),
    "random": (lambda z: good(z) * random.random(), "deterministic.*global random state of random"),
    "seeded": (seeded, "changes the global random state of torch"),
    "counter": (Counter(), "deterministic"),
    "time": (lambda z: good(z) + time.time(), "deterministic"),
    "data": (lambda z: z.data.mul_(WEIGHTS).sum((-2, -1)), "deterministic|in place"),
    "max": (lambda z: good(z) / good(z).max(), "middle axes"),
    "min": (lambda z: good(z) / good(z).min(), "middle axes"),
    "mean": (lambda z: good(z) - good(z).mean(), "middle axes"),
    "std": (lambda z: good(z) / (1 + good(z).std(unbiased=False)), "middle axes"),
    "rank": (lambda z: good(z).flatten().argsort().argsort().view(z.shape[:-2]).to(z), "middle"),
    "batch norm": (lambda z: good(NORM(z.reshape(-1, 6)).view(z.shape)), "BatchNorm1d is in train"),
}


@pytest.mark.parametrize("name", NO_FUNCTIONS)
def test_a_cost_that_is_no_function_of_z_is_refused_with_the_law(name):
    cost, message = NO_FUNCTIONS[name]
    rloo_on(good)  # modules that are imported at the first measurement may draw
    state = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    with pytest.raises(CostError, match=f"asked: .*({message})") as caught:
        rloo_on(cost)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[2], random.getstate()) == state[1:]
    with pytest.raises(CostError):
        compare(make_estimator("rloo"), make_estimator("exact"), Asked(cost))


@pytest.mark.parametrize(
    "cost",
    [
        lambda z: good(z) + good(z).mean(0, keepdim=True),
        lambda z: good(z) + torch.stack([0 * good(z)[0], good(z)[0]]),
        lambda z: good(z) * torch.stack([good(z)[1], torch.ones_like(good(z)[0])]),
    ],
)
def test_data_points_that_talk_are_refused(cost):
    with pytest.raises(CostError, match="check 'points'"):
        rloo_on(cost, TWO)


def test_one_cost_for_all_data_points_is_fine():
    assert rloo_on(good, TWO).row()["verdict"] == "unbiased"


WRONG_VALUES = {
    "None": (lambda z: None, "expected the cost to return a torch.Tensor .* got None"),
    "float": (lambda z: 1.0, "got an object of type float"),
    "tuple": (lambda z: (good(z),), "got an object of type tuple"),
    "numpy": (lambda z: good(z).numpy(), "got an object of type ndarray"),
    "float32": (
        lambda z: good(z).float(),
        r"return torch.float64, .* got torch.float32; .*Cost\(fn, dtype=",
    ),
    "half": (lambda z: good(z).half(), "got torch.float16"),
    "integer": (lambda z: z.argmax(-1).sum(-1), r"got torch.int64; .*value.to\(z\)"),
    "bool": (lambda z: z.argmax(-1).sum(-1) > 1, r"got torch.bool; .*value.to\(z\)"),
    "scalar": (lambda z: good(z).sum(), r"to return shape .* for z of shape .* got \[\]"),
    "in place": (lambda z: z.mul_(WEIGHTS).sum((-2, -1)), "changed z in place, .*; write z = z"),
    "module": (lambda z: LINEAR(z.flatten(-2)).squeeze(-1), r"same dtype.*dtype=torch.float32\)"),
    "error": (lambda z: {}["a"], "the cost raised KeyError"),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_what_a_cost_returns_is_checked_where_it_enters(name):
    cost, message = WRONG_VALUES[name]
    with pytest.raises(CostError, match=message):
        rloo_on(cost)


def test_z_that_is_changed_in_place_is_refused_in_any_call():
    z = one_hot(torch.zeros(1, 2, dtype=torch.long), LOGITS)
    f = Cost(lambda z: z.mul_(WEIGHTS).sum((-2, -1)))
    with pytest.raises(CostError, match="in place"):
        f(z)


@pytest.mark.parametrize("name", ["concrete", "straight_through", "rebar"])
def test_a_cost_without_a_gradient_is_to_blame_for_it(name):
    with pytest.raises(
        CostError, match=r"expected a cost with a gradient with respect to z.*relaxable = False"
    ):
        measure(make_estimator(name), Asked(lambda z: z.argmax(-1).to(z).sum(-1)))


def test_float32_modules_are_measured_in_float32_and_converted_when_asked():
    def cost(z: Tensor) -> Tensor:
        return LINEAR(z.flatten(-2)).squeeze(-1)

    single = rloo_on(cost, dtype=torch.float32)
    assert single.method == "enumerated"
    assert single.row()["verdict"] == "unbiased" and single.row()["relative_bias"] < 1e-5
    assert math.isfinite(single.drift.mean)
    for dtype in (torch.float64, torch.float32):
        converted = rloo_on(Cost(cost, dtype=torch.float32), dtype=dtype)
        assert torch.allclose(converted.exact, single.exact, atol=1e-12)
        assert converted.row()["verdict"] == "unbiased"
    relaxed = measure(make_estimator("concrete"), Asked(cost), dtype=torch.float32, replicates=512)
    assert relaxed.row()["variance"] > 0


NOT_FINITE = {
    "nan": (
        lambda z: torch.where(z[..., 0, 1] > 0.5, torch.nan, good(z)),
        r"nan at the code \[1, ",
    ),
    "inf": (
        lambda z: torch.where(z[..., 1, 2] > 0.5, torch.inf, good(z)),
        r"inf at the code \[0, 2",
    ),
    "everywhere": (lambda z: good(z) * torch.nan, r"nan at the code \[0, 0\]"),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_a_cost_that_is_not_finite_is_named_with_the_code(name):
    cost, message = NOT_FINITE[name]
    with pytest.raises(NonFiniteGradient, match=f"asked: the cost is {message}"):
        rloo_on(cost)
    second = torch.cat([LOGITS, LOGITS])
    with pytest.raises(NonFiniteGradient, match=r"the cost is .* of data point"):
        rloo_on(cost, second)


def test_a_cost_of_a_masked_category_may_be_anything():
    logits = LOGITS.clone()
    logits[..., 1] = -torch.inf
    assert rloo_on(NOT_FINITE["nan"][0], logits).row()["verdict"] == "unbiased"


def test_the_estimator_is_to_blame_where_the_cost_is_finite():
    class Broken(Estimator):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            return f(z) + torch.nan * nabla(log_prob(logits, z))

    with pytest.raises(NonFiniteGradient, match="Broken on asked: the gradient at data point 0"):
        measure(Broken(), Asked(good))


class OneForAll(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits[:1]).expand(logits.shape)
        return f(z) + f(z) * nabla(log_prob(logits, z))


class Partly(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z, shared = sample(logits), draws().normal((1,), logits)
        return f(z) + f(z) * (1 + shared) * nabla(log_prob(logits, z))


class OfItsOwn(Estimator):
    """Noise of a generator of its own, the same for all rows."""

    def reset(self, logits: Tensor) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        noise = torch.randn(logits.shape[1:], generator=self._generator, dtype=logits.dtype)
        z = sample(logits)
        return f(z) + (noise * nabla(logits)).sum((-2, -1)) + 0 * nabla(log_prob(logits, z))


@pytest.mark.parametrize("cls", [OneForAll, Partly, OfItsOwn])
def test_noise_that_all_rows_share_is_refused(cls):
    with pytest.raises(UsageError, match=r"\(check '(rows|seed)'\)"):
        measure(cls(), Asked(good))


@pytest.mark.slow
def test_every_estimator_of_the_catalogue_draws_for_each_row():
    for name, cls in gradest.all_estimators().items():
        task = make_task("bernoulli" if cls.categories == 2 else "quadratic")
        task = SeveralSamples(task, cls.objective) if cls.objective else task
        if not inapplicable(cls(), task, task.problem()):
            measure(make_estimator(name), task, replicates=64, adapt_steps=1, enumerate_draws=False)


def test_every_task_passes_the_probe():
    for name in gradest.all_tasks():
        problem = make_task(name).problem()
        for dtype in (torch.float64, torch.float32):
            probe_cost(name, problem, problem.logits.detach().to(dtype))


def test_draws_past_the_vocabulary_are_of_the_seed_and_change_no_global_state():
    class Global(Estimator):
        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            flat = logits.softmax(-1).flatten(0, 1)
            z = one_hot(torch.multinomial(flat, 1).view(logits.shape[:-1]), logits)
            z = z.roll(int(np.random.randint(1)) + random.randrange(1), 0)
            return f(z) + f(z) * nabla(log_prob(logits, z))

    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = measure(Global(), Asked(good), seed=3)
    torch.manual_seed(17)
    torch.rand(5)
    again = measure(Global(), Asked(good), seed=3)
    assert torch.equal(first.variance, again.variance) and first.method == "monte_carlo"
    torch.set_rng_state(state[0])
    measure(Global(), Asked(good))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1]) and random.getstate() == state[2]


def test_a_state_that_cannot_be_copied_is_measured_in_float32():
    class Locked(Estimator):
        def reset(self, logits: Tensor) -> None:
            self._lock = threading.Lock()

        def __call__(self, logits: Tensor, f: Cost) -> Tensor:
            z = sample(logits)
            return f(z) + f(z) * nabla(log_prob(logits, z))

    used = Locked()
    measure(used, Asked(good))
    row = measure(used, Asked(good), dtype=torch.float32).row()
    assert row["verdict"] == "unbiased" and 0 < row["drift"] < 1e-5


ARGUMENTS = [
    ({"adapt_steps": -1}, "adapt_steps = -1; expected None or a whole number, 0 or larger"),
    ({"adapt_steps": 2.5}, "adapt_steps = 2.5; expected a whole number"),
    ({"enumerate_draws": "yes"}, "enumerate_draws = 'yes'; expected True or False or None"),
    ({"seed": None}, "seed = None; expected a whole number"),
    ({"seed": 1.5}, "seed = 1.5; expected a whole number"),
    ({"seed": 2**70}, "expected a whole number from 0 to 2**63 - 1"),
    ({"seed": -1}, "seed = -1; expected a whole number from 0 to"),
    ({"seed": True}, "seed = True; expected a whole number"),
    ({"dtype": torch.int64}, "dtype = torch.int64; expected one of torch.float64"),
    ({"dtype": "float32"}, "dtype = 'float32'; expected one of torch.float64"),
    ({"device": "gpu"}, "device = 'gpu' cannot be used"),
    ({"replicates": 10}, "replicates = 10; expected at least 64"),
    ({"replicates": 1e4}, "replicates = 10000.0; expected a whole number"),
    ({"tolerant": None}, "tolerant = None; expected True or False"),
    ({"precision": 3}, "precision = 3; expected a gradest Precision"),
]


@pytest.mark.parametrize(("options", "message"), ARGUMENTS, ids=lambda x: str(x)[:40])
def test_arguments_are_validated_where_they_enter(options, message):
    with pytest.raises(UsageError) as caught:
        rloo_on(good, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_missing_is_named():
    with pytest.raises(UsageError, match="device = 'cuda' cannot be used"):
        rloo_on(good, device="cuda")


NO_LOGITS = [
    (LOGITS[0], r"expected logits of shape \[B, N, K\].* got \[2, 3\]; logits\[None\] adds"),
    (LOGITS[0, 0], r"got \[3\]; logits\[None, None\] adds"),
    ([[[1.0, 2.0]]], "Tensor .* got an object of type list"),
    (np.ones((1, 2, 3)), "Tensor .* got an object of type ndarray"),
    (None, "Tensor .* got None"),
    (torch.ones(1, 0, 3), r"at least 1 latent, got shape \[1, 0, 3\]"),
    (torch.ones(0, 2, 3), r"at least 1 point, got shape \[0, 2, 3\]"),
    (torch.ones(1, 2, 1), r"at least 2 categories, got shape \[1, 2, 1\]"),
    (torch.full((1, 2, 3), -torch.inf), "all categories of latent 0 at data point 0 are masked"),
    (torch.tensor([[[0.0, torch.nan]]]), "got nan at data point 0, latent 0, category 1"),
    (torch.tensor([[[torch.inf, 0.0]]]), "got inf at data point 0, latent 0, category 0"),
    (torch.ones(1, 2, 3, dtype=torch.int64), "floating dtype, got torch.int64"),
]


@pytest.mark.parametrize(("logits", "message"), NO_LOGITS, ids=lambda x: str(x)[:24])
def test_logits_are_validated_where_a_problem_enters(logits, message):
    with pytest.raises(UsageError, match=f"asked: .*{message}"):
        rloo_on(good, logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kl": "Sampled", "prior": LOGITS[0]},
            "kl = 'Sampled'; expected 'exact', 'sampled', 'rel",
        ),
        ({"samples": 0}, "samples = 0; expected a whole number of at least 1"),
        ({"samples": 1.5}, "samples = 1.5"),
        ({"dtype": torch.int64}, "dtype = torch.int64; expected a floating"),
    ],
)
def test_the_arguments_of_a_cost_are_validated(options, message):
    with pytest.raises(ValueError, match=message):
        Cost(good, **options)


def test_what_is_no_task_estimator_problem_or_cost_is_named():
    rloo, task = make_estimator("rloo"), Asked(good)
    for call, message in (
        (lambda: measure("rloo", task), "expected an Estimator, got 'rloo'; create one with"),
        (
            lambda: measure(type(rloo), task),
            r"got the class RLOO; create an instance with RLOO\(\)",
        ),
        (lambda: measure(rloo, "bernoulli"), "expected a Task, got 'bernoulli'"),
        (
            lambda: measure(rloo, _Gives((LOGITS, Cost(good)))),
            "expected problem.* got an object of type tuple",
        ),
        (
            lambda: measure(rloo, _Gives(Problem(LOGITS, good))),
            "expected the cost .* got an object of type function",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            call()


class _Gives(Task):
    def __init__(self, problem: Any) -> None:
        self._problem = problem

    def problem(self, batch: Any = None) -> Any:
        return self._problem


@pytest.mark.parametrize("draw", [simplex, simplex_panels])
def test_a_simplex_is_drawn_of_three_positive_numbers(draw: Callable[..., Any]):
    for alpha, message in (
        ((1, -1, 2), "-1 is not a positive"),
        ((1, 2), "2 entries"),
        ((0, 1, 1), "0"),
    ):
        with pytest.raises(UsageError, match=message):
            draw(alpha)
    with pytest.raises(UsageError, match="temperatures"):
        draw((1, 1, 2), (0.5, -0.5))


@pytest.mark.parametrize("temperature", [0.3, 0.5, 1.0, 2.0, 3.0])
def test_densities_on_the_boundary_are_the_limits_from_inside(temperature):
    logits = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    for x, gone in (([1.0, 0.0, 0.0], 2), ([0.4, 0.6, 0.0], 1)):
        at = torch.tensor([x], dtype=torch.float64)
        result = float(concrete_log_prob(at.log(), logits, temperature))
        inside = [
            float(concrete_log_prob(torch.where(at == 0, eps, at).log(), logits, temperature))
            for eps in (1e-100, 1e-200)
        ]
        exponent = 3 * temperature - gone * (temperature + 1)
        if abs(exponent) < 1e-12:
            assert result == pytest.approx(inside[0], abs=1e-12)
        else:
            assert result == (-math.inf if exponent > 0 else math.inf)
            assert (inside[1] > inside[0]) == (result > 0)
        assert float(exp_concrete_log_prob(at.log(), logits, temperature)) == -math.inf


class OverTheBatch(Estimator):
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        return cost + (cost - cost.detach().mean()) * nabla(log_prob(logits, z))


class OverThePoint(Estimator):
    """A baseline of state that the call itself has changed."""

    def reset(self, logits: Tensor) -> None:
        self._mean = logits.new_zeros(())

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        cost = f(z)
        self._mean = cost.detach().mean()
        return cost + (cost - self._mean) * nabla(log_prob(logits, z))


@pytest.mark.parametrize("cls", [OverTheBatch, OverThePoint])
@pytest.mark.parametrize("logits", [LOGITS, TWO])
def test_rows_that_talk_are_refused(cls, logits):
    with pytest.raises(UsageError, match=r"rows depend on each other \(check 'rows'\)"):
        measure(cls(), Asked(good, logits))


def test_every_estimator_of_the_catalogue_keeps_rows_apart():
    for name, cls in gradest.all_estimators().items():
        task = make_task("bernoulli" if cls.categories == 2 else "quadratic")
        task = SeveralSamples(task, cls.objective) if cls.objective else task
        if not inapplicable(cls(), task, task.problem()):
            for dtype in (torch.float64, torch.float32):
                check_row_independence(Replicator(make_estimator(name), task, dtype))
