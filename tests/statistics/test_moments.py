"""Moments: the algebra of merging, agreement with torch, and robustness to a large mean."""

import json

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from gradest.statistics.moments import Moments, decode, encode

# Rounding of a few dozen float64 operations on numbers of the size of `scale`.
ROUNDING = 1e-13


@st.composite
def blocks(draw, parts: int) -> list[Tensor]:
    """`parts` blocks [J, n, D] with J and D in common, of very different sizes and offsets."""
    batches, coordinates = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    thousandths = st.integers(-1000, 1000)  # no squares that underflow
    made = []
    for _ in range(parts):
        replicates = draw(st.integers(1, 5))
        size = batches * replicates * coordinates
        x = draw(st.lists(thousandths, min_size=size, max_size=size))
        factor, shift = 10.0 ** draw(st.integers(-9, 3)), draw(st.integers(-1_000_000, 1_000_000))
        x = torch.tensor(x, dtype=torch.float64) * factor + shift
        made.append(x.reshape(batches, replicates, coordinates))
    return made


def assert_same(a: Moments, b: Moments, *data: Tensor) -> None:
    """Equal up to the rounding of the data that they describe."""
    scale = max(float(x.abs().max()) for x in data)
    replicates = float(a.count.max())
    assert torch.equal(a.count, b.count)
    assert (a.mean - b.mean).abs().max() <= ROUNDING * scale
    assert (a.m2 - b.m2).abs().max() <= ROUNDING * scale**2 * replicates


@given(blocks(1))
def test_moments_of_a_block_are_those_of_torch(data):
    (x,) = data
    m = Moments.of(x)
    variance, mean = torch.var_mean(x, 1, correction=0)
    assert_same(m, Moments(torch.full_like(m.count, x.shape[1]), mean, variance * x.shape[1]), x)


@given(blocks(2))
def test_merging_is_as_if_the_blocks_had_been_one(data):
    a, b = data
    merged = Moments.of(a).merge(Moments.of(b))
    assert_same(merged, Moments.of(torch.cat([a, b], 1)), a, b)


@given(blocks(2))
def test_merging_commutes(data):
    a, b = (Moments.of(x) for x in data)
    assert_same(a.merge(b), b.merge(a), *data)


@given(blocks(3))
def test_merging_is_associative(data):
    a, b, c = (Moments.of(x) for x in data)
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)), *data)


@given(blocks(1))
def test_empty_moments_are_neutral_bit_by_bit(data):
    m = Moments.of(data[0])
    empty = Moments.empty(*m.mean.shape)
    for same in (m.merge(empty), empty.merge(m)):
        assert all(torch.equal(getattr(same, n), getattr(m, n)) for n in ("count", "mean", "m2"))
    nothing = empty.merge(empty)
    assert nothing.count.sum() == 0 and nothing.mean.sum() == 0 and nothing.m2.sum() == 0


@given(blocks(3))
def test_pooling_stacked_batches_is_torch_var_mean_of_everything(data):
    m = Moments.stacked([Moments.of(x) for x in data])
    assert torch.equal(m.count, torch.cat([torch.full((len(x),), x.shape[1]) for x in data]))
    pooled = m.pooled
    everything = torch.cat([x.flatten(0, 1) for x in data])  # [replicates, D]
    variance, mean = torch.var_mean(everything, 0, keepdim=True, correction=0)
    count = torch.tensor([float(len(everything))], dtype=torch.float64)
    assert_same(pooled, Moments(count, mean, variance * count), *data)


@given(blocks(1), st.integers(-1000, 1000))
def test_scaled_moments_are_those_of_the_scaled_data(data, factor):
    (x,) = data
    weight = torch.linspace(factor, 1, x.shape[-1], dtype=torch.float64)  # [D]
    assert_same(Moments.of(x).scaled(weight), Moments.of(x * weight), x * weight, x)


@given(blocks(1))
def test_a_column_is_the_moments_of_one_coordinate(data):
    (x,) = data
    for d in range(x.shape[-1]):
        assert_same(Moments.of(x).column(d), Moments.of(x[..., d : d + 1]), x)


def test_a_large_mean_does_not_swamp_a_tiny_variance():
    generator = torch.Generator().manual_seed(0)
    noise = 1e-3 * torch.randn(4, 1000, 2, generator=generator, dtype=torch.float64)
    x = 1e8 + noise  # [J, n, D]
    exact = (x - 1e8).flatten(0, 1).var(0, correction=0)  # x − 10⁸ is exact
    merged = Moments.of(x[:, :300]).merge(Moments.of(x[:, 300:])).pooled
    # Means are rounded to 10⁻⁸, a hundred-thousandth of the standard deviation: relative 10⁻⁴ is
    # ample, while E x² − (E x)² would be off by a factor of a million.
    assert torch.allclose(merged.m2[0] / merged.count, exact, rtol=1e-4, atol=0)


def test_moments_accumulate_in_double_precision():
    x = torch.full((1, 100, 1), 0.1)  # float32
    m = Moments.of(x)
    assert m.mean.dtype == m.m2.dtype == m.count.dtype == torch.float64
    assert m.mean.item() == pytest.approx(float(x[0, 0, 0]), rel=1e-15)


def test_the_data_are_left_as_they_were():
    x = torch.arange(6, dtype=torch.float64).reshape(1, 3, 2)
    Moments.of(x)
    assert torch.equal(x.flatten(), torch.arange(6, dtype=torch.float64))


def test_moments_keep_no_graph():
    assert not Moments.of(torch.zeros(1, 2, 1, requires_grad=True)).mean.requires_grad


def test_json_gives_back_every_bit():
    awkward = [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, float("inf"), float("nan")]
    x = torch.tensor(awkward, dtype=torch.float64).reshape(7, 1)
    m = Moments(torch.arange(7, dtype=torch.float64), x, x.flip(0))
    back = Moments.from_json(json.loads(json.dumps(m.to_json(), allow_nan=False)))
    for name in ("count", "mean", "m2"):
        before, after = getattr(m, name), getattr(back, name)
        assert torch.equal(before.view(torch.int64), after.view(torch.int64))
        assert after.dtype == torch.float64


@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 4)])
def test_encoded_tensors_keep_their_shape(shape):
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decode(json.loads(json.dumps(encode(x)))), x)


def test_encoding_reads_views_in_their_own_order():
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3).T
    assert torch.equal(decode(encode(x)), x)


@pytest.mark.parametrize(("batches", "most"), [(10, 4), (7, 7), (3, 8), (128, 64)])
def test_fewer_batches_hold_the_same_replicates(batches, most):
    moments = Moments.of(torch.randn(batches, 5, 2, generator=torch.Generator().manual_seed(0)))
    fewer = moments.in_batches(most)
    assert len(fewer.count) == min(batches, most)
    assert fewer.count.max() - fewer.count.min() in (0, 5)  # at most one batch more
    for one, other in zip(vars(fewer.pooled).values(), vars(moments.pooled).values(), strict=True):
        assert one.allclose(other, rtol=1e-13, atol=1e-15)
