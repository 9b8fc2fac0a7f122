"""The errors a user can meet; each is one line that says what to do."""

from __future__ import annotations

from pathlib import Path


class UsageError(ValueError):
    """Wrong use: a bad value, a missing or damaged file, options that do not fit. Exit code 2."""


class MissingStageError(UsageError):
    """A run directory lacks what one of its stages makes.

    Args:
        directory: the run directory.
        missing: what it lacks, as "no genotype".
        stage: the stage that makes it, as "derive".
    """

    def __init__(self, directory: str | Path, missing: str, stage: str) -> None:
        super().__init__(f"run directory {directory}: it has {missing}; its stage {stage} comes first")
        self.directory, self.missing, self.stage = str(directory), missing, stage


class RunError(RuntimeError):
    """A run that was set up rightly but failed, as with a full disk. Exit code 1."""


class DivergedError(RunError):
    """A training whose loss is no longer a number: going on after its last good epoch ends the same."""
