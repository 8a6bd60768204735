"""A benchmark of gradient estimators for discrete latent variables."""

import tomllib
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

# In a clone that is not installed `estimators/` and `tasks/` lie beside this folder; installed,
# setuptools maps them into it.
if not Path(__file__).with_name("estimators").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

from gradest.contracts import LAWS, PATHWISE, Estimator, Task, Tuned
from gradest.costs import Cost, Problem
from gradest.measuring.comparison import Comparison, compare
from gradest.measuring.measurement import measure
from gradest.measuring.monte_carlo_truth import measure_reference
from gradest.measuring.precision import Precision
from gradest.measuring.result import Measurement
from gradest.registry import all_estimators, all_tasks, load_plugin, make_estimator, make_task
from gradest.training.networks import load_networks

# Found when they are first asked for: pandas and matplotlib, which they need, take a second or two
# to load, and whoever only measures needs neither.
_LATER = {
    "plots": "gradest.plots",
    "rank": "gradest.report",
    "read_results": "gradest.report",
    "read_training": "gradest.report",
}

__all__ = [
    "LAWS",
    "PATHWISE",
    "Comparison",
    "Cost",
    "Estimator",
    "Measurement",
    "Precision",
    "Problem",
    "Task",
    "Tuned",
    "__version__",
    "all_estimators",
    "all_tasks",
    "compare",
    "load_networks",
    "load_plugin",
    "make_estimator",
    "make_task",
    "measure",
    "measure_reference",
    "rank",
    "read_results",
    "read_training",
]


def _version() -> str:
    """Of the clone that this is, else of the installed package."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    if project.is_file():
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    return metadata.version("gradest")


__version__ = _version()


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'gradest' has no attribute {name!r}")
    module = import_module(_LATER[name])
    return module if module.__name__ == f"gradest.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
