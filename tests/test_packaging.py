"""What the wheel holds: every package of the core with its files, and nothing else."""

import tomllib
from fnmatch import fnmatch

from tests.support import ROOT

SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_folder_of_the_core_is_a_package_and_no_other():
    files = [p for p in (ROOT / "gradest").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in files}
    assert folders | set(SETUP["package-dir"]) == set(SETUP["packages"])
    for file in files:
        package = ".".join(file.parent.relative_to(ROOT).parts)
        patterns = [*SETUP["package-data"]["*"], *SETUP["package-data"].get(package, [])]
        assert file.suffix == ".py" or any(fnmatch(file.name, p) for p in patterns), file
