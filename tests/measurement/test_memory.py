"""The bytes that a computation holds at its peak, in cases that can be counted by hand."""

import gc

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Problem, Task
from gradest.measurement.memory import peak_bytes

N = 10_000
BYTES = 8 * N  # of one vector in float64


def vector() -> Tensor:
    return torch.ones(N, dtype=torch.float64)


def test_a_tensor_counts_as_long_as_it_is_held():
    def together() -> Tensor:
        a, b, c = vector(), vector(), vector()
        return a, b, c

    def one_after_the_other() -> None:
        for _ in range(3):
            a = vector()
            del a

    def where_others_were() -> list[Tensor]:
        first = [vector() for _ in range(20)]
        first.clear()  # the allocator gives some of their addresses again
        return [vector() for _ in range(20)]

    assert peak_bytes(together) == 3 * BYTES
    assert peak_bytes(where_others_were) == 20 * BYTES
    assert peak_bytes(one_after_the_other) == BYTES
    assert peak_bytes(lambda: None) == 0


def test_what_was_there_before_does_not_count():
    x = vector()
    assert peak_bytes(lambda: x.view(-1, 10)) == 0
    assert peak_bytes(lambda: x.add_(1)) == 0
    assert peak_bytes(lambda: x[3:].unsqueeze(0).transpose(0, 1)) == 0
    assert peak_bytes(lambda: x + 1) == BYTES


def test_temporaries_count_while_they_are_needed():
    x = vector()
    # (x + 1) is held until the product is made; the sum is one number.
    assert peak_bytes(lambda: (x + 1) * 2) == 2 * BYTES
    assert peak_bytes(lambda: ((x + 1) * 2).sum()) == 2 * BYTES
    assert peak_bytes(lambda: (x + 1).mul_(2)) == BYTES


def test_views_count_once_and_for_as_long_as_the_last_of_them():
    def views() -> Tensor:
        base = vector()
        half = base[: N // 2]
        again = base.view(-1, 10).T
        del base, again
        other = vector()  # the half keeps the whole storage
        del half
        third = vector()  # now it is gone
        return other, third

    assert peak_bytes(views) == 2 * BYTES

    def expanded() -> Tensor:
        return torch.ones(1, dtype=torch.float64).expand(N)

    assert peak_bytes(expanded) == 8


def test_the_peak_counts_not_the_end():
    def falling() -> Tensor:
        big = torch.cat([vector(), vector(), vector()])
        return big[:1].clone()

    # cat holds its three parts and the whole.
    assert peak_bytes(falling) == 6 * BYTES


def test_dtypes_count_by_their_size():
    assert peak_bytes(lambda: torch.zeros(N, dtype=torch.float16)) == 2 * N
    assert peak_bytes(lambda: torch.zeros(N, dtype=torch.bool)) == N


def test_what_a_backward_pass_makes_and_keeps_counts():
    x = vector().requires_grad_()

    def forward() -> Tensor:
        return x.exp().sum()

    def both() -> Tensor:
        (gradient,) = torch.autograd.grad(x.exp().sum(), x)
        return gradient

    # exp keeps its result for the backward pass: one vector and the sum.
    assert peak_bytes(forward) == BYTES + 8
    # The product of that with the incoming slope, which is expanded from one number.
    assert 2 * BYTES <= peak_bytes(both) <= 2 * BYTES + 3 * 8

    def chain(links: int) -> Tensor:
        y = x
        for _ in range(links):
            y = y.exp()  # each keeps its result
        return torch.autograd.grad(y.sum(), x)

    grown = peak_bytes(lambda: chain(9)) - peak_bytes(lambda: chain(4))
    assert grown == 5 * BYTES


def test_without_a_graph_a_chain_holds_two():
    x = vector()

    def chain() -> Tensor:
        y = x
        for _ in range(9):
            y = y.exp()
        return y

    assert peak_bytes(chain) == 2 * BYTES


def test_one_watch_knows_nothing_of_the_last():
    first = peak_bytes(lambda: (vector(), vector()))
    gc.collect()
    again = peak_bytes(lambda: (vector(), vector()))
    assert first == again == 2 * BYTES


def test_an_error_inside_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 / 0)
    assert peak_bytes(vector) == BYTES


def test_more_samples_take_more_memory_for_an_estimate():
    task = gradest.make_task("quadratic")
    few, many = (
        gradest.measure(
            gradest.make_estimator("rloo", samples=samples), task, replicates=64, adapt_steps=0
        )
        for samples in (2, 8)
    )
    # Of a single estimate: its own gradient at least, and not that of 64.
    assert 8 * 20 < few.row()["memory"] == few.memory < 64 * 8 * 20
    assert 2 < many.memory / few.memory < 5


class Wide(Task):
    """N · K = 10⁶ with E f = mean of the weights of the last category, in closed form."""

    name = "wide"
    categories = 4

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.latents = latents

    def problem(self, batch=None) -> Problem:
        steps = torch.linspace(-1, 1, self.latents * self.categories, dtype=torch.float64)
        logits = (100 * steps).sin().reshape(1, self.latents, self.categories)
        return Problem(logits, Cost(lambda z: z[..., -1].mean(-1)))

    def expectation(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)[..., -1].mean(-1)


@pytest.mark.weekly
def test_a_million_coordinates_are_measured_without_keeping_a_replicate():
    estimator, task = gradest.make_estimator("reinforce"), Wide(250_000)
    found = []

    def measured() -> None:
        found.append(gradest.measure(estimator, task, replicates=64))

    peak = peak_bytes(measured)
    (measurement,) = found
    coordinates = task.latents * task.categories
    one = 8 * coordinates
    row = measurement.row()
    assert row["coordinates"] == coordinates and row["replicates"] == 64
    assert len(measurement.gradient.count) == 8
    assert peak < 64 * one  # less than the replicates alone
    assert row["reference"] == "closed_form"
    pi = measurement.logits.softmax(-1)
    slope = -pi * pi[..., -1:] / task.latents
    slope[..., -1] += pi[..., -1] / task.latents
    assert torch.allclose(measurement.exact, slope, rtol=0, atol=1e-18)
    z = ((measurement.mean - measurement.exact) / measurement.standard_error).flatten()
    assert float(z.square().mean()) == pytest.approx(1.0, abs=0.1)  # t of 63 degrees: 1.03


@pytest.mark.slow
def test_four_times_the_replicates_take_no_more_memory():
    """From 128 on there are sixteen batches, whatever their size."""
    estimator, task = gradest.make_estimator("reinforce"), Wide(5000)
    few, many = (
        peak_bytes(lambda n=n: gradest.measure(estimator, task, replicates=n)) for n in (128, 512)
    )
    one = 8 * task.latents * task.categories
    found = gradest.measure(estimator, task, replicates=512)
    assert len(found.gradient.count) == 16
    assert many <= few + one
    assert many < 128 * one  # of the 512
