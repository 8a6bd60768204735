"""What of a number is rounding and nothing else."""

import torch

# Units in the last place that sums over all outcomes and over the replicates accumulate.
UNITS = 1024


def resolution(dtype: torch.dtype) -> float:
    """The differences that are rounding in a dtype, relative to the size of what was summed."""
    return UNITS * torch.finfo(dtype).eps
