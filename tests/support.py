"""What the tests of several files share."""

import pytest

from gradest.report import figures

_ALL = figures._all


def only_figures(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Reports draw the figures of these names alone, until the patch is undone.

    Figures have tests of their own, and take most of a small run's time.
    """
    patch.setattr(figures, "_all", lambda run: (each for each in _ALL(run) if each[0] in names))


def every_figure(patch: pytest.MonkeyPatch) -> None:
    """Reports draw all figures that the rows have something for, as for users."""
    patch.setattr(figures, "_all", _ALL)
