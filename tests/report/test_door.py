"""The door of the report: every name is there, and drawing is loaded only where it is used."""

import subprocess
import sys

import pytest

from gradest import plots, report


def test_every_name_of_the_door_is_found():
    assert all(getattr(report, name) is not None for name in report.__all__)
    assert set(plots.__all__) < set(report.__all__) == set(dir(report))
    with pytest.raises(AttributeError, match="no_such"):
        report.no_such  # noqa: B018


def test_the_door_draws_nothing():
    code = "import sys, gradest.report; print({'matplotlib', 'seaborn'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.strip() == "set()", process.stderr
