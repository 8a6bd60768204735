"""Whether the tables and the report in a folder are still those that its run would give.

Deriving and drawing them takes longer than all else, and most are asked for again without a new
number.  The folder keeps a digest of everything that they depend on, and the files that they
consist of: they are made again if the digest differs, or if a file is missing or was changed.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gradest.report.formats import Formats
from gradest.runs import BLOCKS, DERIVED, JOURNAL, STAND_INS, Omission, checksum_of
from gradest.support import write_json

RECORD = ".report.json"

_CALL = ("started", "finished", "command")  # facts in which a run without a new cell may differ
_PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "pyarrow", "pillow", "torch")
_PAGE_PACKAGES = ("itables", "jinja2", "markdown-it-py", "tabulate")
_CODE = {".py", ".css", ".js", ".html"}
_LARGE = 2**28  # bytes of a file, of which only the size is compared


def digest_of(
    folder: Path,
    run: Mapping[str, Any],
    omission: Omission,
    formats: Formats | None,
) -> str:
    """SHA-256 of what the tables and the report of a run depend on.

    `run` is the content of run.json, as it will be or as it is.  Raises OSError.
    """
    kept = {key: value for key, value in run.items() if key not in (*_CALL, *DERIVED)}
    plain = {"facts": kept, "left out": omission.to_json()}
    plain["formats"] = None if formats is None else sorted(formats.names)
    plain["versions"] = {name: _version(name) for name in (*_PACKAGES, *_PAGE_PACKAGES)}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    # The blocks too, although lines have their checksums: a damaged one has to be told again.
    sources = [path for name in (JOURNAL, BLOCKS, STAND_INS) if (path := folder / name).is_file()]
    for root, files in ((folder, sources), *_code()):
        for path in files:
            digest.update(f"{path.relative_to(root)} {checksum_of(path)} ".encode())
    return digest.hexdigest()


def record_report(folder: Path, digest: str, files: Iterable[Path]) -> None:
    """Keep the digest of tables and report in a folder, `files`.  Raises OSError."""
    places = {str(path.relative_to(folder)): _fingerprint(path) for path in sorted(files)}
    write_json(folder / RECORD, {"digest": digest, "files": places})


def is_unchanged(folder: Path, digest: str) -> bool:
    """Whether tables and report in a folder have this digest, and are as they were written.

    Raises OSError for a file that exists but cannot be read.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        kept, files = record["digest"], dict(record["files"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):  # no record, or a damaged one
        return False
    paths = {folder / name: fingerprint for name, fingerprint in files.items()}
    return kept == digest and all(
        path.is_file() and _fingerprint(path) == fingerprint for path, fingerprint in paths.items()
    )


def _code() -> Iterable[tuple[Path, list[Path]]]:
    package = Path(__file__).parents[1]
    yield package, sorted(path for path in package.rglob("*") if path.suffix in _CODE)


def _fingerprint(path: Path) -> list[int]:
    """Size and CRC-32: files are changed by hand or damaged, not forged."""
    size = path.stat().st_size
    return [size, zlib.crc32(path.read_bytes()) if size <= _LARGE else 0]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
