"""The whole source of the site, as Sphinx reads it: pages, data and scripts."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from gradest.contracts import built_in
from gradest.plugins import all_estimators, all_tasks
from tools.site import (
    browser_data,
    documents,
    estimator_pages,
    libraries,
    pages,
    published_claims,
    task_pages,
)
from tools.site.standings import Suite

STATIC = "_static"
_HERE = Path(__file__).parent
_FIRST_PARAGRAPH = "\n\n"  # of README, behind its title


def write(root: Path, source: Path, suites: Mapping[str, Suite]) -> None:
    """Everything into the empty folder `source`; `root` has README.md, docs/ and the others.

    Raises UsageError for a page with a link that leads nowhere.
    """
    estimators = {n: cls for n, cls in sorted(all_estimators().items()) if built_in(cls)}
    tasks = {n: cls for n, cls in sorted(all_tasks().items()) if built_in(cls)}
    documents.write(root, source)
    estimator_pages.write(source, estimators, suites)
    task_pages.write(source, tasks, suites, estimators)
    _write_front(root, source, len(estimators), len(tasks), estimators)
    links = {name: f"estimators/{name}.html" for name in estimators}
    pages.write(source, "claims", pages.wide(published_claims.page(root, links)))
    for name, title, text in (
        ("atlas", "Atlas", _ATLAS),
        ("choose", "Which estimator for my problem?", _CHOOSE),
    ):
        body = pages.raw(pages.rendered(f"{name}.html", {"measured": bool(suites)}))
        pages.write(source, name, pages.wide(f"# {title}\n\n{text}\n\n{body}"))
    static = source / STATIC
    shutil.copytree(_HERE / "static", static)
    libraries.write(static)
    script = browser_data.script(suites, estimators)
    (static / "data.js").write_text(script, encoding="utf-8")


_ATLAS = (
    "Every estimator on every task, from the [reference results](results/README.md): choose what "
    "to compare."
)
_CHOOSE = (
    "Five questions about your problem, and the estimators that were measured under these "
    "constraints, best first. [Choosing an estimator](docs/choosing.md) explains what is behind "
    "them."
)


def _write_front(
    root: Path, source: Path, estimators: int, tasks: int, names: Mapping[str, type]
) -> None:
    """README as the front page, with the ways into the site behind its first paragraph."""
    title, first, rest = documents.front(root, source, names).split(_FIRST_PARAGRAPH, 2)
    cards = pages.rendered("cards.html", {"estimators": estimators, "tasks": tasks})
    trees = [pages.toctree(names, caption) for caption, names in documents.SECTIONS.items()]
    pages.write(source, "index", "\n\n".join([title, first, pages.raw(cards), rest, *trees]))
