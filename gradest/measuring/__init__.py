"""One estimator on one task: replicates or all outcomes, the truth, moments, one measurement."""
