"""Replicates as moments: the same however they were cut and merged; odd ones are counted."""

import itertools

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Problem, Task
from gradest.measurement.accumulator import COSINES, Accumulator
from gradest.measurement.enumerated_truth import exact_gradient
from gradest.measurement.parameters import LOG_ALPHA
from gradest.measurement.truth import Truth
from gradest.statistics import squared_bias, total_variance
from gradest.statistics.moments import BATCHES, FEWER, Moments, schedule

SAME = 1e-12  # relative: a few thousand additions in float64
ROOT = 1e-9  # the ends of an interval for a bias are roots, found to 10⁻¹⁰


def replicates(number: int, coordinates: int) -> Tensor:
    """Correlated and skewed, with a mean of the size of their spread: [R, D]."""
    draws = torch.Generator().manual_seed(coordinates)
    x = torch.randn(number, coordinates, generator=draws, dtype=torch.float64)
    common = torch.randn(number, 1, generator=draws, dtype=torch.float64).exp()
    return x * torch.linspace(0.1, 3, coordinates, dtype=torch.float64) + common


def cut(x: Tensor, sizes: list[int]) -> list[Moments]:
    """The moments of consecutive rows, so many in each chunk."""
    return [Moments.of(part.unsqueeze(0)) for part in x.split(sizes)]


def assert_same_statistics(a: Moments, b: Moments, truth: Tensor) -> None:
    """Everything that a row says of variance and squared bias."""
    assert total_variance(a) == pytest.approx(total_variance(b), rel=SAME)
    one, other = squared_bias(a, truth), squared_bias(b, truth)
    assert one.estimate == pytest.approx(other.estimate, rel=SAME)
    assert one.standard_error == pytest.approx(other.standard_error, rel=SAME)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=ROOT)


@pytest.mark.parametrize("coordinates", [1, 7, 1000])
@pytest.mark.parametrize("chunks", [2, 16])
def test_batches_merged_from_chunks_in_any_order_give_the_same_statistics(coordinates, chunks):
    """Sixteen batches of 32; each comes in so many chunks of unequal sizes."""
    x = replicates(512, coordinates).unflatten(0, (16, 32))  # [J, n, D]
    truth = x.mean((0, 1)) * 0.9
    whole = Moments.of(x)
    draws = torch.Generator().manual_seed(chunks)
    for _ in range(3):
        ends = (torch.randperm(31, generator=draws)[: chunks - 1] + 1).sort().values.tolist()
        parts = [Moments.of(x[:, a:b]) for a, b in itertools.pairwise([0, *ends, 32])]
        assert sum(float(p.count[0]) for p in parts) == 32
        merged = Moments.empty(16, coordinates)
        for number in torch.randperm(chunks, generator=draws).tolist():
            merged = merged.merge(parts[number])
        assert torch.equal(merged.count, whole.count)
        assert_same_statistics(merged, whole, truth)


@pytest.mark.parametrize("coordinates", [3, 1000])
def test_the_order_of_batches_does_not_matter(coordinates):
    parts = cut(replicates(400, coordinates), [25] * 16)
    truth = torch.zeros(coordinates, dtype=torch.float64)
    whole = Moments.stacked(parts)
    draws = torch.Generator().manual_seed(0)
    for _ in range(3):
        order = torch.randperm(16, generator=draws).tolist()
        shuffled = Moments.stacked([parts[i] for i in order])
        assert_same_statistics(shuffled, whole, truth)


@pytest.mark.parametrize("jobs", [2, 16])
def test_the_variance_of_all_does_not_depend_on_how_they_were_dealt(jobs):
    """Into two jobs or sixteen chunks, of very unequal sizes."""
    x = replicates(1000, 50)
    draws = torch.Generator().manual_seed(jobs)
    ends = (torch.randperm(999, generator=draws)[: jobs - 1] + 1).sort().values.tolist()
    sizes = [b - a for a, b in itertools.pairwise([0, *ends, 1000])]
    assert max(sizes) > 2 * min(sizes)
    pooled = Moments.stacked(cut(x, sizes)).pooled
    assert float(pooled.count) == 1000
    assert torch.allclose(pooled.mean[0], x.mean(0), rtol=SAME, atol=0)
    assert torch.allclose(pooled.m2[0] / 999, x.var(0), rtol=SAME, atol=0)
    # The interval rests on the batches, the estimate on all replicates.
    found = total_variance(Moments.stacked(cut(x, sizes)))
    assert found.estimate == pytest.approx(float(x.var(0).sum()), rel=SAME)


@pytest.mark.parametrize(("coordinates", "batches"), [(1, 64), (2**14, 64), (2**14 + 1, 16)])
def test_many_coordinates_are_dealt_into_fewer_batches(coordinates, batches):
    assert (BATCHES, FEWER) == (64, 16)
    for chunk in (1, 10, 10_000):
        sizes: list[int] = []
        for together, size, joined in schedule(5000, chunk, coordinates):
            assert together * size <= max(chunk, 1)
            if joined:
                sizes[-1] += size
            else:
                sizes += [size] * together
        assert len(sizes) == batches and sum(sizes) == 5000
        assert max(sizes) - min(sizes) <= 1
    few = [together for together, _, _ in schedule(64, 10_000, coordinates)]
    assert sum(few) == 8  # eight of eight


