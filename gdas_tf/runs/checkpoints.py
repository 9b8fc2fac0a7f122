"""Checkpoints: the state of a training after an epoch, with what it depends on, in one file of arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gdas_tf.errors import UsageError
from gdas_tf.files import atomic_path
from gdas_tf.runs.arithmetic import about_arithmetic
from gdas_tf.user_files import read_npz

if TYPE_CHECKING:
    import numpy as np

_ABOUT = "about.json"


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Args:
        arrays: everything that the continuation needs, by name.
        epochs_done: finished epochs.
        depends_on: all that the training's outcome depends on, as nested dictionaries.
        about: what else it says of itself, as the version that wrote it.
    """

    arrays: dict[str, np.ndarray]
    epochs_done: int
    depends_on: dict[str, Any]
    about: dict[str, Any]


def save_checkpoint(
    path: Path, arrays: Mapping[str, np.ndarray], epochs_done: int, depends_on: Mapping[str, Any]
) -> None:
    """Writes a checkpoint in place of the one before.

    Raises:
        RunError: the disk is full or read-only; the checkpoint before is intact.
    """
    import numpy as np

    about = {"epochs_done": int(epochs_done), "depends_on": depends_on, **about_arithmetic()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{_ABOUT: np.array(json.dumps(about)), **arrays})


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Returns a checkpoint, or None without one.

    Raises:
        UsageError: it is damaged.
    """
    if not path.exists():
        return None
    what, advice = f"checkpoint {path} is damaged", f"remove {path.parent} to begin the stage again"
    arrays = read_npz(path, what, advice)
    try:
        about = json.loads(str(arrays.pop(_ABOUT)[()]))
        return Checkpoint(arrays, int(about["epochs_done"]), dict(about["depends_on"]), about)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"{what}: it does not say what it is of ({error!r}); {advice}") from error
