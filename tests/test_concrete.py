"""The Concrete distribution: relaxed samples, their densities, its properties and its figures."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.text
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor
from torch.distributions import Dirichlet, RelaxedOneHotCategorical
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli

from gradest.checks.properties import ROWS, Row, names, run_property
from gradest.concrete import (
    binary_concrete,
    binary_concrete_log_prob,
    concrete_log_prob,
    exp_concrete,
    exp_concrete_log_prob,
    logistic,
)
from gradest.randomness import Draws, drawing_from
from gradest.report.studies import concrete as figures
from tests.support import EXACT

LEVEL = 1e-4  # of a single statistical assertion
EPS = 2.0**-24  # a rounding in float32
TEMPERATURES = (0.01, 0.1, 0.5, 1.0, 10.0, 100.0)


def extreme(categories: int) -> Tensor:
    """Logits up to ±80 that are float32 numbers, with both ends in every row: [R, N, K]."""
    generator = torch.Generator().manual_seed(categories)
    logits = 160 * torch.rand(500, 2, categories, generator=generator) - 80
    logits[..., 0], logits[..., 1] = 80, -80
    logits[:250] /= torch.tensor([1.0, 4.0, 20.0, 80.0, 400.0]).repeat(50)[:, None, None]
    return logits


def formula(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    categories = logits.shape[-1]
    score = logits - temperature * y
    scale = math.lgamma(categories) + (categories - 1) * math.log(temperature)
    return scale + score.sum(-1) - categories * score.logsumexp(-1)


# float32


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("own", [True, False], ids=["own samples", "samples of another law"])
def test_log_prob_in_float32_is_that_in_float64(temperature, own):
    """Values, and gradients with respect to all arguments, to the rounding of the exponents."""
    logits = extreme(4)
    with drawing_from(Draws.seeded(0)):
        y = exp_concrete((logits if own else logits.flip(-1)).double(), temperature).float()
    found, expected = (
        _with_gradients(exp_concrete_log_prob, dtype, y, logits, temperature)
        for dtype in (torch.float32, torch.float64)
    )
    largest = (logits.abs() + temperature * y.abs()).amax(-1)  # [R, N]
    # The scores and their logsumexp are rounded at `largest`, in each of K terms.
    off = 16 * EPS * (1 + largest)
    depth = y.abs().amax(-1)
    _close(found, expected, (off, temperature * off, off, (off * depth).sum()))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("own", [True, False], ids=["own samples", "samples of another law"])
def test_binary_log_prob_in_float32_is_that_in_float64(temperature, own):
    logits = extreme(4)
    with drawing_from(Draws.seeded(0)):
        l = binary_concrete((logits if own else -logits).double(), temperature).float()  # noqa: E741
    found, expected = (
        _with_gradients(binary_concrete_log_prob, dtype, l, logits, temperature)
        for dtype in (torch.float32, torch.float64)
    )
    off = 8 * EPS * (1 + logits.abs() + temperature * l.abs())
    _close(found, expected, (off, temperature * off, off, (off * l.abs()).sum()))


def _with_gradients(
    log_prob: Callable[..., Tensor], dtype: torch.dtype, y: Tensor, logits: Tensor, at: float
) -> list[Tensor]:
    temperature = torch.tensor(at, dtype=dtype, requires_grad=True)
    inputs = [y.to(dtype).requires_grad_(), logits.to(dtype).requires_grad_(), temperature]
    value = log_prob(*inputs)
    return [value.detach(), *torch.autograd.grad(value.sum(), inputs)]


def _close(found: list[Tensor], expected: list[Tensor], off: tuple[Tensor, ...]) -> None:
    for a, b, most in zip(found, expected, off, strict=True):
        assert a.dtype == torch.float32 and a.isfinite().all()
        most = most.unsqueeze(-1) if a.ndim > most.ndim else most
        assert ((a - b).abs() <= most).all(), ((a - b).abs() / most).max()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("sampler", [exp_concrete, binary_concrete])
def test_samples_in_float32_are_those_in_float64(temperature, sampler):
    """With the same noise, in values and gradients, to the rounding of log α + G before 1/λ."""
    found, expected = [], []
    for dtype, into in ((torch.float32, found), (torch.float64, expected)):
        logits = extreme(4).to(dtype).requires_grad_()
        with drawing_from(Draws.seeded(0)):
            y = sampler(logits, temperature)
        weight = torch.linspace(-1, 1, 4, dtype=dtype)
        into += [y.detach(), torch.autograd.grad((weight * y).sum(), logits)[0]]
    off = 4 * EPS * 120 / temperature  # |log α + G| < 120
    for a, b, most in zip(found, expected, (off, off / temperature), strict=True):
        # What 1/λ scales is rounded in proportion too.
        assert a.dtype == torch.float32 and a.isfinite().all()
        assert ((a - b).abs() <= most + 4 * EPS * b.abs()).all()


def test_a_sample_keeps_what_its_exponential_loses():
    logits = torch.tensor([30.0, 0.0, -30.0])
    with drawing_from(Draws.seeded(0)):
        y = exp_concrete(logits, 0.1)
    assert (y.exp() == 0).any() and y.isfinite().all()
    assert concrete_log_prob(y, logits, 0.1).isfinite()
    stored = y.exp()
    torchs = RelaxedOneHotCategorical(torch.tensor(0.1), logits=logits, validate_args=False)
    assert torchs.log_prob(stored).isnan()  # why there is a density of log x


# densities


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("categories", [2, 3, 7])
def test_log_prob_is_the_formula(temperature, categories):
    logits = extreme(categories).double()
    with drawing_from(Draws.seeded(0)):
        y = exp_concrete(logits, temperature)
    found = exp_concrete_log_prob(y, logits, temperature)
    assert found.shape == logits.shape[:-1]
    expected = formula(y, logits, temperature)
    assert torch.allclose(found, expected, rtol=1e-12, atol=EXACT)
    on_simplex = concrete_log_prob(y, logits, temperature)
    assert torch.allclose(on_simplex, expected - y.sum(-1), rtol=1e-12, atol=EXACT)


def test_a_relaxation_of_two_categories_is_the_binary_one():
    logits = extreme(2).double()
    with drawing_from(Draws.seeded(0)):
        y = exp_concrete(logits, 0.3)
    ratio, difference = y[..., 1] - y[..., 0], logits[..., 1] - logits[..., 0]
    binary = binary_concrete_log_prob(ratio, difference, 0.3)
    both = exp_concrete_log_prob(y, logits, 0.3)
    assert torch.allclose(both, binary, rtol=1e-12, atol=EXACT)


def test_at_equal_weights_and_temperature_one_the_inverse_coordinates_are_uniform():
    """softmax(log α − λ log x) ~ Dirichlet(1, ..., 1), whose density is constant."""
    r = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    log_x = (-r.log()).log_softmax(-1)
    found = concrete_log_prob(log_x, torch.zeros(3, dtype=torch.float64), 1.0)
    uniform = Dirichlet(torch.ones(3, dtype=torch.float64)).log_prob(r)
    change = r.log().sum() - log_x.sum()  # dr = Πr d(log-ratios), dx = Πx d(log-ratios)
    assert found.item() == pytest.approx((uniform + change).item(), abs=EXACT)


def test_binary_log_prob_agrees_with_torch_where_that_does_not_overflow():
    logits, l = torch.linspace(-40, 40, 81).double(), torch.linspace(30, -30, 81).double()  # noqa: E741
    torchs = LogitRelaxedBernoulli(torch.tensor(0.7, dtype=torch.float64), logits=logits)
    found = binary_concrete_log_prob(l, logits, 0.7)
    assert torch.allclose(found, torchs.log_prob(l), rtol=0, atol=EXACT)


def test_what_torch_gets_wrong_is_still_so():
    """The reasons for code of our own; where this fails, torch's can take its place."""
    logits, l = torch.tensor(80.0, requires_grad=True), torch.tensor(-80.0)  # noqa: E741
    value = LogitRelaxedBernoulli(torch.tensor(1.0), logits=logits).log_prob(l)
    assert value == -math.inf and torch.autograd.grad(value, logits)[0].isnan()
    assert binary_concrete_log_prob(l, logits, 1.0).item() == -160
    torch.manual_seed(0)
    samples = LogitRelaxedBernoulli(torch.tensor(1.0), logits=logits.detach()).sample((10_000,))
    assert abs(samples.mean() - 80) > 60
    with drawing_from(Draws.seeded(0)):
        assert abs(binary_concrete(torch.full((10_000,), 80.0), 1.0).mean() - 80) < 0.1


