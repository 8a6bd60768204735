"""The limits and the choices of suites and of the command line, in a module that loads at once.

The command line is parsed before torch is loaded, so that `--help` and mistakes are answered
immediately.  Each limit is far above what a run can use: it turns a typing error into a message,
where the run would exhaust the memory or never end.

No limit changes a number, so that this module is in no digest of the code that measures
(`gradest/plugins/code_digest.py`): a limit can be raised without measuring every recorded cell
again.
"""

# Integers that tables, random generators and JSON all represent exactly.
INTEGERS = range(-(2**63), 2**63)
# The seeds of `measure` are below; a suite may have negative seeds too, from which the seed of each
# cell is derived.
SEEDS = 2**63

# A suite file, which may come from anybody.  Entries that aliases repeat count as often as they are
# repeated.
MOST_BYTES = 2**20
MOST_ENTRIES = 50_000
DEEPEST = 32  # levels of lists and mappings
LONGEST_NUMBER = 400  # characters; parsing sexagesimal YAML numbers takes quadratic time

# A run.  Its cells are held in memory, and the product of a few lists in a suite exceeds this
# number before one notices.
MOST_CELLS = 100_000
MOST_REPLICATES = 10**12  # at a microsecond each, twelve days
# Of a training, or of an estimator that adapts.
MOST_STEPS = 10**9
MOST_JOBS = 1024  # processes at once
LONGEST_LIMIT = 1_000_000  # seconds of a cell; operating systems count milliseconds in 31 bits

# The devices and dtypes, by their names in torch, with which measurements are tested.  Torch has
# more, whose arithmetic or whose random numbers nobody has compared with float64 on the CPU.
DEVICES = ("cpu", "cuda")
DTYPES = ("float64", "float32", "bfloat16", "float16")

# The keys of a precision, in the order of its fields; `gradest.Precision` explains them, and cannot
# be imported without torch.
PRECISION_KEYS = ("variance", "bias", "max_replicates", "max_seconds")
