"""Equations of docstrings as mathematics: the structure that notation means, and no sign lost."""

import html
import re
import unicodedata
from collections import Counter

import pytest

from gradest.plugins import all_estimators, all_tasks, citations
from tools.site import docstrings
from tools.site.mathml import equation

# How MathML writes what docstrings have.
_WRITTEN = str.maketrans({"Σ": "∑", "Π": "∏", "~": "\u223c", "*": "\u2217", "'": "\u2032"})
_MARKS = str.maketrans({"^": "\u0302", "~": "\u0303", "¯": "\u0304"})

PLUGINS = {**all_estimators(), **all_tasks()}


def equations(cls):
    """Every equation of a docstring."""
    for block in citations.body(cls).split("\n\n"):
        if block[0].isspace():
            for line in block.split("\n"):
                yield from re.split(r"\s{2,}", line.strip())


def inner(text):
    """The MathML of an equation without its outermost elements."""
    return re.fullmatch(r"<math[^>]*><mrow>(.*)</mrow></math>", equation(text))[1]


@pytest.mark.parametrize(
    ("text", "mathml"),
    [
        ("zₛ", "<msub><mi>z</mi><mrow><mi>s</mi></mrow></msub>"),
        (
            "x_nk²",
            "<msubsup><mi>x</mi><mrow><mi>n</mi><mi>k</mi></mrow><mrow><mn>2</mn></mrow></msubsup>",
        ),
        ("ĝ", '<mover accent="true"><mi>g</mi><mo stretchy="false">^</mo></mover>'),
        ("a/b", "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>"),
        ("a / b", "<mi>a</mi><mo>/</mo><mi>b</mi>"),
        ("j ≠ k", "<mi>j</mi><mo>≠</mo><mi>k</mi>"),
        ("Σ_{i<j}", "<munder><mo>∑</mo><mrow><mi>i</mi><mo>&lt;</mo><mi>j</mi></mrow></munder>"),
        ("p^(−1)", "<msup><mi>p</mi><mrow>"),
        ("J_ReinMax", "<msub><mi>J</mi><mrow><mi>ReinMax</mi></mrow></msub>"),
        ("ĝ_aᵢ", "<mrow><msub><mi>a</mi><mrow><mi>i</mi></mrow></msub></mrow></msub>"),
        ("loo_minus_one", '<mtext class="code">loo_minus_one</mtext>'),
        ("(1 − p", '<mo stretchy="false" lspace="0" rspace="0">(</mo><mn>1</mn>'),
    ],
)
def test_notation_has_its_meaning(text, mathml):
    assert mathml in inner(text)


def test_a_slash_divides_what_touches_it():
    applied = "<mi>r</mi><mo>=</mo><mfrac><mrow><mi>π</mi>"
    assert inner("r = π(z)/μ(z)").startswith(applied) and inner("r = π(z)/μ(z)").endswith(
        "</mfrac>"
    )
    # Brackets around all of a numerator are what the bar stands for; others stay.
    assert "(" not in inner("(a − b)/c") and "(" in inner("(a)(b)/c")
    assert inner("∂y/∂log α").count("<mi>α</mi></mrow></mfrac>") == 1


def signs(text):
    """How often each sign is there, but for those that the structure of MathML replaces."""
    plain = unicodedata.normalize("NFKD", text.replace("…", "..")).replace("-", "−")
    return Counter(plain.translate(str.maketrans("", "", "_^/(){}` \u2044√")))


@pytest.mark.parametrize("name", PLUGINS)
def test_no_sign_of_an_equation_is_lost(name):
    for text in equations(PLUGINS[name]):
        shown = html.unescape(re.sub(r"<[^>]*>", "", inner(text)).translate(_MARKS))
        assert signs(shown) == signs(text.translate(_WRITTEN)), text


def test_lines_with_a_common_column_are_a_table():
    aligned = docstrings.equations("    scale = std:   A = 1\n    scale = none:  A = 2")
    assert aligned.count("<tr>") == 2 and aligned.count("<math") == 4
    apart = docstrings.equations("    a = 1,    b = 2\n    cd = 1,    e = 2")
    assert "<tr>" not in apart and apart.count('class="line"') == 2


def test_docstrings_are_escaped_and_names_are_links():
    text = "<i>With `rloo<u>` `rloo` and st_gumbel_softmax, not exact: <b>.\n\n    a < b & c"
    shown = docstrings.html(text, {"rloo": "r.html", "st_gumbel_softmax": "s.html", "exact": "e"})
    assert '<a href="r.html"><code class="docutils literal">rloo</code></a>' in shown
    assert 'href="s.html"' in shown and 'href="e"' not in shown
    assert not re.search("<[biu]>", shown) and "<mo>&amp;</mo>" in shown
