"""Estimators that are made slightly wrong are called biased at the precision of the suites."""

from pathlib import Path

import pytest
import yaml
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Precision
from gradest.categorical import log_prob, nabla, sample
from gradest.runs.suites import SUITES

DEFAULT = Precision(**yaml.safe_load((Path(SUITES) / "variance.yaml").read_text())["precision"])
SOUND = [
    # (estimator, its knobs, task), where the default precision is reached
    ("reinforce", {}, "categorical"),
    ("rloo", {"samples": 2}, "categorical"),
    pytest.param("rloo", {"samples": 4}, "quadratic", marks=pytest.mark.slow),
    ("disarm", {}, "bernoulli"),
    ("muprop", {}, "quadratic"),
]


class Tampered(Estimator):
    """Another estimator whose estimates are scaled, or moved in one coordinate."""

    name = "tampered"

    def __init__(self, inner: Estimator, factor: float = 1.0, shift: float = 0.0) -> None:
        self.inner, self.factor, self.shift = inner, factor, shift

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        objective = self.inner(logits, f)
        moved = self.shift * nabla(logits[:, 0, 1])
        return objective.detach() + self.factor * nabla(objective) + moved


class OwnBaseline(Estimator):
    """Leave-one-out that leaves nothing out."""

    name = "own_baseline"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, 4)
        cost = f(z)
        advantage = cost - cost.mean(1, keepdim=True)
        return (cost + advantage * nabla(log_prob(logits.unsqueeze(1), z))).mean(1)


def verdict(estimator: Estimator, task: gradest.Task, seed: int, enumerate_draws) -> str:
    result = gradest.measure(
        estimator, task, precision=DEFAULT, seed=seed, enumerate_draws=enumerate_draws
    )
    return result.row()["verdict"]


@pytest.mark.weekly
@pytest.mark.parametrize(
    "enumerate_draws",
    [
        pytest.param(None, id="as it comes"),
        pytest.param(False, id="by replicates", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("name", "knobs", "task"), SOUND)
def test_tampering_is_seen_and_soundness_too(name, knobs, task, enumerate_draws):
    task, inner = gradest.make_task(task), gradest.make_estimator(name, **knobs)
    norm = float(gradest.measure(gradest.make_estimator("exact"), task).exact.norm())
    for seed in range(1 if enumerate_draws is None else 2):
        assert verdict(inner, task, seed, enumerate_draws) == "unbiased"
        assert verdict(Tampered(inner, factor=1.01), task, seed, enumerate_draws) == "biased"
        shifted = Tampered(inner, shift=0.01 * norm)
        assert verdict(shifted, task, seed, enumerate_draws) == "biased"


@pytest.mark.parametrize("enumerate_draws", [None, False], ids=["as it comes", "by replicates"])
@pytest.mark.parametrize("task", ["bernoulli", "categorical", "quadratic"])
def test_a_sample_in_its_own_baseline_is_seen(task, enumerate_draws):
    assert verdict(OwnBaseline(), gradest.make_task(task), 0, enumerate_draws) == "biased"
