from .contracts import LAWS, PATHWISE, Estimator, ScoreFunction, SurrogateSample, Task, Tuned
from .costs import Cost, Problem
from .measurement import Comparison, Measurement, Precision, compare, measure, measure_reference
from .plugins import all_estimators, all_tasks, load_plugin, make_estimator, make_task
from .report import plots, rank, read_results, read_training
from .runs.training import load_networks
