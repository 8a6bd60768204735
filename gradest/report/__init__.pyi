from . import plots
from .claims.overview import ClaimsOfRun, list_claims, read_claims, write_overview
from .claims.section import refuted_claims
from .documents.terminal import show
from .figures.general import (
    bias_against_variance,
    bias_of_direction,
    cost_growth,
    mse_against_budget,
    temperature_tradeoff,
    variance_against_evaluations,
)
from .figures.matrix import matrix
from .figures.style import paper
from .formats import Formats
from .frames.loading import LoadedRun, load_run
from .frames.reading import (
    rank,
    read_descents,
    read_results,
    read_training,
    reference,
    rename,
)
from .latex_table import latex_table
from .regression.agreement import Agreement
from .regression.comparison import (
    MAJORITY,
    describe_regressions,
    write_agreement,
    write_comparison,
)
from .regression.differences import PROPERTY, regressions
from .regression.runs import Overlap, check_run
from .studies.concrete import simplex, simplex_panels
from .studies.landscape import knob_sweep, landscape_binary, landscape_simplex
from .studies.training import training_gap, training_gradient, training_objectives
from .studies.training_temperature import vae_temperature
from .terminal_summary import failed_cells, failed_controls, summarize_run
from .writing import rebuild_report, report_path, write_report
