"""Reports with some of their figures alone: drawing takes most of the time of a small report."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from gradest.report import writing
from gradest.report.studies import STUDIES, landscape, rankings
from gradest.report.studies.study import Study

_OF_MEASUREMENTS = (rankings.STUDY, landscape.STUDY)
MEASUREMENTS = tuple(each.name for study in _OF_MEASUREMENTS for each in study.illustrations)


def draw_only(patch: pytest.MonkeyPatch, *names: str, **draws: Callable) -> None:
    """Of measurements only these figures are drawn, by other functions of the run if given."""
    kept = [_with_figures(study, {*names, *draws}, draws) for study in STUDIES]
    patch.setattr(writing, "STUDIES", tuple(kept))


@contextmanager
def without_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        draw_only(patch)
        yield


def _with_figures(study: Study, names: set[str], draws: Mapping[str, Callable]) -> Study:
    if study not in _OF_MEASUREMENTS:
        return study
    kept = (each for each in study.illustrations if each.name in names)
    changed = (each._replace(draw=draws.get(each.name, each.draw)) for each in kept)
    return study._replace(illustrations=tuple(changed))
