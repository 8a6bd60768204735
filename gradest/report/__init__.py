"""The report of a run, or of runs compared with each other, from their rows alone.

Rows of finished runs enter; tables, figures and one document in several forms leave.  From the
bottom up: `frames` holds what rows say, `figures` and `documents` how it is drawn and written,
`studies` the parts of a report that belong to one question each, and `regression` the comparison of
runs with runs.

Names are imported when they are first used: most commands need neither pandas nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradest.report.documents.terminal import show
    from gradest.report.frames.loaded_run import read
    from gradest.report.frames.reading import rank, read_results, read_training
    from gradest.report.regression.comparison import MOST, told, write_comparison
    from gradest.report.regression.differences import PROPERTY, regressions
    from gradest.report.regression.runs import Overlap
    from gradest.report.summary import failed_controls, summary
    from gradest.report.writing import page_of, rebuild, write_report

_MODULES = {
    "documents.terminal": ("show",),
    "frames.loaded_run": ("read",),
    "frames.reading": ("rank", "read_results", "read_training"),
    "regression.comparison": ("MOST", "told", "write_comparison"),
    "regression.differences": ("PROPERTY", "regressions"),
    "regression.runs": ("Overlap",),
    "summary": ("failed_controls", "summary"),
    "writing": ("page_of", "rebuild", "write_report"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "MOST",
    "PROPERTY",
    "Overlap",
    "failed_controls",
    "page_of",
    "rank",
    "read",
    "read_results",
    "read_training",
    "rebuild",
    "regressions",
    "show",
    "summary",
    "told",
    "write_comparison",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
