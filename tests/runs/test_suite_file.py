"""Malformed suite files: one line with its position each, within limits of time and memory."""

import itertools
import resource
import time

import pytest
import yaml

from gradest.errors import SuiteError
from gradest.plugins.registry import Registry
from gradest.runs import plain_yaml, size
from gradest.runs.plain_yaml import read_document
from gradest.runs.suite import load_suite

BASE = """\
replicates: 100
tasks: [categorical]
estimators:
  - rloo: {samples: [2, 4]}
"""
TRAINING = "training: {steps: 2}\ntasks: [categorical_vae]\nestimators:\n  - rloo: {samples: 2}\n"
RATES = [n / 1000 for n in range(1, 401)]
HUGE = "1" + "0" * 400
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghij")
)


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture
def refused(tmp_path, registry):
    """Loads a file that must be refused; returns the line that is named and what is said."""

    def refused(text):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        start = time.monotonic()
        with pytest.raises(SuiteError) as caught:
            load_suite(str(path), registry)
        assert time.monotonic() - start < 5
        said = str(caught.value)
        assert "\n" not in said and len(said) < 600
        line, _, message = said.removeprefix(f"{path}:").partition(": ")
        return int(line), message

    return refused


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        # keys
        (BASE + "? [a, b]\n: 1\n", 5, "expected text as a key, got a list"),
        (BASE + "{a: 1}: 2\n", 5, "expected text as a key, got a mapping"),
        (BASE + "1: 2\n", 5, "expected text as a key, got the number 1; quote it if it is a name"),
        (BASE + "~: 2\n", 5, "expected text as a key, got null; quote it if it is a name"),
        (BASE + "true: 2\n", 5, "expected text as a key, got a boolean; quote it if it is a name"),
        (BASE + "seeds: [0]\nseeds: [1]\n", 6, "the key 'seeds' appears twice, first in line 5"),
        ("x: &x {samples: 2}\n" + BASE + "  - rloo: {<<: *x}\n", 6, "merge keys (<<) are not su"),
        # depth
        ("tasks: " + "[" * 5000 + "]" * 5000, 1, "nested too deeply; expected at most 32"),
        ("tasks:\n  " + "- " * 5000 + "a", 2, "nested too deeply; expected at most 32"),
        ("{a: " * 5000, 1, "nested too deeply; expected at most 32"),
        # anchors and aliases
        (BASE + "x: &a [*a]\n", 5, "the anchor 'a' contains itself"),
        ("&a {tasks: *a}\n", 1, "the anchor 'a' contains itself"),
        (BASE + "seeds: *nowhere\n", 5, "malformed YAML: found undefined alias 'nowhere'"),
        (BOMB + BASE, 5, "too many entries; expected at most 50,000"),
        # tags and scalars
        (BASE + "seeds: [!!timestamp 2001-01-01]\n", 5, "the tag '!!timestamp' is not supported"),
        (BASE + "seeds: [2001-99-99]\n", 5, "seeds = '2001-99-99': input should be a valid int"),
        (BASE + "seeds: [!!int abc]\n", 5, "malformed YAML: expected an integer, got 'abc'"),
        (BASE + "seeds: [!!int '']\n", 5, "malformed YAML: expected an integer, got ''"),
        (BASE + "seeds: [!!float abc]\n", 5, "malformed YAML: expected a number, got 'abc'"),
        (BASE + "timed: !!bool maybe\n", 5, "malformed YAML: expected a boolean, got 'maybe'"),
        (BASE + "description: !!binary aGk=\n", 5, "the tag '!!binary' is not supported here"),
        (BASE + "seeds: !!set {1, 2}\n", 5, "the tag '!!set' is not supported here"),
        (BASE + "seeds: !!python/tuple [1]\n", 5, "the tag '!!python/tuple' is not supported"),
        (BASE + "seeds: !mine [1]\n", 5, "the tag '!mine' is not supported here"),
        (BASE + "seeds: !!int [1]\n", 5, "the tag '!!int' is not supported here"),
        # numbers
        (BASE + f"seeds: [{'9' * 5000}]\n", 5, "does not fit into 64 bits"),
        (BASE + f"seeds: [1{':59' * 100_000}]\n", 5, "does not fit into 64 bits"),
        (BASE + f"seeds: [{2**63}]\n", 5, "the number '9223372036854775808' does not fit into 64"),
        (BASE + "seeds: [1e400]\n", 5, "seeds = inf: input should be a valid integer"),
        (BASE.replace("100", HUGE), 1, "does not fit into 64 bits"),
        (BASE.replace("100", str(2**63 - 1)), 1, "less than or equal to 1000000000000"),
        (BASE + f"adapt_steps: {HUGE}\n", 5, "does not fit into 64 bits"),
        (BASE + f"adapt_steps: {2**62}\n", 5, "less than or equal to 1000000000"),
        (BASE + "precision: {variance: .nan}\n", 5, "precision.variance = nan: input should be"),
        (BASE + "reference: {standard_error: .inf}\n", 5, "reference.standard_error = inf"),
        # equal entries, at the second
        (BASE + "seeds:\n  - 0\n  - 1\n  - 0\n", 8, "seeds: 0 is listed twice, first in line 6"),
        (BASE.replace("100", "\n  - 100\n  - 100"), 3, "replicates: 100 is listed twice, first"),
        (BASE + "parameters:\n- alpha\n- alpha\n", 7, "parameters: 'alpha' is listed twice"),
        (
            BASE.replace("[categorical]", "\n  - categorical\n  - bernoulli\n  - categorical"),
            5,
            "categorical is listed twice with the same knobs, first in line 3",
        ),
        (BASE + "  - rloo\n", 5, "rloo is listed twice with the same knobs, first in line 4"),
        (
            BASE + "  - concrete:\n      temperature:\n        - 1\n        - 2\n        - 1.0\n",
            9,
            "concrete is listed twice with the same knobs, first in line 7",
        ),
        # too many
        (BASE + "seeds:\n" + "- 1\n" * 40_000, 7, "seeds: 1 is listed twice, first in line 6"),
        ("tasks:\n" + "- categorical\n" * 1_000_000, 1, "the file is too large; expected at mos"),
        (BASE + f"seeds: {list(range(100_000))}\n", 5, "too many entries; expected at most 50,000"),
        (
            BASE.replace("[2, 4]", str(list(range(2, 100_002)))),
            4,
            "too many entries; expected at m",
        ),
        (
            BASE.replace(
                "rloo: {samples: [2, 4]}",
                f"nvil: {{hidden: {list(range(1, 401))}, learning_rate: {RATES}}}",
            ),
            4,
            "nvil: expected at most 100,000 cells, got 160,000 or more",
        ),
        (
            BASE.replace("[2, 4]", str(list(range(2, 202)))) + f"seeds: {list(range(600))}\n",
            5,
            "the suite: expected at most 100,000 cells, got 120,000 or more",
        ),
        # bytes
        (BASE + "\tseeds: [1]\n", 5, "malformed YAML: found character that cannot start any token"),
        (BASE + "description: a\0b\n", 5, "the character U+0000 is not allowed"),
        (BASE + "description: a\u2028b\nseeds: x\n", 5, "the character U+2028 is not allowed"),
        (BASE.replace("\n", "\r\n") + "seeds: x\r\n", 5, "seeds = 'x'"),
        (BASE.replace("\n", "\r") + "seeds: x\r", 5, "seeds = 'x'"),
        ("\ufeff" + BASE + "seeds: x\n", 5, "seeds = 'x'"),
        (BASE.encode("utf-16"), 1, "expected UTF-8, got UTF-16"),
        (BASE.encode() + b"description: caf\xe9\n", 5, "expected UTF-8, got the invalid byte 0xe9"),
        (BASE + "seeds: [1", 5, "malformed YAML: "),
        (BASE + "seeds", 5, "malformed YAML: could not find expected ':'"),
        ("", 1, "got an empty file"),
        ("# nothing\n", 1, "got an empty file"),
        (BASE + "---\n" + BASE, 5, "expected a single YAML document, a second one begins"),
        ("%YAML 3.0\n---\n" + BASE, 1, "malformed YAML: found incompatible YAML document"),
        (BASE + 'seeds: "\\e[31m"\n', 5, r"seeds = '\x1b[31m'"),
        (BASE + "x" * 900 + ": 1\n", 5, "unknown key 'xxx"),
        (BASE.replace("categorical", "x" * 500_000), 2, "unknown task 'xxx"),
        # memory
        (BASE.replace("[2, 4]", "1000000000"), 4, "rloo: samples = 1000000000: needs at least "),
        (
            BASE + "  - gumbel_rao:\n      samples: 1000000000\n",
            6,
            "gumbel_rao: samples = 10000000",
        ),
        (BASE + "  - nvil: {hidden: 10000000000}\n", 5, "nvil: hidden = 10000000000: needs at le"),
        (TRAINING.replace("s: 2}\n", "s: 1000000000}\n"), 4, "rloo: samples = 1000000000: needs"),
        (
            BASE.replace("[categorical]", "\n  - quadratic: {latents: 1000000000}"),
            3,
            "quadratic: latents = 1000000000: needs at least 40 GB of memory, 16 GB are available",
        ),
    ],
)
def test_each_malformed_file_is_one_line_with_its_position(
    refused, text, line, message, monkeypatch
):
    monkeypatch.setattr(size, "memory_of", lambda device: 16 * 10**9)
    found, said = refused(text)
    assert message in said
    assert found == line


