"""Models trained with each estimator, and what becomes of their objectives on the way."""