def test_one_temperature_for_all_latents_as_a_number_or_a_tensor():
    logits = extreme(3)
    with drawing_from(Draws.seeded(0)):
        y = exp_concrete(logits, 0.5)
    with drawing_from(Draws.seeded(0)):
        assert torch.equal(y, exp_concrete(logits, torch.tensor(0.5, dtype=torch.float64)))
    found = exp_concrete_log_prob(y.double(), logits.double(), 0.3)
    expected = formula(y.double(), logits.double(), 0.3)  # 0.3 is not rounded to float32
    assert torch.allclose(found, expected, rtol=1e-13, atol=EXACT)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, torch.tensor([0.5, 0.5])])
def test_a_temperature_that_is_not_one_positive_number_is_refused(temperature):
    logits = torch.zeros(4, 2, 3)
    calls = [
        lambda: exp_concrete(logits, temperature),
        lambda: exp_concrete_log_prob(logits, logits, temperature),
        lambda: concrete_log_prob(logits, logits, temperature),
        lambda: binary_concrete(logits, temperature),
        lambda: binary_concrete_log_prob(logits, logits, temperature),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected one positive number as temperature"):
            call()


# samplers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binary_samples_have_the_logistic_law(dtype, seeded):
    l = binary_concrete(torch.full((50_000,), 1.3, dtype=dtype), 0.4)  # noqa: E741
    assert l.dtype == dtype
    assert stats.kstest(l.double(), lambda t: stats.logistic.cdf(0.4 * t - 1.3)).pvalue > LEVEL


@pytest.mark.parametrize("categories", [2, 4])
def test_inverse_coordinates_of_samples_are_uniform_on_the_simplex(categories, seeded):
    """softmax(log α − λ y) ~ Dirichlet(1, ..., 1): its coordinates are Beta(1, K − 1)."""
    logits = extreme(categories)[250, 0].double() / 40
    y = exp_concrete(logits.expand(50_000, -1), 0.2)
    r = (logits - 0.2 * y).softmax(-1)
    for k in range(categories):
        law = stats.beta(1, categories - 1)
        assert stats.kstest(r[:, k], law.cdf).pvalue > LEVEL / categories


def test_samples_are_reparameterised_in_logits_and_temperature():
    logits = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def relaxed(sampler: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*inputs: Tensor) -> Tensor:
            with drawing_from(Draws.seeded(0)):
                return sampler(*inputs)

        return call

    for sampler in (exp_concrete, binary_concrete):
        assert torch.autograd.gradcheck(relaxed(sampler), (logits, temperature))


class Ends(Draws):
    """The least and the greatest exponential that there is."""

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return torch.tensor([0.0, 1 - 2.0**-53], dtype=like.dtype).expand(shape).clone()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logistic_noise_is_finite_at_both_ends(dtype):
    with drawing_from(Ends()):
        noise = logistic(torch.zeros(2, dtype=dtype))
    assert noise.tolist() == pytest.approx([-54 * math.log(2), 53 * math.log(2)], rel=1e-6)


# properties: the grids of the shipped suite

GRIDS: dict[str, dict[str, list[Any]]] = {
    "integrates": {"categories": [2, 3, 5, 10], "temperature": [0.1, 0.5, 1.0, 5.0]},
    "rounding": {"categories": [2, 3, 5], "temperature": [0.1, 1.0, 10.0]},
    "cold_limit": {"categories": [2, 3], "temperature": [0.1, 0.03, 0.01]},
    "hot_limit": {"categories": [2, 3, 5], "temperature": [10.0, 30.0, 100.0]},
    "convexity": {"categories": [2, 3, 5], "relative": [0.5, 1.0, 1.1, 2.0]},
    "pathwise": {"categories": [2, 3], "temperature": [0.1, 0.5, 2.0]},
    "divergence": {"categories": [2, 3], "temperature": [0.1, 0.5, 2.0]},
}


def cells(name: str) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*GRIDS[name].values()):
        yield dict(zip(GRIDS[name], values, strict=True))


