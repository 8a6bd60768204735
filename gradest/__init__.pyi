from . import nn
from .contracts import LAWS, PATHWISE, Estimator, ScoreFunction, SurrogateSample, Task, Tuned
from .costs import Cost, Problem
from .measurement import (
    Comparison,
    Comparisons,
    Measurement,
    Precision,
    compare,
    measure,
    measure_reference,
    task_of,
)
from .nn import sample
from .plugins import all_estimators, all_tasks, load_plugin, make_estimator, make_task
from .report import (
    latex_table,
    plots,
    rank,
    read_descents,
    read_results,
    read_training,
    reference,
    rename,
)
from .runs.training import load_networks
