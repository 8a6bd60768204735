"""Measurement of one estimator on one task: draws or enumeration, true gradient, moments."""
