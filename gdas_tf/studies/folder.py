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

from pathlib import Path
from typing import Any

from gdas_tf.errors import UsageError
from gdas_tf.files import write_json
from gdas_tf.runs.collection import RunCollection
from gdas_tf.runs.run import Run
from gdas_tf.studies.grid import Cell, Study
from gdas_tf.user_files import read_mapping


class StudyFolder(RunCollection):
    """The folder of a study.

    Args:
        path: the folder.
    """

    noun = "study"
    file = "study.yaml"
    may_grow = ("seeds", "random")
    growth = "only runs may be added, by seeds and random"

    def study(self) -> Study:
        """The study that the folder is of.

        Raises:
            UsageError: there is none, or its file is damaged.
        """
        return Study.from_file(self.described_by())

    def description(self) -> Study:
        return self.study()

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
        return _read(self.measured_path(cell))

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
        try:
            return _read(self.outcome_path(task))
        except UsageError:  # it was killed in the wrong moment
            return None

    # ---- plan, reports and latency

    def plan(self) -> dict[str, Any] | None:
        """What was planned, or None."""
        return _read(self.path / "plan.json")

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Writes what is planned."""
        write_json(self.path / "plan.json", plan)

    def earlier_reports(self) -> list[dict[str, Any]]:
        """The reports that were written before runs were added: `seeds`, `random` and `verdict` of each."""
        try:
            report = _read(self.path / "report.json") or {}
        except UsageError:  # it is written anew, whatever happened to it
            return []
        if not isinstance(report.get("study"), dict):
            return []
        earlier, study = report.get("earlier", []), self.study()
        planned = {name: report["study"].get(name) for name in self.may_grow}
        if None not in planned.values() and planned != {name: getattr(study, name) for name in self.may_grow}:
            return [*earlier, {**planned, "verdict": report.get("verdict")}]
        return earlier

    def latency(self) -> dict[str, float]:
        """The latency of a cell's ONNX file in ms, by its name."""
        return _read(self.path / "latency.json") or {}


def _read(path: Path) -> dict[str, Any] | None:
    """What a JSON file of a study holds; None where there is no file.

    Raises:
        UsageError: it is damaged.
    """
    if not path.is_file():
        return None
    return read_mapping(path, f"study file {path}", "it must hold values by name; remove it to make it anew")
