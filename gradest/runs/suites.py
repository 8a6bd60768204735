"""The suites that come with gradest, and how a name or a path on the command line finds them.

A suite is a YAML file, and a folder of such files is run as a whole.  Neither torch nor pydantic is
loaded here: a mistyped name is answered immediately.
"""

from pathlib import Path
from typing import NamedTuple

from gradest.errors import UsageError
from gradest.support import shortened, suggestion

SUITES = Path(__file__).parents[1] / "suites"
_SUFFIXES = (".yaml", ".yml")


class SuiteFolder(NamedTuple):
    """A folder of suites: its name, and the files in it."""

    name: str
    files: tuple[Path, ...]


def suite_names() -> list[str]:
    """The names of the suites that come with gradest; FOLDER/NAME for those in a folder."""
    return sorted(
        path.relative_to(SUITES).with_suffix("").as_posix() for path in SUITES.rglob("*.yaml")
    )


def folder_names() -> list[str]:
    """The names of the folders of suites that come with gradest."""
    return sorted({path.parent.name for path in SUITES.glob("*/*.yaml")})


def name_of_suite(path: Path) -> str:
    """The name of the suite in a file: its place among those of gradest, or its stem."""
    if path.resolve().is_relative_to(SUITES.resolve()):
        return path.resolve().relative_to(SUITES.resolve()).with_suffix("").as_posix()
    return path.stem


def suite_descriptions() -> dict[str, str]:
    """Name -> the description in the file, of the suites that come with gradest."""
    from gradest.runs.plain_yaml import read_document  # no other function here reads a file

    files = {name: SUITES / f"{name}.yaml" for name in suite_names()}
    return {name: read_document(file).data["description"] for name, file in files.items()}


def find_suite(name: str) -> Path:
    """The file of a suite, given its name or its path.

    Raises UsageError with the most similar name for one that does not exist, and for a path that is
    not a regular file.
    """
    if name in suite_names():
        return SUITES / f"{name}.yaml"
    path = Path(name)
    if path.suffix not in _SUFFIXES:
        names = [*suite_names(), *folder_names()]
        message = f"unknown suite {shortened(name)}{suggestion(name, names)}"
        raise UsageError(f"{message} (or give the path of a YAML file, or of a folder of them)")
    if not path.is_file():
        reason = "not a regular file" if path.exists() else "no such suite file"
        raise UsageError(f"{path}: {reason}")
    return path


def find_suites(name: str) -> Path | SuiteFolder:
    """The file of a suite, or a folder of suites, given the name or the path.

    Raises UsageError as `find_suite` does, and for a folder without suites.
    """
    ours = name.rstrip("/") in folder_names()
    folder = SUITES / name if ours else Path(name)
    if name in suite_names() or not folder.is_dir():
        return find_suite(name)
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if not files:
        raise UsageError(f"{folder}: expected suites in this folder (*.yaml), found none")
    return SuiteFolder(folder.resolve().name, tuple(files))
