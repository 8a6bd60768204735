"""The site in a browser: every page, from file://, without an error or a request elsewhere."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from gradest import all_estimators, all_tasks, read_results
from gradest.report.frames.budget import mean_of, passes
from gradest.statistics import Interval
from tests.browser import PHONE, WIDE
from tests.support import ROOT, run_suite
from tools.site import browser_data

# Sphinx and a browser take their time.  `.ci/run` builds the site, with warnings as errors, and has
# every link tested; what a reader clicks is tested once a week.
pytestmark = pytest.mark.slow

SUITE = """{replicates: 2000, timed: false, parameters: [log_alpha],
tasks: [bernoulli, categorical, quadratic],
estimators: [exact, reinforce, {rloo: {samples: [2, 4]}}, local_expectation, category_flip,
  straight_through, reinmax, gumbel_softmax]}"""
CURVE = """{replicates: 500, timed: false, parameters: [log_alpha],
tasks: [{bernoulli: {theta: [[0.1], [0.3], [0.5], [0.7], [0.9]]}},
  {categorical: {alpha: [[1, 1, 2], [1, 2, 1], [2, 1, 1], [1, 1, 1]]}}],
estimators: [exact, {rloo: {samples: 4}}, gumbel_softmax]}"""
BASE = "rloo (samples=4)"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with small runs in the place of reference results."""
    folder = tmp_path_factory.mktemp("reference")
    run_suite(folder, SUITE, name="catalogue")
    run_suite(folder, CURVE, name="landscape")
    return folder


