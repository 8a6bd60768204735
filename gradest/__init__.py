"""A benchmark of gradient estimators for discrete latent variables."""

from pathlib import Path

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
from gradest.registry import all_estimators, all_tasks, make_estimator, make_task
from gradest.training.networks import load_networks

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
    "all_estimators",
    "all_tasks",
    "compare",
    "load_networks",
    "make_estimator",
    "make_task",
    "measure",
    "measure_reference",
]
