"""Notes: what a user should know although nothing failed, as what was left alone in a folder.

They go through `logging`, as warnings of the logger `gdas_tf`. Without any set-up Python prints such warnings
as plain lines on stderr, which is what the command line shows; a program that uses the library can send them
elsewhere.
"""

from __future__ import annotations

import logging

_log = logging.getLogger("gdas_tf")


def note(text: str) -> None:
    """Says one line."""
    _log.warning("%s", " ".join(text.split()))
