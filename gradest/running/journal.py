"""The source of truth of a run: an append-only file with one record a line.

A record is written by whoever measured it, under a lock, in one piece and to the disk, so that
neither Ctrl-C nor kill -9 loses a finished cell.  Tables are derived from it and never the
other way round.

Every line ends with a CRC-32 of all its bytes before, inside the JSON: a flipped bit, or any burst
of up to 32, is always found, anything else with a probability of 1 − 2⁻³².  A cryptographic hash
would be slower and no better, since nobody but chance damages a journal.  The first line is a
header with the version of this format.  Version 1 had no checksums: such a journal is read, with a
word on that, and the next run into its folder writes it anew.
"""

import json
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock

from gradest.errors import UsageError
from gradest.files import Unwritable, write_atomically
from gradest.running.records import problem

Record = dict[str, Any]

VERSION = 2
DAMAGED = "journal.damaged.jsonl"  # what a journal was before its damaged lines were left out

_SEAL = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_SEAL_LENGTH = len(', "crc32": "01234567"}')
_BLOCK = 1 << 20


class Damage(NamedTuple):
    """A line that is no record of this journal, and why."""

    line: int
    reason: str


@dataclass
class Contents:
    """What a journal holds: its header, if it can be read, its good records, and its damage."""

    path: Path
    header: Record | None = None
    records: list[Record] = field(default_factory=list)  # without the header, in order
    damage: list[Damage] = field(default_factory=list)
    sealed: bool = True  # whether its lines have checksums

    @property
    def suite(self) -> str | None:
        """The suite of the header; where that is damaged, the one that the records name."""
        named = (record.get("suite") for record in (self.header or {}, *self.records))
        return next((name for name in named if name), None)

    @property
    def told(self) -> list[str]:
        """A line for each damage, with the name of the file in its folder."""
        return [f"{self.path.name}:{line}: damaged: {reason}" for line, reason in self.damage]


class Journal:
    """The records in one run folder, damage in which is mended on opening.

    Damaged lines are left out: `damage` has a line on each, and the file as it was is kept beside
    the journal, as journal.damaged.jsonl.  `fresh` begins anew, whatever the file holds.

    Raises UsageError when the folder's journal belongs to another suite, or nothing in it is a
    record, or it cannot be read.
    """

    def __init__(self, folder: Path, suite: str, fresh: bool = False) -> None:
        self.path = folder / "journal.jsonl"
        self.suite = suite
        self.damage: list[str] = []
        found = self._contents(fresh)
        if found.suite not in (None, suite):
            raise UsageError(
                f"{folder} holds the results of another suite, {found.suite!r}; "
                "name another folder with --out"
            )
        if fresh:
            _set_aside(self.path)
            found = Contents(self.path)
        elif found.damage and not found.header and not found.records:
            raise UsageError(
                f"{self.path}: holds no record of gradest ({found.damage[0].reason}); "
                "--fresh measures every cell again"
            )
        header = found.header or {"kind": "journal", "id": uuid.uuid4().hex}
        header |= {"suite": suite, "version": VERSION}
        self.id = header["id"]
        if found.damage or not found.sealed or (found.records and not found.header):
            self.damage = found.told
            self._rewrite(header, found)
        elif not found.header:
            append_record(self.path, header)

    def append(self, record: Record) -> None:
        append_record(self.path, {"suite": self.suite, **record})

    def records(self) -> Iterator[Record]:
        return read_records(self.path)

    def _contents(self, fresh: bool) -> Contents:
        try:
            return read_journal(self.path)
        except UsageError:
            if fresh:  # what cannot be read is set aside
                return Contents(self.path)
            raise

    def _rewrite(self, header: Record, found: Contents) -> None:
        """Leave the good records alone in the file, each with its checksum."""
        if found.damage:
            shutil.copyfile(self.path, self.path.with_name(DAMAGED))

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                for record in (header, *found.records):
                    file.write(_sealed(record))
                file.flush()
                os.fsync(file.fileno())

        with FileLock(_lock(self.path)):
            write_atomically(self.path, write)


def read_records(path: Path) -> Iterator[Record]:
    """Every good record, the header first."""
    found = read_journal(path)
    if found.header:
        yield found.header
    yield from found.records


