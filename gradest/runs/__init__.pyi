from .backends import BACKENDS, Devices, check_backend
from .blocks import BLOCKS
from .cells import Cell, canonical, labels
from .claims import (
    DESCENDED,
    TRAINED,
    ClaimError,
    Expression,
    Median,
    Number,
    Operation,
    Quantity,
    Read,
    Relation,
    Share,
    compute,
    parse_claim,
    refuse_aliases,
    refuse_ambiguous,
    refuse_mixture,
)
from .folder import alone_in
from .journal import JOURNAL, Contents, Record, read_journal
from .measurement_tables import (
    ADAPTATION,
    COLUMNS,
    ORIGIN,
    SOURCES,
    STAND_INS,
    measurements_frame,
)
from .merging import MergedRun, merge_runs, write_merged
from .omission import Omission
from .process_template import end_with_parent
from .processes import Failed, ending
from .progress import quietly
from .provenance import describe_run, program
from .reference_results import (
    REFERENCE,
    Baseline,
    checksum_of,
    digest_of,
    find_baseline,
    find_reference,
    is_reduced,
    read_manifest,
    references_folder,
)
from .runner import (
    Outcome,
    least_timing_seconds,
    prepare,
    refuse_foreign,
    run,
    seconds_expected,
)
from .stand_ins import StandIns, find_stand_ins, keep_stand_ins
from .suite import Suite, load_suite
from .suites import (
    SuiteFolder,
    find_suite,
    find_suites,
    folder_names,
    suite_descriptions,
    suite_names,
)
from .tables import DERIVED, carried, derive, finished, latest, read_run, stale
from .workers import Workers
