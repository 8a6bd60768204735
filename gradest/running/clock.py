"""Seconds that a call takes, on whatever device it computes."""

import time
from collections.abc import Callable

import torch


def seconds_of(call: Callable[[], object]) -> float:
    """Waits for the device before and after."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
