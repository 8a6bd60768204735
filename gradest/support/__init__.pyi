from . import markup, tex
from .collector import collect_no_more, collector_paused
from .files import (
    Unwritable,
    checksum,
    clear_temporary,
    replacing,
    settle,
    write_atomically,
    write_frame,
    write_json,
    write_text,
)
from .limits import (
    DEEPEST,
    DEVICES,
    DTYPES,
    INTEGERS,
    LONGEST_LIMIT,
    LONGEST_NUMBER,
    MOST_BYTES,
    MOST_CELLS,
    MOST_ENTRIES,
    MOST_JOBS,
    MOST_REPLICATES,
    MOST_STEPS,
    PRECISION_KEYS,
    SEEDS,
)
from .numbers import (
    Parts,
    Quantity,
    between,
    count,
    interval,
    measured,
    number,
    plus_minus,
    share,
    stated,
)
from .questions import Questions, Ticket, answered, questions
from .recorded_draws import Drawn, RecordedDraws, ReplayedDraws
from .row_axes import Axes, Context, as_rows
from .states import convert, load_state, one_thread, read_state, restore, state_of, write_state
from .templates import default_estimator_template, estimator_templates, fill_template
from .termination import INTERRUPTED, TERMINATED, Terminated, exit_with, terminable
from .text import (
    counted,
    described,
    in_a_line,
    listed,
    message_of,
    printable,
    reason_of,
    shortened,
    suggestion,
    traceback_of,
)
