"""A page for each task, and the page that lists them all."""

import inspect
from collections.abc import Mapping
from pathlib import Path

from gradest.contracts import Task
from gradest.plugins import citations
from tools.site import docstrings, pages, standings
from tools.site.knob_table import knobs
from tools.site.standings import Suite

_MOST = 12  # settings of a task that a page shows; the atlas has them all


def write(
    source: Path,
    tasks: Mapping[str, type[Task]],
    suites: Mapping[str, Suite],
    estimators: Mapping[str, type],
) -> None:
    """All pages, in the folder `tasks` of the source."""
    links = {name: f"{name}.html" for name in tasks}
    links |= {name: f"../estimators/{name}.html" for name in estimators}
    for name in sorted(tasks):
        pages.write(source, f"tasks/{name}", _page(name, tasks[name], suites, links))
    rows = [
        {
            "name": name,
            "headline": citations.headline(cls),
            "relaxable": cls.relaxable,
            "suites": [
                suite for suite, (frame, _) in suites.items() if (frame["task"] == name).any()
            ],
        }
        for name, cls in sorted(tasks.items())
    ]
    text = [
        "# Tasks\n",
        f"All {len(rows)} tasks of the catalogue: a cost f, and the logits at which its gradient "
        "is estimated.\n",
        pages.raw(pages.rendered("tasks.html", {"rows": rows})),
        pages.toctree(sorted(tasks)),
    ]
    pages.write(source, "tasks/index", pages.wide("\n".join(text)))


def _page(name: str, cls: type[Task], suites: Mapping[str, Suite], links: Mapping[str, str]) -> str:
    _, _, text = citations.body(cls).partition("\n\n")
    values = {
        "headline": docstrings.prose(citations.headline(cls), links),
        "aliases": (),
        "body": docstrings.html(text, links),
        "facts": [
            (
                "Off the vertices",
                "f is defined" if cls.relaxable else "f is a black box",
                "" if cls.relaxable else "estimators that use f' or relax f do not apply",
            )
        ],
        "knobs": knobs(cls),
    }
    parts = [
        f"# {name}\n",
        pages.raw(pages.rendered("estimator_top.html", values)),
        "## How estimators rank on it\n",
        pages.raw(_ranking(name, suites, links)),
        "## Knobs\n",
        pages.raw(pages.rendered("knobs.html", values)),
        "## Code\n",
        f"`tasks/{name}.py`, the whole file:\n",
        pages.code_block(inspect.getsource(inspect.getmodule(cls)), "python"),
    ]
    if citation := citations.citation(cls):
        parts += ["## Reference\n", f"{citations.in_markdown(citation)}\n"]
    return pages.wide("\n".join(parts))


def _ranking(name: str, suites: Mapping[str, Suite], links: Mapping[str, str]) -> str:
    sections = []
    for suite, (_, rows) in suites.items():
        own = rows[(rows["task"] == name) & (rows["parameter"] == standings.GRADIENT)]
        settings = list(dict.fromkeys(own["task_label"]))
        for setting in settings[: _MOST if len(settings) <= _MOST else 0]:
            ranked = own[own["task_label"] == setting].sort_values(["rank", "mse"])
            lines = [
                {**row, **standings.cells(row), "link": links.get(row["estimator"])}
                for row in ranked.to_dict("records")
            ]
            sections.append({"suite": suite, "setting": setting, "rows": lines})
        if len(settings) > _MOST:
            sections.append({"suite": suite, "setting": "", "rows": [], "count": len(settings)})
    return pages.rendered("ranking.html", {"sections": sections, "measured": bool(suites)})
