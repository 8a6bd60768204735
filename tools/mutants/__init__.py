"""Deliberately wrong variants of the catalogue's estimators, and whether the battery rejects them.

`python -m tools.mutants` prints the law that caught each, and by how much.
"""

from .antithetic_and_without_replacement import ANTITHETIC_AND_WITHOUT_REPLACEMENT
from .bounds import BOUNDS
from .control_variates import CONTROL_VARIATES
from .denoising import DENOISING
from .exact_and_partly_exact import EXACT_AND_PARTLY_EXACT
from .mutant import Mutant, caught, everything_found, verdict, verdict_in_order, with_defaults
from .perturbation import PERTURBATION
from .policy_gradients import POLICY_GRADIENTS
from .relaxed import RELAXED
from .score_function import SCORE_FUNCTION
from .straight_through import STRAIGHT_THROUGH
from .unseen import UNSEEN

FAMILIES: dict[str, list[Mutant]] = {
    "exact and partly exact": EXACT_AND_PARTLY_EXACT,
    "score function": SCORE_FUNCTION,
    "policy gradients": POLICY_GRADIENTS,
    "control variates": CONTROL_VARIATES,
    "antithetic and without replacement": ANTITHETIC_AND_WITHOUT_REPLACEMENT,
    "relaxed": RELAXED,
    "straight-through": STRAIGHT_THROUGH,
    "denoising": DENOISING,
    "perturbation": PERTURBATION,
    "multi-sample bounds": BOUNDS,
}
MUTANTS = [mutant for family in FAMILIES.values() for mutant in family]

__all__ = [
    "FAMILIES",
    "MUTANTS",
    "UNSEEN",
    "Mutant",
    "caught",
    "everything_found",
    "verdict",
    "verdict_in_order",
    "with_defaults",
]
