"""Rigged draws: the weights undo a tilt, and alike rows get the same noise."""

import pytest
import torch

from gradest.checks.controlled_noise import SharedNoise, TiltedDraws, UnevenNoise, UniformCounter
from gradest.randomness import Draws

ROWS = 200_000


def tilted(each: int) -> TiltedDraws:
    return TiltedDraws(ROWS, each, torch.Generator().manual_seed(0))


def like() -> torch.Tensor:
    return torch.empty(0, dtype=torch.float64)


@pytest.mark.parametrize(("low", "high"), [(0, 1e-6), (1 - 1e-6, 1), (0.2, 0.5), (0, 1)])
def test_weighted_frequencies_are_those_of_uniforms(low, high, assert_mean):
    source = tilted(6)
    u = torch.cat(
        [source.uniform((ROWS, 2, 2), like()).flatten(1), source.uniform((ROWS, 2), like())], 1
    )
    inside = ((u >= low) & (u < high)).double() * source.weight.unsqueeze(1)
    assert_mean(inside, high - low, precision=0.1 * (high - low))


def test_no_weight_exceeds_two():
    source = tilted(3)
    source.uniform((ROWS, 3), like())
    assert 0 < source.weight.min() < 1e-3 and source.weight.max() <= 2


def test_exponentials_and_categories_are_tilted_through_their_uniforms(assert_mean):
    source = tilted(3)
    e = source.exponential((ROWS, 2), like())
    logits = torch.tensor([[[14.0, 0.0, 0.5]]], dtype=torch.float64).expand(ROWS, -1, -1)
    index = source.categories(logits, 1).flatten()
    far = (e > 14).double() * source.weight.unsqueeze(1)
    assert_mean(far, torch.tensor(-14.0).double().exp(), precision=1e-7)
    rare = torch.nn.functional.one_hot(index, 3).double() * source.weight.unsqueeze(1)
    assert_mean(rare[:, 1:], logits[0, 0].softmax(-1)[1:], precision=1e-7)


def test_every_row_takes_as_many_uniforms():
    counted = UniformCounter(10, torch.Generator().manual_seed(0))
    counted.uniform((10, 3), like())
    counted.normal((7,), like())
    counted.exponential((10, 2, 2), like())
    assert counted.each == 7 and not counted.uneven
    assert counted.uniform((5, 2), like()).shape == (5, 2)
    assert counted.uneven == "uniforms of shape [5, 2] for 10 rows" and counted.each == 7


def test_other_noise_is_left_alone():
    source = tilted(1)
    plain = Draws(source.generator)
    state = source.generator.get_state()
    noise = source.normal((ROWS, 2), like())
    source.generator.set_state(state)
    assert torch.equal(noise, plain.normal((ROWS, 2), like()))


def test_as_many_uniforms_as_before():
    source = tilted(3)
    source.uniform((ROWS, 2), like())
    with pytest.raises(UnevenNoise, match="expected 3 uniforms a row as before, got 2"):
        _ = source.weight


def test_alike_rows_get_the_noise_of_one():
    alone, together, apart = (
        SharedNoise(2, 1),
        SharedNoise(2, 3),
        SharedNoise(2, 3, others_too=False),
    )
    for law in ("uniform", "normal", "exponential"):
        one, three, first = (
            getattr(d, law)((2 * n, 4), like()) for d, n in ((alone, 1), (together, 3), (apart, 3))
        )
        assert torch.equal(three.unflatten(0, (2, 3)), one.unsqueeze(1).expand(-1, 3, -1))
        assert torch.equal(first[::3], one)
        assert len(first.unique(dim=0)) == 6
        assert not torch.equal(one[0], one[1])


def test_uniforms_that_do_not_come_row_by_row_have_no_weights():
    source = tilted(3)
    source.uniform((ROWS, 3), like())
    noise = source.uniform((4, 3), like())
    assert noise.shape == (4, 3) and 0 <= noise.min() < noise.max() < 1
    with pytest.raises(UnevenNoise, match=r"uniforms of shape \[4, 3\] for 200000 rows"):
        _ = source.weight


@pytest.mark.parametrize("shape", [(3, 6, 4), (1, 4), ()])
def test_noise_that_does_not_come_row_by_row_is_served_and_told_of(shape):
    source = SharedNoise(2, 3)
    noise = source.uniform(shape, like())
    assert noise.shape == shape and source.uneven == f"noise of shape {list(shape)} for 6 rows"
    assert noise.numel() == 1 or len(noise.unique()) == noise.numel()
