"""Measurements under several seeds as one measurement with all their replicates."""

import pytest
import torch

from gradest import measure
from gradest.errors import UsageError
from gradest.measurement import pool
from gradest.plugins import make_estimator, make_task


def measured(estimator="rloo", task=None, replicates=200, seed=0, **options):
    task = make_task("bernoulli") if task is None else task
    options = {"enumerate_draws": False} | options
    return measure(
        make_estimator(estimator), task, replicates=replicates, seed=seed, progress=False, **options
    )


def test_the_pool_is_what_one_measurement_of_all_replicates_would_be():
    first, second = measured(), measured(replicates=1000, seed=1)
    both = pool([first, second])
    assert both.replicates == 1200
    assert len(both.gradient.count) == 64  # as many batches as a measurement of 1200 has
    assert both.gradient.count.max() <= 2 * both.gradient.count.min()
    weighted = (200 * first.mean + 1000 * second.mean) / 1200
    assert both.mean.allclose(weighted, rtol=0, atol=1e-14)
    # Σ (x − mean)² about the common mean, from the sums of squares of both.
    squares = sum(
        (m.replicates - 1) * m.variance + m.replicates * m.mean**2 for m in (first, second)
    )
    assert both.variance.allclose((squares - 1200 * weighted**2) / 1199, rtol=1e-9)
    row = both.row()
    assert row["variance_low"] < row["variance"] < row["variance_high"]
    assert row["variance_precision"] < first.row()["variance_precision"]


def test_measurements_of_other_quantities_are_not_pooled():
    first = measured()
    other = measured(task=make_task("bernoulli", target=0.4), seed=1)
    with pytest.raises(UsageError, match=r"truth differs, which no seed changes"):
        pool([first, other])
    with pytest.raises(UsageError, match=r"method differs, which no seed changes"):
        pool([first, measured(enumerate_draws=True)])
    adapted = [measured("relax", seed=seed, adapt_steps=1) for seed in (0, 1)]
    with pytest.raises(UsageError, match=r"the estimator adapts to its seed"):
        pool(adapted)


def test_a_pool_in_another_dtype_has_the_mean_error_of_both():
    parts = [measured(seed=seed, dtype=torch.float32) for seed in (0, 1)]
    error = pool(parts).drift
    means, errors = zip(*(part.drift for part in parts), strict=True)
    assert error.mean == pytest.approx(sum(means) / 2)
    assert error.standard_error == pytest.approx((errors[0] ** 2 + errors[1] ** 2) ** 0.5 / 2)
