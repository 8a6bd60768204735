"""Figures of a run: functions from its rows to a matplotlib figure, which a notebook shows.

Their names are those of the files in a run's `figures/`.  Of a frame of `gradest.read_results`, or
a part of its rows:

    matrix: relative bias, and variance at equal work, of every estimator on every task
    bias_against_variance, variance_against_evaluations, mse_against_budget: a panel a task
    temperature_tradeoff: bias, variance and mse of what was measured at three temperatures or more
    cost_growth: seconds and evaluations against each size that varies
    landscape_binary, landscape_simplex: bias and variance where a task is swept over α

of one of `gradest.read_training`:

    training_objectives, training_gap, training_gradient: curves, a panel a task
    vae_temperature: what trainings led to that differ in the temperature

and of nothing that a run holds, but of weights α and temperatures:

    simplex, simplex_panels: the Concrete distribution of three categories

Each returns None where the rows do not hold what it shows, and leaves matplotlib's settings as they
are.  Those of measurements show the gradient with respect to log α where that was measured, and of
a cell the row with the most replicates.
"""

from gradest.report.figures.general import (
    bias_against_variance,
    cost_growth,
    mse_against_budget,
    temperature_tradeoff,
    variance_against_evaluations,
)
from gradest.report.figures.matrix import matrix
from gradest.report.studies.concrete import simplex, simplex_panels
from gradest.report.studies.landscape import binary as landscape_binary
from gradest.report.studies.landscape import simplex as landscape_simplex
from gradest.report.studies.training import gap as training_gap
from gradest.report.studies.training import gradient as training_gradient
from gradest.report.studies.training import objectives as training_objectives
from gradest.report.studies.training_temperature import vae_temperature

__all__ = [
    "bias_against_variance",
    "cost_growth",
    "landscape_binary",
    "landscape_simplex",
    "matrix",
    "mse_against_budget",
    "simplex",
    "simplex_panels",
    "temperature_tradeoff",
    "training_gap",
    "training_gradient",
    "training_objectives",
    "vae_temperature",
    "variance_against_evaluations",
]
