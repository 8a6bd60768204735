"""Synthetic rows of reports, and the figures that are drawn from rows of measurements alone."""

import json
from functools import partial

from gradest import plots
from gradest.report.frames import tables
from tests import hostile
from tests.support import MEASUREMENTS


def _draw(name, frame):
    return getattr(plots, name)(tables.annotate(frame))


# Those of sweeps and directions have tests of their own.
OWN = ("landscape", "knob_sweep", "bias_of_direction")
FIGURES = {name: partial(_draw, name) for name in MEASUREMENTS if not name.startswith(OWN)}
CONTROLS = {"unbiased": ["exact"], "biased": ["relaxed"]}
NORM = 0.5


def row(
    estimator="rloo",
    params=None,
    task="toy",
    task_params=None,
    bias_sq=0.0,
    variance=1.0,
    spread=0.05,
    verdict="unbiased",
    **columns,
):
    """A measured row; `spread` is the half-width of its intervals, relative."""
    bias = max(bias_sq, 0.0)
    evaluations = columns.get("evaluations", 1)
    return {
        **{"suite": "demo", "task": task, "task_params": json.dumps(task_params or {})},
        **{"estimator": estimator, "estimator_params": json.dumps(params or {}), "seed": 0},
        **{"dtype": "float64", "parameter": "log_alpha", "status": "ok", "reason": ""},
        **{"batch": 1, "latents": 2, "categories": 3, "coordinates": 6, "replicates": 1000},
        **{"method": "monte_carlo" if variance else "enumerated", "reference": "exact"},
        **{"gradient_norm": NORM, "bias_sq": bias_sq, "bias_sq_low": bias * (1 - spread)},
        **{"bias_sq_high": bias * (1 + spread) + variance / 1e5, "bias_norm": bias**0.5},
        **{"relative_bias": bias**0.5 / NORM, "verdict": verdict, "variance": variance},
        **{"variance_low": variance * (1 - spread), "variance_high": variance * (1 + spread)},
        **{"mse": bias + variance, "cosine": 0.5, "cosine_se": 0.01, "evaluations": evaluations},
        **{"seconds": 1e-6, "seconds_low": 0.9e-6, "seconds_high": 1.2e-6},
        "work_variance": variance * evaluations,
        **columns,
    }


def lacking(status, reason, **columns):
    kept = ("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype")
    every = row(**columns)
    return {**{c: every[c] for c in kept}, "parameter": "log_alpha"} | {
        "status": status,
        "reason": reason,
    }


def rows():
    """A run with everything a figure needs: a grid of temperatures, sizes, a zero, a limit."""
    for latents in (2, 4, 8):
        sizes = {"latents": latents, "task_params": {"latents": latents}}
        yield row("exact", variance=0.0, evaluations=3**latents, **sizes)
        yield row("noisy", variance=4.0, verdict="inconclusive", **sizes)
        for samples in (2, 4):
            settings = {"params": {"samples": samples}, "evaluations": samples}
            yield row("rloo", variance=1 / samples, **settings, **sizes)
        for temperature in (0.1, 0.5, 1.0):
            settings = {"params": {"temperature": temperature}, "verdict": "biased"}
            yield row("relaxed", bias_sq=temperature, variance=1 / temperature, **settings, **sizes)


def hostile_rows():
    """A run in which a plugin has put such texts wherever it can."""
    texts = hostile.TEXTS
    for task in ("toy", "other"):
        for n, text in enumerate(texts.values()):
            params = {"mode": text, "other": n}
            settings = {"task": task, "task_params": {"data": text}}
            yield row("hostile", params, variance=1.0 + n, **settings)
            yield row("relaxed", params, bias_sq=1.0 + n, verdict="biased", **settings)
            yield lacking("failed", hostile.ALL, estimator="broken", params=params, **settings)
