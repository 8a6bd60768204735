"""Citations: read strictly, shown leniently, as BibTeX that is well-formed whatever they hold."""

import re
import sys
from types import SimpleNamespace

import pytest

import gradest
from gradest.errors import PluginError
from gradest.plugins.citations import Reference, bibtex, citation, headline, in_markdown, parse

CONCRETE = (
    'Maddison, Mnih & Teh, "The Concrete distribution: a continuous relaxation", 2017, '
    "arXiv 1611.00712."
)
SPALL = 'Spall, "Multivariate; and simultaneous", IEEE Transactions on Automatic Control 37, 1992.'
FREE = "Me & You_2, personal {communication, 100 % of it, 2024"


def entries(text):
    """key -> field -> value, where every brace closes."""
    found = {}
    for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE)[1:]:
        key, fields = re.fullmatch(r"@misc\{([^,{}\s]+),\n(.*)\}\n*", entry, re.DOTALL).groups()
        assert key.lower() not in {other.lower() for other in found}
        found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", fields, flags=re.MULTILINE))
        for value in found[key].values():
            depths = [value[:end].count("{") - value[:end].count("}") for end in range(len(value))]
            assert value.count("{") == value.count("}") and min(depths) >= 0
    return found


def test_a_citation_is_read_into_its_parts():
    title = "The Concrete distribution: a continuous relaxation"
    record = Reference(("Maddison", "Mnih", "Teh"), title, None, 2017, "1611.00712")
    assert parse(CONCRETE) == [record]
    assert (record.key, record.short) == ("maddison2017concrete", "Maddison et al. 2017")
    (spall,) = parse(SPALL)
    assert spall.venue == "IEEE Transactions on Automatic Control 37"
    assert (spall.year, spall.arxiv, spall.url, spall.short) == (1992, None, None, "Spall 1992")
    assert parse(f"{CONCRETE[:-1]}; {SPALL}") == [record, spall]


def test_names_of_several_words_and_with_accents_stay_whole():
    text = 'Lázaro-Gredilla, De Smet & van Hoof, "On A*-search: 4 free!", 2019.'
    (found,) = parse(text)
    assert found.authors == ("Lázaro-Gredilla", "De Smet", "van Hoof")
    assert found.key == "lazarogredilla2019asearch"
    authors = entries(bibtex({"mine": text}))[found.key]["author"]
    assert authors == r"{L{\'{a}}zaro-Gredilla} and {De Smet} and {van Hoof}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "Spall 1992", 'Spall, "Title"', 'Spall, "Title", 92', '"Title", 1992'),
        *("Spall, Title, 1992", 'Spall, "Title", 1992, arXiv:1703.07370'),
        *('Spall, "Title", 1992, arXiv 1703.07370, for SPSA', 'Spall, "Title", 1992, 1993, more'),
        *('Spall, "Title", 1992; and others', 'Spall, "Title", chapter 7; Springer, 1992'),
    ],
)
def test_what_does_not_fit_is_refused_with_its_text(text):
    with pytest.raises(PluginError, match="expected a citation of the form Authors") as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_free_text_is_shown_as_it_is():
    assert in_markdown(FREE) == FREE.replace("&", "&amp;")
    assert in_markdown("a <b> | *c*", short=True) == r"a &lt;b&gt; \| \*c\*"
    found = entries(bibtex({"my method": FREE, "concrete": CONCRETE}))
    assert set(found) == {"my-method", "maddison2017concrete"}
    assert found["my-method"]["note"] == (
        r"Me \& You\_2, personal \textbraceleft{}communication, 100 \% of it, 2024"
    )


def test_markdown_links_to_arxiv_and_escapes_the_rest():
    full = in_markdown(f'{CONCRETE[:-1]}; Me, "A <b> * of |", Some_ Press, 2024.')
    assert "[arXiv 1611.00712](https://arxiv.org/abs/1611.00712)" in full
    assert r'Me, "A &lt;b&gt; \* of \|", Some\_ Press, 2024' in full
    assert in_markdown(CONCRETE, short=True) == (
        "[Maddison et al. 2017](https://arxiv.org/abs/1611.00712)"
    )
    assert in_markdown(SPALL, short=True) == "Spall 1992"


def test_bibtex_holds_each_publication_once_and_tells_like_keys_apart():
    other = CONCRETE.replace("Teh", "Others").replace("distribution", "case")
    text = bibtex({"a": CONCRETE, "b": f"{SPALL[:-1]}; {CONCRETE}", "c": other})
    found = entries(text)
    assert sorted(found) == list(found)
    assert set(found) == {"maddison2017concrete", "maddison2017concrete-2", "spall1992multivariate"}
    assert found["maddison2017concrete"] == {
        "author": "{Maddison} and {Mnih} and {Teh}",
        "title": "{The Concrete distribution: a continuous relaxation}",
        "year": "2017",
        "eprint": "1611.00712",
        "archiveprefix": "arXiv",
        "url": "https://arxiv.org/abs/1611.00712",
    }
    assert found["spall1992multivariate"]["howpublished"].startswith("IEEE Transactions")


@pytest.mark.parametrize("name", sorted(gradest.all_estimators()))
def test_every_estimator_cites_in_the_form_and_has_a_headline_that_fits(name):
    found = gradest.all_estimators()[name]
    assert 10 < len(headline(found)) <= 80 and not headline(found).endswith((",", ":"))
    text = citation(found)
    if not text:
        assert "arXiv" not in sys.modules[found.__module__].__doc__
        return
    assert "; ".join(map(str, parse(text))) + "." == text
    for record in parse(text):
        preprint = record.arxiv and 2000 + int(record.arxiv[:2])
        assert preprint is None or preprint <= record.year <= preprint + 2


def test_what_the_catalogue_cites_has_keys_of_its_own():
    cited = {name: citation(found) for name, found in gradest.all_estimators().items()}
    found = entries(bibtex({name: text for name, text in cited.items() if text}))
    records = {record for text in cited.values() if text for record in parse(text)}
    assert set(found) == {record.key for record in records}  # or one paper is cited in two ways
    assert len(found) == len(records)


@pytest.mark.parametrize(
    ("docstring", "head", "cited"),
    [
        ("Head.\n\nBody.\n\nMe, 2024,\nand so on.", "Head", "Me, 2024, and so on."),
        ("Head.\n\nIt takes 1000 steps of 20240.", "Head", ""),
        ("Head of 1992.", "Head of 1992", ""),
        (None, "(no description)", ""),
    ],
)
def test_the_last_paragraph_cites_if_it_holds_a_year(docstring, head, cited, monkeypatch):
    cls = type("Mine", (), {"__doc__": None, "__module__": "a_module_of_this_test"})
    monkeypatch.setitem(sys.modules, cls.__module__, SimpleNamespace(__doc__=docstring))
    assert (headline(cls), citation(cls)) == (head, cited)
