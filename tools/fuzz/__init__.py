"""Makes malformed input from a seed, and counts what becomes of it."""
