"""Pages of the site: links that are mended, claims that are read, knobs in words, relatives."""

import json

import pytest

from gradest import all_estimators
from gradest.errors import UsageError
from gradest.statistics import Interval
from tests.support import ROOT
from tools.site import browser_data, documents, knob_table, published_claims
from tools.site.relatives import relatives


@pytest.fixture
def clone(tmp_path):
    """A folder with a README, a page, a file and two folders."""
    for name in ("docs/a.md", "README.md", "estimators/x.py", "more/README.md", "bare/data.txt"):
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return tmp_path / "clone"


@pytest.mark.parametrize(
    ("link", "mended"),
    [
        ("[a](a.md#part)", "[a](a.md#part)"),
        ("[docs/a.md](../docs/a.md)", "[](a.md)"),
        ("[start](../README.md#use)", "[start](../index.md#use)"),
        ("[code](../estimators/x.py)", "[code](../estimators/x.py)"),
        ("[more](../more/)", "[more](../more/README.md)"),
        ("[bare](../bare)", "[bare](../bare.zip)"),
        ("[out](https://a.org/b.md) [in](#here)", "[out](https://a.org/b.md) [in](#here)"),
    ],
)
def test_links_lead_to_what_they_led_to(clone, tmp_path, link, mended):
    source = tmp_path / "source"
    assert documents.mended(link, "docs/a.md", clone, source) == mended
    copied = {p.name for p in source.rglob("*.*")} if source.exists() else set()
    assert copied == {name for name in ("x.py", "bare.zip") if name in mended}


def test_a_link_that_leads_nowhere_is_an_error(clone, tmp_path):
    with pytest.raises(UsageError, match=r"docs/a\.md: the link b\.md leads nowhere"):
        documents.mended("[b](b.md)", "docs/a.md", clone, tmp_path)


def test_a_picture_for_two_backgrounds_is_an_image_for_each(clone, tmp_path):
    html = (
        '<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="docs/d.png">\n'
        '  <img src="docs/l.png" width="8" alt="verdicts">\n</picture>'
    )
    for name in "dl":
        (clone / "docs" / f"{name}.png").write_text(name)
    text = documents.mended(html, "README.md", clone, tmp_path)
    assert "<" not in text and text.count(":alt: verdicts") == 2
    for name, ground in (("l", "light"), ("d", "dark")):
        part = text.partition(f"```{{image}} docs/{name}.png")[2].partition("```")[0]
        assert f":class: only-{ground}" in part
        assert (tmp_path / "docs" / f"{name}.png").read_text() == name
    (clone / "docs" / "d.png").unlink()
    with pytest.raises(UsageError, match=r"README\.md: the image docs/d\.png does not exist"):
        documents.mended(html, "README.md", clone, tmp_path)


def test_every_page_of_docs_is_in_the_contents(clone, tmp_path):
    with pytest.raises(UsageError, match="SECTIONS lacks docs/a"):
        documents.write(clone, tmp_path)
    listed = {page for pages in documents.SECTIONS.values() for page in pages}
    assert {f"docs/{p.stem}" for p in (ROOT / "docs").glob("*.md")} <= listed


def test_every_published_claim_is_read():
    text = (ROOT / "docs/published.md").read_text(encoding="utf-8")
    claims = published_claims.read(text)
    total = int(text.partition(" claims: ")[0].rpartition("\n")[2])
    assert len(claims) == total
    assert all(claim.formula and claim.verdict and claim.suite for claim in claims)
    first = claims[0]
    assert first.suite == "arm" and first.says == "ARM is unbiased"
    assert first.formula == "relative_bias(arm) == 0 +- 0.02" and "[" in first.measured
    with pytest.raises(UsageError, match="no table of claims"):
        published_claims.read("# Nothing")


def test_intervals_of_several_ratios_hold_together():
    widths = browser_data.widths(20)
    assert widths[:2] == [1.0, 1.0] and widths == sorted(widths)
    half = Interval.normal(0.0, 1.0).high
    assert widths[20] * half == pytest.approx(3.0233, abs=1e-4)  # the quantile of 0.05/40


def test_knobs_are_in_words():
    accepts = {knob.name: knob for knob in knob_table.knobs(all_estimators()["gumbel_rao"])}
    assert accepts["samples"] == ("samples", "integer ≥ 1", "10")
    assert accepts["temperature"].accepts == "number > 0"
    (kind,) = (k for k in knob_table.knobs(all_estimators()["straight_through"]))
    assert kind.accepts == "softmax or identity"


def test_relatives_come_from_docstrings_papers_and_families():
    found = {each.name: each.why for each in relatives("gumbel_rao", all_estimators())}
    assert found["st_gumbel_softmax"] == "compared in the description above"
    assert "ReinMax" not in found and "reinmax" in found and "gumbel_rao" not in found
    assert found["straight_through"] == "of the same family: SurrogateSample"
    assert "rloo" not in found


def test_the_data_of_the_browser_are_json_without_nan():
    text = browser_data.script({}, all_estimators())
    start = text.index("gradest.data = ") + len("gradest.data = ")
    data = json.loads(text[start:].rstrip(";\n"))
    assert data["estimators"]["rloo"]["needs"] == "black box" and data["suites"] == []
    assert data["estimators"].keys() == all_estimators().keys()