def test_what_fits_is_not_refused(tmp_path, registry):
    path = tmp_path / "mine.yaml"
    path.write_text(BASE.replace("[2, 4]", "20000") + "  - nvil: {hidden: 20000}\n")
    assert len(load_suite(str(path), registry).cells) == 2


def test_a_trial_of_memory_allocates_nothing(registry, monkeypatch):
    """The first draws alone would take gigabytes."""
    rloo, task = registry.estimator("rloo")(samples=10**8), registry.task("categorical")()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert size.pair_bytes(rloo, task, 10**9) > 4 * 10**8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    assert size.pair_bytes(registry.estimator("rloo")(samples=1000), task, 10**9) is None


def test_aliases_repeat_what_they_stand_for(tmp_path, registry):
    path = tmp_path / "mine.yaml"
    path.write_text(BASE.replace("[2, 4]", "&s [2, 4]") + "  - carms: {samples: *s}\n")
    cells = load_suite(str(path), registry).cells
    assert [c.estimator_knobs["samples"] for c in cells] == [2, 4, 2, 4]


SCALARS = """\
- [1, -1, +1, 0x1f, 017, 0b11, 1_000, 1:30, 1.5, 1., .5, 1e3, 1.5e-3, .inf, -.inf, "1", '1.5']
- [true, False, yes, no, ON, off, null, ~, Null, "true", abc, 1.2.3, 08, ""]
- {a: {}, b: [], c: "x\\ty", d: 'it''s'}
- !!str 5
- !!int "5"
- !!float 2
- ! 5
"""


def test_plain_data_is_what_the_safe_loader_gives(tmp_path):
    path = tmp_path / "some.yaml"
    text = SCALARS.replace("1e3, ", "1.0e+3, ")
    path.write_text(text)
    assert repr(read_document(path).data) == repr(yaml.safe_load(text))
    path.write_text("- 1e-3\n- 2001-01-01\n")
    assert read_document(path).data == [1e-3, "2001-01-01"]


@pytest.mark.parametrize("text", [BASE, BOMB, BASE + "x: &a [*a]\n", "[" * 100, "a: b: c", SCALARS])
def test_the_parser_in_python_gives_the_same(tmp_path, text, monkeypatch):
    path = tmp_path / "some.yaml"
    path.write_text(text)

    def result():
        try:
            document = read_document(path)
        except SuiteError as error:
            return str(error).rpartition(":")[0]  # the two put some complaints differently
        return repr(document.data), document.lines

    expected = result()

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = plain_yaml._Loader.yaml_implicit_resolvers

    monkeypatch.setattr(plain_yaml, "_Loader", Loader)
    assert result() == expected
