"""The size of rounding errors."""

import torch

# Units in the last place that accumulate in sums over all outcomes and over replicates.
UNITS = 1024


def resolution(dtype: torch.dtype) -> float:
    """The size of rounding errors of sums in a dtype, relative to the size of the terms."""
    return UNITS * torch.finfo(dtype).eps
