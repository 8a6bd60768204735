"""The studies of a run: each selects rows, draws figures with captions and writes sections.

A study is one module with a `STUDY`.  To add one, write the module and register it here.
"""

from gradest.report.studies import (
    adaptation,
    concrete,
    descent,
    landscape,
    numerics,
    rankings,
    training,
    training_temperature,
    variance_components,
)

# In the order in which a report shows them.
STUDIES = (
    concrete.STUDY,
    training.STUDY,
    training_temperature.STUDY,
    descent.STUDY,
    rankings.STUDY,
    landscape.STUDY,
    variance_components.STUDY,
    adaptation.STUDY,
    numerics.STUDY,
)

__all__ = ["STUDIES"]
