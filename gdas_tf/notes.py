"""What the library says while nothing fails: notes, which a user should know, and progress.

Both go through `logging`, to the logger `gdas_tf`: notes as warnings, progress as information. Without any
set-up Python prints warnings as plain lines on stderr and drops information. The command line prints both. A
program that uses the library can send them elsewhere.
"""

from __future__ import annotations

import logging

LOGGER = "gdas_tf"
"""Name of the logger."""

_log = logging.getLogger(LOGGER)


def note(text: str) -> None:
    """Says in one line what a user should know, as what was left alone in a folder."""
    _log.warning("%s", " ".join(text.split()))


def progress(text: str) -> None:
    """Says in one line how far a run has come."""
    _log.info("%s", " ".join(text.split()))
