"""The limits and the choices of suites and of the command line, in a module that loads at once.

The command line is parsed before torch is loaded, so that `--help` and mistakes are answered
immediately.
"""

# Integers of a suite: what tables, random generators and JSON all represent exactly.
INTEGERS = range(-(2**63), 2**63)

MOST_REPLICATES = 10**12  # at a microsecond each, twelve days
MOST_STEPS = 10**9
MOST_JOBS = 1024

# "loky" stands for gradest's own processes on this machine, the others for joblib's.
BACKENDS = ("loky", "threading", "dask")
DEVICES = ("cpu", "cuda")

# The keys of a precision, in the order of its fields; `gradest.Precision` explains them.
PRECISION_KEYS = ("variance", "bias", "max_replicates", "max_seconds")
