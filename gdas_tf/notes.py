"""What the library says while nothing fails: notes, which a user should know, and progress.

Both go through `logging`, to the logger `gdas_tf`: notes as warnings, progress as information. Without any
set-up Python prints warnings as plain lines on stderr and drops information. The command line prints both. A
program that uses the library can send them elsewhere.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections.abc import Iterator

LOGGER = "gdas_tf"
"""Name of the logger."""

_log = logging.getLogger(LOGGER)
_silent = contextvars.ContextVar("silent", default=False)


def note(text: str) -> None:
    """Says in one line what a user should know, as what was left alone in a folder."""
    _log.warning("%s", " ".join(text.split()))


def progress(text: str) -> None:
    """Says in one line how far a run has come."""
    if not _silent.get():
        _log.info("%s", " ".join(text.split()))


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """Inside, no progress is said: that of steps which are only timed would look like the run's own."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def shows_progress() -> bool:
    """Whether progress is said here."""
    return not _silent.get()
