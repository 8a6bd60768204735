"""Whether the report in a folder is still the one that its run would give.

Drawing takes longer than all else, and most reports are asked for again without a new number.  The
folder keeps a digest of everything that the report depends on, and the files that it consists of:
it is drawn again if the digest differs, or if a file is missing or was changed.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gradest.report.formats import Formats
from gradest.support import write_json

RECORD = ".report.json"

_TIMES = ("started", "finished", "checksum")  # facts in which an unchanged run differs
_PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "pyarrow", "pillow")
_PAGE_PACKAGES = ("itables", "jinja2", "markdown-it-py", "tabulate")
_CODE = {".py", ".css", ".js", ".html"}
_CSV, _RUN = ".csv", "run.json"  # a copy of a parquet file; the facts, without their times


def digest_of(
    tables: Path, facts: Mapping[str, Any], formats: Formats, figures: Iterable[str]
) -> str:
    """SHA-256 of what a report depends on.

    `tables` is the folder of a run whose report is not written yet, `facts` the content of its
    run.json, and `figures` are the names of those that are drawn.  Raises OSError.
    """
    kept = {key: value for key, value in facts.items() if key not in _TIMES}
    plain = {"facts": kept, "formats": sorted(formats.names), "figures": list(figures)}
    plain["versions"] = {name: _version(name) for name in (*_PACKAGES, *_PAGE_PACKAGES)}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for folder, files in ((tables, _tables(tables)), *_code()):
        for path in files:
            data = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(data)} ".encode())
            digest.update(data)
    return digest.hexdigest()


def record_report(folder: Path, digest: str, files: Iterable[Path]) -> None:
    """Keep the digest of the report in a folder, which consists of `files`.  Raises OSError."""
    places = {str(path.relative_to(folder)): _fingerprint(path) for path in sorted(files)}
    write_json(folder / RECORD, {"digest": digest, "files": places})


def is_unchanged(folder: Path, digest: str) -> bool:
    """Whether the report in a folder has this digest, and all files as they were written.

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


def _tables(folder: Path) -> list[Path]:
    every = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in every if path.suffix != _CSV and path.name != _RUN)


def _code() -> Iterable[tuple[Path, list[Path]]]:
    package = Path(__file__).parents[1]
    yield package, sorted(path for path in package.rglob("*") if path.suffix in _CODE)


def _fingerprint(path: Path) -> list[int]:
    """Size and CRC-32: files are changed by hand or damaged, not forged."""
    data = path.read_bytes()
    return [len(data), zlib.crc32(data)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
