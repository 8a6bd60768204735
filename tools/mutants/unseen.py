"""Mistakes that the battery does not see, each with the law that ought to.

They are expected to survive, strictly: when a law learns to see one, the test says so, and the
mutant moves to its family.  A law of the battery compares what is claimed with what is done, so
what no claim speaks of is left to the tests of the single estimators.
"""

from .mutant import Mutant

_TEMPERED = (
    "the same at τ = 1; at τ > 1 ReinMax is not of second order, so that nothing is claimed, and "
    "the test that compares its forms sees it"
)

_NORMALISED = (
    "it cancels where both temperatures are one, as by default, and moves no gradient elsewhere; "
    "the test of the value against quadrature sees it"
)

_ROUNDING = "the rounding of single precision is no bias, and measurements say so in a note"

_SHORTER = (
    "a biased method may be too short by any factor; the test of the biases as printed sees it"
)

_CLOSE = "the values of samples from a distribution of their own may be off E f by as much"

UNSEEN: list[tuple[Mutant, str]] = [
    (
        Mutant(
            of="concrete",
            mistake="densities without (K − 1) log λ",
            stand_in="""
_with_the_factor = exp_concrete_log_prob


def exp_concrete_log_prob(y, logits, temperature):
    missing = (logits.shape[-1] - 1) * math.log(temperature)
    return _with_the_factor(y, logits, temperature) - missing
""",
            law="divergence",
        ),
        _NORMALISED,
    ),
    (
        Mutant(
            of="reinmax",
            mistake="the factor 1/τ",
            file="_reinmax.py",
            old="phi = nabla(logits)",
            new="phi = nabla(logits) / temperature",
            law="degree",
            known="a factor 1/τ that the method does not have",
        ),
        _TEMPERED,
    ),
    (
        Mutant(
            of="local_expectation",
            mistake="works in single precision",
            old="nabla(softmax(logits))",
            new="nabla(softmax(logits.float()).to(logits))",
            law="bias",
        ),
        _ROUNDING,
    ),
    (
        Mutant(
            of="importance_weighted",
            mistake="the geometric weight divided by N",
            old="return log_r.mean(1, keepdim=True).exp().expand_as(log_r)",
            new="return log_r.mean(1, keepdim=True).exp().expand_as(log_r) / log_r.shape[1]",
            knobs={"weighting": "geometric"},
            law="direction",
            known="a geometric weight that is differentiated as it stands, which divides by N",
        ),
        _SHORTER,
    ),
    (
        Mutant(
            of="finite_difference",
            mistake="the value of the first perturbation",
            old="costs.mean(1)",
            new="costs[:, 0]",
            law="value",
        ),
        _CLOSE,
    ),
]
