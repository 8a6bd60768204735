"""report.html in a browser: it sorts, filters and leads where its links say, and loads nothing."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradest.cli import main
from tests.browser import PHONE, WIDE
from tests.hostile import EVIL
from tests.report.rows import lacking, row, rows
from tests.support import every_figure

pytestmark = pytest.mark.slow  # a browser takes its time


@pytest.fixture
def visit(browser):
    """Opens a file; its errors, its requests and how far it moved are kept from the start on."""
    contexts = []

    def opened(path, viewport=WIDE, **options):
        contexts.append(browser.new_context(viewport=viewport, **options))
        page = contexts[-1].new_page()
        seen = SimpleNamespace(page=page, errors=[], requests=[])
        page.on("console", lambda said: seen.errors.append(said.text))
        page.on("pageerror", lambda error: seen.errors.append(str(error)[:500]))
        page.on("request", lambda asked: seen.requests.append(asked.url[:100]))
        page.add_init_script(
            "window.moved = 0; new PerformanceObserver((list) => list.getEntries().forEach("
            "(e) => (window.moved += e.value))).observe({type: 'layout-shift', buffered: true})"
        )
        page.goto(path.resolve().as_uri())
        page.wait_for_selector(".dt-search input")
        return seen

    yield opened
    for context in contexts:
        context.close()


def settings(page):
    """What of a page must be right whoever looks at it."""
    return page.evaluate(
        """() => ({
          wide: document.documentElement.scrollWidth,
          dead: [...document.querySelectorAll('a[href^="#"]')].map((a) => a.hash)
            .filter((hash) => !document.getElementById(decodeURIComponent(hash.slice(1)))),
          relative: [...document.querySelectorAll('a[href]')].map((a) => a.getAttribute('href'))
            .filter((href) => !/^(#|https:)/.test(href)),
          blank: [...document.images].filter((i) => !(i.naturalWidth && i.alt)).length,
          images: document.images.length,
          moved: window.moved,
        })"""
    )


def check(seen):
    """No error, no request, no dead link, nothing that moves, no sideways scrolling."""
    result = settings(seen.page)
    outside = [url for url in seen.requests if not url.startswith(("file:", "data:"))]
    assert not seen.errors and not outside
    assert not result["dead"] and not result["relative"] and not result["blank"]
    assert result["wide"] <= seen.page.viewport_size["width"]
    # Web vitals call a page steady up to 0.1; a filter that came unannounced would move it more.
    assert result["moved"] < 0.02
    return result


def sort(page, header, direction):
    """By a click; the rows follow in a task of their own, so that they are read after a frame."""
    header.click()
    page.wait_for_function(
        "([header, direction]) => header.getAttribute('aria-sort') === direction",
        arg=[header.element_handle(), direction],
    )
    page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 50))")


def use(page):
    """Sort the first ranking by name and back, filter it, follow every link within the page."""
    table = page.locator("table.sortable:has(th:has-text('rank'))").first
    names = [table.locator("tbody tr td:nth-child(2)").all_inner_texts()]
    for direction in ("ascending", "descending"):
        sort(page, table.locator("thead th").nth(1), direction)
        names.append(table.locator("tbody tr td:nth-child(2)").all_inner_texts())
    up, down = names[1:]
    assert sorted(up) == sorted(names[0]) and up == down[::-1] and up != down
    container = page.locator(".dt-container").filter(has=table).first
    container.locator(".dt-search input").fill(up[0])
    left = table.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert left and len(left) < len(up) and all(up[0] in name for name in left)
    page.evaluate("document.getElementById('contents').open = true")
    for link in page.locator('a[href^="#"]').all():
        link.click()
        assert page.evaluate("decodeURIComponent(location.hash)") == link.get_attribute("href")


def in_order(page, column):
    cells = page.locator(f"table.sortable >> nth=0 >> tbody tr td:nth-child({column})").all()
    return [cell.get_attribute("data-order") for cell in cells]


def test_the_report_works_in_a_browser(write, tmp_path, visit):
    hostile = row(EVIL, params={EVIL: EVIL}, task=EVIL, bias_sq=1.0, verdict="biased")
    lost = lacking("failed", f"ValueError: {EVIL}", estimator="lost")
    message = {
        "methods": {EVIL: f"{EVIL}.\n\n    {EVIL}\n\nWith `{EVIL}`."},
        "references": {EVIL: EVIL},
    }
    write([*rows(), hostile, lost], figures=("bias_against_variance",), description=EVIL, **message)
    seen = visit(tmp_path / "report.html")
    assert check(seen)["images"] == 1
    use(seen.page)
    assert seen.page.evaluate("document.scripts.length") == 1
    assert not seen.errors


def test_numbers_are_sorted_as_numbers(write, tmp_path, visit):
    values = (10.0, 9.0, 1e-5, 200.0)
    write([row(f"e{n}", variance=v, work_variance=v) for n, v in enumerate(values)])
    page = visit(tmp_path / "report.html").page
    sort(page, page.locator("table.sortable >> nth=0 >> thead th").nth(5), "ascending")
    assert in_order(page, 6) == [str(value) for value in sorted(values)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_by_day_and_by_night(write, tmp_path, visit, scheme):
    write([row("a"), row("b", verdict="biased"), row("c", verdict="inconclusive"), row("d")])
    page = visit(tmp_path / "report.html", color_scheme=scheme).page
    contrast = page.evaluate(
        """() => {
          const numbers = (c) => c.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map((x) => x / 255)
            .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
            .reduce((sum, x, n) => sum + x * [0.2126, 0.7152, 0.0722][n], 0);
          const behind = (e) => {
            const own = numbers(getComputedStyle(e).backgroundColor);
            return own.length < 4 || own[3] > 0 ? own : behind(e.parentElement);
          };
          return Math.min(...[...document.querySelectorAll("main p, td, td span, th, li, a")]
            .map((e) => [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort())
            .map(([low, high]) => (Math.max(low, high) + 0.05) / (Math.min(low, high) + 0.05)));
        }"""
    )
    assert contrast >= 4.5  # WCAG 2, level AA


def test_a_phone_needs_no_sideways_scrolling(write, tmp_path, visit):
    write(rows(), figures=("bias_against_variance",))
    seen = visit(tmp_path / "report.html", PHONE)
    check(seen)
    assert not seen.page.evaluate("document.getElementById('contents').open")


def test_a_link_unfolds_what_it_leads_to(write, tmp_path, visit):
    write([row(name) for name in "abcd"], methods={"a": "A method."})
    page = visit(tmp_path / "report.html").page
    assert not page.evaluate("document.getElementById('a').open")
    page.evaluate("location.hash = 'a'")
    page.wait_for_function("document.getElementById('a').open")


def test_tables_are_there_without_scripts(write, tmp_path, browser):
    write([row(name) for name in "abcd"])
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "report.html").resolve().as_uri())
    assert page.locator("table.sortable tbody tr").count() == 4
    context.close()


@pytest.mark.weekly
def test_the_report_of_a_whole_suite(tmp_path, visit, monkeypatch):
    """With $GRADEST_TEST_RUN, of that run; screenshots are left in $GRADEST_TEST_SCREENSHOTS."""
    every_figure(monkeypatch)
    folder = os.environ.get("GRADEST_TEST_RUN")
    if folder is None:
        folder = str(tmp_path / "variance")
        words = ["--replicates", "500", "--only-tasks", "bernoulli", "categorical"]
        assert main(["--suite", "variance", *words, "--out", folder]) == 0
    path = Path(folder) / "report.html"
    assert path.stat().st_size < 5_000_000
    shots = os.environ.get("GRADEST_TEST_SCREENSHOTS")
    for name, options in {
        "light": {},
        "dark": {"color_scheme": "dark"},
        "phone": {"viewport": PHONE},
    }.items():
        seen = visit(path, **options)
        assert check(seen)["images"] >= 4
        if shots:
            seen.page.screenshot(path=f"{shots}/{name}.png", full_page=True)
        use(seen.page)
        assert not seen.errors
    measured = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")
    assert all(name in text for name in measured["methods"])
