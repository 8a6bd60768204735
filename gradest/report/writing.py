"""Writes the report of a run: tables, figures and one document in several formats."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

from gradest.plugins import citations
from gradest.report.claims.judgement import Judgement, as_frame, judge
from gradest.report.claims.section import section as claims_section
from gradest.report.documents import beside, controls, html, methods, prose
from gradest.report.documents.document import Alert, Part, Picture, render_markdown
from gradest.report.figures.saving import SUFFIXES, save_figure
from gradest.report.formats import Formats
from gradest.report.frames import tables
from gradest.report.frames.loading import CLAIMS, LoadedRun, load_run
from gradest.report.studies import STUDIES
from gradest.report.studies.study import Illustration, Pieces
from gradest.report.table_files import write_latex, write_tables
from gradest.report.unchanged import RECORD, digest_of, is_unchanged, record_report
from gradest.runs import Omission, alone_in, derive, stale
from gradest.support import markup, replacing, settle, write_frame, write_text

_BIBTEX, _PAGE, _MARKDOWN = "references.bib", "report.html", "report.md"
_OURS = {
    "tables": {".csv", ".parquet", ".tex"},
    "figures": set(SUFFIXES),
}  # what a report may clear away


def write_report(folder: Path, formats: Formats | None = None) -> Path:
    """Write tables/, figures/, references.bib, report.md and report.html of the run in `folder`.

    Of the `formats` alone, if they are given.  Returns the path of `report_path`.  Reads run.json
    and the tables beside it, nothing else.  Files that an earlier report left are removed once the
    new ones are complete.  Warns of each part that could not be made.  Raises UsageError when
    `folder` holds no readable run.
    """
    folder = Path(folder)
    run = load_run(folder, formats)
    with alone_in(folder), replacing(folder, partial(_stale, folder)) as staged:
        problems = _build(run, staged)
    for line in problems:
        warnings.warn(line, stacklevel=2)
    return report_path(folder)


def rebuild_report(
    folder: Path,
    run: Mapping[str, Any],
    omission: Omission | None = None,
    formats: Formats | None = None,
) -> list[str]:
    """Derive the tables and the report of a run from its journal, and replace the former ones.

    `run` becomes the content of run.json.  Either all files are replaced or, whatever happens,
    none.  The tasks and estimators of `omission` are left out of them, but stay in the journal and
    in run.json.  Without `formats` the report has the usual ones of a run of its size.  Tables and
    report that would be the same but for the times of the run are kept.  Returns warnings, a line
    each: damage of the journal and parts that could not be made.  Raises UsageError when `run`
    lacks facts that tables are derived from.
    """
    omission = omission or Omission()

    def obsolete(new: set[Path]) -> list[Path]:
        return [*stale(new), *_stale(folder, new)]

    with alone_in(folder):
        settle(folder)  # what a kill has left would count as a change
        digest = digest_of(folder, run, omission, formats, _names(_all_figures(run)))
        if is_unchanged(folder, digest):
            return []
        with replacing(folder, obsolete) as staged:
            damage = derive(folder, run, staged, omission)
            problems = [*damage, *_build(load_run(staged, formats), staged)]
            if not problems:  # a part that is missing is tried again, and damage is told again
                record_report(staged, digest, _files(staged))
            return problems


def report_path(folder: Path) -> Path:
    """The document of the report; the folder itself if it has none."""
    pages = (folder / _PAGE, folder / _MARKDOWN)
    return next((page for page in pages if page.exists()), folder)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _wanted(run: LoadedRun) -> list[Illustration]:
    """The figures that may be drawn; runs of earlier versions do not say, and have them."""
    return _all_figures(run.facts) if run.formats.drawn else []


def _all_figures(facts: Mapping[str, Any]) -> list[Illustration]:
    wanted = facts.get("figures", True)
    return [each for study in STUDIES for each in study.illustrations] if wanted else []


def _names(figures: Iterable[Illustration]) -> list[str]:
    return [each.name for each in figures]


def _build(run: LoadedRun, out: Path) -> list[str]:
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
        write_text(out / _BIBTEX, citations.bibtex(cited))
    if formats.documents:
        parts = [*_alerts(run), *_parts(run, drawn, cited, judgements)]
        _write_documents(run, parts, _names(drawn), out)
    return run.problems.lines


def _write_documents(
    run: LoadedRun, parts: Sequence[Part], figures: Sequence[str], out: Path
) -> None:
    formats = run.formats
    if "md" in formats:
        write_text(out / _MARKDOWN, render_markdown(parts, formats.figures))
    if "html" in formats:
        pictures = {name: out / "figures" / f"{name}.png" for name in figures}
        title = str(run.facts.get("suite") or "A run")
        write_text(out / _PAGE, html.page(title, parts, pictures))
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
        yield "methods", lambda: methods.section(facts.get("methods"), cited, _BIBTEX)

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


def _stale(folder: Path, new: Set[Path]) -> Iterator[Path]:
    """Files that an earlier report left, of the kinds that a report writes."""
    for name in (_BIBTEX, CLAIMS, _PAGE, _MARKDOWN, RECORD):
        if Path(name) not in new:
            yield Path(name)
    for name, suffixes in _OURS.items():
        for path in (folder / name).iterdir() if (folder / name).is_dir() else ():
            place = path.relative_to(folder)
            if path.suffix in suffixes and place not in new and path.is_file():
                yield place
