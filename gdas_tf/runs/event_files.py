"""TensorBoard's event files of a stage: one scalar for each metric, the epoch as its step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdas_tf.files import writing


class EventFiles:
    """Writes the metrics of a stage as TensorBoard reads them.

    They are made of the lines of the metrics, also those of the epochs before the stage was resumed. So no
    epoch is in them twice, and none is missing that was done without them.

    Args:
        folder: where they lie, and nothing else.

    Example:
        >>> events = EventFiles(run.file("search/tensorboard"))
        >>> events.begin(run.metrics("search"))
        >>> events.append({"epoch": 3, "loss": 0.7})
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def begin(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Writes the lines that there are, in place of all files in the folder.

        Raises:
            RunError: the disk is full or read-only.
        """
        import tensorflow as tf

        with writing(self.folder):
            self.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._writer = tf.summary.create_file_writer(str(self.folder))
            for line in lines:
                self.append(line)

    def append(self, line: Mapping[str, Any]) -> None:
        """Writes the numbers of one line, of epoch `line["epoch"]`.

        Raises:
            RunError: the disk is full or read-only.
        """
        import tensorflow as tf

        # What `tf.summary.scalar` writes, which is there only where the package tensorboard is installed.
        scalar = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
            data_class="DATA_CLASS_SCALAR",
        )
        with writing(self.folder), self._writer.as_default(step=line["epoch"]):
            for name, value in line.items():
                if name != "epoch" and isinstance(value, int | float):
                    tf.summary.write(name, np.float32(value), metadata=scalar)
            self._writer.flush()

    def close(self) -> None:
        """Closes the file that is written to."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
