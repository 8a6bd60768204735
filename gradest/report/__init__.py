"""The report of a run, or of runs compared with each other, from their rows alone.

Rows of finished runs enter; tables, figures and one document in several forms leave.  From the
bottom up: `frames` holds what rows say, `figures` and `documents` how it is drawn and written,
`studies` the parts of a report that belong to one question each, and `regression` the comparison of
runs with runs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
