"""The journal of a run: an append-only file with one record per line.

The process that measures a cell writes its record under a lock and in one piece, so that neither
Ctrl-C nor kill -9 loses a finished cell.  All tables are derived from the journal.

Every line ends with a CRC-32 of its preceding bytes, inside the JSON: a flipped bit, or any burst
of up to 32, is always detected, other damage with a probability of 1 − 2⁻³².  A cryptographic hash
would be slower and no better, since a journal is damaged only by accident.  The first line is a
header with the version of this format.  Version 1 had no checksums: such a journal is read, with a
warning, and the next run into its folder rewrites it.  Version 2 had every tensor in its line;
since version 3 large ones are blocks of journal.bin (`gradest/runs/blocks.py`), and a record that
was read leaves their numbers on the disk until somebody asks for them.

Reference results keep their journal compressed, as journal.jsonl.xz, which is read where there is
no journal.jsonl.  It has no blocks.
"""

import json
import lzma
import os
import re
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock

from gradest.errors import UsageError
from gradest.runs.blocks import BLOCKS, BlockFile, extract, write_blocks
from gradest.runs.records import problem
from gradest.support import Unwritable, collector_paused, write_atomically

Record = dict[str, Any]

VERSION = 3
_WITHOUT_BLOCKS = 2  # the version of journals that have none, which earlier releases read too
JOURNAL = "journal.jsonl"
DAMAGED = "journal.damaged.jsonl"  # a copy of the journal with its damaged lines
PACKED = "journal.jsonl.xz"  # a compressed journal, which no run continues

_SEAL = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_SEAL_LENGTH = len(', "crc32": "01234567"}')
_PIECE = 1 << 20  # bytes that are read at once
# Only a power cut loses what was written and not yet synchronised, which takes milliseconds: more
# than the rest of writing a small record, and as long as a fast cell.  A cell that took a second is
# on the disk when its record is written, and so are all records before it.  Faster ones and times
# follow when the system writes its buffers, within half a minute by default: a power cut costs the
# work of that time at most, and never gives a wrong number, since lines and blocks have checksums.
_WORTH_SECONDS = 1.0


class Damage(NamedTuple):
    """A line that is not a valid record of this journal."""

    line: int
    reason: str


@dataclass
class Contents:
    """The contents of a journal: its header, its valid records and its damaged lines."""

    path: Path
    header: Record | None = None  # None if it is damaged
    records: list[Record] = field(default_factory=list)  # in order, without the header
    damage: list[Damage] = field(default_factory=list)
    sealed: bool = True  # whether the lines have checksums

    @property
    def suite(self) -> str | None:
        """The suite in the header; if that is damaged, the suite in the records."""
        names = (record.get("suite") for record in (self.header or {}, *self.records))
        return next((name for name in names if name), None)

    @property
    def told(self) -> list[str]:
        """A message for each damaged line, with the name of the file and the line."""
        return [f"{self.path.name}:{line}: damaged: {reason}" for line, reason in self.damage]


class Journal:
    """The journal in one run folder, repaired when it is opened.

    Damaged lines are removed: `damage` has a message for each, and the original file is kept next
    to the journal as journal.damaged.jsonl.  `fresh` starts an empty journal.  `opened` has the
    valid records of that moment, without the header.

    Raises UsageError if the journal belongs to another suite, contains no valid record or cannot be
    read.
    """

    def __init__(self, folder: Path, suite: str, fresh: bool = False) -> None:
        self.path = folder / JOURNAL
        self.suite = suite
        self.damage: list[str] = []
        contents = self._contents(fresh)
        if contents.suite not in (None, suite):
            raise UsageError(
                f"{folder}: expected results of the suite {suite!r}, got results of "
                f"{contents.suite!r}; choose another folder with --out"
            )
        if fresh:
            _remove_journal(self.path)
            contents = Contents(self.path)
        elif contents.damage and not contents.header and not contents.records:
            raise UsageError(
                f"{self.path}: contains no record of gradest ({contents.damage[0].reason}); "
                "use --fresh to measure every cell again"
            )
        header = contents.header or {"kind": "journal", "id": uuid.uuid4().hex}
        current = header.get("version", 1 if contents.header else VERSION) == VERSION
        header = header | {"suite": suite, "version": VERSION}
        self.id = header["id"]
        self.opened: list[Record] = contents.records
        headless = bool(contents.records) and not contents.header
        if contents.damage or not contents.sealed or headless or not current:
            self.damage = contents.told
            self._rewrite(header, contents)
        elif not contents.header:
            append_record(self.path, header)

    def append(self, record: Record) -> None:
        append_record(self.path, {"suite": self.suite, **record})

    def _contents(self, fresh: bool) -> Contents:
        try:
            return read_journal(self.path)
        except UsageError:
            if fresh:  # an unreadable journal is replaced
                return Contents(self.path)
            raise

    def _rewrite(self, header: Record, contents: Contents) -> None:
        """Replace the file by its valid lines, each with its checksum; blocks stay where they are.

        The bytes of blocks that no line names any more are not reclaimed: they are the evidence of
        what was damaged, as the copy of the lines is.
        """
        if contents.damage:
            shutil.copyfile(self.path, self.path.with_name(DAMAGED))
        damaged = {each.line for each in contents.damage}

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                file.write(_sealed(header))
                for number, line in _lines(self.path):
                    record = None if number in damaged else _entry(number, line).record
                    if record is not None and record["kind"] != "journal":
                        file.write(_sealed(record))
                _flush(file)

        with FileLock(_lock(self.path)):
            write_atomically(self.path, write)


