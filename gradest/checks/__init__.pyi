from .certification import ESTIMATOR_LAWS, check_estimator, check_task, task_findings
from .definitions import OF_ESTIMATORS, OF_TASKS
from .result import Finding, passed
