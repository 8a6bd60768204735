from .blocks import BlockedTask, block_gap, stackable
from .comparison import Comparison
from .comparisons import Comparisons, compare
from .enumerated_moments import ExactMoments, exact_moments, outcome_count, visit_outcomes
from .enumerated_truth import LIMIT, ExactGradient, all_codes, codes, enumerable, exact_gradient
from .measurement import measure
from .model_task import task_of
from .objectives import (
    analytic_terms,
    closed_form,
    merge_samples,
    nested_cost,
    owns_kl,
    problem_for,
)
from .parameters import LOG_ALPHA, SCALES, SYMBOLS
from .pooling import pool, pooling_obstacle
from .precision import Precision, plan_replicates
from .reference import DEFAULT, ReferencePrecision, measure_reference, needs_reference
from .replicator import Replicator, copy_of
from .result import ENUMERATED, Measurement
from .truth import Reference, exact_truth
