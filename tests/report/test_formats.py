"""The formats of a report: only what is asked for is written, and the document names no other."""

import pytest

from gradest.cli import main
from gradest.errors import UsageError
from gradest.report import Formats, report_path, write_report
from tests.report.rows import row

FIGURE = "bias_against_variance"


def files(folder):
    paths = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    names = {str(p.relative_to(folder)) for p in paths}
    return {name for name in names if not name.startswith("measurements")} - {"run.json"}


@pytest.fixture
def written(write, tmp_path):
    """Writes a report in all formats, then in others; returns the files that are left."""

    def again(*names):
        write([row("rloo"), row("reinforce", variance=2.0)], [FIGURE])
        write_report(tmp_path, Formats.of(names))
        return files(tmp_path)

    return again


def test_a_page_alone_has_its_figures_inside(written, tmp_path):
    assert written("html") == {"report.html"}
    assert "data:image/png;base64," in (tmp_path / "report.html").read_text()
    assert "tables/" not in (tmp_path / "report.html").read_text().partition("</style>")[2]


@pytest.mark.slow
def test_markdown_shows_the_figures_that_there_are(written, tmp_path):
    assert written("md", "svg") == {"report.md", f"figures/{FIGURE}.svg"}
    text = (tmp_path / "report.md").read_text()
    assert f"](figures/{FIGURE}.svg)" in text and ".png" not in text and "tables/" not in text
    assert written("md", "pdf", "parquet") >= {f"figures/{FIGURE}.pdf", "tables/summary.parquet"}
    text = (tmp_path / "report.md").read_text()
    assert "![" not in text and f"([PDF](figures/{FIGURE}.pdf))" in text
    assert "](tables/toy-log_alpha.parquet)" in text


def test_without_a_document_the_folder_is_the_report(written, tmp_path):
    assert written("tex", "csv") == {
        *("tables/summary.csv", "tables/toy-log_alpha.csv", "tables/toy-log_alpha.tex"),
    }
    assert report_path(tmp_path) == tmp_path


def test_large_runs_have_vector_graphics_where_they_are_asked_for():
    assert Formats.default(500).figures == [".png", ".svg", ".pdf"]
    assert Formats.default(501).figures == [".png"]
    assert Formats.default(501).names | {"svg", "pdf"} == Formats.default(500).names


def test_an_unknown_format_is_answered_in_one_line(tmp_path, capsys):
    with pytest.raises(UsageError, match=r"unknown format 'htm'; did you mean 'html'\?"):
        Formats.of(["htm"])
    for command in (["--report", str(tmp_path)], ["--suite", "smoke", "--out", str(tmp_path)]):
        assert main([*command, "--formats", "csv,word"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "--formats: unknown format 'word'" in error
        assert "available: csv, html, md, parquet, pdf, png, svg, tex" in error
    assert main(["--report", str(tmp_path), str(tmp_path), "--formats", "csv"]) == 2
    assert "--formats: expected one run, got 2" in capsys.readouterr().err
