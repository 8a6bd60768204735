"""Published data files: downloaded where they are missing, verified whenever they are read."""

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from filelock import FileLock

from gradest.errors import DataError

from ._cache import cache_folder

if TYPE_CHECKING:
    from rich.progress import Progress

_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 18  # bytes


class Published(NamedTuple):
    """A file as its authors publish it."""

    name: str  # set/file, below the data folder
    url: str
    checksum: str  # algorithm:hexadecimal digits


class Content(NamedTuple):
    """What a file holds, and where it lies, for messages."""

    path: Path
    data: bytes


def data_folder() -> Path:
    """$GRADEST_DATA, or data in the cache folder."""
    if named := os.environ.get("GRADEST_DATA"):
        return Path(named)
    return cache_folder() / "data"


def obtain(file: Published) -> Content:
    """The file's bytes, which are verified; it is downloaded first where it is missing.

    Verified are the bytes that are returned, so nothing can change them in between.

    Raises DataError, in one line that says what to do, when the file has another checksum, cannot
    be read, or is missing and cannot be downloaded or written.
    """
    path = data_folder() / file.name
    elsewhere = "set $GRADEST_DATA to use another folder"
    try:
        if not path.exists():
            _download(file, path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path} is missing and cannot be written: {reason}; {elsewhere}") from None
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path} cannot be read: {reason}; {elsewhere}") from None
    if wrong := _mismatch(data, file.checksum):
        raise DataError(
            f"{path} is truncated or altered: {wrong}; delete it to download it again, or "
            f"replace it by {file.url}"
        )
    return Content(path, data)


def _mismatch(data: bytes, checksum: str) -> str:
    """The difference of the checksum of these bytes, or an empty string."""
    algorithm, expected = checksum.split(":")
    found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    return "" if found == expected else f"expected {algorithm} {expected}, got {found}"


def _download(file: Published, path: Path) -> None:
    """Writes `path`, or nothing.  Of several processes one downloads and the others wait.

    Raises DataError, and OSError when `path` cannot be written.
    """
    try:
        import requests
        from pooch import HTTPDownloader  # an optional extra, and only for this
    except ImportError:
        raise DataError(
            f"{path} is missing; pip install 'gradest[data]' to download it, or save {file.url} "
            "there"
        ) from None

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with FileLock(path.with_name(".lock")):
        if path.exists():
            return
        try:
            _fetch(HTTPDownloader, file.url, partial, path.name)
            if wrong := _mismatch(partial.read_bytes(), file.checksum):
                raise DataError(
                    f"{file.url} is no longer {path.name}: {wrong}; nothing is saved, find the "
                    f"file elsewhere and save it as {path}"
                )
            partial.replace(path)
        except requests.HTTPError as error:
            status = f"{error.response.status_code} {error.response.reason}"
            raise DataError(
                f"{path} is missing, and {file.url} answers {status}; "
                "find the file elsewhere and save it there"
            ) from None
        except requests.RequestException as error:
            raise DataError(
                f"{path} is missing, and {urlsplit(file.url).netloc} does not deliver it "
                f"({type(error).__name__}); save {file.url} there"
            ) from None
        finally:
            partial.unlink(missing_ok=True)


def _fetch(downloader: Callable[..., Any], url: str, path: Path, name: str) -> None:
    """Downloads to `path` and shows how far it is.

    Raises requests.RequestException and OSError.
    """
    with _progress() as progress, ExitStack() as opened:

        def close_at_the_end(response: Any, **_: object) -> None:
            opened.callback(response.close)  # pooch leaves it open where it fails

        download = downloader(
            progressbar=_Bar(progress, name),
            chunk_size=_CHUNK,
            timeout=_TIMEOUT,
            # As published: a body compressed for the journey has another length.
            headers={"Accept-Encoding": "identity"},
            hooks={"response": close_at_the_end},
        )
        download(url, str(path), None)


def _progress() -> "Progress":
    """Bars on a terminal's standard error; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class _Bar:
    """What pooch asks of a progress bar, drawn by rich."""

    def __init__(self, progress: "Progress", name: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None)

    @property
    def total(self) -> float | None:
        return self._progress.tasks[self._task].total

    @total.setter
    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size or None)  # 0: the server does not say

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        pass