def rows_of(name: str, seed: int = 0) -> list[Row]:
    return [row for settings in cells(name) for row in run_property(name, settings, seed)]


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_the_property_holds(name):
    rows = rows_of(name)
    assert [row for row in rows if not row.holds] == []
    assert len(rows) <= ROWS / len(GRIDS)  # together no more than the level is shared by
    assert {row.property for row in rows} == {name}


def test_every_property_is_tested():
    assert set(GRIDS) == set(names())


# figures


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_the_simplex_has_the_discrete_law_and_three_temperatures():
    figure = figures.simplex()
    panels = [ax for ax in figure.axes if ax.get_title("left")]
    assert [ax.get_title("left") for ax in panels] == [
        "discrete, λ → 0",
        *(f"λ = {t:g}" for t in figures.FEW),
    ]
    said = words(figure)
    for label in ("x₀ = 1", "x₁ = 1", "x₂ = 1", "4/7", "1/7", "2/7"):
        assert said.count(label) == 4
    sizes = panels[0].collections[0].get_sizes()
    assert sizes / sizes.sum() == pytest.approx([4 / 7, 1 / 7, 2 / 7])


def test_each_part_of_a_drawn_triangle_holds_the_probability_of_its_vertex():
    """Summed from the image, so that the orientation is right: pixels and a clipped edge are off
    by what is within 10⁻³ of the border, at λ = 2.5 below a percent."""
    figure = figures.simplex(temperatures=[2.5])
    (ax,) = (ax for ax in figure.axes if ax.images)
    shades = np.asarray(ax.images[0].get_array())
    left, right, bottom, top = ax.images[0].get_extent()
    up, across = shades.shape
    x = left + (np.arange(across) + 0.5) / across * (right - left)
    y = bottom + (np.arange(up) + 0.5) / up * (top - bottom)
    at = np.stack(np.meshgrid(x, y), -1)
    places = {label.get_text(): label.get_position() for label in ax.texts}
    corners = ax.patches[0].get_xy()[:3]
    labelled = np.array([places[f"x{k} = 1"] for k in "₀₁₂"])
    vertices = corners[np.linalg.norm(labelled[:, None] - corners, axis=-1).argmin(-1)]
    distance = np.linalg.norm(at[..., None, :] - vertices, axis=-1)
    height = math.sqrt(0.75)
    inside = (y[:, None] < height * 2 * x) & (y[:, None] < height * 2 * (1 - x))
    mass = shades * inside * (right - left) * (top - bottom) / shades.size / (height / 2)
    nearest = distance.argmin(-1)
    parts = [mass[nearest == k].sum() for k in range(3)]
    assert parts == pytest.approx([4 / 7, 1 / 7, 2 / 7], abs=0.01)


