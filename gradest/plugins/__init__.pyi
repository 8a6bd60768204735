from . import citations, claims, formula
from .code_digest import digest_of_class, digest_of_code
from .process_state import Code, Settings, changes, own_process, preserving
from .registry import (
    PluginBundle,
    Registry,
    all_estimators,
    all_tasks,
    catalogue_estimators,
    is_test,
    load_plugin,
    make_estimator,
    make_task,
)