def read_journal(path: Path) -> Contents:
    """All that the file holds; nothing where there is none.

    A last line that was cut short by a kill counts as not written.  Raises UsageError for a file
    that cannot be read, and for one of a later version.
    """
    found = Contents(path)
    try:
        with path.open("rb", buffering=_BLOCK) as file:
            entries = [_entry(number, line) for number, line in enumerate(file, 1)]
    except FileNotFoundError:
        return found
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    found.sealed = not entries or any(entry.sealed for entry in entries)
    for number, record, reason, sealed in entries:
        if record is not None and found.sealed and not sealed:
            reason = "has no checksum"  # as all others have
        if record is None and not reason:
            continue
        if reason or (reason := problem(record)):
            found.damage.append(Damage(number, reason))
        elif record["kind"] != "journal":
            found.records.append(record)
        elif found.header is None:
            found.header = record
            if record.get("version", 1) > VERSION:
                raise UsageError(
                    f"{path}: written by a later version of gradest (format "
                    f"{record['version']}, known is {VERSION})"
                )
        elif record["id"] != found.header["id"]:
            found.damage.append(Damage(number, "is the header of another journal"))
    return found


def append_record(path: Path, record: Record) -> None:
    """Write one line, all of it, to the disk before returning.

    Raises OSError, naming the file, when that is not possible.
    """
    line = _sealed(record)
    try:
        with FileLock(_lock(path)), path.open("ab+") as file:
            _mend_last_line(file)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Unwritable(path, error) from error


def append_if_shared(path: Path, journal_id: str, record: Record) -> bool:
    """Write the record if this machine sees that very journal; whether it did.

    A worker on another machine may have no such file, or another run's at the same path.
    """
    header = _header(path)
    if header.get("id") != journal_id:
        return False
    append_record(path, {"suite": header["suite"], **record})
    return True


def _header(path: Path) -> Record:
    """That of the first line alone: a run that appends has mended its journal before."""
    try:
        with path.open("rb") as file:
            return _entry(1, file.readline()).record or {}
    except OSError:  # as where there is no such file
        return {}


class _Entry(NamedTuple):
    number: int
    record: Record | None
    reason: str  # what is wrong with it; nothing of a line that was cut short
    sealed: bool  # whether it has a checksum, be it right or wrong


def _entry(number: int, line: bytes) -> _Entry:
    whole = line.endswith(b"\n")
    line = line.removesuffix(b"\n").removesuffix(b"\r")  # an editor may have converted the file
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    seal = _SEAL.fullmatch(line[-_SEAL_LENGTH:])
    if seal and zlib.crc32(memoryview(line)[:-_SEAL_LENGTH]) != int(seal[1], 16):
        return _Entry(number, None, "checksum does not match", True)
    if not whole and not seal:
        return _Entry(number, None, "", False)
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        return _Entry(number, None, "is not UTF-8", bool(seal))
    except (ValueError, RecursionError):
        return _Entry(number, None, "is not JSON", bool(seal))
    if not isinstance(record, dict):
        return _Entry(number, None, "is not a record", bool(seal))
    record.pop("crc32", None)
    return _Entry(number, record, "", bool(seal))


def _sealed(record: Record) -> bytes:
    """Its line, in ASCII, so that a name which is no Unicode can be written, too."""
    body = json.dumps(record)[:-1].encode()
    return b'%s, "crc32": "%08x"}\n' % (body, zlib.crc32(body))


def _lock(path: Path) -> Path:
    return path.with_name(".journal.lock")


def _mend_last_line(file: BinaryIO) -> None:
    """A killed writer may have left half a line; the next record must not be glued to it.

    One that lacks nothing but its end gets it.
    """
    end = file.seek(0, os.SEEK_END)
    start, last = end, b""
    while start and b"\n" not in last:
        size = min(_BLOCK, start)
        start -= size
        file.seek(start)
        last = file.read(size) + last
    line = last[last.rfind(b"\n") + 1 :]
    if not line:
        return
    if _entry(2, line).record is not None:
        file.write(b"\n")  # in this mode always at the end
    else:
        file.truncate(end - len(line))


def _set_aside(path: Path) -> None:
    """Begin anew; what is no file is kept under another name."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}"))
    else:
        path.unlink(missing_ok=True)
