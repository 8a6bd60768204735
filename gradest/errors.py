"""The errors a user can cause, and the one a measurement can end with."""


class UsageError(ValueError):
    """What was asked for is wrong: one clear line for the user, exit status 2."""


class PluginError(UsageError):
    """A plugin that cannot be found, imported or told apart."""


class KnobError(UsageError):
    """A knob that does not exist, or a value that it cannot take."""


class SuiteError(UsageError):
    """A suite that cannot be read; the message names file and line."""


class DataError(UsageError):
    """A data set that is unknown, damaged, or missing and not to be had."""


class CostError(UsageError):
    """A cost that breaks its contract; the message says how, and what would mend it."""


class ContractError(UsageError):
    """An estimator that breaks its contract, so that what is measured would not be what it says."""


class Inapplicable(UsageError):
    """An estimator that cannot run on a task by its nature: such a cell is skipped."""


class NonFiniteGradient(ArithmeticError):
    """A gradient or objective is NaN or infinite; averaging it away would hide a broken cell."""
