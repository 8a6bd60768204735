"""The claims of several runs in one table: the overview of a folder of suites."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from gradest.report.claims.judgement import Judgement, as_frame, judge
from gradest.report.claims.section import (
    HEADERS,
    READING,
    line_of,
    reasons_of,
    refutations,
    summary,
)
from gradest.report.documents import html
from gradest.report.documents.document import Alert, Folded, Part, Strong, Table, render_markdown
from gradest.report.frames.loading import CLAIMS, load_run
from gradest.report.terminal_summary import failed_controls
from gradest.support import markup, number, write_frame, write_text

_NAME = "index"  # of the files of the overview
_SHOWN = ("suite", "claim", "published", "measured", "verdict")  # columns on a terminal


class ClaimsOfRun(NamedTuple):
    """A run of the folder with its claims."""

    suite: str
    description: str
    folder: Path
    judgements: Sequence[Judgement]
    failed_controls: Sequence[str]
    problems: Sequence[str]

    @property
    def refuted(self) -> list[str]:
        """A line of plain text for each claim that is refuted."""
        return refutations(self.judgements)


def read_claims(folder: Path) -> ClaimsOfRun:
    """The claims of the run in a folder, judged.  Raises UsageError for a folder without a run."""
    run = load_run(folder)
    judgements = run.problems.attempt("the claims", partial(judge, run), [])
    return ClaimsOfRun(
        str(run.facts.get("suite") or folder.name),
        str(run.facts.get("description") or ""),
        folder,
        judgements,
        failed_controls(run),
        run.problems.lines,
    )


def write_overview(
    out: Path, title: str, runs: Sequence[ClaimsOfRun], left_out: Mapping[str, str]
) -> Path:
    """Write claims.csv, index.md and index.html of the runs into `out`.

    `left_out` maps the suites that were not run to the reasons.  Returns the path of index.html.
    """
    frames = [as_frame(run.judgements).assign(suite=run.suite) for run in runs if run.judgements]
    frame = pd.concat(frames) if frames else as_frame([]).assign(suite=[])
    write_frame(out / CLAIMS, frame[["suite", *frame.columns.drop("suite")]])
    parts = list(_parts(title, runs, left_out, out))
    write_text(out / f"{_NAME}.md", render_markdown(parts))
    write_text(out / f"{_NAME}.html", html.page(title, parts, {}))
    return out / f"{_NAME}.html"


def list_claims(runs: Sequence[ClaimsOfRun]) -> Iterator[str | Table]:
    """The table of the claims of several runs, for a terminal."""
    judgements = [each for run in runs for each in run.judgements]
    if judgements:
        yield Strong(summary(judgements))
        yield Table(_SHOWN, [_short(run, each) for run in runs for each in run.judgements], left=2)


def _short(run: ClaimsOfRun, judgement: Judgement) -> list[str]:
    """A claim as the text that is tested, which is shorter than its sentence."""
    row = line_of(judgement, judgement.decisive)
    columns = dict(zip(HEADERS, row, strict=True)) | {"suite": run.suite, "claim": judgement.holds}
    return [columns[name] for name in _SHOWN]


def _parts(
    title: str, runs: Sequence[ClaimsOfRun], left_out: Mapping[str, str], out: Path
) -> Iterator[Part]:
    judgements = [each for run in runs for each in run.judgements]
    yield f"# {markup.escape(title)}"
    for run in runs:
        for line in (*run.failed_controls, *run.problems):
            yield Alert(f"**{markup.escape(run.suite)}:** {markup.escape(line)}.")
    for suite, reason in left_out.items():
        yield Alert(f"**{markup.escape(suite)} was left out:** {markup.escape(reason)}.")
    yield "## Claims"
    yield f"{summary(judgements)}."
    rows = [[run.suite, *line_of(each, each.decisive)] for run in runs for each in run.judgements]
    yield Table(("suite", *HEADERS), rows, left=4)
    if reasons := [[run.suite, *each] for run in runs for each in reasons_of(run.judgements)]:
        yield Table(("suite", "claim", "on", "why it has no number"), reasons, left=4)
    yield Folded("How to read the claims", [f"{READING} Each suite is a separate run."])
    yield "## Suites"
    rows = [
        [
            run.suite,
            run.description,
            number(len(run.judgements)),
            str((run.folder / "report.html").relative_to(out)),
        ]
        for run in runs
    ]
    yield Table(("suite", "description", "claims", "report"), rows, left=2)
    yield f"Unrounded: `{CLAIMS}`"
