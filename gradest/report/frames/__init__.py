"""What the rows of a run say, as data frames: labels, ranks, sweeps, budgets and curves."""
