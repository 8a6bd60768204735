"""The figures of a run and their files."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from gradest.files import write_atomically
from gradest.report.documents.problems import Problems
from gradest.report.figures import general
from gradest.report.figures.matrix import matrix
from gradest.report.frames.loaded_run import Run
from gradest.report.studies import concrete, landscape, training
from gradest.report.studies.adaptation import adaptation
from gradest.report.studies.training_temperature import vae_temperature
from gradest.report.studies.variance_components import variance_by_source

SUFFIXES = (".png", ".svg", ".pdf")
_OF_MEASUREMENTS = {
    "matrix": matrix,
    "bias_against_variance": general.bias_against_variance,
    "variance_against_evaluations": general.variance_against_evaluations,
    "mse_against_budget": general.mse_against_budget,
    "temperature_tradeoff": general.temperature_tradeoff,
    "cost_growth": general.cost_growth,
    "landscape_binary": landscape.binary,
    "landscape_simplex": landscape.simplex,
}
_OF_TRAINING = {
    "training_objectives": training.objectives,
    "training_gap": training.gap,
    "training_gradient": training.gradient,
    "vae_temperature": vae_temperature,
}
_OF_PROPERTIES = {"simplex": concrete.simplex, "simplex_panels": concrete.simplex_panels}


def write(run: Run, folder: Path, problems: Problems) -> list[str]:
    """Draw and save the figures that the rows have something for; their names, in order.

    One that fails is told among the problems, and costs none of the others.
    """
    return [
        name
        for name, draw in _all(run)
        if problems.attempt(f"the figure {name}", partial(_written, name, draw, folder), False)
    ]


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Each as PNG for screens, as SVG for the web and as PDF for papers."""
    paths = []
    for name, figure in figures.items():
        for suffix in SUFFIXES:
            paths.append(folder / f"{name}{suffix}")
            write_atomically(paths[-1], lambda path, f=figure: _save(f, path))
    return paths


def _all(run: Run) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    """What draws each figure, by name, in the order in which they are shown."""
    everyone = run.frame["estimator"].astype(str)
    more = run.further
    if not more.properties.empty:
        yield from _OF_PROPERTIES.items()
    for name, draw in _OF_MEASUREMENTS.items():
        yield name, lambda draw=draw: draw(run.single)
    yield "adaptation", lambda: adaptation(more.looks, everyone)
    yield "variance_by_source", lambda: variance_by_source(more.sources, everyone, run.nested)
    for name, draw in _OF_TRAINING.items():
        yield name, lambda draw=draw: draw(more.points)
    yield "pictures", lambda: training.pictures(more.images)


def _written(name: str, draw: Callable[[], Figure | None], folder: Path) -> bool:
    """Whether there was anything to draw."""
    figure = draw()
    if figure is None:
        return False
    try:
        save({name: figure}, folder)
    except BaseException:
        for suffix in SUFFIXES:  # none rather than some
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
        raise
    return True


def _save(figure: Figure, path: Path) -> None:
    """The same figure gives the same bytes."""
    undated = {
        ".svg": {"Date": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        ".png": {"Software": None},
    }
    # Type 42 embeds fonts whole, which journals ask for, and leaves text that can be searched.
    with rc_context({"svg.hashsalt": "gradest", "pdf.fonttype": 42}):
        figure.savefig(path, dpi="figure", metadata=undated[path.suffix])
