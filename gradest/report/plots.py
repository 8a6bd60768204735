"""Figures of a run: functions from its rows to a matplotlib figure, which a notebook shows.

A figure has the name of its files in a run's `figures/`.  These take a frame of
`gradest.read_results`, or a part of its rows, or one of rows of `Measurement.row`; rows of several
runs, by their column `run`, are drawn with the run's name:

    matrix: relative bias, and variance × evaluations, of every estimator on every task
    bias_against_variance, bias_of_direction, variance_against_evaluations, mse_against_budget:
        one panel per task
    temperature_tradeoff: bias, variance and mse at three temperatures or more
    cost_growth: time and evaluations against each size that varies
    landscape_binary, landscape_simplex: bias and variance where a task is swept over α
    knob_sweep: the same where a task is swept over more than twelve values of a knob

These take a frame of `gradest.read_training`:

    training_objectives, training_gap, training_gradient: curves, one panel per task
    vae_temperature: objectives of training runs that differ in the temperature

These take weights α and temperatures instead of a run:

    simplex, simplex_panels: the Concrete distribution of three categories

Around calls of them, `paper` gives figures the width and the text of a paper:

    with plots.paper(width=8.5, size=8):
        plots.bias_against_variance(rows).savefig("figure.pdf")

Each returns None where the rows contain nothing to show, and does not change matplotlib's settings.
Figures of measurements show the gradient with respect to log α where that was measured, and the row
of a cell with the most replicates.
"""

from gradest.report import (
    bias_against_variance,
    bias_of_direction,
    cost_growth,
    knob_sweep,
    landscape_binary,
    landscape_simplex,
    matrix,
    mse_against_budget,
    paper,
    simplex,
    simplex_panels,
    temperature_tradeoff,
    training_gap,
    training_gradient,
    training_objectives,
    vae_temperature,
    variance_against_evaluations,
)

__all__ = [
    "bias_against_variance",
    "bias_of_direction",
    "cost_growth",
    "knob_sweep",
    "landscape_binary",
    "landscape_simplex",
    "matrix",
    "mse_against_budget",
    "paper",
    "simplex",
    "simplex_panels",
    "temperature_tradeoff",
    "training_gap",
    "training_gradient",
    "training_objectives",
    "vae_temperature",
    "variance_against_evaluations",
]
