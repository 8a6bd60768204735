"""Multiple tests: their evidence when all of them are taken together.

Holm, "A simple sequentially rejective multiple test procedure", 1979.
"""

import numpy as np
import pandas as pd

from gradest.measurement import SCALES

_CELL = ("task", "task_params", "estimator", "estimator_params", "seed", "dtype", "replicates")


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values; NaN stands for no test, and stays.

    Of m tests the k-th smallest p is multiplied by m + 1 − k, and none is below one before it.
    Rejecting where the adjusted p is below a level errs at all with at most that probability,
    however the tests depend on each other.
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # NaN is sorted last
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def bias_tests(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a run with a random test of bias, each test once.

    α and log α share theirs, since z does not depend on the scale.  An enumerated mean is compared
    with the truth without chance, unless the truth is itself an estimate.
    """
    random = frame["method"].ne("enumerated") | frame["reference"].eq("monte_carlo")
    rows = frame[frame["status"].eq("ok") & random & frame["p_value"].notna()]
    return rows.assign(test=_test(rows)).drop_duplicates([*_CELL, "test"])


def adjust_p_values(frame: pd.DataFrame) -> pd.Series:
    """The p-value of every row, by Holm over all bias tests of the run; a certain one as it is."""
    tests = bias_tests(frame)
    tests = tests.assign(p_holm=holm(tests["p_value"].to_numpy(dtype=float)))
    keys = [*_CELL, "test"]
    merged = frame.assign(test=_test(frame))[keys].merge(
        tests[[*keys, "p_holm"]], how="left", on=keys
    )
    return pd.Series(merged["p_holm"].to_numpy(), frame.index).fillna(frame["p_value"])


def _test(rows: pd.DataFrame) -> pd.Series:
    return rows["parameter"].where(~rows["parameter"].isin(list(SCALES)), "logits")
