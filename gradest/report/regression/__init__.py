"""Runs compared with runs: differences between their measurements, trainings and properties."""
