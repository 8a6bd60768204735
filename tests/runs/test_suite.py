"""A suite file becomes cells, or one clear line that names file and line."""

import dataclasses
import json

import pytest

from gradest.errors import SuiteError, UsageError
from gradest.plugins.registry import Registry
from gradest.runs.cells import labels
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.suite import load_suite
from gradest.runs.suites import suite_names

BASE = """\
replicates: 100
tasks:
  - categorical
estimators:
  - rloo: {samples: [2, 4]}
"""

TRAINING = """\
training:
  steps: 10
  evaluation: {every: 5}
  checkpoint_seconds: 1
  gradient:
    steps: [0, 8]
tasks:
  - categorical_vae
estimators:
  - rloo
"""


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture
def load(tmp_path, registry):
    def load(text, **overrides):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return load_suite(str(path), registry, **overrides)

    return load


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_that_ships_resolves(name, registry):
    suite = load_suite(name, registry)
    assert suite.cells
    assert suite.settings.description


def test_controls_are_part_of_the_suites_that_compare(registry):
    controls = load_suite("variance", registry).settings.controls
    assert controls["unbiased"] and controls["biased"]


def test_an_alias_gives_the_cells_of_the_name(load):
    plain, aliased = load(BASE), load(BASE.replace("rloo", "loorf") + CONTROLS)
    assert [cell.key for cell in aliased.cells] == [cell.key for cell in plain.cells]
    assert aliased.settings.controls == {"unbiased": ["rloo"]}
    twice = BASE + "  - loorf: {samples: 4}\n"
    with pytest.raises(SuiteError, match=r":6: rloo is listed twice with the same knobs"):
        load(twice)
    trained = TRAINING.replace("  steps: 10", "  steps: 10\n  anneal: {grade: {temperature: SLOW}}")
    slow = "{rate: 0.001, every: 5, least: 0.5}"
    trained = trained.replace("SLOW", slow).replace("- rloo", "- grade")
    (cell,) = load(trained).cells
    assert cell.estimator == "gumbel_softmax" and set(cell.training["anneal"]) == {cell.estimator}
    both = trained.replace("{grade: {", f"{{gumbel_softmax: {{temperature: {slow}}}, grade: {{")
    with pytest.raises(SuiteError, match="'grade' is an alias of 'gumbel_softmax', which is"):
        load(both)


CONTROLS = "controls: {unbiased: [loorf, rloo]}\n"


def test_a_claim_has_the_names_of_the_rows(load):
    claim = 'claims: [{holds: "variance(loorf, samples=4) <= variance(rloo, samples=2)"}]\n'
    with pytest.raises(SuiteError, match=":6: 'loorf' is an alias of 'rloo'; write 'rloo'"):
        load(BASE + claim)


def test_a_list_is_a_grid_for_a_scalar_knob(load):
    cells = load(BASE).cells
    assert [cell.estimator_knobs["samples"] for cell in cells] == [2, 4]


def test_a_list_is_one_value_for_a_sequence_knob_and_lists_of_lists_are_a_grid(load):
    one = BASE.replace("- categorical", "- bernoulli: {theta: [0.1, 0.2]}")
    two = BASE.replace("- categorical", "- bernoulli: {theta: [[0.1, 0.2], [0.3]]}")
    assert [c.task_knobs["theta"] for c in load(one).cells[::2]] == [[0.1, 0.2]]
    assert [c.task_knobs["theta"] for c in load(two).cells[::2]] == [[0.1, 0.2], [0.3]]


def test_grids_multiply(load):
    text = BASE.replace("replicates: 100", "replicates: [100, 200]\nseeds: [0, 1, 2]")
    cells = load(text).cells
    assert len(cells) == 2 * 2 * 3
    assert len({cell.key for cell in cells}) == len(cells)


def test_the_key_follows_meaning_not_spelling(load):
    whole = load(BASE + "  - concrete: {temperature: 1}\n").cells[-1]
    decimal = load(BASE + "  - concrete: {temperature: 1.0}\n").cells[-1]
    spelt = load(BASE + "  - concrete\n").cells[-1]
    default = load(BASE + "  - concrete: {temperature: 0.5}\n").cells[-1]
    assert whole.key == decimal.key
    assert spelt.key == default.key
    assert whole.key != spelt.key


