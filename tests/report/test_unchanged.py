"""A report that would be the same is kept; whatever it depends on makes it be drawn again."""

import json
import shutil
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from gradest.cli import main
from gradest.report.unchanged import RECORD
from gradest.runs.journal import append_record, read_records
from tests.support import only_figures

FIGURE = "bias_against_variance"
SUITE = """\
replicates: 200
timed: false
tasks: [bernoulli]
estimators: [exact, rloo]
"""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mine.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        only_figures(patch, **{FIGURE: lambda run: Figure()})
        assert main(suite(folder)) == 0
    return folder


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of it to be changed."""
    shutil.copytree(finished_run, tmp_path / "copy")
    return tmp_path / "copy" / "run"


@pytest.fixture
def drawn(monkeypatch):
    """Collects a line for each figure that is drawn."""
    lines = []

    def draw(run):
        lines.append(FIGURE)
        return Figure()

    only_figures(monkeypatch, **{FIGURE: draw})
    return lines


def suite(folder):
    arguments = ["--suite", str(folder / "mine.yaml"), "--out", str(folder / "run")]
    return [*arguments, "--jobs", "1", "--quiet"]


def contents(folder):
    kept = (p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".lock", ".parquet"))
    return {p: p.read_bytes() for p in kept if p.name != "run.json"}


def test_a_report_without_a_change_is_kept_and_its_path_printed(run, drawn, capsys):
    before = contents(run)
    assert main(["--report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert drawn == [] and contents(run) == before


def test_a_suite_that_is_run_again_without_a_new_cell_draws_nothing(run, drawn):
    assert main([*suite(run.parent), "--fail-on-refuted"]) == 0  # by another command
    assert drawn == [] and (run / "figures" / f"{FIGURE}.png").exists()


def test_a_report_that_is_kept_loads_nothing_that_draws_and_no_scipy(run):
    """It takes seconds, of which a run with nothing to measure has none to spare."""
    code = (
        "import sys; from gradest.cli import main; status = main(sys.argv[1:]); "
        "print(status, {'matplotlib', 'seaborn', 'jinja2', 'scipy.special'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, *suite(run.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()", done.stdout


def delete_a_figure(run):
    (run / "figures" / f"{FIGURE}.png").unlink()


def change_a_page(run):
    page = run / "report.html"
    page.write_text(page.read_text().replace("rloo", "rlou", 1))


def change_a_table(run):
    table = run / "measurements.csv"
    table.write_text(table.read_text().replace("rloo", "rlou", 1))


def edit_the_digest(run):
    record = json.loads((run / RECORD).read_text())
    (run / RECORD).write_text(json.dumps(record | {"digest": "0" * 64}))


def damage_the_record(run):
    (run / RECORD).write_text("{")


def change_a_row(run):
    *_, record = read_records(run / "journal.jsonl")
    record["measurement"]["evaluations"] += 1
    append_record(run / "journal.jsonl", record)


@pytest.mark.parametrize(
    "change",
    [
        delete_a_figure,
        change_a_page,
        change_a_table,
        edit_the_digest,
        damage_the_record,
        change_a_row,
    ],
    ids=lambda change: change.__name__,
)
def test_a_change_makes_it_be_drawn_again_once(run, drawn, change):
    change(run)
    for _ in range(2):
        assert main(["--report", str(run)]) == 0
    assert drawn == [FIGURE]
    for name in ("report.html", "measurements.csv"):
        assert "rlou" not in (run / name).read_text()


def test_other_formats_and_rows_left_out_make_another_report(run, drawn):
    for options in (["--formats", "md"], ["--formats", "html"], ["--drop-estimators", "exact"]):
        assert main(["--report", str(run), *options]) == 0
    assert drawn == [FIGURE] * 2  # report.md alone shows no figure


def test_a_part_that_could_not_be_made_is_tried_again(run, drawn, monkeypatch):
    def fail(run):
        raise ValueError("odd")

    delete_a_figure(run)
    with monkeypatch.context() as patch:
        only_figures(patch, **{FIGURE: fail})
        for _ in range(2):
            assert main(["--report", str(run)]) == 1
    assert main(["--report", str(run)]) == 0 and drawn == [FIGURE]
