from .curves import COLUMNS, Curves, rows
from .descent import Descent
from .loop import descend, seconds_expected
