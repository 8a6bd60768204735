from .families import family_spaces
from .quantities import Contestant
from .search import EVALUATIONS, Refutation, refute
from .spaces import SMALL_PROBLEMS, Space, general_spaces
from .trial import Trial
