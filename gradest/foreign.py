"""Estimators from other code bases, wrapped so that they are measured and certified unchanged.

    @dataclass(eq=False)
    class Theirs(Estimator):
        def __call__(self, logits, f):
            with redirected(logits):
                z = OneHotCategorical(logits=logits).sample()  # or any function of their library
            cost = f(z)
            return cost + cost.detach() * nabla(log_prob(logits, z))

redirected: a block in which torch's random functions draw from our source, row by row, so that the
seed of a measurement reproduces the code, its draws are enumerated where they have finitely many
outcomes, and `compare` gives it the same draws as our own estimators.

per_row: for code that takes one item, or that averages or normalises over its batch

    estimate = per_row(fn)  # fn(logits [1, N, K], f of this row) -> one number

value_and_frozen: f(z) and f.frozen(z), for a control variate, by one evaluation

    value, frozen = value_and_frozen(f, z)

advantages: a class of estimators from a function of rewards [G] to advantages [G]

    class Centred(advantages(lambda rewards: rewards - rewards.mean(), samples=8)):
        unbiased = False

All of them raise ContractError for code whose rows cannot be separated.  `docs/plugins.md` says how
to wrap code, and `docs/audit.md` what this found in published packages.
"""

from gradest.plugins.foreign import (
    advantages,
    per_row,
    redirected,
    value_and_frozen,
)

__all__ = [
    "advantages",
    "per_row",
    "redirected",
    "value_and_frozen",
]
