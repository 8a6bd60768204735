"""The effect of adaptation, step by step."""

import json

import pandas as pd
import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator
from gradest.categorical import log_prob, nabla, sample
from gradest.measurement import adaptation
from gradest.measurement.adaptation import AdaptationStep, adapt_and_measure
from gradest.measurement.replicator import Replicator
from gradest.randomness import Draws, drawing_from
from gradest.runs.measurement_tables import ADAPTATION
from tests.support import run_suite


class Halving(Estimator):
    """Adds noise to a score function that every step halves, and keeps a log of calls."""

    name = "halving"
    adapt_steps = 20

    def reset(self, logits: Tensor) -> None:
        self.scale, self.log = 8.0, []

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self.scale /= 2
        self.log.append("adapt")

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        self.log.append(len(logits))
        z = sample(logits)
        noise = sample(torch.zeros_like(logits))[:, 0, 0] * 2 - 2 / 3  # of mean 0 and variance 8/9
        return f(z) + self.scale * noise.detach() * nabla(logits)[:, 0, 0]


VARIANCE = 8 / 9  # of its estimate where the scale is one: of f nothing reaches the logits


def looks_of(estimator: Estimator, steps: int, chunk: int = 4096) -> list[AdaptationStep]:
    with drawing_from(Draws.seeded(0)):
        replicator = Replicator(estimator, gradest.make_task("categorical"))
        return adapt_and_measure(replicator, steps, chunk)


@pytest.mark.parametrize(
    ("steps", "seen"),
    [
        (0, []),
        (1, [0, 1]),
        (2, [0, 1, 2]),
        (4, [0, 1, 4]),
        (5, [0, 1, 4, 5]),
        (16, [0, 1, 4, 16]),
        (17, [0, 1, 4, 16, 17]),
        (100, [0, 1, 4, 16, 64, 100]),
    ],
)
def test_looks_at_the_start_after_powers_of_four_and_at_the_end(steps, seen):
    estimator = Halving()
    looks = looks_of(estimator, steps)
    assert [look.step for look in looks] == seen
    assert estimator.log.count("adapt") == steps


def test_a_look_sees_the_state_after_just_so_many_steps():
    """The variance is that of the scale after the step, not one before or after."""
    for look in looks_of(Halving(), 5):
        expected = VARIANCE * (8 / 2**look.step) ** 2
        assert look.low < look.variance < look.high
        assert look.high <= 1.25 * look.low
        assert 0.9 * expected < look.variance < 1.1 * expected


def test_the_order_of_steps_and_looks():
    estimator = Halving()
    looks_of(estimator, 5, chunk=512)
    steps, rows = [], [0]
    for entry in estimator.log:
        if entry == "adapt":
            steps.append(rows[-1])
            rows.append(0)
        else:
            rows[-1] += entry
    assert rows == [2048, 2048, 0, 0, 2048, 2048]  # after 0, 1, 2, 3, 4 and 5 steps


def test_looks_come_at_fresh_draws_and_their_size_is_that_of_the_protocol(monkeypatch):
    monkeypatch.setattr(adaptation, "_REPLICATES", 64)

    class Still(Halving):
        def adapt(self, logits: Tensor, f: Cost) -> None:
            self.log.append("adapt")

    looks = looks_of(Still(), 17)
    assert len({look.variance for look in looks}) == len(looks)


class Sequence(Estimator):
    """Each step of adapting adds what it is shown; the state is what it saw."""

    name = "sequence"
    adapt_steps = 6

    def reset(self, logits: Tensor) -> None:
        self.baseline, self.shown = 0.0, []

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self.shown.append(len(logits))
        self.baseline += 0.1

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return f(z) + (f(z) - self.baseline) * nabla(log_prob(logits, z))


def test_the_measurement_is_of_the_state_after_all_steps():
    result = gradest.measure(Sequence(), gradest.make_task("categorical"))
    fixed = Sequence()
    fixed.reset = lambda logits: setattr(fixed, "baseline", 0.6)
    expected = gradest.measure(fixed, gradest.make_task("categorical"), adapt_steps=0)
    assert torch.allclose(result.variance, expected.variance, rtol=0, atol=1e-10)
    assert [look.step for look in result.adaptation] == [0, 1, 4, 6]
    assert expected.adaptation == ()
    exact = float(result.variance.sum())
    last = result.adaptation[-1]
    assert 0.85 * exact < last.low <= last.variance <= last.high < 1.2 * exact


def test_adapting_descends_where_it_should():
    result = gradest.measure(
        gradest.make_estimator("reinforce_ema"), gradest.make_task("bernoulli")
    )
    first, *_, last = result.adaptation
    assert (first.step, last.step) == (0, result.adapt_steps)
    assert last.high < first.low


def test_json_keeps_the_looks():
    result = gradest.measure(Halving(), gradest.make_task("categorical"), replicates=64)
    back = type(result).from_json(json.loads(json.dumps(result.to_json())))
    assert back.adaptation == result.adaptation
    assert isinstance(back.adaptation[0], AdaptationStep)


def test_a_run_has_a_table_of_looks(tmp_path):
    suite = (
        "replicates: 64\nadapt_steps: 5\ntasks: [categorical, bernoulli]\n"
        "estimators: [reinforce_ema, rloo, nvil]\n"
    )
    folder = run_suite(tmp_path, suite)
    frame = pd.read_parquet(folder / "adaptation.parquet")
    assert list(frame.columns) == list(ADAPTATION)
    assert set(frame.estimator) == {"reinforce_ema", "nvil"}  # the third does not adapt
    for _, rows in frame.groupby(["task", "estimator"]):
        assert rows.step.tolist() == [0, 1, 4, 5]
        assert (rows.variance_low <= rows.variance).all()
        assert (rows.variance <= rows.variance_high).all()
    assert len(frame) == 2 * 2 * 4
    assert set(frame.task) == {"categorical", "bernoulli"} and set(frame.suite) == {"mine"}
    assert frame.variance.gt(0).all()
