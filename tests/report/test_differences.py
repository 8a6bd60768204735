"""Differences between runs: which are significant, and with which certainty."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import gradest
from gradest import Estimator
from gradest.categorical import nabla
from gradest.errors import UsageError
from gradest.measurement.parameters import LOG_ALPHA
from gradest.report.frames import curves
from gradest.report.regression.differences import (
    BETTER,
    CHANGED,
    COLUMNS,
    LEVEL,
    SAME,
    UNDECIDED,
    UNJUDGED,
    WORSE,
    differences,
    regressions,
)
from gradest.report.regression.pairs import Pair, pooled
from gradest.report.regression.runs import Key, Run
from gradest.runs.descent import COLUMNS as DESCENT
from gradest.runs.training.results import COLUMNS as TRAINING
from gradest.statistics.moments import Moments

pytestmark = pytest.mark.slow  # whole runs, compared

PARAMETERS = ["alpha", LOG_ALPHA]
TOLD = (BETTER, WORSE, CHANGED)
TASKS = {
    "categorical": gradest.make_task("categorical"),
    "bernoulli": gradest.make_task("bernoulli"),
}
NAMES = ("rloo", "straight_through", "concrete")


class Tampered(Estimator):
    """Another estimator whose estimates are scaled, moved, or made noisier."""

    name = "tampered"

    def __init__(self, inner, factor=1.0, shift=0.0, noise=0.0):
        self.inner, self.factor, self.shift, self.noise = inner, factor, shift, noise

    def __call__(self, logits, f):
        objective = self.inner(logits, f)
        moved = self.shift * nabla(logits[:, 0, 1])
        loud = self.noise * nabla(logits[:, 0, 0]) * gradest.categorical.sample(logits)[:, 0, 0]
        centred = loud - self.noise * nabla(logits[:, 0, 0]) * logits.detach().softmax(-1)[:, 0, 0]
        return objective.detach() + self.factor * nabla(objective) + moved + centred


def measured(estimator, task="categorical", seed=0, replicates=4000, **options):
    options = {"enumerate_draws": False, **options}
    return gradest.measure(estimator, TASKS[task], replicates=replicates, seed=seed, **options)


def record(measurement=None, status="ok", reason="", **cell):
    found = {"of": "measurement", "status": status, "reason": reason, "cell": cell}
    return found if measurement is None else {**found, "measurement": measurement.to_json()}


def run(name, cells, points=None, properties=None, **facts):
    """A run of `cells`, (estimator, task) -> seed -> a measurement or a record."""
    found = {}
    for (estimator, task), seeds in cells.items():
        key = Key("measurement", task, "{}", estimator, "{}", "float64", "")
        found[key] = {
            seed: each if isinstance(each, dict) else record(each) for seed, each in seeds.items()
        }
    empty = pd.DataFrame(columns=list(TRAINING))
    return Run(
        name,
        None,
        {"parameters": PARAMETERS, **facts},
        found,
        curves.annotate_points(empty if points is None else points),
        pd.DataFrame() if properties is None else properties,
    )


def suite(seed, **changed):
    """A small one, with estimators by the name of those that are `changed`."""
    plain = {name: gradest.make_estimator(name) for name in NAMES} | changed
    return {
        (name, task): {seed: measured(estimator, task, seed)}
        for task in TASKS
        for name, estimator in plain.items()
    }


@pytest.fixture(scope="module")
def base():
    return run("base", suite(0))


def told_apart(frame):
    return set(frame.loc[frame["judgement"].isin(TOLD), "estimator"])


def of(frame, quantity, parameter=LOG_ALPHA):
    rows = frame[frame["quantity"].eq(quantity)]
    return rows[rows["parameter"].eq(parameter)] if parameter is not None else rows


def test_other_seeds_show_no_difference(base):
    frame = differences([base, run("other", suite(1))])
    assert list(frame.columns) == list(COLUMNS)
    assert not told_apart(frame) and regressions(frame).empty
    # In each of six cells a test of the mean, and in two parameters of the variance and the bias.
    assert frame["p_value"].notna().sum() == 6 * (1 + 2 * 2)
    undecided = frame[frame["judgement"].eq(UNDECIDED)]
    assert np.isfinite(undecided["detectable"]).all() and len(undecided) == 30
    assert frame["p_holm"].ge(frame["p_value"]).where(frame["p_value"].notna(), True).all()


def test_the_same_seed_and_code_are_the_same(base):
    frame = differences([base, run("other", base_again(base))])
    assert set(frame["judgement"]) == {SAME} and frame["p_value"].isna().all()
    assert of(frame, "variance")["change"].eq(1.0).all()
    for quantity in ("mean", "bias"):
        assert of(frame, quantity)["change"].eq(0.0).all()


def base_again(base):
    return {(key.estimator, key.task): dict(records) for key, records in base.cells.items()}


def test_a_scaled_estimator_is_found_alone(base):
    scaled = Tampered(gradest.make_estimator("concrete"), factor=1.2)
    other = run("other", suite(1, concrete=scaled))
    frame = differences([base, other])
    assert told_apart(frame) == {"concrete"}
    assert of(frame, "variance").set_index("estimator").loc["concrete", "judgement"].eq(WORSE).all()
    assert set(regressions(frame)["estimator"]) == {"concrete"}
    back = differences([other, base])
    assert of(back, "variance").set_index("estimator").loc["concrete", "judgement"].eq(BETTER).all()
    assert WORSE not in set(of(back, "variance")["judgement"])


def test_five_percent_on_the_gradient_are_found():
    plain = gradest.make_estimator("rloo")
    runs = [
        run(str(factor), {("rloo", "categorical"): {0: measured(each, replicates=60_000)}})
        for factor, each in ((1.0, plain), (1.05, Tampered(plain, factor=1.05)))
    ]
    frame = differences(runs)
    assert set(regressions(frame)["quantity"]) == {"variance", "bias"}
    assert of(frame, "mean")["judgement"].tolist() == [CHANGED]
    back = differences(runs[::-1])
    assert regressions(back).empty
    assert of(back, "bias")["judgement"].tolist() == [BETTER]


def test_more_variance_is_no_change_of_the_mean(base):
    loud = Tampered(gradest.make_estimator("rloo"), noise=0.8)
    frame = differences([base, run("other", suite(1, rloo=loud))])
    found = frame[frame["judgement"].isin(TOLD)]
    assert set(found["estimator"]) == {"rloo"} and set(found["quantity"]) == {"variance"}
    assert set(regressions(frame)["quantity"]) == {"variance"}


@pytest.mark.parametrize("drawn", [True, False])
def test_a_bias_that_turns_around_is_a_change_and_no_regression(drawn):
    exact = gradest.make_estimator("exact" if not drawn else "rloo")
    sides = [
        measured(Tampered(exact, shift=shift), seed=seed, enumerate_draws=False if drawn else None)
        for seed, shift in ((0, 0.2), (1, -0.2))
    ]
    assert {side.method for side in sides} == {"monte_carlo" if drawn else "enumerated"}
    frame = differences(
        [run(str(n), {("mine", "categorical"): {n: side}}) for n, side in enumerate(sides)]
    )
    assert of(frame, "mean")["judgement"].tolist() == [CHANGED]
    assert of(frame, "bias")["judgement"].tolist() == [UNDECIDED if drawn else SAME]
    assert regressions(frame).empty
    assert of(frame, "mean")["p_value"].isna().all() == (not drawn)


@pytest.mark.parametrize(("factor", "judged"), [(1 + 1e-14, SAME), (1 + 1e-9, WORSE)])
def test_enumerated_cells_are_compared_up_to_rounding(factor, judged):
    inner = gradest.make_estimator("straight_through")
    sides = [
        measured(each, enumerate_draws=None) for each in (inner, Tampered(inner, factor=factor))
    ]
    assert all(side.method == "enumerated" for side in sides)
    frame = differences(
        [run(str(n), {("st", "categorical"): {0: side}}) for n, side in enumerate(sides)]
    )
    assert of(frame, "variance")["judgement"].tolist() == [judged]
    assert of(frame, "mean")["judgement"].tolist() == [SAME if judged == SAME else CHANGED]
    assert frame["p_value"].isna().all()


@pytest.mark.parametrize("name", ["straight_through", "rloo"])
def test_what_is_enumerated_and_what_is_drawn_agree(name):
    inner = gradest.make_estimator(name)
    # At this seed the bias of rloo is estimated as zero: its lower end says nothing of its noise.
    sides = [measured(inner, "bernoulli", enumerate_draws=None), measured(inner, "bernoulli")]
    for pair in (sides, sides[::-1]):
        frame = differences(
            [run(str(n), {(name, "bernoulli"): {0: side}}) for n, side in enumerate(pair)]
        )
        assert not told_apart(frame)
        assert of(frame, "variance")["judgement"].tolist() == [UNDECIDED]
        assert of(frame, "bias")["detectable"].gt(0).all()


def test_what_would_have_been_found_is_at_the_strictest_level(base):
    other = run("other", suite(1))
    frame = differences([base, other])
    level = LEVEL / frame["p_value"].notna().sum()
    key = Key("measurement", "categorical", "{}", "rloo", "{}", "float64", "")
    sides = [
        gradest.Measurement.from_json(r.cells[key][n]["measurement"])
        for n, r in enumerate((base, other))
    ]
    found = {(c.quantity, c.parameter): c for c in Pair(*sides, PARAMETERS).changes()}
    row = of(frame, "variance").set_index(["task", "estimator"]).loc["categorical", "rloo"]
    change = found["variance", LOG_ALPHA]
    assert row["detectable"] == change.detectable(level) > change.detectable(LEVEL) > 1
    # What is found with a probability of 80 % is further off than what is just significant.
    error = math.log(row["high"] / row["low"]) / 2 / 2.0
    assert math.log(row["detectable"]) > 4 * error
    mean = of(frame, "mean").set_index(["task", "estimator"]).loc["categorical", "rloo"]
    assert mean["detectable"] == found["mean", LOG_ALPHA].detectable(level) > mean["high"]


def synthetic(like, x, g=None):
    """A measurement with estimates x [J, n, D], of the true gradient g."""
    moments = Moments.of(x)
    truth = None
    if g is not None:
        truth = like.truth._replace(gradients={LOG_ALPHA: g}, noise={})
    return dataclasses.replace(
        like,
        gradients={LOG_ALPHA: moments},
        peaks={LOG_ALPHA: float(x.abs().max())},
        logits=torch.zeros(1, 1, x.shape[-1], dtype=torch.float64),
        truth=truth,
        cosines=Moments.empty(1, 2),
    )


@pytest.mark.parametrize("known", [True, False])
def test_noise_is_not_projected_on_itself(known):
    like = measured(gradest.make_estimator("rloo"), replicates=64)
    draws = torch.Generator().manual_seed(0)
    g = torch.full((100,), 1e-3, dtype=torch.float64) if known else None
    p = []
    for _ in range(5):
        sides = [
            synthetic(like, 2.0 * torch.randint(2, (64, 256, 100), generator=draws).double() - 1, g)
            for _ in range(2)
        ]
        changes = list(Pair(*sides, [LOG_ALPHA]).changes())
        assert ("bias" in {c.quantity for c in changes}) == known
        p += [c.p_value for c in changes if c.quantity == "mean"]
    assert min(p) > 1e-3


def test_a_bias_is_told_no_surer_than_the_mean():
    """Twelve rare outcomes, all in one run: the test of the mean allows for that."""
    like, g = measured(gradest.make_estimator("rloo"), replicates=64), torch.zeros(1).double()
    x = torch.zeros(64, 64, 1, dtype=torch.float64)
    x.view(-1)[torch.arange(12) * 300] = 1.0
    sides = [synthetic(like, each, g) for each in (torch.zeros_like(x), x)]
    found = {c.quantity: c for c in Pair(*sides, [LOG_ALPHA]).changes()}
    assert found["bias"].p_value >= found["mean"].p_value > 1e-3


def test_of_two_skewed_intervals_the_ends_that_face_each_other_count():
    like = measured(gradest.make_estimator("rloo"), replicates=64)
    draws = torch.Generator().manual_seed(3)
    normal = torch.randn(8, 16, 1, generator=draws, dtype=torch.float64)
    skewed = torch.randn(8, 16, 1, generator=draws, dtype=torch.float64).exp()
    steps = stats.t.ppf(0.975, 7)
    for pair in ((normal, skewed), (skewed, normal)):
        sides = [synthetic(like, x) for x in pair]
        (found,) = (c for c in Pair(*sides, [LOG_ALPHA]).changes() if c.quantity == "variance")
        small, large = sorted((found.base, found.other))
        up = math.log(small.high / small.estimate) / steps
        down = math.log(large.estimate / large.low) / steps
        z = math.log(large.estimate / small.estimate) / math.hypot(up, down)
        freedom = 7 * (up**2 + down**2) ** 2 / (up**4 + down**4)
        assert found.p_value == pytest.approx(2 * stats.t.sf(z, freedom))


def test_a_small_change_everywhere_adds_up_along_the_mean():
    like = measured(gradest.make_estimator("rloo"), replicates=64)
    draws = torch.Generator().manual_seed(1)
    sides = [
        synthetic(like, mean + 2.0 * torch.randint(2, (64, 128, 40), generator=draws).double())
        for mean in (0.0, 0.03)  # by two standard errors in each coordinate
    ]
    (mean,) = (c for c in Pair(*sides, [LOG_ALPHA]).changes() if c.quantity == "mean")
    assert mean.p_value < 1e-4


@pytest.mark.parametrize(("events", "told"), [(1, False), (200, True)])
def test_a_variance_that_one_run_never_saw_needs_more_than_one_event(events, told):
    like = measured(gradest.make_estimator("rloo"), replicates=64)
    x = torch.zeros(64, 64, 3, dtype=torch.float64)
    x.view(-1, 3)[torch.arange(events) * 20] = 1.0
    sides = [synthetic(like, torch.zeros_like(x)), synthetic(like, x)]
    for pair in (sides, sides[::-1]):
        (found,) = (c for c in Pair(*pair, [LOG_ALPHA]).changes() if c.quantity == "variance")
        assert (found.p_value < 1e-6) == told and found.p_value <= 1


def test_several_seeds_are_one_measurement_and_shared_ones_are_taken_alone():
    rloo = gradest.make_estimator("rloo")
    found = {seed: measured(rloo, seed=seed) for seed in range(4)}
    cell = ("rloo", "categorical")
    apart = differences(
        [
            run("base", {cell: {0: found[0], 1: found[1]}}),
            run("other", {cell: {2: found[2], 3: found[3]}}),
        ]
    )
    (row,) = of(apart, "variance").to_dict("records")
    assert (row["base_seeds"], row["other_seeds"]) == ("0, 1", "2, 3")
    alone = differences([run("base", {cell: {0: found[0]}}), run("other", {cell: {2: found[2]}})])
    (single,) = of(alone, "variance").to_dict("records")
    narrower = math.log(row["high"] / row["low"]) / math.log(single["high"] / single["low"])
    assert narrower == pytest.approx(0.5**0.5, rel=0.15)
    both = {seed: found[seed] for seed in (0, 1)}
    shared = differences(
        [run("base", {cell: both}), run("other", {cell: {1: found[1], 2: found[2]}})]
    )
    (row,) = of(shared, "variance").to_dict("records")
    assert (row["base_seeds"], row["other_seeds"], row["judgement"]) == ("1", "1", SAME)
    absent = of(shared, "status", None)[["base_status", "other_status"]].to_numpy().tolist()
    assert absent == [["ok", "absent"], ["absent", "ok"]]


def test_pooling_takes_what_is_enumerated_once():
    inner = gradest.make_estimator("straight_through")
    one, two = (measured(inner, seed=seed, enumerate_draws=None) for seed in (0, 1))
    assert pooled([one, two]) is one


def test_adaptive_estimators_are_compared_at_the_same_seed_alone():
    ema = gradest.make_estimator("reinforce_ema")
    found = {seed: measured(ema, seed=seed, adapt_steps=20) for seed in (0, 1)}
    cell = ("ema", "categorical")
    apart = differences([run("base", {cell: {0: found[0]}}), run("other", {cell: {1: found[1]}})])
    for quantity in ("variance", "mean", "bias"):
        (row,) = of(apart, quantity).to_dict("records")
        assert row["judgement"] == UNDECIDED and math.isnan(row["p_value"])
        assert "seed" in row["reason"] and math.isnan(row["detectable"])
    same = differences([run(name, {cell: found}) for name in ("base", "other")])
    assert of(same, "variance")["base_seeds"].tolist() == ["0", "1"]
    assert of(same, "variance")["label"].tolist() == ["ema (seed=0)", "ema (seed=1)"]
    assert set(same["judgement"]) == {SAME}


def test_cells_that_one_run_lacks_are_rows_and_only_failing_is_a_regression():
    fine = measured(gradest.make_estimator("rloo"), replicates=64)
    odd = dataclasses.replace(fine, nonfinite=0.25)
    failed, skipped = (record(status=s, reason=f"is {s}") for s in ("failed", "skipped"))
    pairs = {  # name -> before, after, the judgement
        "broke": (fine, failed, WORSE),
        "overflows": (fine, odd, WORSE),
        "mended": (failed, fine, BETTER),
        "gave up": (fine, skipped, CHANGED),
        "gone": (fine, None, UNDECIDED),
        "added": (None, fine, UNDECIDED),
        "still": (failed, failed, SAME),
    }
    runs = [
        run(name, {(k, "categorical"): {0: each[n]} for k, each in pairs.items() if each[n]})
        for n, name in enumerate(("base", "other"))
    ]
    frame = differences(runs)
    assert set(frame["quantity"]) == {"status"}
    assert frame.set_index("estimator")["judgement"].to_dict() == {
        name: judged for name, (*_, judged) in pairs.items()
    }
    assert frame.set_index("estimator").loc["broke", "reason"] == "is failed"
    assert set(regressions(frame)["estimator"]) == {"broke", "overflows"}


def test_a_failure_at_one_of_several_seeds_is_seen():
    fine = measured(gradest.make_estimator("rloo"), replicates=64)
    cell, failed = ("rloo", "categorical"), record(status="failed", reason="NaN")
    for seeds in ((0, 1), (2, 3)):
        other = run("other", {cell: dict(zip(seeds, (fine, failed), strict=True))})
        frame = differences([run("base", {cell: {0: fine, 1: fine}}), other])
        assert regressions(frame)["quantity"].tolist() == ["status"]
        assert len(of(frame, "variance")) == 1  # of what is left


def test_more_evaluations_are_worse_but_no_regression_and_time_is_never_judged():
    fine = measured(gradest.make_estimator("rloo"))
    more = dataclasses.replace(fine, evaluations=fine.evaluations + 1)
    sides = [record(side) | {"samples": [x, 2 * x]} for side, x in ((fine, 1.0), (more, 9.0))]
    runs = [run(str(n), {("r", "categorical"): {0: side}}) for n, side in enumerate(sides)]
    frame = differences(runs)
    assert of(frame, "evaluations", None)[["change", "judgement"]].to_numpy().tolist() == [
        [1.0, WORSE]
    ]
    (time,) = of(frame, "seconds", None).to_dict("records")
    assert (time["change"], time["low"], time["high"]) == (9.0, 4.5, 18.0)
    assert time["judgement"] == UNJUDGED and regressions(frame).empty
    assert of(differences(runs[::-1]), "evaluations", None)["judgement"].tolist() == [BETTER]


def test_a_task_that_changed_is_said():
    rloo = gradest.make_estimator("rloo")
    sides = [
        gradest.measure(
            rloo, gradest.make_task("categorical", target=t), replicates=4000, enumerate_draws=False
        )
        for t in (0.45, 0.3)
    ]
    frame = differences(
        [run(str(n), {("rloo", "categorical"): {0: side}}) for n, side in enumerate(sides)]
    )
    (row,) = of(frame, "gradient").to_dict("records")
    assert row["judgement"] == CHANGED and "gradient" in row["reason"]
    assert of(frame, "bias")["judgement"].tolist() == [UNDECIDED]


def points(bounds, rate=0.1):
    """Trainings that end with these bounds of the test data, a seed each."""
    rows = []
    for seed, value in bounds.items():
        for split, metric in (("valid", "negative_elbo"), ("test", "negative_bound")):
            cell = ("demo", "vae", "{}", "rloo", "{}", rate, seed, f"{seed}", "ok", "")
            rows.append((*cell, 100, 1.0, split, metric, value, value - 1, value + 1))
    return pd.DataFrame(rows, columns=list(TRAINING))


@pytest.mark.parametrize(
    ("base", "other", "judged"),
    [
        ({0: 100.0}, {0: 100.0}, SAME),
        ({0: 100.0}, {0: 100.00005}, SAME),  # the rounding of single precision
        ({0: 100.0}, {0: 100.0002}, UNDECIDED),
        ({0: 100.0}, {0: 300.0}, UNDECIDED),  # of one seed nothing is known of other trainings
        ({0: 100.0, 1: 100.1, 2: 99.9}, {3: 101.0, 4: 101.1, 5: 100.9}, WORSE),
        ({0: 101.0, 1: 101.1, 2: 100.9}, {3: 100.0, 4: 100.1, 5: 99.9}, BETTER),
        ({0: 100.0, 1: 102.0, 2: 98.0}, {3: 101.0, 4: 103.0, 5: 99.0}, UNDECIDED),
        ({0: 100.0, 1: 500.0}, {0: 100.0, 9: 1.0}, SAME),  # the shared seed alone
    ],
)
def test_trainings_are_compared_over_seeds(base, other, judged):
    runs = [run("base", {}, points(base)), run("other", {}, points(other, rate=0.2))]
    (row,) = differences(runs).to_dict("records")
    assert (row["quantity"], row["judgement"]) == ("negative_bound", judged)
    assert "0.1, then 0.2" in row["label"]
    assert row["change"] == pytest.approx(row["other"] - row["base"])
    assert ("one seed" in row["reason"]) == (judged == UNDECIDED and len(base) == 1)
    assert regressions(differences(runs)).empty


def descents(values):
    """Descents that end with these values of E f, a seed each."""
    rows = []
    for seed, value in values.items():
        cell = ("demo", "bit", "{}", "rloo", "{}", 0.1, seed, "key", "ok", "")
        for step, end in ((0, 5.0), (10, value)):
            rows.append((*cell, step, 1.0, "value", end, end, end))
    frame = pd.DataFrame(rows, columns=list(DESCENT)).assign(split=curves.ALONE)
    return curves.best_descents(curves.label_points(frame), False)


@pytest.mark.parametrize("maximise", [False, True])
def test_descents_are_compared_by_their_ends_in_the_direction_of_the_suite(maximise):
    low, high = ({n: x + n / 100 for n in range(3)} for x in (1.0, 2.0))
    training = {"descent": {"maximise": maximise}}
    runs = [
        run(name, {}, training=training)._replace(descents=descents(values))
        for name, values in (("base", low), ("other", high))
    ]
    (row,) = differences(runs).to_dict("records")
    assert (row["kind"], row["quantity"]) == ("descent", "value")
    assert row["judgement"] == (BETTER if maximise else WORSE) and row["change"] == pytest.approx(1)
    (row,) = differences([runs[0], runs[0]._replace(name="again")]).to_dict("records")
    assert row["judgement"] == SAME


def test_a_descent_that_was_repeated_is_not_tested():
    cell = {"task": "bit", "estimator": "rloo", "seeds": [0, 1], "estimator_version": 1}
    machine = {"machine": {"cpu": "a"}, "versions": {"torch": "b"}}
    key = Key("descent", "bit", "{}", "rloo", "{}", "", "")
    runs = []
    for values in ({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.001}):
        record = {"of": "descent", "status": "ok", "reason": "", "cell": cell}
        records = {seed: record for seed in values}
        runs.append(
            run(str(values), {}, **machine)._replace(
                cells={key: records}, descents=descents(values)
            )
        )
    (row,) = differences(runs).to_dict("records")
    assert row["judgement"] == UNDECIDED
    (row,) = differences(runs, repeated=True).to_dict("records")
    assert row["judgement"] == WORSE and "the same numbers" in row["reason"]
    other = {"cell": cell | {"estimator_version": 2}}
    records = {seed: each | other for seed, each in runs[1].cells[key].items()}
    changed = [runs[0], runs[1]._replace(cells={key: records})]
    (row,) = differences(changed, repeated=True).to_dict("records")
    assert row["judgement"] == UNDECIDED


def test_properties_that_hold_in_one_run_alone():
    def rows(*holds):
        return pd.DataFrame(
            {
                "property": "mode",
                "settings": json.dumps({"temperature": 1}),
                "quantity": [f"q{n}" for n in range(len(holds))],
                **{name: 1.0 for name in ("value", "low", "high")},
                "holds": holds,
            }
        )

    seeds = pd.concat([rows(True, False, True), rows(True, True, True)], ignore_index=True)
    runs = [
        run("base", {}, properties=rows(True, True, False)),
        run("other", {}, properties=seeds),
    ]
    frame = differences(runs)
    assert frame["judgement"].tolist() == [SAME, WORSE, BETTER]
    assert regressions(frame).empty


def test_the_journal_of_a_version_that_kept_less_is_refused():
    found = measured(gradest.make_estimator("rloo"), replicates=64)
    kept = record(found, estimator="rloo", task="categorical")
    del kept["measurement"]["peaks"]
    runs = [run(name, {("rloo", "categorical"): {0: kept}}) for name in ("base", "other")]
    with pytest.raises(UsageError, match=r"rloo on categorical: .*peaks"):
        differences(runs)


def test_all_runs_share_one_family():
    names = ("base", "one", "two")
    cell = ("rloo", "categorical")
    rloo = gradest.make_estimator("rloo")
    runs = [run(n, {cell: {s: measured(rloo, seed=s)}}) for s, n in enumerate(names)]
    frame = differences(runs)
    assert frame["run"].unique().tolist() == ["one", "two"]
    smallest = frame["p_value"].min()
    assert frame["p_holm"].min() == pytest.approx(min(10 * smallest, 1))