def build(runs: Path, out: Path) -> subprocess.CompletedProcess:
    """In a process of its own, as `make site` does it."""
    words = ["--reference", str(runs), "--out", str(out)]
    return subprocess.run(
        [sys.executable, "-m", "tools.site", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory):
    """The folder of the site, built from these runs."""
    pytest.importorskip("sphinx", reason="needs what make site installs")
    out = tmp_path_factory.mktemp("built") / "site"
    done = build(runs, out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no reference results of variance, policy" in done.stdout
    return out


class Links(HTMLParser):
    """What a page loads and links to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.loaded, self.ids = set(), set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        if tag == "a" and "href" in attributes:
            self.links.add(attributes["href"])
        elif tag in ("script", "img", "link"):
            self.loaded |= {attributes[key] for key in ("src", "href") if key in attributes}


def test_every_link_and_file_of_every_page_is_there(site):
    pages = {path: Links(path) for path in site.rglob("*.html")}
    assert len(pages) > len(all_estimators()) + len(all_tasks()) + 15
    for path, page in pages.items():
        for address in page.loaded:
            parts = urlsplit(address)
            assert parts.scheme in ("", "data"), (path, address)
            if parts.path:  # the page itself is `#`
                assert (path.parent / unquote(parts.path)).is_file(), (path, address)
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme:
                assert parts.scheme == "https", (path, address)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), (path, address)
            if parts.fragment and target in pages and "=" not in parts.fragment:
                assert unquote(parts.fragment) in pages[target].ids, (path, address)


def test_every_plugin_has_a_page_with_its_equation_its_code_and_its_rows(site):
    for kind, members in (("estimators", all_estimators()), ("tasks", all_tasks())):
        for name, cls in members.items():
            text = (site / kind / f"{name}.html").read_text(encoding="utf-8")
            assert f'<span class="nc">{cls.__name__}</span>' in text, name
            assert ("<math" in text) == ("\n    " in sys.modules[cls.__module__].__doc__), name
    rloo = (site / "estimators" / "rloo.html").read_text(encoding="utf-8")
    assert BASE in rloo and "kool2019buy" in rloo and "atlas.html#suite=landscape" not in rloo


@pytest.fixture
def visit(browser, site):
    """Opens a page of the site and keeps what it says and asks for."""
    contexts = []

    def opened(name, viewport=WIDE, **options):
        contexts.append(browser.new_context(viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.seen = []
        page.on("console", lambda said: page.seen.append(said.text))
        page.on("pageerror", lambda error: page.seen.append(str(error)[:500]))
        page.on("request", lambda asked: page.seen.extend(_outside(asked.url)))
        page.goto(f"{site.as_uri()}/{name}")
        return page

    yield opened
    for context in contexts:
        context.close()


def _outside(url):
    return [] if url.startswith(("file:", "data:", "blob:")) else [url]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="day"),
        pytest.param(
            {"viewport": PHONE, "color_scheme": "dark"},
            id="phone at night",
            marks=pytest.mark.weekly,
        ),
    ],
)
def test_every_page_opens_without_an_error_or_a_request(site, visit, options):
    page = visit("index.html", **options)
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert page.seen == [], path
        assert wide <= page.viewport_size["width"], path


def ratios(runs, task):
    """The variance × evaluations of each unbiased black box relative to BASE, by Python.

    With its interval, such that all of them hold together.
    """
    rows = read_results(runs / "catalogue")
    rows = rows[(rows["task"] == task) & (rows["status"] == "ok")].set_index("label")
    claims = all_estimators()
    fits = [
        label
        for label, name in rows["estimator"].items()
        if claims[name].unbiased
        and not (claims[name].relaxes or claims[name].differentiates)
        and label != BASE
    ]

    def work(label):
        row = rows.loc[label]
        return Interval.of(row, "variance") * float(row["evaluations"])

    width = browser_data.widths(len(fits))[len(fits)]

    def simultaneous(label):
        ratio = work(label) / work(BASE)
        x = ratio.estimate
        return x, *(x * (end / x) ** width if x else 0.0 for end in (ratio.low, ratio.high))

    return {label: simultaneous(label) for label in fits}


@pytest.mark.weekly
def test_three_clicks_tell_which_unbiased_black_boxes_beat_leave_one_out(runs, visit):
    page = visit("atlas.html")
    form = page.locator("#atlas-form")
    for words in ("quadratic", "unbiased", "a black box"):
        form.get_by_text(words, exact=True).click()
    expected = ratios(runs, "quadratic")
    better = {label for label, (_, _, high) in expected.items() if high < 1}
    assert better and expected.keys() - better
    says = page.locator("#answer").inner_text()
    assert says.startswith(
        f"{len(better)} of {len(expected)} unbiased black-box estimators beat {BASE}"
    )
    assert {each.inner_text() for each in page.locator("#answer a").all()} == better
    table = page.locator("#rows tbody tr")
    assert table.count() == len(expected) + 1
    assert table.filter(has_text="better").count() == len(better)
    for row in table.all():
        label, _, shown, *_ = row.locator("td").all_inner_texts()
        if label != BASE:
            numbers = [float(each) for each in re.findall(r"[\d.]+", shown)]
            ends = expected[label] if len(numbers) == 3 else expected[label][:1]
            assert numbers == pytest.approx(list(ends), rel=0.05, abs=1e-9), label
    # The address has the choice: another visitor sees the same.
    address = page.evaluate("location.hash")
    again = visit(f"atlas.html{address}")
    assert again.locator("#answer").inner_text() == says
    assert page.seen == again.seen == []


@pytest.mark.weekly
def test_the_error_at_a_budget_is_that_of_python(runs, visit):
    page = visit("choose.html#budget=64&bias=unbiased&needs=black+box")
    rows = read_results(runs / "catalogue")
    rows = rows[(rows["task"] == "categorical") & (rows["label"] == BASE)]
    expected = mean_of(rows, 64 / passes(rows)).iloc[0] / rows["gradient_norm"].iloc[0] ** 2
    row = page.locator("#rows tbody tr").filter(has_text=BASE)
    shown = row.locator("td").nth(1).inner_text()
    assert float(shown.split()[0]) == pytest.approx(expected["mse"], rel=0.01)

    def shown():
        labels = page.locator("#rows tbody tr td:first-child").all_inner_texts()
        return {label.partition(" ")[0] for label in labels}

    assert not {"reinmax", "straight_through", "gumbel_softmax"} & shown()
    page.get_by_text("the total error counts").click()
    page.get_by_text("also its derivative there").click()
    assert {"reinmax", "straight_through"} <= shown() and "gumbel_softmax" not in shown()
    assert page.seen == []


@pytest.mark.weekly
@pytest.mark.parametrize("view", ["", "plane", "tasks", "along"])
@pytest.mark.parametrize("task", ["bernoulli", "categorical"])
def test_every_view_of_the_atlas_draws(visit, view, task):
    page = visit(f"atlas.html#suite=landscape&task={task}&view={view}")
    page.wait_for_selector("#chart svg .mark-symbol path, #chart svg .mark-rect path")
    assert page.locator("#answer").inner_text() and page.seen == []


@pytest.mark.weekly
def test_search_works_from_a_file(visit):
    page = visit("search.html?q=leave-one-out")
    # The results come one after the other.
    page.locator("#search-results li a", has_text=re.compile("^rloo$")).first.wait_for()
    assert page.seen == []


@pytest.mark.weekly
def test_tables_are_sorted_and_filtered(visit):
    page = visit("estimators/index.html")
    page.wait_for_selector(".dt-search input")
    page.locator(".dt-search input").fill("bits")
    rows = page.locator("table.sortable tbody tr")
    binary = [cls for cls in all_estimators().values() if cls.categories == 2]
    assert len(binary) <= rows.count() < len(all_estimators())
    page.goto(page.url.replace("estimators/index", "claims"))
    page.wait_for_selector(".dt-search input")
    page.select_option("select.column-filter", "arm")
    suites = page.locator("table.sortable tbody tr td:first-child").all_inner_texts()
    assert set(suites) == {"arm"} and page.seen == []


@pytest.mark.weekly
def test_errors_name_what_is_wrong_and_leave_the_folder_as_it_was(site, runs, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("text")
    done = build(runs, tmp_path / "mine")
    assert done.returncode == 2 and "not a site that this program wrote" in done.stderr
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    done = build(tmp_path / "none", tmp_path / "new")
    assert done.returncode == 2 and f"{tmp_path / 'none'} is no folder" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.weekly
def test_data_in_the_browser_are_the_measured_ones(site, runs):
    text = (site / "_static" / "data.js").read_text(encoding="utf-8")
    data = json.loads(text[text.index("data = ") + len("data = ") :].rstrip(";\n"))
    suite = next(each for each in data["suites"] if each["name"] == "catalogue")
    frame = read_results(runs / "catalogue")
    frame = frame[frame["status"] == "ok"]
    assert len(suite["rows"]) == len(frame)
    at = {name: n for n, name in enumerate(data["columns"])}
    for row in suite["rows"]:
        task = suite["tasks"][row[at["task"]]]["label"]
        same = frame[(frame["task_label"] == task) & (frame["label"] == row[at["label"]])]
        assert row[at["variance_high"]] == pytest.approx(
            float(same["variance_high"].iloc[0]), rel=1e-4
        )
