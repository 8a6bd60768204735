"""A dry run says what a run would do; of very many cells it tries some of each kind."""

import re
from collections import Counter

import pytest

from gradest.cli import main

MANY = """
timed: false
seeds: [0, 1, 2]
tasks:
  - categorical: {target: [%s]}
estimators: [rloo: {samples: [2, 3]}, arm, straight_through]
"""


@pytest.fixture
def lines(tmp_path, capsys):
    """The lines of a dry run, and its exit status."""

    def lines(text, *words):
        suite = tmp_path / "many.yaml"
        suite.write_text(text)
        status = main(["--suite", str(suite), "--out", str(tmp_path / "out"), "--dry-run", *words])
        return capsys.readouterr().out.splitlines(), status

    return lines


def test_of_many_cells_one_of_each_kind_is_tried(lines):
    targets = ", ".join(f"{(n + 0.5) / 100}" for n in range(100))
    found, status = lines(MANY % targets)
    assert status == 0
    # Seeds and targets make no kind of their own, the number of samples does.
    assert "(from trials of 4 cells; the others are similar)" in found[-1]
    (skipped,) = [line for line in found[:-1] if "would be skipped: arm" in line]
    assert skipped.endswith("  categorical × arm (300 cells)")
    # Those that are expected to do the same share a line.
    pattern = r"  categorical × (\w+) \((\d+) cells\)$"
    total = Counter()
    for line in found[:-1]:
        name, number = re.search(pattern, line).groups()
        total[name] += int(number)
    assert total == {"rloo": 600, "straight_through": 300, "arm": 300} and len(found) <= 7


def test_what_is_recorded_is_not_tried(lines, tmp_path, capsys):
    few = MANY % "0.3, 0.4"
    suite = tmp_path / "many.yaml"
    suite.write_text(few)
    main(["--suite", str(suite), "--out", str(tmp_path / "out"), "--quiet", "--jobs", "1"])
    capsys.readouterr()
    targets = "0.3, 0.4, " + ", ".join(f"{(n + 0.5) / 100}" for n in range(98))
    found, status = lines(MANY % targets, "--only-estimators", "straight_through")
    assert status == 0 and len(found) == 301
    assert [line.split()[0] for line in found[:6]] == ["done"] * 6
    assert "done" not in {line.split()[0] for line in found[6:-1]}
    assert found[-1].startswith("300 cells, 6 done; ") and "trials" not in found[-1]
    found, status = lines(few)
    left = "tables and figures, unless they are up to date"
    assert status == 0 and found[-1] == f"24 cells, all done; left: {left}"
