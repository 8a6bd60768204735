"""Statistical inference from moments: bias, variance, their intervals, and a verdict.

All intervals are at 95 %.  They are based on J independent batches of replicates (64 unless there
are too few replicates).  Batch statistics are averages of many independent terms, hence close to
normal whatever the distribution of an estimate, and their spread needs no formula for its fourth
moments or for the correlation of coordinates.  docs/measurement.md explains it on one page.
"""

from gradest.inference.bias import detectable_length, squared_bias
from gradest.inference.description import describe
from gradest.inference.intervals import (
    CONFIDENCE,
    Interval,
    mean_interval,
    reach_of_sum,
    total_variance,
)
from gradest.inference.joint import largest_z
from gradest.inference.planning import replicates_needed
from gradest.inference.rounding import Arithmetic
from gradest.inference.verdicts import BIASED_BELOW, UNBIASED_WITHIN, verdict

__all__ = [
    "BIASED_BELOW",
    "CONFIDENCE",
    "UNBIASED_WITHIN",
    "Arithmetic",
    "Interval",
    "describe",
    "detectable_length",
    "largest_z",
    "mean_interval",
    "reach_of_sum",
    "replicates_needed",
    "squared_bias",
    "total_variance",
    "verdict",
]
