"""`--new-estimator` and `--new-task`: what is begun works as it is, and nothing is overwritten."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradest import Task, make_estimator, make_task, measure
from gradest.checks import check_estimator, check_task, passed
from gradest.cli import main
from gradest.commands.new import Scaffold, write_plugin
from gradest.errors import UsageError
from gradest.plugins.registry import Registry, load_plugin
from gradest.runs.suite import load_suite
from gradest.support import estimator_templates, files
from tests.support import ROOT

LONGEST = "a_name_of_forty_letters_is_hardly_needed"  # and must break no line
KINDS = ["estimator", "task"]
LIKE = list(estimator_templates())
SIMPLER = {"rebar": {"coupled": False}}  # knobs with which an estimator is its template


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_writes_three_files_and_says_what_to_run(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/gradest"])
    folder = tmp_path / "not yet"
    assert main([f"--new-{kind}", "my_method", "--out", str(folder)]) == 0
    assert names(folder) == ["my_method.py", "my_method.yaml", "test_my_method.py"]
    plugin, suite, test = (f"'{folder / name}'" for name in names(folder))
    assert capsys.readouterr().out.splitlines()[3:] == [
        "next steps:",
        f"  gradest --check {plugin}",
        f"  gradest --suite {suite} --plugin {plugin}",
        f"  python -m pytest {test}",
    ]
    (found,) = load_plugin(folder / "my_method.py")
    assert (found.name, found.__name__) == ("my_method", "MyMethod")
    assert issubclass(found, Task) == (kind == "task")


def test_without_a_folder_it_is_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--new-task", "mine"]) == 0
    assert names(tmp_path) == ["mine.py", "mine.yaml", "test_mine.py"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [["--isolated"], ["--config", str(ROOT / "pyproject.toml")]])
def test_it_is_formatted_and_lint_free_here_and_elsewhere(kind, options, registry, tmp_path):
    for number, like in enumerate(LIKE if kind == "estimator" else [None]):
        for name in (f"x{number}", f"{LONGEST[:-1]}{number}"):
            write_plugin(Scaffold(kind, name, like), tmp_path, registry)
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", *options, tmp_path],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("kind", "check"), [("estimator", check_estimator), ("task", check_task)])
def test_it_is_certified_and_claims_every_law_that_it_obeys(kind, check, registry, tmp_path):
    write_plugin(Scaffold(kind, "mine"), tmp_path, registry)
    findings = check(load_plugin(tmp_path / "mine.py")[0])
    assert passed(findings), findings
    assert not [f for f in findings if "but it holds" in f.detail]


def test_the_default_is_the_first_template(registry):
    assert Scaffold("estimator", "mine").texts() == Scaffold("estimator", "mine", LIKE[0]).texts()
    assert len({Scaffold("estimator", "mine", like).texts()["mine.py"] for like in LIKE}) == 4
    assert all(like in registry for like in LIKE)


@pytest.mark.parametrize("like", LIKE)
def test_it_is_the_estimator_that_it_is_like(like, registry, tmp_path):
    """The moments, exact or under the same seed, are those of the catalogue's estimator."""
    write_plugin(Scaffold("estimator", "mine", like), tmp_path, registry)
    (cls,) = load_plugin(tmp_path / "mine.py")
    ours, theirs = cls(), make_estimator(like, **SIMPLER.get(like, {}))
    claims = ("unbiased", "relaxes", "differentiates", "evaluations", "laws", "degree", "limit")
    assert [getattr(ours, c) for c in claims] == [getattr(theirs, c) for c in claims]
    task = make_task("categorical")
    rows = [measure(e, task, replicates=20_000, adapt_steps=0).row() for e in (ours, theirs)]
    ends = [(row["variance_low"], row["variance_high"]) for row in rows]
    assert ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1]


def test_the_command_takes_the_template(tmp_path, capsys):
    command = ["--out", str(tmp_path), "--like", "st_gumbel_softmax"]
    assert main(["--new-estimator", "mine", *command]) == 0
    assert "class Mine(SurrogateSample)" in (tmp_path / "mine.py").read_text()
    assert "[exact, st_gumbel_softmax, mine]" in (tmp_path / "mine.yaml").read_text()


def passing(folder):
    """The output of the tests in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.weekly
def test_its_test_passes_in_a_folder_of_its_own(registry, tmp_path):
    write_plugin(Scaffold("task", "my_task"), tmp_path, registry)
    write_plugin(Scaffold("estimator", "edited", LIKE[0]), tmp_path, registry)
    for path in sorted(tmp_path.glob("*edited*")):  # other names of file, class and knob
        text = path.read_text().replace("samples", "draws").replace("Edited", "Mine")
        renamed = path.with_name(path.name.replace("edited", "renamed"))
        renamed.write_text(text.replace("edited", "renamed"))
        path.unlink()
    assert "passed" in passing(tmp_path)


@pytest.mark.weekly
@pytest.mark.parametrize("like", LIKE[1:])
def test_the_tests_of_other_templates_pass_as_well(like, registry, tmp_path):
    write_plugin(Scaffold("estimator", f"my_{like}", like), tmp_path, registry)
    assert "passed" in passing(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_its_suite_measures_it(kind, registry, tmp_path):
    write_plugin(Scaffold(kind, "mine"), tmp_path, registry)
    suite = load_suite(str(tmp_path / "mine.yaml"), Registry.load([tmp_path / "mine.py"]))
    assert "mine" in {getattr(cell, kind) for cell in suite.cells}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "a lower-case letter"),
        ("my-method", "a lower-case letter"),
        ("2nd", "a lower-case letter"),
        ("_mine", "a lower-case letter"),
        ("MyMethod", "a lower-case letter"),
        ("größe", "a lower-case letter"),
        ("../mine", "a lower-case letter"),
        ("mine\n", "a lower-case letter"),
        (LONGEST + "s", "a lower-case letter"),
        ("lambda", "keyword"),
        ("none", "keyword"),  # the class would be called None
        ("rloo", "has this name"),
        ("categorical", "has this name"),
        ("test_mine", "pytest"),
        ("conftest", "pytest"),
        ("torch", "shadow the Python module of that name"),
        ("tensor", "shadow Tensor, which the template imports"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_cannot_be_is_refused(kind, name, reason, registry, tmp_path):
    with pytest.raises(UsageError, match=reason) as caught:
        write_plugin(Scaffold(kind, name), tmp_path, registry)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("existing", ["mine.py", "test_mine.py", "mine.yaml"])
def test_what_exists_is_kept_and_nothing_joins_it(existing, registry, tmp_path):
    (tmp_path / existing).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=f"{existing} exists"):
        write_plugin(Scaffold("task", "mine"), tmp_path, registry)
    assert names(tmp_path) == [existing]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--new-task", "mine", "--out", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'file'}: cannot be written: ")
    assert error.count("\n") == 1


def test_a_disk_that_fills_up_leaves_nothing(registry, tmp_path, monkeypatch):
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.suffix == ".yaml":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(files.Path, "replace", full)
    with pytest.raises(UsageError, match="No space left"):
        write_plugin(Scaffold("estimator", "mine"), tmp_path, registry)
    assert names(tmp_path) == []
