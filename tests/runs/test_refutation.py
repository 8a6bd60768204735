"""Searches for counterexamples: batches of problems, violations, finds and their files."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from gradest import Cost, Problem, Task, make_task, measure
from gradest.cli import main
from gradest.contracts import inapplicable
from gradest.errors import Inapplicable, SuiteError, UsageError
from gradest.measurement import all_codes
from gradest.plugins import Registry, load_plugin
from gradest.runs import load_suite, parse_claim
from gradest.runs.refutation import (
    Trial,
    contestants_of,
    describe,
    evaluations_of,
    quantities,
    refute,
    spaces_of,
    texts,
)
from gradest.runs.refutation.families import FamilySpace, KnobRange, family_spaces
from gradest.runs.refutation.minimisation import Point, minimise
from gradest.runs.refutation.quantities import Contestant, Noise, Truth, statistics
from gradest.runs.refutation.search import Counterexample
from gradest.runs.refutation.spaces import GeneralSpace, general_spaces
from gradest.runs.refutation.trial import Confirmation
from gradest.runs.refutation.violation import violation
from tests.support import EXACT, LEVEL

REGISTRY = Registry.load()
NOISE = Noise(1, 4096, 16)
PLUGIN = "counterexample.py"

# Claims that are false, and known to be.
FALSE = (
    "variance(rloo, samples=2) <= variance(reinforce)",
    "relative_bias(reinmax) <= relative_bias(straight_through)",
    "variance(rebar, eta=1.0, tuned=false) <= variance(reinforce)",
)
# Theorems, and numbers that are zero up to rounding.
TRUE = (
    "bias(rloo) == 0",
    "variance(disarm) <= variance(arm)",
    "variance(exact) <= 0",
    "bias(local_expectation) <= 0",
    "relative_bias(rloo) <= relative_bias(straight_through)",
    "bias(arm) == 0",
)


def trial_of(claim, seed=0):
    relation = parse_claim(claim)
    built = [
        (q.estimator, q.knobs, REGISTRY.estimator(q.estimator).adapt_steps)
        for q in relation.quantities()
    ]
    return Trial(relation, contestants_of(relation, built, REGISTRY), seed)


def spaces_for(trial, **for_all):
    return spaces_of(for_all, REGISTRY, list(trial.contestants.values()))


def contestant(name, **knobs):
    cls = REGISTRY.estimator(name)
    return Contestant(cls, tuple(knobs.items()), 0)


def rows(space, count, seed=0):
    low, high = space.bounds.T
    return low + np.random.default_rng(seed).random((count, len(low))) * (high - low)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_costs_of_codes_are_the_table_whatever_bends_f_between_them(degree):
    space = GeneralSpace(2, 3, degree)
    x = rows(space, 4)
    problem = space.task(x).problem()
    z = all_codes(problem.logits).expand(4, -1, -1, -1)
    assert torch.allclose(problem.f(z), torch.from_numpy(x[:, 6:15]), rtol=0, atol=EXACT)
    assert torch.equal(problem.logits.flatten(1), torch.from_numpy(x[:, :6]))


def test_the_bends_are_of_degree_two_and_three_in_a_latent():
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    line = torch.stack([1 - t, t], -1).view(1, 7, 1, 2)
    for degree in (1, 2, 3):
        space = GeneralSpace(1, 2, degree)
        values = space.task(rows(space, 1)).problem().f(line)[0].numpy()
        assert np.abs(np.diff(values, degree + 1)).max() < EXACT
        assert np.abs(np.diff(values, degree)).max() > 1e-3


@pytest.mark.parametrize("degree", [1, 3])
@pytest.mark.parametrize(("latents", "categories"), [(1, 2), (3, 4)])
def test_a_written_task_is_the_problem_that_was_searched(tmp_path, latents, categories, degree):
    space = GeneralSpace(latents, categories, degree)
    x = rows(space, 1)
    trial = trial_of("bias(straight_through) == 0")
    found = Counterexample(Point(space, x[0]), Confirmation(1.0, 0.0, 0.0, 0.0, 0))
    name = f"written_{latents}_{degree}.py"
    (tmp_path / name).write_text(texts(trial, "a claim", found)[PLUGIN])
    (cls,) = load_plugin(tmp_path / name)
    written, searched = cls().problem(), space.task(x).problem()
    inside = torch.rand(1, 5, latents, categories, dtype=torch.float64).softmax(-1)
    assert torch.equal(written.logits, searched.logits)
    assert torch.allclose(written.f(inside), searched.f(inside), rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", ["rloo", "straight_through", "reinmax", "indecater", "exact"])
def test_exact_quantities_of_a_batch_are_those_that_measure_gives_one_by_one(name):
    space = GeneralSpace(2, 3, 3)
    x = rows(space, 3)
    task = space.task(x)
    batch = statistics(contestant(name), task, Truth.of(task), NOISE)
    for i in range(3):
        row = measure(contestant(name).built(), space.task(x[i : i + 1])).row()
        row |= {"bias": row["bias_norm"], "work_variance": row["variance"] * row["evaluations"]}
        for quantity, values in batch.items():
            if quantity == "snr" and row["variance"] < 1e-20:
                continue  # a ratio to zero
            assert values.shape == (1, 3)
            assert math.isclose(values[0, i], row[quantity], rel_tol=1e-6, abs_tol=EXACT), quantity


def test_estimated_quantities_agree_with_the_exact_ones_within_their_errors(monkeypatch):
    space = GeneralSpace(2, 2, 3)
    task = space.task(rows(space, 6))
    truth = Truth.of(task)
    subject = contestant("reinmax")
    exact = statistics(subject, task, truth, NOISE)
    monkeypatch.setattr(quantities, "_OUTCOMES", 1)
    drawn = statistics(subject, task, truth, NOISE)
    k = stats.t.isf(LEVEL / (2 * 6 * 5), NOISE.batches - 1)
    for name in ("bias", "best_scale", "variance", "cosine", "value"):
        without = drawn[name][1:]
        spread = np.square(without - without.mean(0)).sum(0)
        error = np.sqrt((NOISE.batches - 1) / NOISE.batches * spread)
        assert (error < 0.12).all(), "inconclusive"
        assert (np.abs(drawn[name][0] - exact[name][0]) <= k * error).all(), name


def test_the_moments_of_batches_are_those_of_all_their_replicates():
    x = np.random.default_rng(0).normal(1.0, 2.0, (4, 50, 3, 5))  # [J, R, B, D]
    mean = x.mean(1)
    square = np.square(x - mean[:, None]).sum((1, 3))
    g = np.arange(1.0, 6.0) - np.arange(3.0)[:, None]  # [B, D]
    parts = quantities._pooled(mean, square, np.zeros((4, 2, 3)), 50, g)
    every = x.reshape(200, 3, 5)
    variance = every.var(0, ddof=1).sum(-1)
    assert np.allclose(parts.variance, variance, rtol=EXACT)
    # Without the noise of the mean, of which the squared length would have a bias.
    bias_sq = np.square(every.mean(0)).sum(-1) - variance / 200
    assert np.allclose(parts.bias_sq, bias_sq, rtol=EXACT)
    along = np.einsum("rbd,bd->rb", every, g).mean(0)
    assert np.allclose(parts.along, along, rtol=EXACT)
    assert (parts.along_sq < along**2).all()


def test_all_problems_of_a_batch_share_their_noise():
    space = GeneralSpace(2, 2)
    x = np.repeat(rows(space, 1), 3, 0)
    task = space.task(x)
    drawn = statistics(contestant("arm"), task, Truth.of(task), NOISE)
    assert (drawn["variance"] == drawn["variance"][:, :1]).all()
    alone = statistics(contestant("arm"), space.task(x[:1]), Truth.of(space.task(x[:1])), NOISE)
    assert np.allclose(drawn["variance"][:, :1], alone["variance"], rtol=1e-12)


@pytest.mark.parametrize(
    ("claim", "a", "b", "score"),
    [
        ("variance(rloo) <= variance(arm)", 2.0, 1.0, 0.5),
        ("variance(rloo) <= variance(arm)", 1.0, 2.0, -0.5),
        ("variance(rloo) < variance(arm)", 1.0, 1.0, 0.0),
        ("variance(rloo) >= variance(arm)", 1.0, 2.0, 0.5),
        ("variance(rloo) == variance(arm)", 1.0, 2.0, 0.5),
        ("variance(rloo) == variance(arm) +- 10%", 1.0, 2.0, 0.4),
        ("variance(rloo) == variance(arm) +- 0.5", 1.0, 2.0, 0.25),
        ("2 * variance(rloo) <= variance(arm) + variance(arm)", 2.0, 1.0, 0.5),
        ("variance(rloo) / variance(arm) <= 1", 2.0, 1.0, 0.5),
        ("variance(rloo) <= variance(arm)", 0.0, 0.0, -1.0),  # nothing to compare
        ("variance(rloo) <= variance(arm)", math.nan, 1.0, -1.0),
        ("bias(rloo) == 0", 3.0, math.nan, 1.0),
        ("bias(rloo) == 0", 0.0, math.nan, -1.0),
    ],
)
def test_the_score_is_the_relative_excess(claim, a, b, score):
    values = {"rloo": np.full((1, 1), a), "arm": np.full((1, 1), b)}
    found = violation(parse_claim(claim), lambda quantity: values[quantity.estimator])
    assert found.exact and found.score[0] == pytest.approx(score)


def test_an_excess_within_its_noise_is_no_violation():
    without = np.random.default_rng(0).normal(1.0, 0.5, (16, 1))
    noisy = np.concatenate([[[1.0]], without])
    relation = parse_claim("variance(rloo) <= 0.5")
    found = violation(relation, lambda _: noisy)
    assert found.left[0] > found.right[0] and found.score[0] < 0
    assert violation(relation, lambda _: noisy[:1]).score[0] > 0


def test_the_jackknife_of_a_mean_has_its_standard_error():
    batches = np.random.default_rng(0).normal(size=(16, 2))
    means = np.stack([batches.mean(0), *(np.delete(batches, j, 0).mean(0) for j in range(16))])
    found = violation(parse_claim("value(rloo) <= 0"), lambda _: means)
    assert np.allclose(found.error, batches.std(0, ddof=1) / 4, rtol=EXACT)


@pytest.mark.parametrize("claim", FALSE)
def test_known_falsehoods_are_found_confirmed_and_made_simple(claim):
    trial = trial_of(claim)
    result = refute(trial, spaces_for(trial), evaluations=2000)
    (space, x), found = result.counterexample
    assert (space.latents, space.categories) == (1, 2)
    assert np.allclose(x, np.round(x, 2), atol=EXACT)
    assert found.left > found.right and found.p_value < 1e-3
    assert found.exact == result.exact == ("rebar" not in claim)
    costs = x[2:4]
    assert costs[0] != costs[1]  # where f is constant there is nothing to estimate
    assert describe(claim, trial.relation, result).startswith(f"refuted: {claim}\n")


@pytest.mark.parametrize("claim", TRUE)
def test_truths_survive_a_short_search(claim):
    survives(claim, 400)


@pytest.mark.weekly
@pytest.mark.parametrize("claim", TRUE[:2])
def test_truths_survive_ten_thousand_problems(claim):
    survives(claim, 10_000)


def survives(claim, evaluations):
    trial = trial_of(claim)
    result = refute(trial, spaces_for(trial), evaluations)
    assert result.counterexample is None and result.searched >= evaluations
    text = describe(claim, trial.relation, result)
    assert (
        f"searched {result.searched:,} problems" in text and "this does not prove the claim" in text
    )
    binary = "arm" in claim
    assert all("K = 2" in each for each in result.spaces) == binary


def test_a_search_ends_when_its_seconds_are_spent():
    trial = trial_of("bias(rloo) == 0")
    result = refute(trial, spaces_for(trial, N=1, K=2), None, seconds=0.5)
    assert result.counterexample is None and result.searched > 32


def test_a_search_is_repeatable():
    claim = "variance(disarm) <= variance(arm)"
    results = []
    for seed in (0, 0, 1):
        trial = trial_of(claim, seed)
        results.append(refute(trial, spaces_for(trial, K=2, N=2), 100).closest)
    assert results[0] == results[1] != results[2]


@pytest.mark.slow
def test_fresh_draws_reject_what_only_noise_violates():
    trial = trial_of("variance(disarm) <= variance(arm)")
    space = GeneralSpace(1, 2, 1, logits=(-1.0, 1.0))  # where both variances are well known
    for x in rows(space, 8):
        assert trial.confirm(space, x) is None
    backwards = trial_of("variance(arm) <= variance(disarm)")
    found = [backwards.confirm(space, x) for x in rows(space, 8)]
    assert sum(each is not None and each.p_value < 1e-4 for each in found) == 8


def test_a_confirmation_needs_more_evidence_the_more_were_tried():
    # ARM has less than one percent more variance there.
    trial = trial_of("variance(arm) <= variance(disarm)")
    space, x = GeneralSpace(1, 2, 1), np.array([0.0, 2.0, 1.0, 0.0])
    found = trial.confirm(space, x)
    assert 1e-12 < found.p_value < 1e-4 and found.replicates > 10**6
    trial.attempts = 10**6
    assert trial.confirm(space, x) is None


def test_a_bias_is_confirmed_by_its_joint_test(monkeypatch):
    trial = trial_of("bias(concrete) == 0")
    space = GeneralSpace(1, 2, 1)
    x = np.array([0.0, 0.0, 1.0, 0.0])
    assert trial.confirm(space, x).left > 0
    unbiased = measure(contestant("reinforce").built(), make_task("bernoulli"))
    monkeypatch.setattr(Trial, "_measure", lambda *_: unbiased)
    assert trial.confirm(space, x) is None


def test_a_counterexample_loses_latents_categories_and_decimals():
    trial = trial_of(FALSE[0])
    space = GeneralSpace(3, 3, 1)
    x = rows(space, 64)
    trial.prepare(space, x)
    score = trial.on(space, x, 0).score
    start = Point(space, x[score.argmax()])
    assert score.max() > 0
    simple = minimise(trial, start)
    assert (simple.space.latents, simple.space.categories) == (1, 2)
    assert trial.choice(*simple._replace(x=simple.x[None])).score[0] > 0
    assert np.allclose(simple.x, np.round(simple.x, 1))


def test_a_smaller_problem_holds_a_latent_at_a_category_or_leaves_one_out():
    space = GeneralSpace(2, 3, 2)
    x = rows(space, 1)[0]
    table = x[6:15].reshape(3, 3)
    variants = list(space.smaller(x))
    assert len(variants) == 2 * 3 + 3**2
    fewer, first = variants[0]
    assert (fewer.latents, fewer.categories) == (1, 3)
    assert (first == [*x[3:6], *table[0], *x[18:21]]).all()
    assert (variants[4][1] == [*x[:3], *table[:, 1], *x[15:18]]).all()
    less, last = variants[-1]
    assert (less.latents, less.categories) == (2, 2)
    assert (last[4:8] == table[:2, :2].ravel()).all() and (last[:4] == x[[0, 1, 3, 4]]).all()


def test_knobs_have_ranges_of_numbers_integers_and_logarithms():
    space, wider = family_spaces(
        REGISTRY.task("categorical"),
        {"alpha": [-4, 4], "values": [-1, 1], "target": [0.2, 0.3]},
        [2, 3],
    )
    assert len(space.bounds) == 5 and len(wider.bounds) == 7
    knobs = space.entry(np.array([-4.0, 0.0, -1.0, 1.0, 0.25])).knobs
    assert knobs["alpha"] == pytest.approx([math.exp(-4), 1.0])
    assert knobs["values"] == [-1.0, 1.0] and knobs["target"] == 0.25
    (quadratic,) = family_spaces(REGISTRY.task("quadratic"), {"latents": [1, 3], "seed": 5}, [])
    drawn = [quadratic.entry(x).knobs["latents"] for x in rows(quadratic, 60)]
    assert set(drawn) == {1, 2, 3} and quadratic.entry(np.array([2.0])).knobs["seed"] == 5
    assert quadratic.entry(quadratic.bounds[:, 1]).knobs["latents"] == 3


def test_problems_of_several_sizes_are_evaluated_together():
    (space,) = family_spaces(
        REGISTRY.task("quadratic"), {"latents": [1, 2], "categories": [2, 3], "seed": [0, 99]}, []
    )
    x = rows(space, 12)
    trial = trial_of("variance(disarm) <= variance(reinforce)")
    trial.prepare(space, x)
    found = trial.on(space, x, 0)
    tasks = [make_task("quadratic", **space.entry(row).knobs) for row in x]
    disarm = REGISTRY.estimator("disarm")()
    fits = [inapplicable(disarm, task, task.problem()) is None for task in tasks]
    assert 0 < sum(fits) < 12
    assert (found.score > -1).tolist() == fits and (~np.isnan(found.left)).tolist() == fits


def test_an_integer_knob_is_made_smaller():
    (space,) = family_spaces(REGISTRY.task("quadratic"), {"latents": [1, 3], "seed": [0, 9]}, [])
    smaller = [x.tolist() for _, x in space.smaller(np.array([2.5, 0.5]))]
    assert smaller == [[1.5, 0.5]]


@pytest.mark.parametrize(
    ("for_all", "message"),
    [
        ({"task": "categoricl"}, "did you mean 'categorical'"),
        ({"task": ["categorical"]}, "task: expected the name of a task"),
        ({"task": "categorical", "alfa": [0, 1], "K": 2}, "did you mean 'alpha'"),
        ({"task": "categorical", "alpha": [-4, 4]}, "alpha takes several numbers; set N or K"),
        ({"task": "categorical", "target": [0, 1], "K": 2}, "none of target takes several"),
        ({"task": "categorical", "target": [1, 0]}, "expected a range [low, high], got [1, 0]"),
        ({"task": "categorical", "target": 0.5}, "expected the range [low, high] of a knob"),
        ({"task": "quadratic", "latents": [1.5, 2]}, "latents: expected whole numbers"),
        ({"task": "categorical", "K": 2, "N": 2, "alpha": [-1, 1]}, "got both"),
        ({"K": [4, 2]}, "K: expected an integer or a range"),
        ({"K": [1, 2]}, "from 2 to 64"),
        ({"N": True}, "N: expected an integer"),
        ({"N": 12, "K": 64}, "expected at most 4,096 codes"),
        ({"degree": 4}, "degree: expected 1, 2 or 3, got 4"),
        ({"logit": [0, 1]}, "did you mean 'logits'"),
        ({"costs": [0]}, "costs: expected a range"),
        ({"evaluations": 0}, "evaluations: expected an integer from 1"),
    ],
)
def test_bad_spaces_are_one_line(for_all, message):
    trial = trial_of("bias(rloo) == 0")
    with pytest.raises(UsageError) as caught:
        spaces_for(trial, **for_all)
        evaluations_of(for_all)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_cannot_be_searched():
    space = FamilySpace(
        REGISTRY.task("bernoulli_vae"), (KnobRange("latents", 1, 2, integer=True),), {}
    )
    trial = trial_of("bias(rloo) == 0")
    with pytest.raises(UsageError, match=r"one data point|at most 4,096 codes"):
        trial.prepare(space, space.bounds.mean(1)[None])


@dataclass(eq=False)
class Penalised(Task):
    x: float = 0.0

    def problem(self, batch=None):
        return Problem(torch.zeros(1, 1, 2, dtype=torch.float64), Cost(lambda z: z[..., 0, 0]))

    def penalty(self, logits):
        return logits.square().sum((-2, -1))


def test_a_penalty_would_be_lost():
    with pytest.raises(UsageError, match="without a penalty"):
        next(FamilySpace(Penalised, (KnobRange("x", 0, 1),), {}).groups(np.zeros((1, 1))))


def test_adaptive_estimators_are_adapted_to_each_problem():
    trial = trial_of("variance(reinforce_ema) <= variance(reinforce)")
    space = GeneralSpace(1, 2, 1)
    x = rows(space, 2)
    trial.prepare(space, x)
    assert trial.adaptive
    found = trial.on(space, x, 0)
    for i in range(2):
        row = measure(REGISTRY.estimator("reinforce_ema")(), space.task(x[i : i + 1])).row()
        # The baseline is an average of costs, which differs with the draws that it saw.
        assert found.left[i] == pytest.approx(row["variance"], rel=0.3)
    idle = trial_of(FALSE[2])
    idle.prepare(space, x)
    assert not idle.adaptive  # since it is not tuned


def test_an_estimator_that_applies_to_no_problem_is_refused():
    trial = trial_of("variance(disarm) <= variance(reinforce)")
    with pytest.raises(UsageError, match="disarm needs K = 2"):
        refute(trial, spaces_for(trial, K=3, N=1), 100)
    with pytest.raises(Inapplicable):
        trial.prepare(GeneralSpace(1, 3), rows(GeneralSpace(1, 3), 2))


def test_general_spaces_come_from_small_to_large():
    sizes = [each.categories**each.latents for each in general_spaces()]
    assert sizes == sorted(sizes) and sizes[0] == 2 and sizes[-1] == 64 and len(sizes) == 9


SUITE = """\
tasks: [bernoulli]
parameters: [log_alpha]
timed: false
estimators: [rloo, reinforce]
claims:
  - holds: bias(rloo) == 0
    for_all: {N: 1, K: 2, evaluations: 40}
  - holds: variance(rloo) <= variance(reinforce)
    says: a baseline helps
    for_all: {task: categorical, K: [2, 3], alpha: [-4, 4], values: [-1, 1]}
  - holds: variance(rloo) <= variance(reinforce)
    for_all: {N: 1, K: 2}
