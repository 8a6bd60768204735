"""Moments and what follows from them: bias, variance, intervals, tests and verdicts.

All intervals are at 95 %.  They rest on J independent batches of replicates (64 unless there are
too few replicates).  Batch statistics are averages of many independent terms, hence close to
normal whatever the distribution of the estimates, and their spread needs no formula for fourth
moments or for the correlation of coordinates.  docs/measurement.md has it in one page.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
