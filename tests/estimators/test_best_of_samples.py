"""The minimum over k samples as an objective, and its estimator from n samples."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem
from gradest.categorical import log_prob
from gradest.checks.problems import SeveralSamples
from gradest.contracts import inapplicable
from gradest.errors import KnobError, UsageError
from gradest.measurement import exact_gradient
from gradest.measurement.objectives import bound, minimum
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT

BASELINES = ["none", "loo", "loo_minus_one", "centred"]


def best_of(k: int) -> SeveralSamples:
    return SeveralSamples(gradest.make_task("categorical"), "minimum", k)


def defined(k: int) -> tuple[float, Tensor]:
    """J and its gradient, by the definition: a sum over all k-tuples of categories."""
    logits, f = gradest.make_task("categorical").problem()
    logits = logits.detach().double().requires_grad_()
    z = torch.eye(3, dtype=torch.float64)
    cost = f(z.view(1, 3, 1, 3))[0]
    log_p = log_prob(logits, z.view(3, 1, 3))
    total = sum(
        cost[list(drawn)].min() * log_p[list(drawn)].sum().exp()
        for drawn in itertools.product(range(3), repeat=k)
    )
    return float(total.detach()), torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize(("k", "value"), [(2, 0.392296), (3, 0.259351), (4, 0.219868)])
def test_the_truth_is_the_mean_of_the_least_of_k_costs(k, value):
    truth, (exact, gradient) = exact_gradient(best_of(k).problem()), defined(k)
    assert exact == pytest.approx(value, abs=5e-7)
    assert float(truth.value) == pytest.approx(exact, rel=EXACT)
    torch.testing.assert_close(truth.gradient, gradient, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("name", ["reinforce", "rloo", "local_expectation", "exact"])
def test_estimators_of_a_mean_are_unbiased_for_it(name):
    row = gradest.measure(gradest.make_estimator(name), best_of(2)).row("log_alpha")
    assert row["method"] == "enumerated" and row["verdict"] == "unbiased"


@pytest.mark.parametrize(
    ("n", "k", "baseline", "variance"),
    [
        (2, 2, "none", 1.548),
        (2, 2, "loo_minus_one", 0.748),
        (4, 2, "none", 0.547),
        (4, 2, "loo", 0.325),
        (4, 2, "loo_minus_one", 0.194),
        (4, 2, "centred", 0.290),
        (4, 3, "loo", 0.441),
        (4, 3, "loo_minus_one", 0.144),
        (4, 3, "centred", 0.335),
        (4, 4, "loo_minus_one", 0.138),
    ],
)
def test_every_baseline_is_unbiased_and_has_its_variance(n, k, baseline, variance):
    estimator = gradest.make_estimator("pkpo", extra=n - k, baseline=baseline)
    row = gradest.measure(estimator, best_of(k)).row("log_alpha")
    assert row["method"] == "enumerated" and row["verdict"] == "unbiased"
    assert row["variance"] == pytest.approx(variance, abs=5.1e-4)


def advantages(costs: list[float], k: int, baseline: str) -> Tensor:
    """Those of distinct categories, one a sample, read off the gradient with respect to logits."""
    n = len(costs)
    logits = torch.zeros(1, n, 2, dtype=torch.float64, requires_grad=True)

    class Own(Draws):  # sample i is the code whose bit i alone is set
        def categories(self, logits: Tensor, samples: int) -> Tensor:
            return torch.eye(n, dtype=torch.long).unsqueeze(0)

    f = Cost(
        lambda z: (z[..., 1] * torch.tensor(costs, dtype=torch.float64).to(z)).sum(-1)
    ).best_of(k)
    with drawing_from(Own()):
        value = gradest.make_estimator("pkpo", extra=n - k, baseline=baseline)(logits, f)
    # The score of sample i in logit (j, 1) is 1[i = j] − 1/2.
    slope = torch.autograd.grad(value.sum(), logits)[0][0, :, 1]
    score = torch.eye(n, dtype=torch.float64) - 0.5
    return torch.linalg.solve(score, slope)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(("n", "k"), [(5, 2), (5, 3), (6, 4)])
def test_credits_and_baselines_are_those_of_all_subsets(n, k, baseline):
    costs = [0.7, -1.2, 2.5, 0.1, -0.4, 1.9][:n]

    def best(size: int, without: int) -> float:
        rest = [c for j, c in enumerate(costs) if j != without]
        return sum(map(min, itertools.combinations(rest, size))) / math.comb(n - 1, size)

    subsets = list(itertools.combinations(range(n), k))
    for i, advantage in enumerate(advantages(costs, k, baseline)):
        credit = sum(min(costs[j] for j in s) for s in subsets if i in s) / len(subsets)
        others = {
            "none": lambda i: 0.0,
            "loo": lambda i: k / (n - 1) * best(k, i),
            "loo_minus_one": lambda i: k / n * best(k - 1, i),
            "centred": lambda i: k / n * best(k, i),
        }[baseline]
        assert float(advantage) == pytest.approx(credit - others(i), abs=EXACT)


def test_of_k_samples_the_best_alone_is_credited_with_its_lead():
    result = advantages([0.7, -1.2, 2.5, 0.1], 4, "loo_minus_one")
    expected = torch.tensor([0.0, -1.2 - 0.1, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(result, expected, rtol=EXACT, atol=EXACT)


def test_centred_advantages_sum_to_zero():
    total = advantages([0.7, -1.2, 2.5, 0.1, 3.0], 3, "centred").sum()
    assert float(total) == pytest.approx(0.0, abs=EXACT)


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_constant_changes_no_estimate_with_two_of_them(baseline):
    costs = (0.3, -0.6, 1.1, 0.2)
    before, after = (advantages([c + x for x in costs], 2, baseline) for c in (0, 5))
    assert torch.allclose(before, after, atol=EXACT) == (baseline in ("loo_minus_one", "centred"))


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 1000.0])
def test_the_bound_of_sharper_costs_tends_to_the_minimum(sharpness):
    cost = torch.tensor([[0.3, -0.6, 1.1, 0.2]], dtype=torch.float64)
    gap = float(bound(sharpness * cost) / sharpness - minimum(cost))
    assert -EXACT <= gap <= math.log(4) / sharpness + EXACT


def test_what_takes_no_such_objective_says_so():
    pkpo, plain = gradest.make_estimator("pkpo"), gradest.make_task("categorical")
    assert inapplicable(pkpo, plain, plain.problem()) == (
        "pkpo needs the minimum over several samples, categorical has one sample"
    )
    task = SeveralSamples(plain, "bound")
    assert inapplicable(pkpo, task, task.problem()).endswith("has a multi-sample bound")
    task = best_of(2)
    assert "needs a multi-sample bound" in inapplicable(
        gradest.make_estimator("vimco"), task, task.problem()
    )
    for baseline in ("loo", "centred"):
        with pytest.raises(KnobError, match=r"needs extra of at least 1"):
            gradest.make_estimator("pkpo", extra=0, baseline=baseline)


def test_invalid_objectives_are_refused():
    with pytest.raises(UsageError, match=r"objective = 'max'; expected 'bound', 'minimum'"):
        Cost(lambda z: z.sum((-2, -1)), samples=2, objective="max")
    with pytest.raises(ValueError, match="expected no prior with objective = 'minimum'"):
        Cost(lambda z: z.sum((-2, -1)), prior=torch.zeros(1, 2), objective="minimum")


def test_the_former_claim_still_works():
    with pytest.warns(DeprecationWarning, match="claim objective = 'bound'"):

        class Old(Estimator):
            bounds = True

            def __call__(self, logits: Tensor, f: Cost) -> Tensor:
                return f(logits).mean(1)

    assert Old.objective == "bound"
    logits = torch.zeros(1, 1, 2)
    assert inapplicable(Old(), gradest.make_task("bernoulli"), Problem(logits, Cost(len)))
