"""Helpers that the tests of several modules share."""

from collections.abc import Callable

import pytest

from gradest.report import writing
from gradest.report.studies import STUDIES, landscape, rankings

# The figures that need rows of measurements alone.
MEASUREMENTS = tuple(
    each.name for study in (rankings.STUDY, landscape.STUDY) for each in study.illustrations
)


def only_figures(patch: pytest.MonkeyPatch, *names: str, **draws: Callable) -> None:
    """Let reports draw only the figures of these names, or those given by other functions.

    Figures have tests of their own, and take most of the time of a small run.
    """
    kept = []
    for study in STUDIES:
        chosen = [each for each in study.illustrations if each.name in {*names, *draws}]
        changed = (each._replace(draw=draws.get(each.name, each.draw)) for each in chosen)
        kept.append(study._replace(illustrations=tuple(changed)))
    patch.setattr(writing, "STUDIES", tuple(kept))


def every_figure(patch: pytest.MonkeyPatch) -> None:
    """Let reports draw all figures that the rows allow, as for users."""
    patch.setattr(writing, "STUDIES", STUDIES)
