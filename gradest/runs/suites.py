"""The suites that come with gradest, and how a name or a path on the command line finds one.

Neither torch nor pydantic is loaded here: a mistyped name is answered immediately.
"""

from pathlib import Path

from gradest.errors import UsageError
from gradest.support import shortened, suggestion

SUITES = Path(__file__).parents[1] / "suites"


def suite_names() -> list[str]:
    """The names of the suites that come with gradest."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


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
    if path.suffix not in (".yaml", ".yml"):
        message = f"unknown suite {shortened(name)}{suggestion(name, suite_names())}"
        raise UsageError(f"{message}; or give the path of a YAML file")
    if not path.is_file():
        reason = "not a regular file" if path.exists() else "no such suite file"
        raise UsageError(f"{path}: {reason}")
    return path
