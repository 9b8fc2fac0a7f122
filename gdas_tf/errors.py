"""The errors a user can meet; each is one line that says what to do."""


class UsageError(ValueError):
    """Wrong use: a bad value, a missing or damaged file, options that do not fit. Exit code 2."""


class RunError(RuntimeError):
    """A run that was set up rightly but failed, as with a full disk. Exit code 1."""


class DivergedError(RunError):
    """A training whose loss is no longer a number: going on after its last good epoch ends the same."""
