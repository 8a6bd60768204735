"""The fuzzer: it ends well on a few cases of each kind, and sees what is bad."""

from pathlib import Path

import pytest

from tools.fuzz import command_lines, costs, suites
from tools.fuzz.__main__ import BAD
from tools.fuzz.child import Child, Ending

DRY = "{}, 0 done; the others: {} with {}, plus tables and figures"  # the end of a dry run


@pytest.mark.weekly
@pytest.mark.parametrize("kind", [suites, command_lines, costs])
def test_nothing_ends_badly(kind):
    endings = kind.examine(seed=3, count=40)
    assert endings.total() == 40
    assert not [name for name in endings if name.startswith(BAD)]
    assert len(endings) >= 2


def test_cases_hang_on_their_seed_and_number_alone():
    assert suites.generated(1, 2) == suites.generated(1, 2) != suites.generated(1, 3)
    assert command_lines.generated(1, 2) == command_lines.generated(1, 2)
    assert command_lines.generated(1, 2) != command_lines.generated(2, 2)


@pytest.mark.parametrize(
    ("ending", "line", "name"),
    [
        (Ending(2, "", "error: a.yaml:2: wrong\n"), None, "refused"),
        (Ending(2, "", "error: a.yaml:2: wrong\n"), 2, "refused"),
        (Ending(2, "", "error: a.yaml:2: wrong\n"), 1, "wrong line"),
        (Ending(2, "", "error: a.yaml:2: wrong\n"), 0, "wrong"),
        (Ending(2, "", "error: a.yaml:9: wrong\n"), None, "wrong line"),
        (Ending(2, "", "error: a.yaml: wrong\n"), None, "wrong words"),
        (Ending(2, "", "error: a.yaml:2: wrong\nmore\n"), None, "wrong words"),
        (Ending(2, "some", "error: a.yaml:2: wrong\n"), None, "wrong words"),
        (Ending(1, "", "error: a.yaml:2: wrong\n"), None, "wrong words"),
        (Ending(0, f"{DRY.format('1 cell', 'less than a second', '1 job')}\n"), None, "ran"),
        (Ending(0, f"{DRY.format('2 cells', 'about 9 s', '2 jobs')}\n"), 2, "wrong"),
        (Ending(1, f"{DRY.format('2 cells', 'about 9 s', '2 jobs')}\n"), 0, "wrong"),
        (Ending(None, trouble="traceback: KeyError: 3"), None, "traceback"),
        (Ending(None, trouble="hang: 9 s"), None, "hang"),
    ],
)
def test_endings_are_told_apart(ending, line, name):
    result, message = suites.classified(ending, Path("a.yaml"), b"a\nb\n", line)
    assert result == name
    assert bool(message) == name.startswith(BAD)


@pytest.mark.weekly
def test_a_death_is_seen_and_the_next_case_runs(tmp_path):
    (tmp_path / "dies.py").write_text("import os\nos._exit(3)")
    with Child(tmp_path) as child:
        assert "died with 3" in child.run(["--list", "--plugin", "dies.py"]).trouble
        assert child.run(["--check", "none.py"]).status == 2
