"""Runs of any size for measuring reports."""

import json

import pandas as pd
import pytest

from gradest.cli import main
from tools.synthetic_run import write_synthetic


@pytest.mark.slow  # measures a few settings of ten estimators
@pytest.mark.parametrize(
    ("kind", "heading"), [("sweep", "over 9 values"), ("tasks", "bernoulli (theta=")]
)
def test_a_report_can_be_made_of_a_synthetic_run(tmp_path, kind, heading):
    write_synthetic(tmp_path / "run", 90, kind)
    assert main(["--report", str(tmp_path / "run"), "--formats", "md"]) == 0
    frame = pd.read_parquet(tmp_path / "run" / "measurements.parquet")
    assert len(frame) == 90 and frame["status"].eq("ok").all()
    assert frame["task_params"].nunique() == 9 and frame["variance"].nunique() > 10
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["recorded"]) == 90
    headings = [line for line in (tmp_path / "run" / "report.md").read_text().splitlines()]
    assert any(line.startswith("## ") and heading in line for line in headings)
