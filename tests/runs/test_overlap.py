"""What two runs have in common is said before anything is said of changes."""

import pytest

from gradest.cli import main
from tests.support import run_suite

SUITE = "replicates: 200\ntasks: [{tasks}]\nestimators: [{estimators}]\n"
CASES = {
    "base": ("bernoulli, categorical", "rloo, reinforce"),
    "few": ("categorical, quadratic", "rloo, straight_through, exact"),
    "none": ("quadratic", "straight_through"),
    "most": ("bernoulli, categorical", "rloo, reinforce, exact"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of four small runs, by name."""
    folder = tmp_path_factory.mktemp("overlap")
    for name, (tasks, estimators) in CASES.items():
        run_suite(folder, SUITE.format(tasks=tasks, estimators=estimators), name=name)
    return folder


@pytest.fixture
def compare(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gradest.report.regression.comparison._draw", lambda frame, folder: {})

    def compared(*names, fail=()):
        capsys.readouterr()
        folders = [str(runs / name) for name in names]
        status = main(["--report", *folders, "--out", str(tmp_path / "out"), *fail])
        return status, *capsys.readouterr()

    return compared


def test_runs_with_nothing_in_common_are_refused(compare, tmp_path):
    for fail in ((), ("--fail-on-regression",)):
        status, out, err = compare("base", "none", fail=fail)
        assert (status, out) == (2, "")
        assert err == (
            "error: none has no cell in common with base: 0 of 5 cells are compared; 4 only "
            "in the baseline, 1 only in the other run; nothing is compared\n"
        )
        assert not (tmp_path / "out").exists()


def test_runs_with_little_in_common_say_so_first(compare, tmp_path):
    status, out, _ = compare("base", "few", fail=("--fail-on-regression",))
    lines = out.splitlines()
    assert status == 0
    said = "1 of 9 cells are compared; 3 only in the baseline, 5 only in the other run"
    assert lines[0] == f"few: {said}"
    assert lines[-1] == "no regression among the 1 of 9 cells compared"
    text = (tmp_path / "out" / "comparison.md").read_text().splitlines()
    assert text[2] == f"**{said}.**"


def test_runs_with_most_in_common_say_how_much(compare):
    status, out, _ = compare("base", "most", fail=("--fail-on-regression",))
    assert status == 0
    assert out.startswith("most: 4 of 6 cells are compared; 2 only in the other run\n")
    assert out.endswith("\nno regression\n")


def test_where_no_common_cell_has_numbers_nothing_passes(compare, runs, tmp_path, monkeypatch):
    from gradest.report.regression import runs as of_runs

    monkeypatch.setattr(of_runs, "_has_numbers", lambda records: False)
    status, out, _ = compare("base", "most", fail=("--fail-on-regression",))
    assert status == 1 and out.endswith("nothing was compared: no cell has results in both runs\n")
