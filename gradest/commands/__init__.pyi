from . import list
from .check import check
from .folder import run_folder
from .merge import merge
from .new import Scaffold, write_plugin
from .refute import refute_claim
from .report import report_on
from .suite import run_suite
