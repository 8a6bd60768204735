"""Atomic writes of single files and of groups of files."""

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

from gradest.support.text import in_a_line

if TYPE_CHECKING:
    import pandas as pd

_STAGED = ".staged"  # subfolder with new files that are still being written
_COMPLETE = ".complete"  # the same subfolder once it is complete: its files can be moved
_MANIFEST = ".manifest"  # in the subfolder: the names of the new files and of those to delete
_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")  # names of the files of write_atomically


class Unwritable(OSError):
    """A file that could not be written; the message names it and the reason in one line."""

    def __init__(self, path: Path, error: Exception) -> None:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else in_a_line(str(error))
        super().__init__(number, reason)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: cannot be written: {self.strerror}"

    def __reduce__(self) -> tuple[Any, ...]:  # so that workers can send it to the run
        return Unwritable, (self.path, OSError(self.errno, self.strerror))


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path and move the complete file into place.

    Raises OSError that names the file if it cannot be written.
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
    """Write UTF-8; surrogates, which UTF-8 cannot represent, are written as escapes."""
    data = text.encode("utf-8", "backslashreplace")
    write_atomically(path, lambda partial: partial.write_bytes(data))


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def checksum(data: Any) -> str:
    """The CRC-32 of plain data as JSON, independent of the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"


def write_frame(path: Path, frame: "pd.DataFrame") -> None:
    """Write Parquet or CSV, depending on the suffix of the path."""
    if path.suffix == ".parquet":
        write_atomically(path, lambda partial: frame.to_parquet(partial, index=False))
    else:
        write_atomically(path, lambda partial: frame.to_csv(partial, index=False))


@contextmanager
def replacing(folder: Path, stale: Callable[[set[Path]], Iterable[Path]]) -> Iterator[Path]:
    """A temporary subfolder whose files are moved into `folder` together when the block ends.

    `stale` receives their names, relative to `folder`, and returns the files to delete at the same
    time.  If an exception or a kill stops the block, all files of `folder` stay as they were.  If a
    kill comes later, while the files are moved, `settle` finishes the work.

    Raises OSError that names the file if something cannot be written.
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
    """Finish the work of a killed writer: move complete files, delete incomplete ones.

    The caller must hold the lock of the folder.
    """
    _discard(folder / _STAGED)
    complete = folder / _COMPLETE
    if not complete.is_dir():
        return
    try:
        manifest = json.loads((complete / _MANIFEST).read_text(encoding="utf-8"))
        moves = manifest["moves"] if manifest["checksum"] == checksum(manifest["moves"]) else {}
        new, gone = (list(map(Path, moves[key])) for key in ("new", "gone"))
    except (OSError, ValueError, LookupError, TypeError):  # damaged: keep the files in place
        _discard(complete)
        return
    for name in new:
        if (complete / name).is_file():
            _move(complete / name, folder / name)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    _discard(complete)


def clear_temporary(folders: Iterable[Path]) -> None:
    """Delete the temporary files that killed calls of `write_atomically` have left."""
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if _TEMPORARY.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def _move(path: Path, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    except OSError as error:  # for example if a folder of that name exists
        raise Unwritable(place, error) from error


def _discard(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
