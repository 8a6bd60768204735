"""Runs compared with runs: what got better, worse, or cannot be distinguished."""