"""


@pytest.fixture
def suite(tmp_path):
    """`suite(text)` writes a suite file and returns its path."""

    def write(text):
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return write


@pytest.mark.slow
def test_a_suite_searches_and_its_counterexamples_refute_the_claim_again(suite, tmp_path):
    run = partial(main, ["--suite", suite(SUITE), "--out", str(tmp_path / "run"), "--quiet"])
    assert run() == 0
    claims = pd.read_csv(tmp_path / "run" / "claims.csv")
    assert claims["verdict"].tolist() == ["not refuted", "refuted", "refuted"]
    assert claims["measured"][0] == 0 < claims["measured"][1]
    assert claims["on"][0] == "all general, K=2, N=1"
    assert claims["on"][1].startswith("all categorical, K=[2, 3], alpha=[-4, 4]")
    report = (tmp_path / "run" / "report.md").read_text()
    assert "problems searched" in report and "general costs, N = 1, K = 2" in report
    searches = pd.read_parquet(tmp_path / "run" / "searches.parquet")
    assert searches["searched"][0] >= 40 and (searches["status"] == "ok").all()
    folders = sorted((tmp_path / "run" / "counterexamples").iterdir())
    assert len(folders) == 2
    for number, folder in enumerate(folders):
        plugins = [f"--plugin={path}" for path in folder.glob("*.py")]
        again = ["--suite", f"{folder}/counterexample.yaml", "--quiet", "--fail-on-refuted"]
        assert main([*again, *plugins, "--out", str(tmp_path / f"again{number}")]) == 1
        verdicts = pd.read_csv(tmp_path / f"again{number}" / "claims.csv")["verdict"]
        assert verdicts.tolist() == ["refuted"]


def test_a_recorded_search_is_not_repeated(suite, tmp_path, capsys):
    text = SUITE.partition("  - holds: variance")[0]
    arguments = ["--suite", suite(text), "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    journal = (tmp_path / "run" / "journal.jsonl").read_text()
    assert main(arguments) == 0
    assert (tmp_path / "run" / "journal.jsonl").read_text() == journal
    assert "1 claim: 1 not refuted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "line", "message"),
    [
        ("for_all: {K: 1}", 7, "for_all: K: expected an integer"),
        ("on: [bernoulli]\n    for_all: {}", 7, "for_all does not go with on"),
        ("for_all: {task: nothing}", 7, "for_all: unknown task 'nothing'"),
        ("for_all: [2]", 7, "claims.for_all = [2]: input should be a valid dictionary"),
    ],
)
def test_a_bad_search_is_an_error_with_its_line(suite, entry, line, message):
    head = SUITE.partition("    for_all")[0]
    path = suite(f"{head}    {entry}\n")
    with pytest.raises(SuiteError) as caught:
        load_suite(path, REGISTRY)
    assert str(caught.value).startswith(f"{path}:{line}: ") and message in str(caught.value)
