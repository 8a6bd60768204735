"""Inputs generated from a seed, and how gradest ends on each of them."""
