"""A page for each estimator, and the page that lists them all."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path


from gradest.commands import list as catalogue
from gradest.contracts import Estimator
from gradest.knobs import knob_defaults, knob_types
from gradest.plugins import Registry, citations
from tools.site import docstrings, pages, standings
from tools.site.knob_table import knobs
from tools.site.relatives import relatives
from tools.site.standings import Suite

_NEEDS = {
    "black box": "f is evaluated at one-hot codes only",
    "uses f'": "f is also differentiated, at one-hot codes",
    "relaxes f": "f is evaluated, and differentiated if it uses f', elsewhere on the simplex",
}


def write(
    source: Path, estimators: Mapping[str, type[Estimator]], suites: Mapping[str, Suite]
) -> None:
    """All pages, in the folder `estimators` of the source."""
    links = {name: f"{name}.html" for name in estimators}
    for name in sorted(estimators):
        pages.write(source, f"estimators/{name}", _page(name, estimators, suites, links))
    pages.write(source, "estimators/index", _index(estimators))


def _index(estimators: Mapping[str, type[Estimator]]) -> str:
    rows = [
        {
            "name": name,
            "aliases": cls.aliases,
            "headline": citations.headline(cls),
            "bias": catalogue.bias(cls),
            "needs": catalogue.needs(cls),
            "latents": "bits" if cls.categories == 2 else "any",
            "evaluations": catalogue.evaluations(cls),
            "source": _years(cls),
        }
        for name, cls in sorted(estimators.items())
    ]
    return "\n".join(
        [
            "# Estimators\n",
            f"All {len(rows)} estimators of the catalogue, with what they claim. "
            "Click a heading to sort, or type to filter: `black box`, `bits`, a year, an author.\n",
            pages.raw(pages.rendered("estimators.html", {"rows": rows})),
            pages.toctree(sorted(estimators)),
        ]
    )


def _years(cls: type[Estimator]) -> str:
    return "; ".join(each.short for each in _references(cls))


def _references(cls: type[Estimator]) -> list[citations.Reference]:
    text = citations.citation(cls)
    return citations.parse(text) if text else []


def _page(
    name: str,
    estimators: Mapping[str, type[Estimator]],
    suites: Mapping[str, Suite],
    links: Mapping[str, str],
) -> str:
    cls = estimators[name]
    _, _, text = citations.body(cls).partition("\n\n")
    values = {
        "headline": docstrings.prose(citations.headline(cls), links),
        "aliases": cls.aliases,
        "body": docstrings.html(text, links),
        "facts": list(_facts(cls)),
        "knobs": knobs(cls),
        "relatives": relatives(name, estimators),
    }
    parts = [
        f"# {name}\n",
        pages.raw(pages.rendered("estimator_top.html", values)),
        "## Where it stands\n",
        pages.raw(_standing(name, suites)),
        "## Knobs\n",
        pages.raw(pages.rendered("knobs.html", values)),
        *_usage(cls),
        "## Code\n",
        f"`estimators/{name}.py`, the whole file:\n",
        pages.code_block(inspect.getsource(inspect.getmodule(cls)), "python"),
    ]
    if values["relatives"]:
        parts += ["## Relatives\n", pages.raw(pages.rendered("relatives.html", values))]
    if citation := citations.citation(cls):
        bibtex = catalogue.bibtex(Registry(estimators={name: cls}))
        parts += [
            "## Reference\n",
            f"{citations.in_markdown(citation)}\n",
            pages.code_block(bibtex, "bibtex"),
        ]
    return "\n".join(parts)


def _facts(cls: type[Estimator]) -> Iterator[tuple[str, str, str]]:
    """What an estimator claims and asks for: a term, its value, and what that means."""
    yield "Bias", catalogue.bias(cls), "E ĝ = ∇ E f for every f" if cls.unbiased else ""
    needs = catalogue.needs(cls)
    yield "Needs", needs, _NEEDS[needs]
    if cls.categories:
        yield "Latents", "bits only" if cls.categories == 2 else f"K = {cls.categories} only", ""
    if cls.outcomes:
        yield "Size", f"K^N ≤ {cls.outcomes:,}", "it enumerates all codes"
    if cls.objective:
        yield "Objective", cls.objective, "of several samples; it takes no other"
    if formula := catalogue.evaluations(cls):
        derivative = ", and as many backward passes at most" if cls.differentiates else ""
        yield "Evaluations of f", formula, f"per estimate{derivative}"
    if cls.adapt_steps:
        yield "State", f"{cls.adapt_steps} steps", "of adaptation before it is measured"
    if cls.aligned:
        yield "Direction", "exact", "E ĝ is a positive multiple of ∇ E f"
    if cls.laws:
        yield "Laws", ", ".join(sorted(cls.laws)), "that every single estimate obeys"
    if cls.slow:
        yield "Slow", cls.slow, ""


def _usage(cls: type[Estimator]) -> Iterator[str]:
    """How to measure it, in Python."""
    knob = next(iter(knob_types(cls)), None)
    given = f", {knob}={knob_defaults(cls)[knob]!r}" if knob else ""
    yield "```python\n"
    yield "from gradest import make_estimator, make_task, measure\n"
    yield f'estimator = make_estimator("{cls.name}"{given})'
    yield 'print(measure(estimator, make_task("quadratic" if estimator.categories is None else "bernoulli")))'
    yield "```\n"


def _standing(name: str, suites: Mapping[str, Suite]) -> str:
    """Its rows in every suite, as a chart and a table for each."""
    sections, skipped = [], {}
    for suite, (frame, rows) in suites.items():
        rows = rows[(rows["estimator"] == name) & (rows["parameter"] == standings.GRADIENT)]
        skipped |= dict(standings.skipped(frame, name))
        if len(rows):
            lines = [
                {**row, **standings.cells(row), "best_of": int(row["ranked"])}
                for row in rows.to_dict("records")
            ]
            sections.append({"suite": suite, "rows": lines})
    values = {"name": name, "sections": sections, "skipped": skipped, "measured": bool(suites)}
    return pages.rendered("standing.html", values)
