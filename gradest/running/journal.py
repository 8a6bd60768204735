"""The source of truth of a run: an append-only file with one record a line.

A record is written by whoever measured it, under a lock, in one piece and to the disk, so that
neither Ctrl-C nor kill -9 loses a finished cell.  Tables are derived from it and never the
other way round.
"""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from gradest.errors import UsageError

Record = dict[str, Any]


class Journal:
    """The records in one run folder.

    Raises UsageError when the folder's journal belongs to another suite or is damaged.
    """

    def __init__(self, folder: Path, suite: str) -> None:
        self.path = folder / "journal.jsonl"
        if not any(self.records()):
            self.append({"kind": "journal", "suite": suite, "id": uuid.uuid4().hex})
        header = next(self.records())
        if header.get("kind") != "journal" or header.get("suite") != suite:
            raise UsageError(
                f"{folder} holds the results of another suite, {header.get('suite')!r}; "
                "name another folder with --out"
            )
        self.id = header["id"]

    def append(self, record: Record) -> None:
        append_record(self.path, record)

    def records(self) -> Iterator[Record]:
        return read_records(self.path)


def read_records(path: Path) -> Iterator[Record]:
    """Every whole record.  Raises UsageError for a line that is none."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return  # cut short by a kill: that cell is measured again
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                raise UsageError(
                    f"{path}:{number}: not a record; move the folder away or use --fresh"
                ) from None


def append_record(path: Path, record: Record) -> None:
    """Write one line, all of it, to the disk before returning.

    Raises OSError when that is not possible.
    """
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    with FileLock(path.with_name(".journal.lock")), path.open("ab+") as file:
        _cut_unfinished_line(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def append_if_shared(path: Path, journal_id: str, record: Record) -> bool:
    """Write the record if this machine sees that very journal; whether it did.

    A worker on another machine may have no such file, or another run's at the same path.
    """
    header = next(read_records(path), {})
    if header.get("id") != journal_id:
        return False
    append_record(path, record)
    return True


def _cut_unfinished_line(file: BinaryIO) -> None:
    """A killed writer may have left half a line; the next record must not be glued to it."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
