"""The formats that a network is exported to: one file each, which registers itself when it is imported.

A new format is one new file in this folder, that calls `register`; a program registers formats of its own in
the same way. The files import what they need where they need it: to know the names takes neither TensorFlow
nor ONNX.

Example:
    >>> register("weights", Format("weights.npz", write, predictors))
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gdas_tf.export.material import Material
    from gdas_tf.export.verification import Predictor


@dataclass(frozen=True)
class Format:
    """A format: its file name, and how it is written, read back and described.

    Args:
        file: name of its file or folder.
        write: writes it to a path.
        predictors: returns its predictors, by name of the signature.
        describe: returns what the report says of the file.
        exact: whether it must give the Keras model's outputs.
    """

    file: str
    write: Callable[[Material, Path], None]
    predictors: Callable[[Path], dict[str, Predictor]]
    describe: Callable[[Material, Path], dict[str, Any]] = lambda material, path: {}
    exact: bool = True


FORMATS: dict[str, Format] = {}
"""The formats that can be exported, by the name they have in `export.formats`."""


def register(name: str, form: Format) -> None:
    """Adds a format.

    Raises:
        ValueError: the name, or the name of its file, is another format's.
    """
    for other, known in FORMATS.items():
        if name == other or form.file == known.file:
            raise ValueError(
                f"export format {name!r} ({form.file}): {other!r} ({known.file}) is there already"
            )
    FORMATS[name] = form


for _module in sorted(item.name for item in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
