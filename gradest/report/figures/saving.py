"""The files of a figure: PNG for screens, SVG for the web and PDF for papers."""

from collections.abc import Collection
from functools import partial
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from gradest.report.figures.canvas import lay_out
from gradest.report.formats import FIGURE_SUFFIXES
from gradest.support import write_atomically

_UNDATED = {  # so that the same figure gives the same bytes
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".png": {"Software": None},
}


def save_figure(
    name: str, figure: Figure, folder: Path, suffixes: Collection[str] = FIGURE_SUFFIXES
) -> None:
    """Write a file of a figure for each suffix; none is left where one cannot be written."""
    try:
        lay_out(figure)  # once for all of them
        for suffix in suffixes:
            write_atomically(folder / f"{name}{suffix}", partial(_save, figure))
    except BaseException:
        remove_figure(name, folder)
        raise


def remove_figure(name: str, folder: Path) -> None:
    """Remove the files of a figure, as far as there are any."""
    for suffix in FIGURE_SUFFIXES:
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _save(figure: Figure, path: Path) -> None:
    """Write one file, in the format of its suffix.

    Type 42 embeds fonts whole, as journals require, and keeps text searchable.
    """
    with rc_context({"svg.hashsalt": "gradest", "pdf.fonttype": 42}):
        figure.savefig(path, dpi="figure", metadata=_UNDATED[path.suffix])
