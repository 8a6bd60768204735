"""Writes the report of a run, or keeps the one that it has where nothing changed."""

import warnings
from collections.abc import Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any

from gradest.report.formats import BIBTEX, FIGURE_SUFFIXES, MARKDOWN, PAGE, Formats
from gradest.report.frames.loading import CLAIMS, LoadedRun, load_run
from gradest.report.unchanged import RECORD, digest_of, is_unchanged, record_report
from gradest.runs import Omission, alone_in, derive, stale
from gradest.support import replacing, settle

_OURS = {
    "tables": {".csv", ".parquet", ".tex"},
    "figures": set(FIGURE_SUFFIXES),
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
    report that would be the same but for the times and the command of the run are kept.  Returns
    warnings, a line each: damage of the journal and parts that could not be made.  Raises
    UsageError when `run` lacks facts that tables are derived from.
    """
    omission = omission or Omission()

    def obsolete(new: set[Path]) -> list[Path]:
        return [*stale(new), *_stale(folder, new)]

    with alone_in(folder):
        settle(folder)  # what a kill has left would count as a change
        digest = digest_of(folder, run, omission, formats)
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
    pages = (folder / PAGE, folder / MARKDOWN)
    return next((page for page in pages if page.exists()), folder)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _build(run: LoadedRun, out: Path) -> list[str]:
    """Write the content of a report into a folder; a line for each part that could not be made."""
    from gradest.report.contents import build  # half a second, of which a kept report needs none

    return build(run, out)


def _stale(folder: Path, new: Set[Path]) -> Iterator[Path]:
    """Files that an earlier report left, of the kinds that a report writes."""
    for name in (BIBTEX, CLAIMS, PAGE, MARKDOWN, RECORD):
        if Path(name) not in new:
            yield Path(name)
    for name, suffixes in _OURS.items():
        for path in (folder / name).iterdir() if (folder / name).is_dir() else ():
            place = path.relative_to(folder)
            if path.suffix in suffixes and place not in new and path.is_file():
                yield place
