"""The arithmetic of networks. A stage only goes on with the one that it began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gdas_tf import __version__
from gdas_tf.errors import UsageError

ARITHMETIC = 2
"""To be raised with each change after which the same weights give other outputs.

1: up to version 0.1.0. 2: operations of stride 2 are centred on other pixels (docs/method.md).
"""


def about_arithmetic() -> dict[str, Any]:
    """Returns what a checkpoint says of the version that wrote it."""
    return {"version": __version__, "arithmetic": ARITHMETIC}


def check_arithmetic(about: Mapping[str, Any], run: Path, stage: str) -> None:
    """Makes sure that a stage can be gone on with by this version.

    Args:
        about: what its checkpoint says of itself.
        run: path of the run directory.
        stage: `search` or `retrain`.

    Raises:
        UsageError: the networks of the version that wrote it compute otherwise.
    """
    found = about.get("arithmetic", 1)
    if found != ARITHMETIC:
        version = about.get("version", "0.1.0")  # the last one that did not write it down
        raise UsageError(
            f"run directory {run}: its {stage} was begun by gdas-tf {version}, whose networks compute "
            f"otherwise than those of {__version__} (docs/method.md); finish it by gdas-tf {version}, or "
            f"begin the {stage} again in another run directory"
        )
