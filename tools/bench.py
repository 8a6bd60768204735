"""Speed, as ratios measured in one run: `make bench`.

Ratios travel between machines where seconds do not.  Each figure is the median of interleaved
rounds, so that a slow moment of the machine falls on both sides alike.  Estimates are timed in one
thread, trainings and evaluations in one and in all.  Steps in one thread, as cells take them, are
timed by the processor time, which other programs of a busy machine do not enter.
"""

import importlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradest import Estimator, Task, make_estimator, make_task, measure
from gradest.measurement.memory import peak_bytes
from gradest.measurement.replicator import Replicator
from gradest.randomness import Draws, drawing_from
from gradest.runs.training.evaluation import negative_bound
from gradest.runs.training.trainer import Trainer
from tools.sample_speed import sample_speed

BENCHMARK = Path(__file__).parents[1] / "benchmark.py"

REPLICATES = 200_000
CATEGORIES = 10
LOOPS = 2_000
ROUNDS = 7


class Network(NamedTuple):
    """The sizes of an autoencoder; the decoder is the encoder mirrored."""

    dataset: str  # of images of this number of pixels
    pixels: int
    encoder: tuple[int, ...]
    latents: int
    categories: int

    def __str__(self) -> str:
        outer = (self.pixels, *self.encoder)
        code = f"({self.latents} × {self.categories})"
        return "-".join(map(str, (*outer, code, *outer[::-1])))


PUBLISHED = Network("binarized_mnist", 28 * 28, (512, 256), 30, 10)
SMALL = Network("digits", 8 * 8, (64,), 8, 4)  # that of suites/training.yaml

SAMPLES, BATCH, RATE, TEMPERATURE = 4, 100, 1e-3, 0.5
ITEMS = torch.randint(0, 2, (5000, PUBLISHED.pixels), dtype=torch.uint8)
TRAINED = {
    "rloo": {"samples": SAMPLES},
    "straight_through": {},
    "gumbel_softmax": {"temperature": TEMPERATURE},
}
STEPS = {PUBLISHED: 5, SMALL: 50}  # of training in one call
AIMS = {PUBLISHED: " (aim: 1.05)", SMALL: ""}  # of small networks most of a step is overhead
CODES, EVALUATED = 1000, 20


def main() -> None:
    every = torch.get_num_threads()
    _start_up()
    torch.set_num_threads(1)
    sample_speed()
    _estimates()
    for threads in sorted({1, every}):
        torch.set_num_threads(threads)
        _training(threads)
        _evaluation(threads)


