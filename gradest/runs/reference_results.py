"""The reference results that come with gradest: for some suites a run of it, reduced.

They are results/reference/ in a clone and a part of the package where it is installed.  The folder
of a suite has its run.json, its tables, and a compressed journal whose moments are merged to a few
batches; `make reference` writes it, and manifest.json with checksums, versions and machine of each.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradest.errors import UsageError
from gradest.runs.tables import read_run
from gradest.support import in_a_line, shortened

REFERENCE = "reference"  # in place of a run's folder: the reference results of the suite
MANIFEST = "manifest.json"
VERSION = 1  # of the manifest's format


class Baseline(NamedTuple):
    """A run to compare with, or to take rows from: how messages call it, and its folder."""

    name: str
    folder: Path


def references_folder() -> Path:
    """Where the reference results are."""
    package = Path(__file__).parents[1]
    installed = package / "references"  # setuptools maps results/reference to it
    return installed if installed.is_dir() else package.parent / "results" / "reference"


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Suite -> checksums of its files, versions, commit and machine; empty without a manifest.

    Raises UsageError for a manifest that is damaged, or of a later version of gradest.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, suites = content["version"], dict(content["suites"])
        valid = all(isinstance(each["files"], dict) for each in suites.values())
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read: {in_a_line(str(error))}") from None
    if version != VERSION or not valid:
        raise UsageError(
            f"{path}: expected a manifest of format {VERSION}, got {shortened(version)}; "
            "install the version of gradest that the reference results belong to"
        )
    return suites


def find_reference(suite: str, folder: Path | None = None) -> Path:
    """The folder with the reference results of a suite, whose files are intact.

    Raises UsageError, which names the suites that have some, if there are none, and for files
    that are missing or damaged.
    """
    folder = references_folder() if folder is None else folder
    suites = read_manifest(folder)
    if suite not in suites:
        exist = f"there are some of {', '.join(sorted(suites))}" if suites else "there are none"
        raise UsageError(
            f"no reference results of the suite {shortened(suite)}; {exist}; in a clone "
            f"`make reference SUITE={suite}` measures those of a suite that comes with gradest"
        )
    for name, described in suites[suite]["files"].items():
        path = folder / suite / name
        if not path.is_file():
            raise UsageError(f"{path}: is missing from the reference results; {_REPAIR}")
        if checksum_of(path) != described["sha256"]:
            raise UsageError(f"{path}: damaged, its checksum does not match; {_REPAIR}")
    return folder / suite


def find_baseline(given: str, suite: str, option: str) -> Baseline:
    """What `--against` or `--beside` names: `reference`, or the folder of a run.

    Raises UsageError where there is no such run.
    """
    if given == REFERENCE:
        return Baseline(f"the reference results of {suite}", find_reference(suite))
    folder = Path(given)
    if not folder.is_dir():
        raise UsageError(
            f"{option}: expected {REFERENCE!r} or the folder of a run, got {shortened(given)}"
        )
    read_run(folder)
    return Baseline(given, folder)


def is_reduced(run: Mapping[str, Any]) -> bool:
    """Whether the content of a run.json is that of reference results, which have no report."""
    return bool(run.get("reduced"))


def digest_of(measurement: Mapping[str, Any]) -> str:
    """SHA-256 of the moments in the record of a measurement: those before they were reduced."""
    if "digest" in measurement:
        return measurement["digest"]
    moments = {name: measurement[name] for name in ("gradients", "objective", "cosines")}
    return hashlib.sha256(json.dumps(moments, sort_keys=True).encode()).hexdigest()


def checksum_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_REPAIR = "install gradest again, or restore results/reference/ in a clone"
