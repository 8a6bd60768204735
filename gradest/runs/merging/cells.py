"""The cells of several runs as one list, and cells that differ in their seeds alone as one cell."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gradest.errors import UsageError
from gradest.measurement import Measurement, pool, pooling_obstacle
from gradest.runs.cells import canonical, label_of, name_of
from gradest.runs.journal import Record
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.merging.sources import Cell, Source
from gradest.runs.tables import CLASSES
from gradest.support import counted, described, in_a_line, shortened

# Fields that say how a number was computed, or that a version of their own answers for.
_IGNORED = ("key", "code", "device", "task_version", "estimator_version")
_SEEDS = ("seed", "seeds")


class Entry(NamedTuple):
    """A cell of the merged run, and the source that its record is taken from."""

    cell: Cell
    source: Source

    @property
    def record(self) -> Record | None:
        return self.source.records.get(self.cell["key"])


def unite_cells(sources: Sequence[Source]) -> list[Entry]:
    """Every cell once, in the order of the runs; a cell of several is the first that is recorded.

    Raises UsageError, naming the cell and both folders, if one cell has two results.
    """
    entries: dict[str, Entry] = {}
    for source in sources:
        for cell in source.run["cells"]:
            name, entry = name_of(cell), Entry(cell, source)
            entries[name] = _chosen(entries[name], entry) if name in entries else entry
    _refuse_repeated_seeds(list(entries.values()))
    return list(entries.values())


def _chosen(first: Entry, second: Entry) -> Entry:
    """The one that is kept of two entries of one cell; a failed one gives way."""
    if second.record is None or first.record is None:
        return first if second.record is None else second
    settings = [_settings(each.cell) for each in (first, second)]
    for name in settings[0] | settings[1]:
        one, other = (each.get(name) for each in settings)
        if canonical(one) != canonical(other):
            values = f"{name} is {shortened(one)} in one and {shortened(other)} in the other"
            raise _conflict(first, second, values)
    statuses = [each.record["status"] for each in (first, second)]
    if "failed" in statuses:
        return second if statuses[0] == "failed" else first
    if statuses[0] != statuses[1]:
        raise _conflict(first, second, f"it is {statuses[0]} in one and {statuses[1]} in the other")
    if statuses[0] == "ok":
        payloads = [_payload(each.record) for each in (first, second)]
        if _as_text(payloads[0]) != _as_text(payloads[1]):
            raise _conflict(first, second, f"their records differ{_where(*payloads)}")
    return first


def _settings(cell: Cell) -> dict[str, Any]:
    settings = {name: value for name, value in cell.items() if name not in _IGNORED}
    if isinstance(settings.get("training"), Mapping):
        settings["training"] = {**settings["training"], "checkpoint_seconds": None}
    return settings


def _payload(record: Record) -> dict[str, Any]:
    """The result in a record, without times."""
    names = ("measurement", "training", "descent", "rows", "search", "files")
    payload = {name: record[name] for name in names if name in record}
    return CLASSES[record["of"]].without_times(payload)


def _as_text(data: Any) -> str:
    """Plain data as text, the same for equal data; a record may contain NaN."""
    return json.dumps(data, sort_keys=True)


def _where(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first part of two results that differs."""
    (one, *_), (other, *_) = one.values(), other.values()
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return ""
    keys = [k for k in one if _as_text(one[k]) != _as_text(other.get(k))]
    return f" in {keys[0]}" if keys else ""


def _conflict(first: Entry, second: Entry, why: str) -> UsageError:
    return UsageError(
        f"conflict: {_title(first.cell)} is in {first.source.folder} and in "
        f"{second.source.folder}, but {why}; nothing was written"
    )


def _title(cell: Cell) -> str:
    """A cell with its knobs and its seed, in a line."""
    settings = {name: cell[name] for name in ("learning_rate", *_SEEDS, "dtype") if name in cell}
    knobs = cell.get("estimator_knobs") or cell.get("knobs") or {}
    details = [f"{name}={value}" for name, value in {**knobs, **settings}.items()]
    return in_a_line(f"{label_of({'cell': cell})} ({', '.join(details)})")


def _but_seeds(cell: Cell) -> str:
    return name_of({name: value for name, value in cell.items() if name not in _SEEDS})


def _seeds_of(cell: Cell) -> list[int]:
    return list(cell.get("seeds") or ([cell["seed"]] if "seed" in cell else []))


def _refuse_repeated_seeds(entries: Sequence[Entry]) -> None:
    """Raises UsageError for cells of several seeds, such as descents, that share some of them."""
    first: dict[tuple[str, int], Entry] = {}
    for entry in entries:
        for seed in _seeds_of(entry.cell) if entry.record is not None else ():
            before = first.setdefault((_but_seeds(entry.cell), seed), entry)
            if before is not entry:
                raise _conflict(before, entry, f"both contain the seed {seed} among others")


