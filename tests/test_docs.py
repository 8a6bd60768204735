"""The documentation does what it says: every command, suite, snippet and link of every page."""

import re
import shlex
import shutil
import textwrap

import pytest
import yaml

from gradest import Precision, cli, make_task
from gradest.cli import main
from gradest.commands.baseline import added_estimators
from gradest.measurement import ReferencePrecision
from gradest.plugins.registry import Registry
from gradest.report.documents.html import anchored
from gradest.runs.suite import load_suite
from gradest.runs.suite_file import SuiteFile
from gradest.runs.suites import SuiteFolder, find_suites
from gradest.support import DEEPEST, LONGEST_LIMIT, MOST_BYTES, MOST_CELLS, MOST_ENTRIES
from gradest.support.states import write_state
from tests.support import ROOT

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for folder in ("", "docs", "examples", "results")
    for path in sorted((ROOT / folder).glob("*.md"))
}
# Their plugins are files with tests of their own; the proofs of an audit need its packages.
CHECKED_APART = {"README.md", "docs/plugins.md", "docs/audit.md"}
RUNS = ("variance", "a", "b", "before", "after", "baseline", "my_claims")
RUNS += ("mine", "seed0", "seed1")
SUITE = """{replicates: 512, timed: false, tasks: [bernoulli, categorical],
estimators: [exact, straight_through]}"""


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.M | re.S)


def commands():
    """Every line that calls the command line, as page and words."""
    found = []
    for page in PAGES:
        for line in "".join(blocks(page, "console")).splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0].endswith("python") and words[1] == "benchmark.py":
                found.append((page, words[2:]))
            elif words and words[0] == "gradest":
                found.append((page, words[1:]))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files and runs that the pages speak of."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    first = folder / "results" / RUNS[0]
    assert main(["--suite", str(folder / "tiny.yaml"), "--out", str(first), "--jobs", "1"]) == 0
    for name in RUNS[1:]:
        shutil.copytree(first, folder / "results" / name)
    (suite,) = blocks("README.md", "yaml")
    (folder / "mine.yaml").write_text(suite, encoding="utf-8")
    claims, *_ = blocks("docs/claims.md", "yaml")
    (folder / "my_claims.yaml").write_text(claims, encoding="utf-8")
    plugin = next(each for each in blocks("README.md", "python") if "class Clipped" in each)
    for name in ("my_estimator.py", "clipped.py"):
        (folder / name).write_text(plugin, encoding="utf-8")
    (folder / "matching.py").write_text(
        next(
            each for each in blocks("docs/choosing.md", "python") if "class Matching" in each
        ).partition("task = ")[0],
        encoding="utf-8",
    )
    return folder


def ids(found):
    return [f"{page}: {' '.join(words)}" for page, words in found]


def call(words, place, monkeypatch, tmp_path):
    if "--new-estimator" in words or "--new-task" in words:
        place = tmp_path  # what they write must not be there yet
    monkeypatch.chdir(place)
    if "--suite" not in words or "--dry-run" in words:
        return main(words)
    # What a suite measures is tested elsewhere: here that it is there, and the options are.
    options = cli.parse(words)
    found, registry = find_suites(options.suite), Registry.load(options.plugin)
    files = found.files if isinstance(found, SuiteFolder) else [options.suite]
    own = added_estimators(options, registry)
    suites = [load_suite(str(file), registry, steps=options.steps, also=own) for file in files]
    return 0 if all(s.only(options.only_tasks, options.only_estimators) for s in suites) else 1


LONG = ("--check", "--dry-run")
QUICK = [each for each in commands() if not set(LONG) & set(each[1])]
OTHERS = [each for each in commands() if set(LONG) & set(each[1])]


@pytest.mark.parametrize(("page", "words"), QUICK, ids=ids(QUICK))
def test_a_command_does_what_it_is_for(page, words, place, monkeypatch, tmp_path):
    assert call(words, place, monkeypatch, tmp_path) == 0


@pytest.mark.weekly
@pytest.mark.parametrize(("page", "words"), OTHERS, ids=ids(OTHERS))
def test_a_command_that_takes_long_does_what_it_is_for(page, words, place, monkeypatch, tmp_path):
    assert call(words, place, monkeypatch, tmp_path) == 0


@pytest.mark.parametrize("page", sorted(PAGES))
def test_make_has_every_target(page):
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = re.findall(r"`make ([a-z-]+)`", PAGES[page])
    lines = re.findall(r"^make ([a-z-]+)", "".join(blocks(page, "console")), flags=re.M)
    assert {*named, *lines} <= known


@pytest.mark.parametrize("page", sorted(PAGES))
def test_suites_can_be_run(page, monkeypatch, tmp_path, capsys):
    for number, text in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        if "tasks" in yaml.safe_load(text):
            assert main(["--suite", str(path), "--dry-run"]) == 0, capsys.readouterr().err


def test_every_key_of_a_suite_is_explained():
    models = (SuiteFile, Precision, ReferencePrecision)
    keys = {key for model in models for key in model.model_fields}
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGES["docs/suites.md"], flags=re.M)
    assert {key for row in rows for key in re.findall(r"\w+", row)} == keys


def test_the_limits_of_a_suite_are_those_of_the_program():
    limits = dict(re.findall(r"^\| ([a-z ,]+) \| ([^|]+) \|$", PAGES["docs/suites.md"], flags=re.M))
    assert limits["cells"] == f"{MOST_CELLS:,}" and limits["entries"] == f"{MOST_ENTRIES:,}"
    assert limits["size of the file"] == f"{MOST_BYTES // 2**20} MiB"
    assert limits["depth of nesting"] == str(DEEPEST)
    assert limits["seconds of a cell"] == f"{LONGEST_LIMIT:,}"


@pytest.mark.parametrize("page", sorted({p for p in PAGES if blocks(p, "python")} - CHECKED_APART))
def test_snippets_run_one_after_the_other(page, place, monkeypatch, tmp_path, capsys):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    task = make_task("categorical_vae", latents=8, categories=4, kl="relaxed")
    trained = tmp_path / "results/training/networks/categorical_vae_rloo_rate0.001_seed0_0.pt"
    write_state(trained, task.networks(0).state_dict())
    names = {}
    for block in blocks(page, "python"):
        if block.startswith("return"):  # what a function ends with
            block = f"def shown():\n{textwrap.indent(block, '    ')}"
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", PAGES[page]):
        path = ROOT / page if not target else (ROOT / page).parent / target
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in {anchored(heading) for heading in headings}, anchor


def test_how_to_cite_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{cited["version"]}"\n' in project
    assert cited["title"].startswith("gradest") and cited["license"] == "MIT"
