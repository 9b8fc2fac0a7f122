"""The metrics of a stage in every form in which a run directory keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gdas_tf.files import plain
from gdas_tf.runs.event_files import EventFiles
from gdas_tf.runs.metrics import write_table

if TYPE_CHECKING:
    from gdas_tf.runs.run import Run


class MetricsLog:
    """Writes lines of metrics: JSON, which is what is read again, and of it CSV and TensorBoard's files.

    Args:
        run: the run directory; with `tensorboard` in its configuration there are event files.
        stage: `search` or `retrain`.

    Example:
        >>> log = MetricsLog(run, "search")
        >>> log.begin(done=2)
        >>> log.append({"epoch": 3, "loss": 0.7})
    """

    def __init__(self, run: Run, stage: str) -> None:
        self.run, self.stage = run, stage
        self._table = run.file(f"{stage}/metrics.csv")
        self._events = EventFiles(run.file(f"{stage}/tensorboard")) if run.config.tensorboard else None

    def begin(self, done: int) -> None:
        """Keeps the lines of the epochs that are done, and no others.

        Raises:
            RunError: the disk is full or read-only.
        """
        self.run.truncate_metrics(self.stage, done)
        self._lines = self.run.metrics(self.stage)
        if self._lines:
            write_table(self._table, self._lines)
        else:
            self._table.unlink(missing_ok=True)
        if self._events:
            self._events.begin(self._lines)

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds the line of an epoch, after `begin`.

        Raises:
            RunError: the disk is full or read-only.
        """
        self.run.append_metrics(self.stage, line)
        self._lines.append(plain(line))
        write_table(self._table, self._lines)
        if self._events:
            self._events.append(self._lines[-1])