def test_the_key_sees_everything_that_determines_the_numbers(load):
    cell = load(BASE).cells[0]
    fields = {field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)}
    changes = {
        "task": "bernoulli",
        "task_knobs": {**cell.task_knobs, "target": -cell.task_knobs["target"]},
        "estimator": "reinforce",
        "estimator_knobs": {"samples": "2"},
        "seed": -1,
        "replicates": 101,
        "precision": {"bias": 0.01},
        "enumerate_draws": False,
        "adapt_steps": 1,
        "dtype": "float32",
        "tolerant": True,
        "device": "cuda",
        "task_version": 2,
        "estimator_version": 2,
        "code": {**cell.code, "core": "another"},
    }
    assert changes.keys() == fields.keys()
    changed = {name: MeasuringCell(**{**fields, name: value}) for name, value in changes.items()}
    assert len({other.key for other in changed.values()} | {cell.key}) == len(changes) + 1
    # Draws hang on what is measured, not on the code that does it.
    same = {name for name, other in changed.items() if other.draw_seed == cell.draw_seed}
    assert same == {"task_version", "estimator_version", "code", "device"}
    seeds = {other.draw_seed for name, other in changed.items() if name not in same}
    assert len(seeds) == len(changes) - len(same)


def test_the_key_of_a_training_does_not_see_how_often_it_is_saved(load):
    (own,) = load(TRAINING).cells
    for old, new, same in (
        ("checkpoint_seconds: 1", "checkpoint_seconds: 2", True),
        ("every: 5", "every: 4", False),
        ("steps: 10", "steps: 11", False),
        ("[0, 8]", "[0, 9]", False),
    ):
        (other,) = load(TRAINING.replace(old, new)).cells
        assert (other.key == own.key) is same
        assert (other.draw_seed == own.draw_seed) is same


@pytest.mark.parametrize(("steps", "left"), [(20, [0, 8]), (8, [0, 8]), (7, [0])])
def test_of_a_training_cut_short_the_looks_within_it_are_left(load, steps, left):
    training = load(TRAINING, steps=steps).settings.training
    assert (training.steps, training.gradient.steps) == (steps, left)


def test_of_a_training_cut_short_before_any_look_there_is_none(load):
    text = TRAINING.replace("[0, 8]", "[8]")
    assert load(text, steps=7).settings.training.gradient is None
    beyond = TRAINING.replace("[0, 8]", "[11]")
    with pytest.raises(SuiteError, match="step 11 is beyond the end of a training of 10 steps"):
        load(beyond, steps=20)


def test_cells_are_plain_data(load):
    cell = load(BASE).cells[0]
    fields = {field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)}
    assert MeasuringCell(**json.loads(json.dumps(fields))).key == cell.key


def test_overrides_of_the_command_line(load):
    suite = load(BASE + "seeds: [3, 4]\n", replicates=70, seed=9)
    assert {cell.replicates for cell in suite.cells} == {70}
    assert {cell.seed for cell in suite.cells} == {9}


def test_labels_show_the_knobs_that_differ(load):
    assert sorted(labels(load(BASE).cells).values()) == [
        "categorical × rloo(samples=2)",
        "categorical × rloo(samples=4)",
    ]


def test_globs_select_and_must_match(load):
    suite = load(BASE + "  - reinforce\n  - reinforce_ema\n")
    assert {c.estimator for c in suite.only([], ["reinf*"])} == {"reinforce", "reinforce_ema"}
    with pytest.raises(UsageError, match=r"no estimator of the suite mine matches 'rlo'.*rloo"):
        suite.only([], ["rlo"])


