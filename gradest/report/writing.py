"""The report of a run: tables, figures and one document in several forms, from its rows alone."""

import warnings
from collections.abc import Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any

from gradest import references
from gradest.files import replacing, write_text
from gradest.markdown import escape
from gradest.report.documents import controls, document, html, methods, prose
from gradest.report.documents.document import Alert, Part
from gradest.report.documents.problems import Problems
from gradest.report.frames import tables
from gradest.report.frames.loaded_run import Run, read
from gradest.report.studies import (
    adaptation_section,
    captions,
    figures,
    nested,
    numerics,
    paper,
    properties,
    ranking,
    rankings,
    sources,
    swept,
    temperature_section,
    training_section,
)
from gradest.report.studies.rankings import Sections
from gradest.running import results
from gradest.running.folder import alone_in

_BIBTEX, _PAGE = "references.bib", "report.html"
_OURS = {
    "tables": {".csv", ".parquet", ".tex"},
    "figures": set(figures.SUFFIXES),
}  # what a report may clear away


def write_report(folder: Path) -> Path:
    """Write tables/, figures/, references.bib, report.md and report.html of the run in `folder`.

    Returns report.html's path.  Reads run.json and the tables beside it, nothing else.  What an
    earlier report left is removed, once the new one is there whole.  Warns of each part that could
    not be made.  Raises UsageError when `folder` holds no readable run.
    """
    folder = Path(folder)
    run = read(folder)
    with alone_in(folder), replacing(folder, partial(_stale, folder)) as staged:
        problems = _build(run, staged)
    for line in problems:
        warnings.warn(line, stacklevel=2)
    return folder / _PAGE


def rebuild(folder: Path, run: Mapping[str, Any]) -> list[str]:
    """Derive the tables and the report of a run from its journal, to replace the former ones.

    `run` is what run.json is to say.  Either all files are replaced or, whatever happens, none.
    Returns what is to be told of it: damage of the journal and parts that could not be made, a
    line each.  Raises UsageError when `run` lacks what tables are derived from.
    """

    def stale(new: set[Path]) -> list[Path]:
        return [*results.stale(new), *_stale(folder, new)]

    with alone_in(folder), replacing(folder, stale) as staged:
        damage = results.derive(folder, run, staged)
        return [*damage, *_build(read(staged), staged)]


def page_of(folder: Path) -> Path:
    """Where the report of a run is."""
    return folder / _PAGE


def _build(run: Run, out: Path) -> list[str]:
    """Write the report of a run into a folder; a line for each part that could not be made."""
    problems = Problems()
    ranked = rankings.found(run, problems)
    drawn = figures.write(run, out / "figures", problems)
    cited = _cited(run)
    rankings.write(ranked, out / "tables", problems)
    paper.write(ranked, run, out / "tables", problems)
    if cited:
        write_text(out / _BIBTEX, references.bibtex(cited))
    parts = [*_told(run, problems), *_parts(run, ranked, drawn, cited, problems)]
    write_text(out / "report.md", document.markdown(parts))
    pictures = {name: out / "figures" / f"{name}.png" for name in drawn}
    title = str(run.described.get("suite") or "A run")
    write_text(out / _PAGE, html.page(title, parts, pictures))
    return problems.lines


def _told(run: Run, problems: Problems) -> Iterator[Part]:
    """What comes before all else: what is missing, in a line."""
    if damage := run.described.get("damage"):
        more = f" and {len(damage) - 1:,} more" if len(damage) > 1 else ""
        yield Alert(
            f"**NUMBERS ARE MISSING, the journal of this run is damaged:** {escape(damage[0])}"
            f"{more}. Run the suite again: what was lost is measured anew, the rest is kept."
        )
    for line in list(problems.lines):
        yield Alert(f"**Not in this report:** {escape(line)}.")


def _parts(
    run: Run, of: Sections, drawn: list[str], cited: Mapping[str, str], problems: Problems
) -> Iterator[Part]:
    """The document, in the order in which it is read."""
    frame, more, said = run.frame, run.further, run.described
    written = problems.section
    yield from written("controls", lambda: controls.section(frame, said))
    yield from written("what was run", lambda: prose.about(frame, said, more.points))
    yield from captions.figures(drawn)
    yield from written("properties", lambda: properties.section(more.properties))
    trained = said.get("training") or {}
    yield from written("trainings", lambda: training_section.section(more.points, trained))
    yield from written("training temperatures", lambda: temperature_section.section(more.points))
    yield from written("many tests", lambda: [prose.multiplicity(frame)])
    for each in of.tasks:
        yield from written(each.label, partial(ranking.section, each))
    yield from written("budgets", lambda: prose.budgets(of.crossovers, of.crossovers_file))
    for each in of.sweeps:
        yield from written(each.label, partial(swept.section, each))
    for family, each in zip(run.families, of.families, strict=False):
        yield from written(each.label, partial(nested.section, family, each))
    yield from written("variance by source", lambda: sources.section(more.sources, run.nested))
    yield from written("adaptation", lambda: adaptation_section.section(more.looks))
    yield from written("numerics", lambda: numerics.section(run.merged))
    yield from written("what was not measured", lambda: prose.unmeasured(run.merged))
    yield prose.files(frame)
    yield from written("methods", lambda: methods.section(said.get("methods"), cited, _BIBTEX))


def _cited(run: Run) -> dict[str, str]:
    """estimator -> what it cites, of those with numbers; runs of old keep nothing."""
    known: Any = run.described.get("references")
    known = known if isinstance(known, Mapping) else {}
    frames = (run.frame, run.further.points)
    names = sorted({name for each in frames for name in tables.measured(each)["estimator"]})
    return {name: str(known[name]) for name in names if known.get(name)}


def _stale(folder: Path, new: Set[Path]) -> Iterator[Path]:
    """What an earlier report left, of the kinds that a report writes."""
    if Path(_BIBTEX) not in new:
        yield Path(_BIBTEX)
    for name, suffixes in _OURS.items():
        for path in (folder / name).iterdir() if (folder / name).is_dir() else ():
            place = path.relative_to(folder)
            if path.suffix in suffixes and place not in new and path.is_file():
                yield place
