"""The content of a report: tables, figures and one document in several formats.

Whatever draws is imported from here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gradest.plugins import citations
from gradest.report.claims.judgement import Judgement, as_frame, judge
from gradest.report.claims.section import section as claims_section
from gradest.report.documents import beside, controls, html, methods, prose
from gradest.report.documents.document import Alert, Part, Picture, render_markdown
from gradest.report.figures.saving import save_figure
from gradest.report.formats import BIBTEX, MARKDOWN, PAGE
from gradest.report.frames import tables
from gradest.report.frames.loading import CLAIMS, LoadedRun
from gradest.report.studies import STUDIES
from gradest.report.studies.study import Illustration, Pieces
from gradest.report.table_files import write_latex, write_tables
from gradest.support import markup, write_frame, write_text


def build(run: LoadedRun, out: Path) -> list[str]:
    """Write the report of a run into a folder; a line for each part that could not be made."""
    formats = run.formats
    write_tables(run.rankings, out / "tables", run.problems, formats.tables)
    if "tex" in formats:
        write_latex(run, out / "tables", STUDIES)
    drawn = [each for each in _wanted(run) if _draw(run, each, out)]
    judgements = run.problems.attempt("claims.csv", partial(judge, run), [])
    if judgements:
        write_frame(out / CLAIMS, as_frame(judgements))
    cited = _citations(run)
    if cited:
        write_text(out / BIBTEX, citations.bibtex(cited))
    if formats.documents:
        parts = [*_alerts(run), *_parts(run, drawn, cited, judgements)]
        _write_documents(run, parts, [each.name for each in drawn], out)
    return run.problems.lines


def _wanted(run: LoadedRun) -> list[Illustration]:
    """The figures that may be drawn; runs of earlier versions do not say, and have them."""
    wanted = run.facts.get("figures", True) and run.formats.drawn
    return [each for study in STUDIES for each in study.illustrations] if wanted else []


def _write_documents(
    run: LoadedRun, parts: Sequence[Part], figures: Sequence[str], out: Path
) -> None:
    formats = run.formats
    if "md" in formats:
        write_text(out / MARKDOWN, render_markdown(parts, formats.figures))
    if "html" in formats:
        pictures = {name: out / "figures" / f"{name}.png" for name in figures}
        title = str(run.facts.get("suite") or "A run")
        write_text(out / PAGE, html.page(title, parts, pictures))
        if "png" not in formats:  # the page has them inside
            for path in pictures.values():
                path.unlink()


def _draw(run: LoadedRun, illustration: Illustration, out: Path) -> bool:
    """Whether a figure was drawn and saved; one that fails costs none of the others."""

    def draw() -> bool:
        figure = illustration.draw(run)
        if figure is not None:
            suffixes = {*run.formats.figures, *((".png",) if "html" in run.formats else ())}
            save_figure(illustration.name, figure, out / "figures", sorted(suffixes))
        return figure is not None

    return run.problems.attempt(f"the figure {illustration.name}", draw, False)


def _alerts(run: LoadedRun) -> Iterator[Part]:
    """Alerts on everything that is missing from the report, which come before all else."""
    if damage := run.facts.get("damage"):
        more = f" and {len(damage) - 1:,} more" if len(damage) > 1 else ""
        yield Alert(
            f"**NUMBERS ARE MISSING because the journal of this run is damaged:** "
            f"{markup.escape(damage[0])}{more}. Run the suite again to measure the lost cells; all "
            "others are kept."
        )
    if left_out := run.facts.get("left_out"):
        yield Alert(_omission(left_out))
    yield from map(_missing, list(run.problems.lines))


def _omission(left_out: Mapping[str, Sequence[str]]) -> str:
    """What the user has left out of the report."""
    parts = [
        f"the {kind} {', '.join(map(markup.escape, names))}"
        for kind, names in left_out.items()
        if names
    ]
    return (
        f"**Left out of this report and of the tables:** {' and '.join(parts)}. Ranks and "
        "corrected p-values are those of the rows that are shown. All rows are back after "
        "`--report` without `--drop-tasks` and `--drop-estimators`."
    )


def _missing(line: str) -> Alert:
    return Alert(f"**Missing from this report:** {markup.escape(line)}.")


def _parts(
    run: LoadedRun,
    drawn: list[Illustration],
    cited: Mapping[str, str],
    judgements: Sequence[Judgement],
) -> Iterator[Part]:
    """The document, in the order in which it is read."""
    frame, facts, own = run.frame, run.facts, run.own

    def sections() -> Pieces[Iterable[Part]]:
        yield "controls", lambda: controls.section(own, facts)
        yield "summary of the run", lambda: prose.about(own, facts, run.points, run.descents)
        yield "rows of another run", lambda: beside.section(frame, facts)
        yield "claims", lambda: claims_section(judgements)
        yield "figures", lambda: _pictures(drawn)
        for study in STUDIES:
            what = "a section"
            yield from run.problems.attempt(what, lambda study=study: list(study.sections(run)), [])
        yield "missing measurements", lambda: prose.unmeasured(run.grouped.loc[own.index])
        yield "files", lambda: [prose.files(frame, run.formats)]
        yield "methods", lambda: methods.section(facts.get("methods"), cited, BIBTEX)

    for name, make in sections():
        before = len(run.problems.lines)
        yield from run.problems.attempt(f"the section {name}", partial(_parts_of, make), [])
        yield from map(_missing, run.problems.lines[before:])


def _parts_of(make: Callable[[], Iterable[Part]]) -> list[Part]:
    return list(make())


def _pictures(drawn: list[Illustration]) -> Iterator[Part]:
    if drawn:
        yield "## Figures"
    for each in drawn:
        yield Picture(each.name, each.title, each.caption)


def _citations(run: LoadedRun) -> dict[str, str]:
    """The citation of each estimator with numbers; runs of earlier versions have none."""
    cited: Any = run.facts.get("references")
    cited = cited if isinstance(cited, Mapping) else {}
    frames = (run.frame, run.points, run.descents)
    names = sorted({name for each in frames for name in tables.measured_rows(each)["estimator"]})
    return {name: str(cited[name]) for name in names if cited.get(name)}
