"""Runs merged into one: its journal, its description, its suite and its networks."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gradest.runs.journal import JOURNAL, Record, write_journal
from gradest.runs.merging.cells import Entry, Pooled, pool_seeds, unite_cells
from gradest.runs.merging.description import describe_merged, merged_settings, suite_text
from gradest.runs.merging.sources import Source, read_sources, refuse_conflicts
from gradest.runs.training_cell import NETWORKS
from gradest.support import counted, shortened, write_atomically, write_text


@dataclass(frozen=True)
class MergedRun:
    """A merged run before it is written."""

    run: Mapping[str, Any]  # the content of run.json
    records: Callable[[], Iterable[Record]]  # read or pooled one by one, when they are written
    networks: Sequence[Path]  # of trained models, in the folders of the sources
    suite: str | None  # the suite with all cells as YAML
    lines: Sequence[str]  # what was merged, for the user


def merge_runs(folders: Sequence[Path], name: str, seeds_pooled: bool = False) -> MergedRun:
    """The runs in the folders as one run; `name` is that of its suite where the runs have several.

    A cell of several runs must have one result, bit by bit but for its times; one that failed in
    some of them is taken from another.  With `seeds_pooled`, measurements that differ in their
    seeds alone become one cell with the replicates of all; the journal keeps their records too, so
    that the suite of the merged run finds them.

    Raises UsageError for runs that cannot be read and for conflicts, before anything is written.
    """
    sources = read_sources(folders)
    refuse_conflicts(sources)
    entries = unite_cells(sources)
    counts = [len(list(source.recorded)) for source in sources]
    named = zip(sources, counts, strict=True)
    lines = [f"{source.folder}: {counted(count, 'cell')}" for source, count in named]
    pooled = pool_seeds(entries) if seeds_pooled else Pooled([e.cell for e in entries], (), "")
    cells, note = pooled.cells, pooled.note
    names = dict.fromkeys(source.run["suite"] for source in sources)
    suite = next(iter(names)) if len(names) == 1 else name
    run = describe_merged(suite, sources, cells) | ({"pooled": note} if note else {})
    settings = merged_settings(sources)
    if Path(suite).name != suite or suite.startswith("."):  # written by anybody
        settings = f"{shortened(suite)} is not the name of a file"
    text = None
    if isinstance(settings, str):
        lines.append(f"no suite was written for the merged run: {settings}")
    else:
        text = suite_text(settings)
        run["settings"] = settings

    def records() -> Iterator[Record]:
        yield from _references(sources)
        yield from _records(sources, entries)
        yield from pooled.records()

    recorded = sum(entry.record is not None for entry in entries)
    repeated = sum(counts) - recorded
    more = f", {repeated:,} of them in several runs" if repeated else ""
    lines.append(f"merged: {counted(recorded, 'cell')}{more}")
    lines += [*filter(None, [note]), *run["notes"]]
    return MergedRun(run, records, _networks(sources), text, lines)


def write_merged(merged: MergedRun, folder: Path) -> None:
    """Write journal, networks and suite into a folder; tables and run.json follow with the report.

    Raises OSError that names the file.
    """
    write_journal(folder / JOURNAL, merged.run["suite"], merged.records())
    for path in merged.networks:
        write_atomically(folder / NETWORKS / path.name, partial(shutil.copyfile, path))
    if merged.suite is not None:
        write_text(folder / f"{merged.run['suite']}.yaml", merged.suite)


def _references(sources: Sequence[Source]) -> list[Record]:
    """The references of unknown truths; the last record of a task counts."""
    found = {record["key"]: record for source in reversed(sources) for record in source.references}
    return list(found.values())


def _records(sources: Sequence[Source], entries: Sequence[Entry]) -> Iterator[Record]:
    """One record of every cell and code, with its times: that of the entry, or else the first.

    Equal results of two versions of the code have two keys, of which the suite of the merged run
    finds the one whose code is installed.
    """
    chosen: dict[str, Source] = {}
    for source in sources:
        for cell in source.recorded:
            chosen.setdefault(cell["key"], source)
    chosen |= {entry.cell["key"]: entry.source for entry in entries if entry.record is not None}
    for key, source in chosen.items():
        times = [each.seconds[key] for each in (source, *sources) if key in each.seconds]
        yield from (source.records[key], *times[:1])


def _networks(sources: Sequence[Source]) -> list[Path]:
    """The networks of all trainings, one file for each key; no link, which may lead anywhere."""
    found: dict[str, Path] = {}
    for source in sources:
        paths = (source.folder / NETWORKS).glob("*.pt")
        for path in sorted(path for path in paths if path.is_file() and not path.is_symlink()):
            found.setdefault(path.name, path)
    return list(found.values())
