"""What the tests of reports share."""

import pytest

from gradest.report import write_report
from gradest.runs.measurement_tables import measurements_frame
from gradest.support.files import write_frame, write_json
from tests.support import only_figures


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a run folder and its report, by default without figures; returns the report's text."""

    def written(rows, figures=(), **run):
        only_figures(monkeypatch, *figures)
        write_frame(tmp_path / "measurements.parquet", measurements_frame(list(rows)))
        write_json(tmp_path / "run.json", {"suite": "demo", "command": ["benchmark.py"], **run})
        assert write_report(tmp_path) == tmp_path / "report.html"
        return (tmp_path / "report.md").read_text(encoding="utf-8")

    return written
