"""What every test shares: one thread, a cache of its own, fixed seeds, statistical assertions."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from scipy import stats
from torch import Tensor

from gradest.randomness import Draws, drawing_from
from gradest.runs import timing
from tests.browser import launched
from tests.support import LEVEL, only_figures

torch.set_num_threads(1)  # the tests run side by side, one a core

# Without a deadline: a slow machine is not a bug.  Derandomised: a failure repeats.
settings.register_profile("gradest", deadline=None, derandomize=True)
settings.load_profile("gradest")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="run the Kth of N parts of the weekly tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--part K/N` each weekly test runs on one of N days: all run, and none waits for all."""
    if part := config.getoption("--part"):
        chosen, parts = map(int, part.split("/"))
        weekly = [item for item in items if item.get_closest_marker("weekly")]
        later = {item for place, item in enumerate(weekly) if place % parts != chosen % parts}
        config.hook.pytest_deselected(items=list(later))
        items[:] = [item for item in items if item not in later]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trained states of this run, shared by its workers, apart from the user's."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADEST_CACHE", str(folder / "gradest-cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_timing() -> Iterator[None]:
    """Runs in this process time one call a round: no test asserts how long an estimate takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "LEAST_SECONDS", 1e-9)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_figures() -> Iterator[None]:
    """No report draws a figure, unless a test says which one it is about."""
    with pytest.MonkeyPatch.context() as patch:
        only_figures(patch)
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, shared by the tests of a module."""
    yield from launched()


@pytest.fixture
def seeded() -> Iterator[Draws]:
    """The vocabulary draws from a fixed seed."""
    with drawing_from(Draws.seeded(0)) as source:
        yield source


@pytest.fixture
def assert_mean() -> Callable[..., None]:
    """`assert_mean(x, exact, precision)`: the mean of the rows of x [R, ...] is `exact`.

    Passes within k standard errors in every coordinate, with k such that correct code fails one
    assertion in 10⁴.  A standard error above `precision` fails as inconclusive.
    """

    def check(x: Tensor, exact: Tensor | float, precision: float) -> None:
        replicates, coordinates = len(x), x[0].numel()
        error = x.std(0) / replicates**0.5
        assert error.max() <= precision, f"inconclusive: standard error {error.max():.2g}"
        k = stats.norm.isf(LEVEL / (2 * coordinates))
        z = (x.mean(0) - exact).abs() / error
        assert z.max() <= k, f"mean {x.mean(0)} is not {exact}: {z.max():.1f} standard errors off"

    return check


@pytest.fixture
def assert_frequencies() -> Callable[..., None]:
    """`assert_frequencies(counts, p)`: counts [C] are multinomial(p), by a χ² test.

    A category of probability zero must not occur.  Fails as inconclusive unless every other
    category is expected fifty times, where χ² is a good approximation.
    """

    def check(counts: Tensor, p: Tensor) -> None:
        possible = p > 0
        assert counts[~possible].sum() == 0
        expected = p[possible].double() / p.double().sum() * counts.sum()
        assert expected.min() >= 50, "inconclusive: too few draws"
        assert stats.chisquare(counts[possible], expected).pvalue > LEVEL

    return check


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    """`plugin(name, text)` writes a plugin file and returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
