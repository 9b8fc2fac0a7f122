"""The folder of a study: what lies where.

study.yaml            the study, with all that its runs depend on
plan.json             what was planned before the first run, and what it will be able to see
runs/ARM-NUMBER/      a run directory each
measured/NAME.json    what was measured of each network at the end
latency.json          latency of all ONNX files, measured in turns
tasks/                the outcome and the log of each process
report.html, .md, .json
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gdas_tf.config.config import differences
from gdas_tf.errors import UsageError
from gdas_tf.files import atomic_write, read_json, write_json, writing
from gdas_tf.runs.run import Run
from gdas_tf.studies.grid import Cell, Study

_MAY_GROW = ("seeds", "random")


class StudyFolder:
    """The folder of a study.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @staticmethod
    def is_one(path: str | Path) -> bool:
        """Whether there is a study at a path."""
        return (Path(path) / "study.yaml").is_file()

    def study(self) -> Study:
        """The study that the folder is of.

        Raises:
            UsageError: there is none, or its file is damaged.
        """
        if not self.is_one(self.path):
            raise UsageError(f"study {self.path}: it has no study.yaml; it is no folder of a study")
        return Study.from_file(self.path / "study.yaml")

    def begin(self, study: Study) -> Study:
        """Makes the folder, or makes sure that it is one of the same study.

        Runs may be added to a study, but nothing else of it may change.

        Returns:
            The study to do.

        Raises:
            UsageError: there is another study, or something else.
        """
        if self.is_one(self.path):
            self._check_same(study)
        elif self.path.exists() and not self.path.is_dir():
            raise UsageError(f"study {self.path}: it is a file; choose another folder")
        elif self.path.is_dir() and any(item.name != ".lock" for item in self.path.iterdir()):
            raise UsageError(
                f"study {self.path}: the folder is not empty and no study; choose another folder"
            )
        self.write(study)
        return study

    def write(self, study: Study) -> None:
        """Writes study.yaml; JSON is YAML."""
        import yaml

        text = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
        atomic_write(self.path / "study.yaml", text)

    def _check_same(self, study: Study) -> None:
        there, now = (one.model_dump(mode="json") for one in (self.study(), study))
        fewer = [name for name in _MAY_GROW if now[name] < there[name]]
        for name in _MAY_GROW:
            if name not in fewer:
                del there[name], now[name]
        changes = differences(there, now)
        if changes:
            listed = "; ".join(f"{name} = {old} there, {new} now" for name, old, new in changes[:4])
            listed += f"; and {len(changes) - 4} more" * (len(changes) > 4)
            raise UsageError(
                f"study {self.path}: it is another study ({listed}); resume it as it is, or choose another "
                "folder; only runs may be added, by seeds and random"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder; the system frees it when the process ends, however it ends.

        Raises:
            UsageError: another process holds it.
        """
        import filelock

        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout as error:
                raise UsageError(f"study {self.path}: another process is doing it; wait for it") from error
        try:
            yield
        finally:
            lock.release()

    # ---- runs

    def run_path(self, cell: Cell | str) -> Path:
        """The run directory of a cell."""
        return self.path / "runs" / (cell if isinstance(cell, str) else cell.name)

    def trained(self, cell: Cell) -> bool:
        """Whether a cell's network is trained."""
        path = self.run_path(cell)
        return (path / "config.yaml").is_file() and Run.open(path).finished("retrain")

    def searched(self, name: str) -> bool:
        """Whether the search of a cell is done."""
        path = self.run_path(name)
        return (path / "config.yaml").is_file() and Run.open(path).finished("search")

    def measured(self, cell: Cell) -> dict[str, Any] | None:
        """What was measured of a cell's network, or None."""
        path = self.measured_path(cell)
        return read_json(path) if path.is_file() else None

    def measured_path(self, cell: Cell) -> Path:
        """Where to write what was measured of a cell's network."""
        return self.path / "measured" / f"{cell.name}.json"

    # ---- tasks

    def outcome_path(self, task: str) -> Path:
        """The file in which a process writes how it ended."""
        return self.path / "tasks" / f"{task}.json"

    def log_path(self, task: str) -> Path:
        """What a process has printed."""
        return self.path / "tasks" / f"{task}.log"

    def outcome(self, task: str) -> dict[str, Any] | None:
        """How a process ended, or None."""
        path = self.outcome_path(task)
        try:
            return read_json(path) if path.is_file() else None
        except UsageError:  # it was killed in the wrong moment
            return None

    # ---- plan and latency

    def plan(self) -> dict[str, Any] | None:
        """What was planned, or None."""
        path = self.path / "plan.json"
        return read_json(path) if path.is_file() else None

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Writes what is planned."""
        write_json(self.path / "plan.json", plan)

    def latency(self) -> dict[str, float]:
        """The latency of a cell's ONNX file in ms, by its name."""
        path = self.path / "latency.json"
        return read_json(path) if path.is_file() else {}
