"""The report of a run, or of runs compared with each other, from their rows alone.

Rows of finished runs enter; tables, figures and one document in several formats leave.  From the
bottom up: `frames` computes what the rows say, `figures` and `documents` draw and write it,
`studies` holds the parts of a report, one question each, and `regression` compares runs with runs.

Names are imported when they are first used: most commands need neither pandas nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradest.report.documents.terminal import show
    from gradest.report.figures.general import (
        bias_against_variance,
        cost_growth,
        mse_against_budget,
        temperature_tradeoff,
        variance_against_evaluations,
    )
    from gradest.report.figures.matrix import matrix
    from gradest.report.frames.loading import load_run
    from gradest.report.frames.reading import rank, read_results, read_training
    from gradest.report.regression.comparison import (
        MAJORITY,
        describe_regressions,
        write_comparison,
    )
    from gradest.report.regression.differences import PROPERTY, regressions
    from gradest.report.regression.runs import Overlap
    from gradest.report.studies.concrete import simplex, simplex_panels
    from gradest.report.studies.landscape import landscape_binary, landscape_simplex
    from gradest.report.studies.training import (
        training_gap,
        training_gradient,
        training_objectives,
    )
    from gradest.report.studies.training_temperature import vae_temperature
    from gradest.report.terminal_summary import failed_controls, summarize_run
    from gradest.report.writing import rebuild_report, report_path, write_report

_MODULES = {
    "documents.terminal": ("show",),
    "figures.general": (
        *("bias_against_variance", "cost_growth", "mse_against_budget", "temperature_tradeoff"),
        "variance_against_evaluations",
    ),
    "figures.matrix": ("matrix",),
    "frames.loading": ("load_run",),
    "frames.reading": ("rank", "read_results", "read_training"),
    "regression.comparison": ("MAJORITY", "describe_regressions", "write_comparison"),
    "regression.differences": ("PROPERTY", "regressions"),
    "regression.runs": ("Overlap",),
    "studies.concrete": ("simplex", "simplex_panels"),
    "studies.landscape": ("landscape_binary", "landscape_simplex"),
    "studies.training": ("training_gap", "training_gradient", "training_objectives"),
    "studies.training_temperature": ("vae_temperature",),
    "terminal_summary": ("failed_controls", "summarize_run"),
    "writing": ("rebuild_report", "report_path", "write_report"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "MAJORITY",
    "PROPERTY",
    "Overlap",
    "bias_against_variance",
    "cost_growth",
    "describe_regressions",
    "failed_controls",
    "landscape_binary",
    "landscape_simplex",
    "load_run",
    "matrix",
    "mse_against_budget",
    "rank",
    "read_results",
    "read_training",
    "rebuild_report",
    "regressions",
    "report_path",
    "show",
    "simplex",
    "simplex_panels",
    "summarize_run",
    "temperature_tradeoff",
    "training_gap",
    "training_gradient",
    "training_objectives",
    "vae_temperature",
    "variance_against_evaluations",
    "write_comparison",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
