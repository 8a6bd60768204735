"""A benchmark of gradient estimators for discrete latent variables."""

import tomllib
from importlib import metadata
from pathlib import Path

import lazy_loader

# In a clone that is not installed `estimators/` and `tasks/` lie beside this folder; installed,
# setuptools maps them into it.
if not Path(__file__).with_name("estimators").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

# The public names, loaded when they are first used: torch, pandas and matplotlib take seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def _version() -> str:
    """Of the clone that this is, else of the installed package."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    if project.is_file():
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    return metadata.version("gradest")


__version__ = _version()