def test_only_adaptive_estimators_get_the_adapt_steps(load):
    cells = load(BASE + "  - reinforce_ema\nadapt_steps: 7\n").cells
    assert [cell.adapt_steps for cell in cells] == [0, 0, 7]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("tasks: [a\n", 2, "malformed YAML"),
        ("- a\n", 1, "expected a mapping with the keys"),
        ("", 1, "expected a mapping .* got an empty file"),
        ("tasks: [categorical]\n", 1, "the key 'estimators' is missing"),
        (BASE + "replicate: 3\n", 6, "unknown key 'replicate'; did you mean 'replicates'"),
        (BASE + "tasks: [bernoulli]\n", 6, "the key 'tasks' appears twice"),
        (BASE + "seeds: []\n", 6, "seeds"),
        (BASE + "seeds: [a]\n", 6, "seeds.*'a'"),
        (BASE + "parameters: [beta]\n", 6, "the parameter 'beta'; available: alpha, log_alpha"),
        (BASE + "dtype: float8\n", 6, "dtype.*'float8'"),
        (BASE + "adapt_steps: -1\n", 6, "adapt_steps"),
        (
            BASE + "controls: {biased: [concrete]}\n",
            6,
            "the control 'concrete' is not an estimator",
        ),
        (BASE + "controls: {best: [rloo]}\n", 6, "controls"),
        (BASE.replace("100", "3"), 1, "replicates.*64"),
        (BASE.replace("100", "many"), 1, "replicates.*'many'"),
        (BASE.replace("- categorical", "- categoricl"), 3, "unknown task 'categoricl'; did you"),
        (BASE.replace("rloo", "rlo"), 5, "unknown estimator 'rlo'; did you mean 'rloo'"),
        (BASE.replace("samples", "sample"), 5, "rloo has no knob 'sample'; did you mean 'samples'"),
        (BASE.replace("[2, 4]", "1"), 5, "rloo: samples = 1: .*greater than or equal to 2"),
        (BASE.replace("[2, 4]", "[]"), 5, "rloo: samples: expected at least one value"),
        (BASE.replace("[2, 4]", "two"), 5, "rloo: samples = 'two'"),
        (BASE.replace("[2, 4]", "2.5"), 5, "rloo: samples = 2.5"),
        (BASE.replace("[2, 4]", "true"), 5, "rloo: samples = True"),
        (
            BASE.replace("[2, 4]", "[2, 2]"),
            5,
            "rloo is listed twice with the same knobs, first in line 5",
        ),
        (BASE + "  - concrete: {temperature: 0}\n", 6, "temperature = 0: .*greater than 0"),
        (BASE + "  - concrete: {temperature: -1}\n", 6, "temperature = -1"),
        (BASE + "  - concrete: {temperature: .nan}\n", 6, "temperature = nan"),
        (BASE + "  - concrete: {temperature: .inf}\n", 6, "temperature = inf"),
        (BASE + "  - concrete: 3\n", 6, "expected a name or"),
        (BASE + "  - {a: {}, b: {}}\n", 6, "expected a name or"),
        (
            BASE.replace("replicates: 100\n", "training: {batch: 10}\n"),
            1,
            "training.batch is about models, of which this suite has none",
        ),
        (BASE + "  - 3\n", 6, "expected a name or"),
        (BASE.replace("- categorical", "- categorical: {alpha: [1, -1, 1]}"), 3, "alpha.1. = -1"),
        (
            BASE.replace("- categorical", "- categorical: {alpha: [1, 1]}"),
            3,
            "got 2 entries of alpha and 3 of values",
        ),
        (
            BASE.replace("- categorical", "- categorical: {alpha: []}"),
            3,
            "alpha: expected at least one",
        ),
        (BASE.replace("tasks:\n  - categorical", "tasks: []"), 2, "tasks"),
        (
            BASE.replace("- categorical", "- categorical\n  - bernoulli")
            + "nested: [theta, alpha]\n",
            7,
            "no task of this suite has all of theta, alpha",
        ),
        (
            TRAINING.replace("[0, 8]", "[0, 8, 11]"),
            6,
            r"training\.gradient\.steps: step 11 is beyond the end of a training of 10 steps",
        ),
    ],
)
def test_errors_name_file_and_line(load, text, line, message):
    with pytest.raises(SuiteError, match=message) as caught:
        load(text)
    where, _, said = str(caught.value).partition(": ")
    assert where.endswith(f"mine.yaml:{line}"), where
    assert "\n" not in said


def test_unknown_suites_and_files(registry, tmp_path):
    with pytest.raises(UsageError, match="unknown suite 'varianc'; did you mean 'variance'"):
        load_suite("varianc", registry)
    with pytest.raises(UsageError, match=r"no such suite file"):
        load_suite(str(tmp_path / "none.yaml"), registry)
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"not a regular file"):
        load_suite(str(folder), registry)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"description: caf\xe9\n")
    with pytest.raises(SuiteError, match="expected UTF-8, got the invalid byte"):
        load_suite(str(latin), registry)


def test_a_python_object_is_not_made(load):
    with pytest.raises(SuiteError, match=r"the tag '!!python/object/apply:os\.system' is not"):
        load("tasks: !!python/object/apply:os.system [true]\n")
