"""The runs that are merged, each read completely, and what must not differ between them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gradest.errors import UsageError
from gradest.runs.blocks import BLOCKS
from gradest.runs.cells import same_cell
from gradest.runs.journal import JOURNAL, Record, read_journal
from gradest.runs.reference_results import checksum_of
from gradest.runs.tables import read_run
from gradest.support import shortened

RUN = "run.json"

Cell = Mapping[str, Any]  # an entry of "cells" in run.json


class Source(NamedTuple):
    """A run with the records of its journal."""

    folder: Path
    run: Mapping[str, Any]
    records: Mapping[str, Record]  # key of a cell -> its latest record
    seconds: Mapping[str, Record]  # key of a cell -> the record of its times
    references: Sequence[Record]

    @property
    def recorded(self) -> Iterator[Cell]:
        """The cells that have a record."""
        return (cell for cell in self.run["cells"] if cell["key"] in self.records)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the files that the run was read from."""
        names = (JOURNAL, BLOCKS, RUN)
        return {n: checksum_of(self.folder / n) for n in names if (self.folder / n).exists()}


def read_sources(folders: Sequence[Path]) -> list[Source]:
    """The runs in the folders.

    Raises UsageError for fewer than two folders, a folder that is given twice, and a run that is
    missing, unfinished or damaged: a merged run must not lack cells that one of its sources had.
    """
    if len(folders) < 2:
        raise UsageError("--merge: expected the folders of two or more runs, got one")
    places = [folder.resolve() for folder in folders]
    for number, folder in enumerate(folders):
        if places[number] in places[:number]:
            raise UsageError(f"--merge: {folder} is given twice")
    return [_read(folder) for folder in folders]


def _read(folder: Path) -> Source:
    run = read_run(folder)
    if missing := [key for key in ("suite", "parameters", "cells") if key not in run]:
        raise UsageError(f"{folder}: holds no readable run: {RUN} lacks {', '.join(missing)}")
    if not (folder / JOURNAL).exists():
        raise UsageError(f"{folder}: {JOURNAL}, from which runs are merged, is missing")
    journal = read_journal(folder / JOURNAL)
    again = "run its suite again before it is merged"
    if journal.damage:
        raise UsageError(f"{folder}: {journal.told[0]}; {again}")
    records: dict[str, Record] = {}
    seconds: dict[str, Record] = {}
    for record in journal.records:
        if record["kind"] in ("cell", "seconds"):
            (records if record["kind"] == "cell" else seconds)[record["key"]] = record
    references = [record for record in journal.records if record["kind"] == "reference"]
    if lost := set(run.get("recorded") or ()) - set(records):
        raise UsageError(f"{folder}: {JOURNAL} lacks {len(lost):,} cells of the run; {again}")
    source = Source(folder, run, records, seconds, references)
    for cell in source.recorded:
        if not same_cell(records[cell["key"]]["cell"], cell):
            raise UsageError(f"{folder}: {JOURNAL} and {RUN} describe different cells; {again}")
    return source


def refuse_conflicts(sources: Sequence[Source]) -> None:
    """Raises UsageError for a version or a setting of the whole run that differs between sources.

    Rows of two versions of an estimator must not stand in one table under one name.
    """
    first: dict[tuple[str, str], tuple[Any, Path]] = {}  # what, name -> value, folder
    for source in sources:
        for kind, name, value in _facts(source):
            before, folder = first.setdefault((kind, name), (value, source.folder))
            if value != before:
                raise UsageError(
                    f"conflict: {kind.format(name)} is {shortened(before)} in {folder} and "
                    f"{shortened(value)} in {source.folder}; nothing was written"
                )


def _facts(source: Source) -> Iterator[tuple[str, str, Any]]:
    for cell in source.recorded:
        for kind in ("task", "estimator"):
            if kind in cell:
                version = cell.get(f"{kind}_version", 1)  # older runs know no versions
                yield f"the version of the {kind} {{}}", cell[kind], version
    if source.run.get("nested"):
        yield "the key {} of the suite", "nested", source.run["nested"]
    training = dict(source.run.get("training") or {})
    for name, schedules in (training.pop("anneal", None) or {}).items():
        yield "the key {} of the suite", f"training.anneal.{name}", schedules
    for key, value in training.items():
        if key not in ("checkpoint_seconds", "learning_rate"):  # no number depends on the first
            yield "the key {} of the suite", f"training.{key}", value
    for expected, names in (source.run.get("controls") or {}).items():
        for name in names:
            yield "the expected verdict of the control {}", name, expected


def differing_plugins(sources: Sequence[Source]) -> Iterator[str]:
    """A line for each plugin whose code differs: its version says that its numbers do not."""
    first: dict[str, tuple[Any, Path]] = {}
    for source in sources:
        plugins = source.run.get("plugins") or {}
        kinds = ("task", "estimator")
        names = {cell[kind] for cell in source.recorded for kind in kinds if kind in cell}
        for name in sorted(names):
            digest, folder = first.setdefault(name, (plugins.get(name), source.folder))
            if plugins.get(name) != digest:
                yield (
                    f"the code of {name}, or what it imports, differs between {folder} and "
                    f"{source.folder}, although its version is the same"
                )
