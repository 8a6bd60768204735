"""Synthetic points of the curves of trainings."""

from gradest.runs.training.results import COLUMNS


def row(estimator, value, seed=0, rate=0.1, step=20, split="test", metric="negative_bound", **own):
    """One point of a curve, with an interval of ± 0.1 over data points."""
    return {
        **dict.fromkeys(COLUMNS),
        **{"suite": "s", "task": "vae", "task_params": "{}", "estimator": estimator},
        **{"estimator_params": "{}", "learning_rate": rate, "seed": seed, "status": "ok"},
        **{"key": f"{estimator} {rate} {seed}", "reason": "", "step": step, "seconds": 2.0},
        **{"split": split, "metric": metric, "value": value},
        **{"low": value - 0.1, "high": value + 0.1},
        **own,
    }


def training(estimator, end, **own):
    """A training that ends at some objective, in short."""
    for step in (0, 10, 20):
        value = end + (20 - step)
        yield row(estimator, value, step=step, split="valid", metric="negative_elbo", **own)
    yield row(estimator, end - 1, **own)
    yield row(estimator, end, metric="negative_elbo", **own)
