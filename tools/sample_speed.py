"""The time of one draw with its backward pass, against other implementations: for `make bench`.

A training step makes a single call, so that for few data points the time is that of the operations,
not of the numbers.  It is processor time, in which other programs do not count.  The package
`reinmax` is compared where it is installed.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gradest.nn import Sample

BATCHES = (1, 64, 1024)
LATENTS, CATEGORIES = 16, 8
TEMPERATURE, REINMAX_TEMPERATURE = 0.5, 1.1
ROUNDS = 25
SECONDS = 0.01  # of one side in a round

Draw = Callable[[Tensor], Tensor]


def sample_speed() -> None:
    """Print the ratios of the times, in the number of threads that is set."""
    pairs: dict[str, tuple[Draw, Draw]] = {
        "st_gumbel_softmax against F.gumbel_softmax(hard=True)": (
            Sample("st_gumbel_softmax", temperature=TEMPERATURE),
            lambda x: F.gumbel_softmax(x, TEMPERATURE, hard=True),
        ),
        "gumbel_softmax against F.gumbel_softmax": (
            Sample("gumbel_softmax", temperature=TEMPERATURE),
            lambda x: F.gumbel_softmax(x, TEMPERATURE),
        ),
    }
    if importlib.util.find_spec("reinmax"):
        package = importlib.import_module("reinmax")
        pairs["reinmax against the package reinmax"] = (
            Sample("reinmax", temperature=REINMAX_TEMPERATURE),
            lambda x: package.reinmax(x, REINMAX_TEMPERATURE)[0],
        )
    else:
        print("reinmax against the package reinmax: skipped, it is not installed")
    print(f"one draw and its backward pass, N = {LATENTS}, K = {CATEGORIES}, float32, one thread")
    for name, (ours, theirs) in pairs.items():
        ratios = ", ".join(f"{_ratio(ours, theirs, batch):.2f} at B = {batch}" for batch in BATCHES)
        print(f"{name}: {ratios} (aim: 1.00)")


def _ratio(ours: Draw, theirs: Draw, batch: int) -> float:
    """The median of the ratios of interleaved rounds, each with the two in turn."""
    x = torch.randn(batch, LATENTS, CATEGORIES, requires_grad=True)
    slope = torch.randn(batch, LATENTS, CATEGORIES)

    def seconds(draw: Draw, calls: int) -> float:
        start = time.thread_time()
        for _ in range(calls):
            torch.autograd.grad(draw(x), x, slope)
        return time.thread_time() - start

    calls = max(1, round(SECONDS / (seconds(theirs, 20) / 20)))
    seconds(ours, calls)  # to warm up
    return statistics.median(seconds(ours, calls) / seconds(theirs, calls) for _ in range(ROUNDS))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sample_speed()
