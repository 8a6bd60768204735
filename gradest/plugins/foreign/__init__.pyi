from .advantages import advantages
from .redirection import redirected
from .rows import per_row, value_and_frozen