class Pooled(NamedTuple):
    """The cells after pooling, the groups of their members, and what was pooled in a line."""

    cells: list[Cell]
    groups: Sequence[Sequence[Entry]]
    note: str

    def records(self) -> Iterator[Record]:
        """The new records, pooled one by one: together they may not fit into memory."""
        for group in self.groups:
            yield from _pooled_records(group)


def pool_seeds(entries: Sequence[Entry]) -> Pooled:
    """One cell for all measurements that differ in their seeds alone, with all their replicates.

    Cells of adaptive estimators, trainings and descents are left as they are: their seeds lead to
    different states, so that there is no common distribution.  Raises UsageError, naming the cell,
    for measurements that differ in what no seed changes.
    """
    poolable = [_is_poolable(entry) for entry in entries]
    groups: dict[str, list[Entry]] = {}
    for entry in itertools.compress(entries, poolable):
        groups.setdefault(_but_seeds(entry.cell), []).append(entry)
    groups = {name: group for name, group in groups.items() if len(group) > 1}
    # Pooled once to find conflicts before anything is written; only the cells are kept.
    merged = {name: _pooled_cell(group) for name, group in groups.items()}
    cells: list[Cell] = []
    for entry, is_poolable in zip(entries, poolable, strict=True):
        name = _but_seeds(entry.cell)
        if name not in groups or not is_poolable:
            cells.append(entry.cell)
        elif entry is groups[name][0]:
            cells.append(merged[name])
    alone = [e for e, is_poolable in zip(entries, poolable, strict=True) if not is_poolable]
    return Pooled(cells, list(groups.values()), "; ".join(_pooling_note(alone, groups)))


def _pooled_cell(group: Sequence[Entry]) -> Cell:
    record = _pooled_records(group)[0]
    return {"key": record["key"], **record["cell"]}


def _is_poolable(entry: Entry) -> bool:
    record = entry.record
    if record is None or record["of"] != MeasuringCell.kind or record["status"] != "ok":
        return False
    return not pooling_obstacle(_measurement(entry))


def _measurement(entry: Entry) -> Measurement:
    try:
        return Measurement.from_json(entry.record["measurement"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{entry.source.folder}: the record of {_title(entry.cell)} cannot be read "
            f"({described(error)})"
        ) from None


def _pooled_records(group: Sequence[Entry]) -> list[Record]:
    """The record of a pooled cell, and the one of its times where one of its members has some."""
    group = sorted(group, key=lambda entry: _seeds_of(entry.cell))
    first = group[0]
    try:
        pooled = pool([_measurement(each) for each in group])
    except UsageError as error:
        folders = ", ".join(dict.fromkeys(str(each.source.folder) for each in group))
        raise UsageError(
            f"conflict: {_title(first.cell)} cannot be pooled over the seeds in {folders}: "
            f"{error}; nothing was written"
        ) from None
    seeds = sorted(seed for each in group for seed in _seeds_of(each.cell))
    cell = {**first.record["cell"], "seed": seeds[0], "seeds": seeds}
    keys = "".join(sorted(each.cell["key"] for each in group))
    key = hashlib.sha256(f"pooled {keys}".encode()).hexdigest()
    elapsed = sum(each.record.get("elapsed", 0.0) for each in group)
    result = {"measurement": pooled.to_json(), "elapsed": elapsed}
    times = [each.source.seconds.get(each.cell["key"]) for each in group]
    return [
        {**first.record, "key": key, "cell": cell, **result},
        *({**each, "key": key} for each in times[:1] if each),
    ]


def _pooling_note(
    unpoolable: Sequence[Entry], groups: Mapping[str, Sequence[Entry]]
) -> Iterator[str]:
    """What was pooled, and what is in the run under several seeds without being pooled."""
    members = sum(map(len, groups.values()))
    seeds = sorted({s for group in groups.values() for e in group for s in _seeds_of(e.cell)})
    if groups:
        named = ", ".join(map(str, seeds))
        yield f"{counted(members, 'cell')} of the seeds {named} pooled into {len(groups):,}"
    else:
        yield "nothing was pooled: no measurement has two seeds"
    alone: dict[str, list[Entry]] = {}
    for entry in unpoolable:
        if entry.record is not None and entry.record["status"] == "ok":
            alone.setdefault(_but_seeds(entry.cell), []).append(entry)
    left = [each for group in alone.values() if len(group) > 1 for each in group]
    if left:
        yield (
            f"{counted(len(left), 'cell')} not pooled: trainings, descents and estimators that "
            "adapt reach a state of their own with every seed"
        )