def _start_up() -> None:
    """Seconds from the start of Python to an answer, which importing torch dominates."""
    programs = {
        "import torch": ["-c", "import torch"],
        "import gradest": ["-c", "import gradest"],
        "measure": ["-c", "from gradest import make_estimator, make_task, measure"],
        "--help": [str(BENCHMARK), "--help"],
        "mistyped suite": [str(BENCHMARK), "--suite", "varianc"],
        "--list": [str(BENCHMARK), "--list"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, arguments in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    unit = median["import torch"]
    for name, aim in (("import gradest", 1.2), ("measure", 1.5), ("--list", 1.3)):
        print(f"{name} against importing torch: {median[name] / unit:.2f} (aim: {aim})")
    for name in ("--help", "mistyped suite"):
        print(f"{name}: {median[name]:.2f} s (aim: 0.4 s)")


def _estimates() -> None:
    task = make_task(
        "categorical",
        alpha=[1.0 + k for k in range(CATEGORIES)],
        values=[float(k) for k in range(CATEGORIES)],
    )
    concrete, rloo = make_estimator("concrete"), make_estimator("rloo", samples=2)
    rates = _rates(
        {
            "noise": (REPLICATES, _noise),
            "concrete": (REPLICATES, lambda: _measure(concrete, task)),
            "rloo": (REPLICATES, lambda: _measure(rloo, task)),
            "loop": (LOOPS, lambda: _loop(rloo, task)),
        }
    )
    print(f"categorical, K = {CATEGORIES}, float32, {REPLICATES:,} replicates, one thread")
    print(f"concrete against its noise alone: {rates['concrete'] / rates['noise']:.2f} (aim: 0.30)")
    print(
        f"rloo against a loop of single estimates: {rates['rloo'] / rates['loop']:.0f} (aim: 200)"
    )
    for estimator in (concrete, rloo):
        share = statistics.median(_framework_share(estimator, task) for _ in range(ROUNDS))
        print(f"the framework's share of {estimator.name}: {share:.0%} (aim: under 25 %)")
    for replicates in (10_000, REPLICATES):
        heads = [_head(rloo, task, replicates) for _ in range(2 * ROUNDS)]
        seconds, share = (statistics.median(each) for each in zip(*heads, strict=True))
        print(
            f"rloo before the first of {replicates:,} replicates: {1000 * seconds:.1f} ms, "
            f"{share:.0%} of the measurement"
        )


def _rates(calls: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (_, call) in calls.items():
            seconds[name].append(_seconds(call))
    return {name: calls[name][0] / statistics.median(times) for name, times in seconds.items()}


def _seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    call()
    return clock() - start


def _noise() -> torch.Tensor:
    return torch.empty(REPLICATES, 1, CATEGORIES).exponential_()


def _measure(estimator: Estimator, task: Task) -> object:
    return measure(
        estimator, task, replicates=REPLICATES, dtype=torch.float32, enumerate_draws=False
    )


def _loop(estimator: Estimator, task: Task) -> None:
    problem = task.problem()
    f = problem.f
    with drawing_from(Draws.seeded(0)):
        for _ in range(LOOPS):
            logits = problem.logits.float().requires_grad_()  # [1, N, K]
            torch.autograd.grad(estimator(logits, f).sum(), logits)


def _framework_share(estimator: Estimator, task: Task) -> float:
    """The share of `measure` outside the estimator's forward and backward pass."""
    inside = 0.0

    def timed(call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object, **kwargs: object) -> object:
            nonlocal inside
            start = time.perf_counter()
            result = call(*args, **kwargs)
            inside += time.perf_counter() - start
            return result

        return wrapper

    kind = type(estimator)
    with (
        patch.object(kind, "__call__", timed(kind.__call__)),
        patch.object(torch.autograd, "grad", timed(torch.autograd.grad)),
    ):
        total = _seconds(lambda: _measure(estimator, task))
    return 1 - inside / total


def _head(estimator: Estimator, task: Task, replicates: int) -> tuple[float, float]:
    """Seconds of `measure` before its first replicate, probes and truth included; their share."""
    first: list[float] = []
    pieces = Replicator.pieces

    def noted(*args: object) -> object:
        first.append(time.perf_counter())
        return pieces(*args)

    with patch.object(Replicator, "pieces", noted):
        start = time.perf_counter()
        measure(estimator, task, replicates=replicates, enumerate_draws=False)
        total = time.perf_counter() - start
    return first[0] - start, (first[0] - start) / total


# A subclass for its data alone: random bits in memory.
class _RandomBits(importlib.import_module("gradest.tasks.categorical_vae").CategoricalVAE):
    def data(self, split: str) -> Tensor:
        return ITEMS[:, : self.side**2].contiguous()


def _trainer(name: str, network: Network = PUBLISHED) -> Trainer:
    model = _RandomBits(
        dataset=network.dataset,
        latents=network.latents,
        categories=network.categories,
        encoder=network.encoder,
        activation="relu",
    )
    estimator = make_estimator(name, **TRAINED[name])
    return Trainer(estimator, model, learning_rate=RATE, batch=BATCH, seed=0, anneal={})


def _training(threads: int) -> None:
    """Steps of training against the same steps written by hand."""
    clock = time.process_time if threads == 1 else time.perf_counter
    for network, steps in STEPS.items():
        print(f"a step of {network}, batch {BATCH}, {threads} thread(s)")
        for name in TRAINED:
            ours, bare = _trainer(name, network), _Bare(_BARE[name], network)
            ratio, low, high = _ratio(
                lambda ours=ours, steps=steps: [ours.advance() for _ in range(steps)],
                lambda bare=bare, steps=steps: [bare.advance() for _ in range(steps)],
                clock,
            )
            print(
                f"{name} against bare PyTorch: {ratio:.2f} ({low:.2f} to {high:.2f}){AIMS[network]}"
            )


def _evaluation(threads: int) -> None:
    """The bound of many codes against the decoder's matrix products alone."""
    trainer = _trainer("straight_through")
    weights = [m.weight.detach() for m in trainer.networks["decoder"] if hasattr(m, "weight")]
    rows = [torch.rand(CODES, weight.shape[1]) for weight in weights]

    def products() -> None:
        for _ in range(EVALUATED):
            for x, weight in zip(rows, weights, strict=True):
                x @ weight.T

    def bound() -> None:
        with drawing_from(Draws.seeded(0)):
            negative_bound(trainer, ITEMS[:EVALUATED], CODES)

    share, low, high = _ratio(products, bound)
    print(
        f"the decoder's products in a bound of {CODES:,} codes, {threads} thread(s): "
        f"{share:.0%} ({low:.0%} to {high:.0%}; aim: 60 %); "
        f"peak: {peak_bytes(bound) / 2**20:.0f} MiB for {EVALUATED} data points"
    )


def _ratio(
    one: Callable[[], object],
    other: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float]:
    """Median and quartiles over the rounds of the time of `one` over that of `other`."""
    one(), other()  # what is made once is no part of it
    ratios = []
    for number in range(4 * ROUNDS):
        # In turns, since each runs in the caches that the other left.
        calls = (one, other) if number % 2 else (other, one)
        seconds = {call: _seconds(call, clock) for call in calls}
        ratios.append(seconds[one] / seconds[other])
    low, median, high = statistics.quantiles(ratios, n=4)
    return median, low, high


class _Bare:
    """The autoencoder and its training as a script would have them."""

    def __init__(self, expected: Callable[..., Tensor], network: Network) -> None:
        self._code = (network.latents, network.categories)
        units, pixels = math.prod(self._code), network.pixels
        self._encoder = _relu_network(pixels, *network.encoder, units)
        self._decoder = _relu_network(units, *network.encoder[::-1], pixels)
        both = [*self._encoder.parameters(), *self._decoder.parameters()]
        self._optimiser = torch.optim.Adam(both, lr=RATE, fused=True)
        self._expected = expected
        self._items = ITEMS[:, :pixels].contiguous()
        self._order, self._at = torch.randperm(len(ITEMS)), 0

    def advance(self) -> Tensor:
        x = self._items[self._order[self._at : self._at + BATCH]].float()
        self._at = (self._at + BATCH) % len(ITEMS)
        logits = self._encoder(x).view(BATCH, *self._code)
        log_q = logits.log_softmax(-1)
        kl = (log_q.exp() * (log_q + math.log(self._code[1]))).sum((1, 2))
        loss = (self._expected(lambda z: self._cost(z, x), logits, log_q) + kl).mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.detach()

    def _cost(self, z: Tensor, x: Tensor) -> Tensor:
        pixels = self._decoder(z.flatten(-2))
        target = x.expand_as(pixels)
        return F.binary_cross_entropy_with_logits(pixels, target, reduction="none").sum(-1)


def _relu_network(*sizes: int) -> nn.Sequential:
    layers = [part for i, o in pairwise(sizes) for part in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _codes(log_q: Tensor, samples: int) -> Tensor:
    """[B, N, K] -> one-hot [S, B, N, K]."""
    drawn = log_q.detach().exp().flatten(0, 1).multinomial(samples, replacement=True)  # [B · N, S]
    return F.one_hot(drawn.T.view(samples, *log_q.shape[:2]), log_q.shape[-1]).float()


def _bare_rloo(f: Callable[[Tensor], Tensor], logits: Tensor, log_q: Tensor) -> Tensor:
    z = _codes(log_q, SAMPLES)
    cost = f(z)  # [S, B]
    advantage = (cost - (cost.sum(0) - cost) / (SAMPLES - 1)).detach()
    return (cost + advantage * (z * log_q).sum((2, 3))).mean(0)


def _bare_straight_through(f: Callable[[Tensor], Tensor], logits: Tensor, log_q: Tensor) -> Tensor:
    q = log_q.exp()
    return f(_codes(log_q, 1)[0] + q - q.detach())


def _bare_gumbel_softmax(f: Callable[[Tensor], Tensor], logits: Tensor, log_q: Tensor) -> Tensor:
    return f(F.gumbel_softmax(logits, TEMPERATURE))


_BARE: Mapping[str, Callable[..., Tensor]] = {
    "rloo": _bare_rloo,
    "straight_through": _bare_straight_through,
    "gumbel_softmax": _bare_gumbel_softmax,
}


if __name__ == "__main__":
    main()
