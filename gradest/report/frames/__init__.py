"""The rows of a run as data frames: with labels, ranks, sweeps, budgets and curves."""
