"""Where variance comes from: components against simulations and by hand; the table of a run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from gradest.errors import SuiteError
from gradest.measurement.result import Measurement
from gradest.runs.journal import read_records
from gradest.runs.measurement_tables import SOURCES
from gradest.runs.tables import read_run, write_results
from gradest.statistics.variance_components import DRAWS, estimate_components
from tests.support import LEVEL, run_suite

K = stats.norm.isf(LEVEL / 2)
LEVELS = ("seed", "steps", "batch")


def nested(
    draws: torch.Generator, shape: tuple[int, ...], sigma: tuple[float, ...], p: int, noise: float
) -> Tensor:
    """Means [n₁, ..., n_L, P] with independent effects of each level, σ_l² over all P together."""
    total = torch.zeros(*shape, p, dtype=torch.float64)
    for depth, size in enumerate(sigma, 1):
        effect = torch.randn(*shape[:depth], p, generator=draws, dtype=torch.float64)
        effect = effect * (size / p) ** 0.5
        total = total + effect.reshape(*shape[:depth], *[1] * (len(shape) - depth), p)
    own = torch.randn(*shape, p, generator=draws, dtype=torch.float64) * (noise / p) ** 0.5
    return total + own


@pytest.mark.weekly
@pytest.mark.parametrize(
    ("shape", "sigma"),
    [
        pytest.param((4,), (2.0,), marks=pytest.mark.slow),
        pytest.param((5, 3), (2.0, 0.7), marks=pytest.mark.slow),
        ((4, 3, 5), (1.5, 0.0, 3.0)),
        pytest.param((3, 2, 2), (0.0,) * 3, marks=pytest.mark.slow),
    ],
)
def test_the_components_are_unbiased(shape, sigma):
    """Over 1500 simulations, with noise of the means whose variance differs from place to place."""
    draws = torch.Generator().manual_seed(1)
    variance = 4 + torch.rand(shape, generator=draws, dtype=torch.float64)  # of one estimate
    replicates = 8
    outcome = []
    for _ in range(1500):
        means = nested(draws, shape, sigma, 6, 0.0)
        scale = (variance / replicates / 6).sqrt().unsqueeze(-1)
        means = means + scale * torch.randn(*shape, 6, generator=draws, dtype=torch.float64)
        sentence = estimate_components(LEVELS[: len(shape)], means, variance, variance / replicates)
        outcome.append([s.variance.estimate for s in sentence])
    outcome = np.array(outcome)
    expected = np.array([float(variance.mean()), *reversed(sigma)])
    error = outcome.std(0) / 1500**0.5
    assert outcome[:, 0] == pytest.approx(expected[0], rel=1e-12)
    assert (error[1:] <= 0.1).all(), "inconclusive"
    k = stats.norm.isf(LEVEL / (2 * len(sigma)))
    assert (abs(outcome.mean(0) - expected)[1:] <= k * error[1:]).all()


def test_the_names_go_from_the_draws_outwards():
    means = torch.arange(3 * 2 * 2 * 1, dtype=torch.float64).reshape(3, 2, 2, 1)
    outcome = estimate_components(LEVELS, means, torch.ones(3, 2, 2), torch.ones(3, 2, 2))
    assert [s.name for s in outcome] == [DRAWS, "batch", "steps", "seed"]


def test_components_of_numbers_made_by_hand():
    """Two levels: a of 3, b of 2 within each; P = 1; noise ½.

    Means (1, 3), (2, 2), (9, 7): centres 2, 2, 8 about 4.
    MS_b = (2 + 0 + 2)/3 = 4/3, σ_b² = 4/3 − 1/2.  MS_a = 2 · (4 + 4 + 16)/2 = 24,
    σ_a² = (24 − 4/3)/2.
    """
    means = torch.tensor([[1.0, 3.0], [2.0, 2.0], [9.0, 7.0]], dtype=torch.float64).unsqueeze(-1)
    variance = torch.tensor([[5.0, 7.0], [6.0, 6.0], [4.0, 8.0]], dtype=torch.float64)
    outcome = estimate_components(("a", "b"), means, variance, torch.full((3, 2), 0.5).double())
    values = {s.name: s.variance.estimate for s in outcome}
    assert values == pytest.approx({"draws": 6, "b": 4 / 3 - 1 / 2, "a": (24 - 4 / 3) / 2})
    # Of the draws: Student's interval over 6, 6, 6.
    assert outcome[0].variance.low == outcome[0].variance.high == pytest.approx(6)


def test_coordinates_add_up():
    draws = torch.Generator().manual_seed(0)
    means = torch.randn(4, 3, 5, generator=draws, dtype=torch.float64)
    noise = torch.rand(4, 3, generator=draws, dtype=torch.float64)
    whole = estimate_components(("a", "b"), means, noise, 0 * noise)
    each = [
        estimate_components(("a", "b"), means[..., i : i + 1], noise, 0 * noise) for i in range(5)
    ]
    for level in (1, 2):
        total = sum(one[level].variance.estimate for one in each)
        assert whole[level].variance.estimate == pytest.approx(total, rel=1e-12)


@pytest.mark.weekly
def test_the_components_add_up_to_the_variance_of_an_estimate_at_random_values():
    """With R = 1 the noise is the variance itself, and one level leaves the plain sample variance;
    with more levels the sum is unbiased for the variance of one estimate in all."""
    draws = torch.Generator().manual_seed(2)
    x = torch.randn(7, 3, generator=draws, dtype=torch.float64)
    variance = torch.full((7,), 0.3, dtype=torch.float64)
    outcome = estimate_components(("a",), x, variance, variance)
    total = sum(s.variance.estimate for s in outcome)
    assert total == pytest.approx(float(x.var(0).sum()), rel=1e-12)
    sums = []
    for _ in range(1000):
        means = nested(draws, (4, 3), (2.0, 1.0), 3, 0.5)
        # 20 replicates of variance 10: 0.5 of their mean.
        ten = torch.full((4, 3), 10.0, dtype=torch.float64)
        sums.append(
            sum(s.variance.estimate for s in estimate_components(("a", "b"), means, ten, ten / 20))
        )
    error = np.std(sums) / 1000**0.5
    assert error < 0.1 and abs(np.mean(sums) - 13) <= K * error


@pytest.mark.weekly
def test_intervals_cover():
    """1000 simulations, five values of the outermost level: at 95 % nominal, 90 % and more."""
    draws = torch.Generator().manual_seed(3)
    sigma, hits = (2.0, 1.0), np.zeros(3)
    for _ in range(1000):
        means = nested(draws, (5, 4), sigma, 20, 0.5)
        # The variance is itself measured, with noise of its own.
        variance = 10 + torch.randn(5, 4, generator=draws, dtype=torch.float64)
        outcome = estimate_components(("a", "b"), means, variance, variance / 20)
        truth = (10.0, sigma[1], sigma[0])
        hits += [
            s.variance.low <= t <= s.variance.high for s, t in zip(outcome, truth, strict=True)
        ]
    assert (hits / 1000 >= 0.9).all(), hits / 1000
    assert hits[0] / 1000 <= 0.975  # not by being far too wide


def test_an_interval_is_symmetric_about_its_estimate_and_of_its_error():
    draws = torch.Generator().manual_seed(4)
    means = nested(draws, (6, 2), (1.0, 1.0), 3, 0.1)
    for source in estimate_components(("a", "b"), means, torch.ones(6, 2), torch.full((6, 2), 0.1)):
        outcome = source.variance
        half = stats.t.ppf(0.975, 5) * outcome.standard_error
        assert outcome.high - outcome.estimate == pytest.approx(half, abs=1e-9)
        assert outcome.estimate - outcome.low == pytest.approx(half, abs=1e-9)


@pytest.mark.parametrize("shape", [(2,), (1,), (3, 1), (2, 4), (5, 2, 1)])
def test_too_few_values_are_refused(shape):
    means = torch.randn(*shape, 2)
    with pytest.raises(ValueError, match="expected at least three values of the outermost level"):
        estimate_components(LEVELS[: len(shape)], means, torch.ones(shape), torch.ones(shape))


# runs


TASK = '''
"""Two logits that a weight makes of knobs: one network, several seeds, steps and batches."""
from dataclasses import dataclass
import torch
from gradest import Cost, Problem, Task

@dataclass(eq=False)
class Layered(Task):
    parameters = ("weights",)
    seed: int = 0
    steps: int = 0
    batch: int = 0
    odd: bool = False

    def __post_init__(self):
        super().__post_init__()
        draws = torch.Generator().manual_seed(100 * self.seed + self.steps)
        self.w = torch.randn(3, 2, generator=draws, dtype=torch.float64).requires_grad_()

    def problem(self, batch=None):
        draws = torch.Generator().manual_seed(7 + self.batch)
        x = torch.randn(2, 2, generator=draws, dtype=torch.float64)
        logits = (x @ self.w.T).unsqueeze(1)  # [2, 1, 3]

        def cost(z):
            worst = torch.inf if self.odd and self.seed == 1 and self.batch == 0 else 1.0
            value = torch.tensor([0.0, worst, 3.0], dtype=torch.float64).to(z)
            return torch.where(z > 0, z * value, 0.0).sum((-2, -1))

        return Problem(logits, Cost(cost))

    def group(self, name):
        return [self.w]
'''

SUITE = """\
timed: false
replicates: 64
enumerate_draws: false
parameters: [weights, log_alpha]
nested: [seed, steps, batch]
tasks: [{layered: {seed: [0, 1, 2], steps: [1, 2], batch: [0, 1]}}]
estimators: [exact, reinforce]
"""


def tables_of(folder: Path, text: str = SUITE):
    """The tables of sources and measurements of a run of the suite, and its folder."""
    (folder / "layered.py").write_text(TASK)
    out = run_suite(folder, text, [folder / "layered.py"])
    names = ("sources", "measurements")
    return *(pd.read_parquet(out / f"{name}.parquet") for name in names), out


@pytest.fixture(scope="module")
def nested_run(tmp_path_factory):
    """The suite as it stands, run once and to be read."""
    return tables_of(tmp_path_factory.mktemp("nested"))


def by_hand(folder, estimator: str) -> dict[str, float]:
    """The components from the journal, by loops: seeds 0, 1, 2, steps 1, 2, batches 0, 1."""
    m, variance, noise = {}, {}, {}
    for record in read_records(folder / "journal.jsonl"):
        if record["kind"] != "cell" or record["cell"]["estimator"] != estimator:
            continue
        knobs = record["cell"]["task_knobs"]
        place = (knobs["seed"], knobs["steps"], knobs["batch"])
        outcome = Measurement.from_json(record["measurement"])
        m[place] = outcome.means["weights"].numpy()
        variance[place] = outcome.row("weights")["variance"]
        noise[place] = variance[place] / outcome.replicates if outcome.replicates else 0.0
    assert len(m) == 12
    middle = {(a, b): (m[a, b, 0] + m[a, b, 1]) / 2 for a in range(3) for b in (1, 2)}
    outer = {a: (middle[a, 1] + middle[a, 2]) / 2 for a in range(3)}
    whole = sum(outer.values()) / 3
    ms_batch = sum(((m[a, b, c] - middle[a, b]) ** 2).sum() for a, b, c in m) / 6
    ms_steps = 2 * sum(((middle[a, b] - outer[a]) ** 2).sum() for a, b in middle) / 3
    ms_seed = 4 * sum(((outer[a] - whole) ** 2).sum() for a in outer) / 2
    return {
        "draws": sum(variance.values()) / 12,
        "batch": ms_batch - sum(noise.values()) / 12,
        "steps": (ms_steps - ms_batch) / 2,
        "seed": (ms_seed - ms_steps) / 4,
    }


def test_the_table_of_a_nested_run_is_what_its_cells_give_by_hand(nested_run):
    sources, _, folder = nested_run
    assert list(sources.columns) == list(SOURCES)
    assert len(sources) == 2 * 4
    assert set(sources.parameter) == {"weights"}
    assert set(sources.over) == {"seed"} and set(sources["values"]) == {3}
    for estimator in ("exact", "reinforce"):
        rows = sources[sources.estimator == estimator]
        assert rows.source.tolist() == ["draws", "batch", "steps", "seed"]
        outcome = dict(zip(rows.source, rows.variance, strict=True))
        assert outcome == pytest.approx(by_hand(folder, estimator), rel=1e-9, abs=1e-12)
        assert (rows.variance_low <= rows.variance).all()
        assert (rows.variance <= rows.variance_high).all()
        for params in rows.task_params:
            assert json.loads(params).keys() == {"odd"}
    exact = sources[sources.estimator == "exact"].set_index("source").variance
    assert exact["draws"] == 0 and exact["batch"] > 0
    assert sources[sources.estimator == "reinforce"].set_index("source").variance["draws"] > 0.1


@pytest.mark.weekly
def test_enumerated_cells_have_no_noise_in_their_means(tmp_path):
    sources, rows, folder = tables_of(tmp_path, SUITE.replace("enumerate_draws: false\n", ""))
    assert set(rows.method) == {"enumerated"}
    outcome = sources[sources.estimator == "reinforce"].set_index("source").variance
    assert dict(outcome) == pytest.approx(by_hand(folder, "reinforce"), rel=1e-9, abs=1e-12)
    assert outcome["draws"] > 0.1
    # REINFORCE is unbiased, so that its means are the exact ones.
    exact = sources[sources.estimator == "exact"].set_index("source").variance
    for level in ("batch", "steps", "seed"):
        assert outcome[level] == pytest.approx(exact[level], abs=1e-10)


def test_grids_that_are_not_complete_say_nothing(nested_run, tmp_path):
    sources, _, folder = nested_run
    copy = shutil.copytree(folder, tmp_path / "mine")
    described = read_run(copy)
    del described["cells"][0]
    write_results(copy, described)
    assert len(pd.read_parquet(copy / "sources.parquet")) == 4 and len(sources) == 8


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            "[{layered: {seed: [0, 1], steps: [1, 2], batch: [0, 1]}}]",
            "expected at least 3 values of the outermost knob 'seed' in layered, got 2",
        ),
        (
            "[{layered: {seed: [0, 1, 2], steps: 1, batch: [0, 1]}}]",
            "expected at least 2 values of the knob 'steps' in layered, got 1",
        ),
    ],
)
def test_levels_that_cannot_be_told_apart_are_refused_before_anything_runs(
    tmp_path, tasks, message
):
    head = SUITE.partition("tasks:")[0]
    with pytest.raises(SuiteError, match=rf"mine.yaml:5: .*{message}"):
        tables_of(tmp_path, f"{head}tasks: {tasks}\nestimators: [reinforce]\n")


@pytest.mark.weekly
def test_runs_that_are_not_nested_have_an_empty_table(tmp_path):
    sources, _, _ = tables_of(tmp_path, SUITE.replace("nested: [seed, steps, batch]\n", ""))
    assert len(sources) == 0 and list(sources.columns) == list(SOURCES)


@pytest.mark.weekly
def test_other_settings_are_families_of_their_own(tmp_path):
    sources, _, _ = tables_of(tmp_path, SUITE.replace("estimators:", "seeds: [0, 1]\nestimators:"))
    assert len(sources) == 16
    assert sources.groupby(["estimator", "seed"]).size().tolist() == [4] * 4


def test_a_cell_without_a_finite_mean_leaves_its_family_out(tmp_path):
    """The table is written all the same."""
    text = SUITE.replace("layered: {", "layered: {odd: true, ") + "nonfinite: count\n"
    sources, rows, _ = tables_of(tmp_path, text.replace("[exact, reinforce]", "[reinforce]"))
    assert (rows.status == "ok").all()
    assert rows[rows.parameter == "weights"].nonfinite.gt(0).sum() == 2
    assert len(sources) == 0


@pytest.mark.slow
def test_a_group_that_has_no_rows_has_no_sources(tmp_path, monkeypatch):
    """Where the map of a group would be too large its mean is known, its variance is not."""
    monkeypatch.setattr("gradest.measurement.parameters.LARGEST", 5)
    sources, rows, _ = tables_of(tmp_path)
    assert set(rows.parameter) == {"log_alpha"}
    assert len(sources) == 0
