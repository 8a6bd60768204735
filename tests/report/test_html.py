"""report.html as text: nothing of a plugin gets through, and numbers are sorted as such."""

import re
from collections import Counter
from html.parser import HTMLParser

from PIL import Image

from gradest.report.documents import html
from gradest.report.documents.document import Folded, Picture, Strong, Table, Tagged
from gradest.support.numbers import interval, number
from tests.hostile import EVIL


class Read(HTMLParser):
    """All tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def body(parts, pictures=()):
    text = html.page("demo", parts, dict(pictures))
    return Read(text[text.index("<main>") : text.index("<footer>")])


def test_text_of_plugins_is_text_and_no_markup():
    table = Table((EVIL, "x"), [[EVIL, Strong(EVIL)], [Tagged(EVIL, "bad"), number(1.0)]], left=1)
    prose = "# A\n\n<script>alert(1)</script> <b>bold</b> [x](javascript:alert(1))"
    result = body([prose, table, Folded(EVIL, (table,))])
    tags = Counter(name for name, _ in result.tags)
    assert not tags["script"] and not tags["b"] and not tags["img"]
    assert "<script>alert(1)</script> <b>bold</b>" in result.text
    assert result.text.count(EVIL) == 9  # four in each table, and the title, as it is
    assert not any("javascript:" in (a.get("href") or "") for a in result.all("a"))
    assert not any(name.startswith("on") for _, attributes in result.tags for name in attributes)


def test_a_title_is_escaped():
    text = html.page(EVIL, [], {})
    assert EVIL not in text and "<title>&lt;script&gt;" in text


def test_cells_are_sorted_by_their_numbers_and_missing_ones_come_below():
    cells = [interval(9.0, 8.0, 10.0), number(1e-7), number(float("nan")), number(1e999)]
    result = body([Table(("x",), [[cell] for cell in cells], left=0)])
    assert [a["data-order"] for a in result.all("td")] == ["9.0", "1e-07", "", "inf"]
    assert "9.0 [8.0, 10.0]" in result.text


def test_headings_are_anchors_that_differ_and_links_to_files_are_names():
    result = body(["# t\n\n## A b\n\n### A, b!\n\n[to it](#a-b) and [a file](tables/x.csv)"])
    ids = [a["id"] for name, a in result.tags if re.fullmatch("h[123]", name)]
    assert ids == ["t", "a-b", "a-b-1"]
    assert [a["href"] for a in result.all("a")] == ["#a-b"]
    assert {"class": "file"} in result.all("span") and "a file" in result.text


def test_a_picture_is_inside_and_has_its_size_and_a_description(tmp_path):
    path = tmp_path / "p.png"
    Image.new("RGB", (30, 20)).save(path)
    result = body([Picture("p", 'What "it" shows', "See `tables/`, <b>.")], {"p": path})
    (image,) = result.all("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert (image["width"], image["height"]) == ("30", "20")
    assert image["alt"] == 'What "it" shows'
    assert result.all("code") and not result.all("b") and "<b>" in result.text
