"""Errors that users can cause, and errors of measurements.

Every UsageError is one line that names the file, key, knob or object, says what was wrong and what
is possible.  It is a ValueError, so that code which does not know gradest can catch it.
"""


class UsageError(ValueError):
    """An invalid request: one line for the user, exit status 2."""


class PluginError(UsageError):
    """A plugin that cannot be found, imported or distinguished from another one."""


class KnobError(UsageError):
    """An unknown knob or an invalid value of a knob."""


class SuiteError(UsageError):
    """An invalid suite; the message names the file and the line."""


class DataError(UsageError):
    """A data set that is unknown, damaged or cannot be downloaded."""


class CostError(UsageError):
    """A cost that violates its contract; the message says how to repair it."""


class ContractError(UsageError):
    """An estimator that violates its contract, so that its measurement would be misleading."""


class StateError(UsageError, AttributeError):
    """An estimator that is called before its state was built.

    It is an AttributeError too, for `hasattr` and `getattr` with a default.
    """


class Inapplicable(UsageError):
    """An estimator that does not apply to a task; the cell is skipped."""


class NonFiniteGradient(ArithmeticError):
    """A NaN or infinite gradient or objective, which would make every average meaningless."""
