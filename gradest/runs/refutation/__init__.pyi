from .domain import GENERAL, contestants_of, evaluations_of, spaces_of
from .files import NAME, texts
from .search import EVALUATIONS, Refutation, refute
from .summary import COLUMNS, NOT_REFUTED, REFUTED, describe, row
from .trial import Trial
