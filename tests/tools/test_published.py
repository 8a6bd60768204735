"""docs/published.md: its tables come from a run."""

import re
from collections import Counter

import pandas as pd
import pytest
import yaml

from gradest.errors import UsageError
from gradest.runs.suites import SUITES
from tests.support import ROOT
from tools import published

CLAIMS = pd.DataFrame(
    {
        "suite": ["published/disarm", "published/disarm", "published/kool"],
        "holds": ["variance(disarm) < variance(arm)", "bias(disarm) == 0", "value(exact) > 1"],
        "on": ["bernoulli (theta=[0.1]), bernoulli (theta=[0.25]), categorical (a=1)", "a", "b"],
        "says": ["DisARM | less", None, "more"],
        "source": ["Dong & *Co*", "Dong & *Co*", None],
        "published": [1.0, 0.0, 1.0],
        "measured": [0.5, 0.0, float("nan")],
        "low": [0.4, 0.0, float("nan")],
        "high": [0.6, 0.0, float("nan")],
        "verdict": ["reproduced", "reproduced", "cannot tell"],
    }
)


def test_a_table_has_the_verdict_and_the_interval_of_each_claim():
    first, second = "\n".join(published.tables(CLAIMS)).split("### ")[1:]
    assert first.startswith("published/disarm\n") and second.startswith("published/kool\n")
    assert first.count("Dong &amp; \\*Co\\*") == 1  # a source is named once
    assert "DisARM \\| less: `variance(disarm) < variance(arm)`" in first
    assert "3 tasks" in first and "0.50 \\[0.40, 0.60\\]" in first
    assert "cannot tell" in second and "nan" not in second.lower()


def test_only_the_tables_of_the_page_are_replaced(tmp_path, capsys):
    CLAIMS.to_csv(tmp_path / "claims.csv", index=False)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{published.START}old\n{published.END}\nafter\n")
    assert published.main(["--run", str(tmp_path), "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old" not in text and "3 claims: 2 reproduced, 1 cannot tell." in text


def test_a_folder_without_an_overview_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="run the suite published first"):
        published.main(["--run", str(tmp_path)])


def test_the_page_has_every_claim_of_the_suites():
    """A suite that has changed since the page was written would show claims that nobody tests."""
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    rows = re.findall(r"`([^`]+)`", page.partition(published.START)[2].partition(published.END)[0])
    stated = Counter(" ".join(holds.split()) for holds in rows)
    ours = Counter(
        " ".join(str(claim["holds"]).split())
        for file in sorted((SUITES / "published").glob("*.yaml"))
        for claim in yaml.safe_load(file.read_text(encoding="utf-8")).get("claims", ())
    )
    assert ours and stated == ours
