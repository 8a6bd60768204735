"""The report of a run: tables, figures and one document in several forms, from its rows alone."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gradest import references
from gradest.analysis import tables
from gradest.files import write_text
from gradest.report import (
    adaptation,
    captions,
    controls,
    document,
    figures,
    html,
    methods,
    nested,
    numerics,
    paper,
    properties,
    prose,
    rankings,
    sections,
    sources,
    swept,
    training,
    vae_temperature,
)
from gradest.report.document import Part
from gradest.report.run import Run, read
from gradest.report.sections import Sections

_BIBTEX = "references.bib"
_OURS = {
    "tables": {".csv", ".parquet", ".tex"},
    "figures": set(figures.SUFFIXES),
}  # what a report may clear away


def write_report(folder: Path) -> Path:
    """Write tables/, figures/, references.bib, report.md and report.html of the run in `folder`.

    Returns report.html's path.  Reads run.json and the tables beside it, nothing else.  What an
    earlier report left is removed.  Raises UsageError when `folder` holds no readable run.
    """
    folder = Path(folder)
    run = read(folder)
    ranked = sections.found(run)
    drawn = figures.draw(run)
    cited = _cited(run)
    _clear(
        folder,
        {
            "tables": [
                *sections.write(ranked, folder / "tables"),
                *paper.write(ranked, run, folder / "tables"),
            ],
            "figures": figures.save(drawn, folder / "figures"),
        },
    )
    _write_bibtex(folder / _BIBTEX, cited)
    parts = list(_parts(run, ranked, list(drawn), cited))
    write_text(folder / "report.md", document.markdown(parts))
    pictures = {name: folder / "figures" / f"{name}.png" for name in drawn}
    path = folder / "report.html"
    write_text(path, html.page(str(run.described.get("suite") or "A run"), parts, pictures))
    return path


def _parts(run: Run, of: Sections, drawn: list[str], cited: Mapping[str, str]) -> Iterator[Part]:
    """The document, in the order in which it is read."""
    frame, more = run.frame, run.further
    yield from controls.section(frame, run.described)
    yield from prose.about(frame, run.described, more.points)
    yield from captions.figures(drawn)
    yield from properties.section(more.properties)
    yield from training.section(more.points, run.described.get("training") or {})
    yield from vae_temperature.section(more.points)
    yield prose.multiplicity(frame)
    for section in of.tasks:
        yield from rankings.section(section)
    yield from prose.budgets(of.crossovers, of.crossovers_file)
    for section in of.sweeps:
        yield from swept.section(section)
    for family, section in zip(run.families, of.families, strict=True):
        yield from nested.section(family, section)
    yield from sources.section(more.sources, run.nested)
    yield from adaptation.section(more.looks)
    yield from numerics.section(run.merged)
    yield from prose.unmeasured(run.merged)
    yield prose.files(frame)
    yield from methods.section(run.described.get("methods"), cited, _BIBTEX)


def _cited(run: Run) -> dict[str, str]:
    """estimator -> what it cites, of those with numbers; runs of old keep nothing."""
    known: Any = run.described.get("references")
    known = known if isinstance(known, Mapping) else {}
    frames = (run.frame, run.further.points)
    names = sorted({name for each in frames for name in tables.measured(each)["estimator"]})
    return {name: str(known[name]) for name in names if known.get(name)}


def _write_bibtex(path: Path, cited: Mapping[str, str]) -> None:
    if cited:
        write_text(path, references.bibtex(cited))
    else:
        path.unlink(missing_ok=True)


def _clear(folder: Path, written: Mapping[str, Iterable[Path]]) -> None:
    """Remove what an earlier report left, of the kinds that a report writes."""
    for name, paths in written.items():
        keep = set(paths)
        for path in (folder / name).iterdir() if (folder / name).is_dir() else ():
            if path.suffix in _OURS[name] and path not in keep:
                path.unlink()
