"""Estimators from other code bases, wrapped so that they are measured and certified unchanged.

redirected: a block in which torch's random functions draw from our source, row by row

    with redirected(logits):
        z = torch.distributions.OneHotCategorical(logits=logits).sample()

so that the seed of a measurement reproduces the code, its draws are enumerated where they have
finitely many outcomes, and `compare` gives it the same draws as our own estimators.

per_row: for code that takes one item, or that averages or normalises over its batch

    estimate = per_row(fn)  # fn(logits [1, N, K], f of this row) -> one number

value_and_frozen: f(z) and f.frozen(z), for a control variate, by one evaluation

advantages: a class of estimators from a function of rewards [G] to advantages [G]

    class Centred(advantages(lambda rewards: rewards - rewards.mean(), samples=8)):
        unbiased = False

`docs/plugins.md` says how to wrap code, and `docs/audit.md` what this found in published packages.
"""

from gradest.plugins.foreign import advantages, per_row, redirected, value_and_frozen

__all__ = ["advantages", "per_row", "redirected", "value_and_frozen"]

# The implementation is in a room of its own inside that of plugins, since the code that it wraps
# becomes a plugin; this file is the public name of it.
