"""Files that are whole or absent, alone and many together."""

import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradest.text import in_a_line

if TYPE_CHECKING:
    import pandas as pd

_STAGED = ".staged"  # in a folder: files on their way, not all there yet
_COMPLETE = ".complete"  # all there: they only have to be moved to their places
_MANIFEST = ".manifest"  # in either: the names of all files, and of those that go
_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")  # names that write_atomically makes


class Unwritable(OSError):
    """A file that could not be written, by its name, and why, in one line."""

    def __init__(self, path: Path, error: Exception) -> None:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else in_a_line(str(error))
        super().__init__(number, reason)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: cannot be written: {self.strerror}"

    def __reduce__(self) -> tuple[Any, ...]:  # workers send it to the run
        return Unwritable, (self.path, OSError(self.errno, self.strerror))


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path and move the result into place: whole or not at all.

    Raises OSError, naming the file, where that is not possible.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix
        )
        partial = Path(name)
        os.close(handle)
        write(partial)
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        raise Unwritable(path, error) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """In UTF-8; of a surrogate, which UTF-8 has no bytes for, the escape is written."""
    data = text.encode("utf-8", "backslashreplace")
    write_atomically(path, lambda partial: partial.write_bytes(data))


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def checksum(data: Any) -> str:
    """The CRC-32 of plain data as JSON, whatever order its keys are in."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"


def write_frame(path: Path, frame: "pd.DataFrame") -> None:
    """As Parquet or CSV, by the path's suffix."""
    if path.suffix == ".parquet":
        write_atomically(path, lambda partial: frame.to_parquet(partial, index=False))
    else:
        write_atomically(path, lambda partial: frame.to_csv(partial, index=False))


@contextmanager
def replacing(folder: Path, stale: Callable[[set[Path]], Iterable[Path]]) -> Iterator[Path]:
    """A new folder in `folder`, all of whose files take their places together when the block ends.

    `stale` is told their names, relative to `folder`, and says which other ones go then.  Whatever
    stops the block, an exception or a kill, leaves all files of `folder` as they were.  Once the
    new ones are complete, a kill leaves the rest to `settle`.

    Raises OSError, naming the file at its place, where something cannot be written.
    """
    settle(folder)
    staged, complete = folder / _STAGED, folder / _COMPLETE
    try:
        staged.mkdir(parents=True)
        yield staged
        files = [path for path in staged.rglob("*") if path.is_file()]
        names = sorted(str(path.relative_to(staged)) for path in files)
        gone = sorted(map(str, stale({Path(name) for name in names})))
        moves = {"new": names, "gone": gone}
        write_json(staged / _MANIFEST, {"moves": moves, "checksum": checksum(moves)})
        staged.rename(complete)
    except OSError as error:
        path = getattr(error, "path", None) or folder
        shutil.rmtree(staged, ignore_errors=True)
        if path.is_relative_to(staged):
            path = folder / path.relative_to(staged)
        raise Unwritable(path, error) from error
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    settle(folder)


def settle(folder: Path) -> None:
    """Finish what a killed writer began: move what was complete, clear what was not.

    Only whoever holds the folder may call it.
    """
    _discard(folder / _STAGED)
    complete = folder / _COMPLETE
    if not complete.is_dir():
        return
    try:
        named = json.loads((complete / _MANIFEST).read_text(encoding="utf-8"))
        moves = named["moves"] if named["checksum"] == checksum(named["moves"]) else {}
        new, gone = (list(map(Path, moves[key])) for key in ("new", "gone"))
    except (OSError, ValueError, LookupError, TypeError):  # damaged: what is in place stays
        _discard(complete)
        return
    for name in new:
        if (complete / name).is_file():
            _move(complete / name, folder / name)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    _discard(complete)


def clear_temporary(folders: Iterable[Path]) -> None:
    """Remove what killed calls of `write_atomically` left in the folders."""
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if _TEMPORARY.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def _move(path: Path, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    except OSError as error:  # as where somebody has made a folder of that name
        raise Unwritable(place, error) from error


def _discard(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
