"""The parts that a study adds to the report of a run."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from matplotlib.figure import Figure

from gradest.report.documents.document import Part
from gradest.report.documents.latex import Environment
from gradest.report.frames.loading import LoadedRun
from gradest.statistics import UNBIASED_WITHIN

T = TypeVar("T")

# The name of a part, and a function that makes it: of parts that fail each is missing alone.
Pieces = Iterable[tuple[str, Callable[[], T]]]

POINTS = (
    "Filled points: found unbiased; hollow: biased; pale: inconclusive. Bars are 95 % intervals"
)
LIMITS = "an arrow marks an upper limit where the bias may be zero"
MARGIN = f"the dashed line marks {100 * UNBIASED_WITHIN:g} % of ‖g‖"
BEST = (  # of tables for papers
    "Bold marks the lowest {by} that is not exactly zero, and all that do not differ from it "
    "significantly ({level:g} % for all pairs of rows, Holm)."
)
ZEROS = "the grey band contains values that are exactly zero, up to rounding"


class Illustration(NamedTuple):
    """A figure of a report: the name of its files, and its caption."""

    name: str
    draw: Callable[[LoadedRun], Figure | None]  # None where the run has nothing to show
    title: str
    caption: str


def _none(run: LoadedRun) -> Pieces:
    return ()


class Study(NamedTuple):
    """A question that a report answers: figures, sections and tables for papers."""

    illustrations: tuple[Illustration, ...] = ()
    sections: Callable[[LoadedRun], Pieces[Iterable[Part]]] = _none
    latex: Callable[[LoadedRun], Pieces[Environment]] = _none  # named like their files
