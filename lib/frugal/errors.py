"""The two ways in which a request can fail without a defect in the program.

Both carry one sentence for the user: what was wrong with which value, what was expected, what to do.
"""


class FrugalError(Exception):
    """Base of the errors that the command line shows as one sentence, without a traceback."""


class InputError(FrugalError, ValueError):
    """What the user gave cannot be used: a wrong name, type, range, or an unusable text."""


class UnavailableError(FrugalError, OSError):
    """Something outside is missing: no network, no cached copy, a damaged download, a full disk."""