def write_journal(path: Path, suite: str, records: Iterable[Record]) -> None:
    """Write a whole journal at once, with a new id.  Raises OSError that names the file.

    The records may be made while they are written.  The folder has no journal that a kill between
    the moves of the two files could leave with the blocks of the other one.
    """
    header = {"kind": "journal", "id": uuid.uuid4().hex, "suite": suite, "version": VERSION}

    def write_both(partial: Path) -> None:
        def write(partial_blocks: Path) -> None:
            with partial.open("wb") as file, partial_blocks.open("wb") as block_file:
                file.write(_sealed(header))
                for record in records:
                    file.write(_sealed(_with_places({**record, "suite": suite}, block_file)))
                _flush(file)
                _flush(block_file)

        write_atomically(path.with_name(BLOCKS), write)

    write_atomically(path, write_both)
    if not path.with_name(BLOCKS).stat().st_size:
        path.with_name(BLOCKS).unlink()


def _with_places(record: Record, block_file: BinaryIO) -> Record:
    """The record as its line has it, when its blocks have been written to the file."""
    line, blocks = extract(record)
    return line | {"blocks": write_blocks(block_file, blocks)} if blocks else line


def _flush(file: BinaryIO, sync: bool = True) -> None:
    """Hand the bytes to the system, and with `sync` wait until they are on the disk."""
    file.flush()
    if sync:
        os.fsync(file.fileno())


def read_records(path: Path) -> Iterator[Record]:
    """Every valid record, the header first."""
    contents = read_journal(path)
    if contents.header:
        yield contents.header
    yield from contents.records


def read_journal(path: Path, verify: bool = True) -> Contents:
    """The contents of the file, or of the compressed one in its place; empty if there is neither.

    A last line that a kill has cut short counts as not written.  A record whose blocks are damaged
    counts as a damaged line; with `verify` False, which does not read the blocks, only if they are
    not there, and others raise DamagedBlock where they are read.  Raises UsageError for a file that
    cannot be read or that a later version has written.
    """
    contents = Contents(path)
    with collector_paused():  # JSON has no cycles
        entries = [_entry(number, line) for number, line in _lines(path)]
    contents.sealed = not entries or any(entry.sealed for entry in entries)
    with BlockFile(path.with_name(BLOCKS), verify) as blocks:
        for number, record, reason, sealed in entries:
            if record is not None and contents.sealed and not sealed:
                reason = "checksum is missing"  # unlike the others
            if record is None and not reason:
                continue
            reason = reason or problem(record) or blocks.attach(record)
            if reason:
                contents.damage.append(Damage(number, reason))
            elif record["kind"] != "journal":
                contents.records.append(record)
            elif contents.header is None:
                contents.header = record
                _refuse_later(path, record)
            elif record["id"] != contents.header["id"]:
                contents.damage.append(Damage(number, "header of another journal"))
    return contents


