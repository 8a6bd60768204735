"""Speed, as ratios measured in one run and one thread: `make bench`.

Ratios travel between machines where seconds do not.  Each figure is the median of interleaved
rounds, so that a slow moment of the machine falls on both sides alike.
"""

import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import torch

from gradest import Estimator, Task, make_estimator, make_task, measure
from gradest.randomness import Draws, drawing_from

REPLICATES = 200_000
CATEGORIES = 10
LOOPS = 2_000
ROUNDS = 7


def main() -> None:
    torch.set_num_threads(1)
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


def _rates(calls: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (_, call) in calls.items():
            seconds[name].append(_seconds(call))
    return {name: calls[name][0] / statistics.median(times) for name, times in seconds.items()}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _noise() -> torch.Tensor:
    return torch.empty(REPLICATES, 1, CATEGORIES).exponential_()


def _measure(estimator: Estimator, task: Task) -> object:
    return measure(estimator, task, replicates=REPLICATES, dtype=torch.float32)


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


if __name__ == "__main__":
    main()