# the tally


LOGITS = torch.tensor([[[0.3, -0.2, 1.0], [0.5, 0.0, -1.0]]], dtype=torch.float64)


class Square(Task):
    def problem(self, batch=None) -> Problem:
        weight = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.1, -1.2]], dtype=torch.float64)
        return Problem(LOGITS, Cost(lambda z: (z * weight.to(z)).sum((-2, -1)).square()))


def tallied(x: Tensor, values: Tensor, chunk: int, tolerant: bool = False) -> Accumulator:
    """[R, D] estimates, as a measurement in chunks of that size would count them."""
    found = exact_gradient(Square().problem())
    map_ = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64).repeat(3, 1)  # [6, 2]
    gradient = found.gradient.flatten()
    gradients = {LOG_ALPHA: gradient, "phi": gradient @ map_}
    truth = Truth("exact", found.value, gradients, found.spread, {}, "")
    tally = Accumulator("somebody on something", LOGITS, truth, {"phi": map_}, tolerant)
    start = 0
    for batches, size, joined in schedule(len(x), chunk):
        rows = slice(start, start + batches * size)
        start = rows.stop
        tally.add(x[rows], values[rows], batches, joined)
    return tally


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_a_tally_is_the_same_in_chunks_of_any_size(chunk):
    x, values = replicates(600, 6), replicates(600, 1)[:, 0]
    x[::7] = 0
    whole, pieces = (tallied(x, values, n) for n in (10**6, chunk))
    truth = x.mean(0) * 0.9
    for name in (LOG_ALPHA, "phi"):
        a, b = (Moments.stacked(t.gradients[name]) for t in (whole, pieces))
        assert torch.equal(a.count, b.count)
        assert_same_statistics(a, b, truth[: a.mean.shape[1]])
    for parts in ("objectives", "cosines"):
        a, b = (Moments.stacked(getattr(t, parts)).pooled for t in (whole, pieces))
        assert torch.allclose(a.mean, b.mean, rtol=SAME, atol=1e-15)
        assert torch.allclose(a.m2, b.m2, rtol=1e-10, atol=0)
    assert whole.peaks == pieces.peaks
    assert (whole.zero, whole.replicates) == (pieces.zero, pieces.replicates) == (86, 600)


def test_a_tally_projects_every_estimate():
    x = replicates(100, 6)
    tally = tallied(x, x[:, 0], 30)
    map_ = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64).repeat(3, 1)
    seen = Moments.stacked(tally.gradients["phi"]).pooled
    assert torch.allclose(seen.mean[0], (x @ map_).mean(0), rtol=SAME, atol=0)
    assert torch.allclose(seen.m2[0] / 99, (x @ map_).var(0), rtol=1e-10, atol=0)
    gradient = exact_gradient(Square().problem()).gradient.flatten()
    cosines = torch.stack(
        [
            torch.nn.functional.cosine_similarity(x / a, (gradient / a).unsqueeze(0))
            for a in (LOGITS.exp().flatten(), torch.ones(6))
        ]
        + [torch.nn.functional.cosine_similarity(x @ map_, (gradient @ map_).unsqueeze(0))],
        1,
    )
    found = Moments.stacked(tally.cosines).pooled
    assert torch.allclose(found.mean[0], cosines.mean(0), rtol=0, atol=SAME)
    assert torch.allclose(found.m2[0] / 99, cosines.var(0), rtol=1e-9, atol=0)


def test_cosines_come_from_the_first_replicates_alone():
    x = replicates(COSINES + 3000, 6)
    tally = tallied(x, x[:, 0], 1000)
    counted = float(Moments.stacked(tally.cosines).count.sum())
    assert COSINES <= counted < COSINES + 1000
    assert tally.replicates == COSINES + 3000


def test_odd_replicates_are_counted_one_by_one():
    x, values = replicates(200, 6), replicates(200, 1)[:, 0]
    x[3, 2] = torch.nan
    x[4, :] = torch.inf
    x[5, 0], x[5, 1] = torch.nan, -torch.inf
    values[6] = torch.nan
    values[7] = torch.inf
    x[8:20] = 0
    for chunk in (1, 30, 10**6):
        tally = tallied(x, values, chunk, tolerant=True)
        assert (tally.nonfinite, tally.overflow, tally.zero) == (5, 3, 12)


def test_a_peak_is_the_largest_size_of_a_coordinate():
    x = replicates(200, 6) * 1e-3
    x[17, 4] = -50.0
    for chunk in (7, 10**6):
        assert tallied(x, x[:, 0], chunk).peaks[LOG_ALPHA] == 50.0


def test_a_wide_measurement_has_fewer_batches():
    class Wide(Task):
        def problem(self, batch=None) -> Problem:
            logits = torch.zeros(1, 2**13 + 1, 2, dtype=torch.float64)
            return Problem(logits, Cost(lambda z: z[..., 0].mean(-1)))

    found = gradest.measure(gradest.make_estimator("reinforce"), Wide(), replicates=200)
    assert len(found.gradient.count) == 16
    assert found.replicates == 200