def test_many_temperatures_fill_a_grid():
    figure = figures.simplex_panels(temperatures=[0.1, 0.5, 1.0, 4.0])
    titles = [ax.get_title("left") for ax in figure.axes if ax.images]
    assert titles == ["λ = 0.1", "λ = 0.5", "λ = 1", "λ = 4"]


@pytest.mark.parametrize("draw", [figures.simplex, figures.simplex_panels])
def test_a_simplex_is_drawn_of_three_categories(draw):
    with pytest.raises(ValueError, match="alpha has 4 entries; a simplex is drawn of three"):
        draw(alpha=(1.0, 2.0, 3.0, 4.0))


@pytest.mark.parametrize(
    ("temperature", "edge", "vertex"),
    [(0.25, math.inf, math.inf), (0.5, 1, math.inf), (1.0, 0, math.inf), (2.0, 0, 1), (3.0, 0, 0)],
)
def test_what_is_said_of_the_border_is_so(temperature, edge, vertex):
    """As a coordinate falls by 10⁻⁶, the density stays or changes by a power of that."""
    law = torch.zeros(3, dtype=torch.float64)
    ends = []
    for point in ([1.0, 1.0, 0.0], [1.0, 0.0, 0.0]):
        far, near = (
            concrete_log_prob(torch.tensor(point).double().clamp(min=t).log().log_softmax(-1), law,
                              temperature)
            for t in (1e-8, 1e-14)
        )  # fmt: skip
        change = (near - far).item()
        ends.append(1 if abs(change) < 0.01 else 0 if change < 0 else math.inf)
    assert ends == [edge, vertex]
    said = " ".join(figures.shape(temperature))
    at = {0: "zero", 1: "finite", math.inf: "infinite"}
    if edge == vertex == 0:
        assert "zero on the border" in said
    else:
        assert f"{at[edge]} on the edges" in said
    if edge != vertex:
        assert f"{at[vertex]} at the vertices" in said
