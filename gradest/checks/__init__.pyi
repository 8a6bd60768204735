from .battery import FALSE_ALARM, LOOKS, SHARP
from .certification import (
    ESTIMATOR_LAWS,
    check_estimator,
    check_task,
    estimator_findings,
    task_findings,
)
from .definitions import OF_ESTIMATORS, OF_TASKS
from .result import Finding, passed
