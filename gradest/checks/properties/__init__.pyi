from .catalogue import PROPERTIES, find_property, names, run_property
from .rows import LEVEL, ROWS, Property, Row
