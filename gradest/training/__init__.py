"""Training of models with an estimator, and the evaluation of their objectives on the way."""
