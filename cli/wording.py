"""The library's messages in the words of the command line: flags for fields, commands to type.

The library names things: `data.image_size`, "resume it", "its stage search comes first".
"""

from __future__ import annotations

import re

from gdas_tf.cli.options import name_flags
from gdas_tf.errors import MissingStageError

_FLAGS = (
    (r"\bresume it\b", "go on with it by --resume"),
    (r"\bresuming the (search|retrain)(?:ing)?\b", r"gdas-tf \1 RUN_DIR --resume"),
    (r"\b(?<!begin )another run directory\b", "another --run-dir"),
    (r"\baccept_changed_data\b", "--accept-changed-data"),
)
"""What the library calls what a command's options do, and the words of the command line for it."""

_SETTINGS = re.compile(r"\b(?:InputOptions|ServerSettings)\.([a-z_]+)\b")
"""Fields that `predict` and `serve` have options for."""

_FILES = re.compile(
    r"(?:run directory .* is damaged: )?configuration file "
    r"|vary\b|space file |study file |config: |arm .*?: (?:unknown configuration field |\w+\.\w+: found )"
    r"|tuning |(?:\[.*?\] |worker .*?: )trial "
)
"""How a message about a file of values, or about what is tuned, begins: there a field has its own name."""


def in_flags(message: str) -> str:
    """Returns a message of the library with flags in place of fields.

    Example:
        >>> in_flags("enlarge them by data.image_size; or resume it")
        'enlarge them by --data-image-size; or go on with it by --resume'
    """
    for words, flag in _FLAGS:
        message = re.sub(words, flag, message)
    message = _SETTINGS.sub(lambda found: "--" + found[1].replace("_", "-"), message)
    return message if _FILES.match(message) else name_flags(message)


def describe(error: Exception) -> str:
    """Returns the line for an error: with flags, and with the command that makes what is missing."""
    if isinstance(error, MissingStageError):
        path = error.directory
        return f"run directory {path}: it has {error.missing}; run gdas-tf {error.stage} {path} first"
    return in_flags(str(error))
