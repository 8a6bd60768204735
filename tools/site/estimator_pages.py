"""A page for each estimator, and the page that lists them all."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

from gradest.commands import list as catalogue
from gradest.contracts import Estimator
from gradest.knobs import knob_defaults
from gradest.plugins import Registry, citations
from tools.site import docstrings, pages, standings
from tools.site.knob_table import knobs
from tools.site.relatives import relatives
from tools.site.standings import Suite

_NEEDS = {
    "black box": "values of f at one-hot codes alone",
    "uses f'": "also the derivative of f, at one-hot codes",
    "relaxes f": "f between the vertices of the simplex, too",
}
# What the example measures: by the objective that an estimator takes, or its latents.
_TASKS = {
    None: 'make_task("quadratic")',
    "bits": 'make_task("bernoulli")',
    "bound": 'make_task("bernoulli_vae", latents=4, kl="sampled", samples=2)',
    "minimum": 'make_task("verifiable_reward", best_of=2)',
}


def write(
    source: Path, estimators: Mapping[str, type[Estimator]], suites: Mapping[str, Suite]
) -> None:
    """All pages, in the folder `estimators` of the source."""
    links = {name: f"{name}.html" for name in estimators}
    for name in sorted(estimators):
        pages.write(source, f"estimators/{name}", _page(name, estimators, suites, links))
    pages.write(source, "estimators/index", pages.wide(_index(estimators)))


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
        _usage(cls),
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
    return pages.wide("\n".join(parts))


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


def _usage(cls: type[Estimator]) -> str:
    """How to measure it in Python, on a task to which it applies."""
    defaults = knob_defaults(cls)
    knobs_given = "".join(f", {knob}={value!r}" for knob, value in list(defaults.items())[:1])
    task = _TASKS[cls.objective or ("bits" if cls.categories == 2 else None)]
    lines = [
        "from gradest import make_estimator, make_task, measure",
        "",
        f'measure(make_estimator("{cls.name}"{knobs_given}), {task})',
    ]
    return pages.code_block("\n".join(lines), "python")


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