def read_header(path: Path) -> Record | None:
    """The header of the file, or of the compressed one in its place; None without a valid one.

    Raises UsageError for a file that cannot be read or that a later version has written.
    """
    for number, line in _lines(path):
        record = _entry(number, line).record
        if record and record.get("kind") == "journal" and not problem(record):
            _refuse_later(path, record)
            return record
    return None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a journal; none if there is no file."""
    try:
        with _opened(path) as file:
            yield from enumerate(file, 1)
    except FileNotFoundError:
        return
    except (lzma.LZMAError, EOFError) as error:
        raise UsageError(f"{path.with_name(PACKED)}: cannot be read: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _refuse_later(path: Path, header: Record) -> None:
    if header.get("version", 1) > VERSION:
        raise UsageError(
            f"{path}: written by a later version of gradest (expected format {VERSION} or "
            f"earlier, got {header['version']}); upgrade gradest to read it"
        )


def pack_journal(folder: Path, suite: str, records: Iterable[Record]) -> None:
    """Write the records as the compressed journal of a folder; its bytes depend on nothing else.

    The records may be made while they are written.  Raises OSError that names the file.
    """

    def write(partial: Path) -> None:
        crc = 0
        # The header, which comes first, has a checksum of all the others as its id.
        with tempfile.TemporaryFile(dir=partial.parent) as body:
            for record in records:
                line = _sealed({"suite": suite, **record})
                crc = zlib.crc32(line, crc)
                body.write(line)
            header = {"kind": "journal", "id": f"{crc:08x}"}
            header |= {"suite": suite, "version": _WITHOUT_BLOCKS}
            body.seek(0)
            with lzma.open(partial, "wb", preset=9 | lzma.PRESET_EXTREME) as packed:
                packed.write(_sealed(header))
                shutil.copyfileobj(body, packed, _PIECE)

    write_atomically(folder / PACKED, write)


def _opened(path: Path) -> BinaryIO:
    packed = path.with_name(PACKED)
    if not path.exists() and packed.is_file():
        return lzma.open(packed)
    return path.open("rb", buffering=_PIECE)


def append_record(path: Path, record: Record) -> None:
    """Write one complete line, and before it the blocks of its large tensors.

    Raises OSError that names the file if that fails.
    """
    line, blocks = extract(record)  # compressed before the lock is taken
    sync = _is_worth_a_sync(record)
    try:
        with FileLock(_lock(path)):
            if blocks:
                with path.with_name(BLOCKS).open("ab") as block_file:
                    line["blocks"] = write_blocks(block_file, blocks)
                    _flush(block_file, sync)
            with path.open("ab+") as file:
                _repair_last_line(file)
                file.write(_sealed(line))
                _flush(file, sync)
    except OSError as error:
        raise Unwritable(path, error) from error


def _is_worth_a_sync(record: Record) -> bool:
    """Whether a power cut must not lose it; see `_WORTH_SECONDS`."""
    elapsed = record.get("elapsed")
    fast = isinstance(elapsed, int | float) and elapsed < _WORTH_SECONDS
    return not fast and record.get("kind") != "seconds"


def append_if_shared(path: Path, journal_id: str, record: Record) -> bool:
    """Write the record if this machine has access to that journal; returns whether it has.

    A worker on another machine may have no such file, or the journal of another run at that path.
    """
    header = _header(path)
    if header.get("id") != journal_id:
        return False
    append_record(path, {"suite": header["suite"], **record})
    return True


def _header(path: Path) -> Record:
    """The header in the first line: a run repairs its journal before it appends to it."""
    try:
        with path.open("rb") as file:
            return _entry(1, file.readline()).record or {}
    except OSError:  # for example if the file does not exist
        return {}


class _Entry(NamedTuple):
    number: int
    record: Record | None
    reason: str  # what is wrong with the line; empty for a line that was cut short
    sealed: bool  # whether the line has a checksum, right or wrong


def _entry(number: int, line: bytes) -> _Entry:
    complete = line.endswith(b"\n")
    line = line.removesuffix(b"\n").removesuffix(b"\r")  # an editor may have converted the file
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    seal = _SEAL.fullmatch(line[-_SEAL_LENGTH:])
    if seal and zlib.crc32(memoryview(line)[:-_SEAL_LENGTH]) != int(seal[1], 16):
        return _Entry(number, None, "checksum does not match", True)
    if not complete and not seal:
        return _Entry(number, None, "", False)
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        return _Entry(number, None, "not valid UTF-8", bool(seal))
    except (ValueError, RecursionError):
        return _Entry(number, None, "not valid JSON", bool(seal))
    if not isinstance(record, dict):
        return _Entry(number, None, "not a record", bool(seal))
    record.pop("crc32", None)
    return _Entry(number, record, "", bool(seal))


def _sealed(record: Record) -> bytes:
    """The line of a record, in ASCII, so that names that are not valid Unicode can be written."""
    body = json.dumps(record)[:-1].encode()
    return b'%s, "crc32": "%08x"}\n' % (body, zlib.crc32(body))


def _lock(path: Path) -> Path:
    return path.with_name(".journal.lock")


def _repair_last_line(file: BinaryIO) -> None:
    """Remove the incomplete line of a killed writer, which would merge with the next record.

    A line that lacks only its line break is completed.
    """
    end = file.seek(0, os.SEEK_END)
    if not end or _read(file, end - 1, 1) == b"\n":  # as it nearly always is
        return
    start, line = end, b""
    while start and b"\n" not in line:
        size = min(_PIECE, start)
        start -= size
        line = _read(file, start, size) + line
    line = line[line.rfind(b"\n") + 1 :]
    if _entry(2, line).record is not None:
        file.write(b"\n")  # this file mode always appends
    else:
        file.truncate(end - len(line))


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _remove_journal(path: Path) -> None:
    """Delete the blocks, then the journal; a folder in the place of either is renamed.

    After a kill between the two, the next run finds a journal whose blocks are missing.
    """
    for each in (path.with_name(BLOCKS), path):
        if each.is_dir() and not each.is_symlink():
            each.rename(each.with_name(f"{each.name}.{uuid.uuid4().hex[:8]}"))
        else:
            each.unlink(missing_ok=True)
