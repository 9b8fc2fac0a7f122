"""The run directory: configuration, versions, metrics, checkpoints and artefacts of one run."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.config.config import Config, differences, options
from gdas_tf.config.former import completed, former_config
from gdas_tf.errors import UsageError
from gdas_tf.files import TEMPORARY, atomic_write, is_run_directory, locked, read_json, remove, write_json
from gdas_tf.runs.arithmetic import check_arithmetic
from gdas_tf.runs.best_epoch import ends_early, validation_losses
from gdas_tf.runs.checkpoints import load_checkpoint, save_checkpoint
from gdas_tf.runs.metrics import append_line, keep_lines, read_lines
from gdas_tf.runs.versions import versions
from gdas_tf.strategies.base import lines_of_search
from gdas_tf.user_files import user_path

if TYPE_CHECKING:
    import numpy as np

FILES: dict[str, str] = {
    "config.yaml": "resolved configuration",
    "versions.json": "versions of the programs, the machine, command lines, the folder that paths count from",
    "data.json": "the data: classes, number of images, fingerprints of the training and the test images",
    "data.npz": "fingerprint of every training and test image",
    "budget.json": "how the time of a run with a budget was divided, and what was spent",
    "search/metrics.jsonl": "metrics of the search, one line per epoch",
    "search/metrics.csv": "the same as a table",
    "search/tensorboard": "the same as event files for TensorBoard",
    "search/candidates.json": "the candidates of a race, as they were when it began",
    "search/candidates.jsonl": "the candidates of a search that compares some, one line for each",
    "search/trials": "outcomes of short trainings of candidates, one file for each",
    "search/logits.npz": "the strategy's arrays of every epoch, as the logits of both cells",
    "search/checkpoint.npz": "state of the search after the last finished epoch, to resume from",
    "genotype.json": "the derived genotype",
    "retrain/metrics.jsonl": "metrics of the retraining, one line per epoch",
    "retrain/metrics.csv": "the same as a table",
    "retrain/tensorboard": "the same as event files for TensorBoard",
    "retrain/checkpoint.npz": "state of the retraining after the last finished epoch, to resume from",
    "model.keras": "the retrained network, without drop-path and auxiliary head",
    "evaluation.json": "loss, accuracy and confusion matrix on the test images",
    "export/saved_model": "TensorFlow SavedModel",
    "export/model.onnx": "ONNX file with class names and genotype in its metadata",
    "export/verification.json": "comparison of the exports with the Keras model on test images",
    "export/benchmark.json": "latency and throughput of the ONNX file",
    "pictures": "drawings of the cells and the curves of search and retraining",
}
"""Every file of a run directory, in the order in which they are made, and what it is."""

_MADE_IN = "made_in"
_STAGE_SECTIONS = {"search": ("data", "search"), "retrain": ("data", "retrain")}


class Run:
    """A run directory.

    Example:
        >>> run = Run.create("runs/first", Config.preset("quick"))
        >>> with run.lock():
        ...     run.append_metrics("search", {"epoch": 1, "loss": 2.3})
    """

    def __init__(self, path: str | Path, config: Config) -> None:
        self.path = user_path(path, "run directory")
        self.config = config

    @staticmethod
    def check_free(path: str | Path) -> None:
        """Makes sure that a run directory can be made at a path.

        Raises:
            UsageError: there is something already.
        """
        path = user_path(path, "run directory")
        if path.exists() and not path.is_dir():
            raise UsageError(f"run directory {path}: it is a file; choose another run directory")
        if path.is_dir() and any(item.name != ".lock" for item in path.iterdir()):
            if is_run_directory(path):
                hint = "resume it, or choose another run directory"
            else:
                hint = "it is not empty and not a run directory; choose another run directory"
            raise UsageError(f"run directory {path}: it exists already; {hint}")

    @classmethod
    def create(cls, path: str | Path, config: Config) -> Run:
        """Makes a run directory and writes its configuration.

        Raises:
            UsageError: there is something at `path` already; nothing is touched.
            RunError: the directory cannot be written.
        """
        cls.check_free(path)
        run = cls(path, config)
        atomic_write(run.file("config.yaml"), config.to_yaml())
        write_json(run.file("versions.json"), {**versions(), _MADE_IN: os.getcwd(), "commands": []})
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Opens an existing run directory.

        Raises:
            UsageError: there is none at `path`, or its configuration is damaged.
        """
        path = user_path(path, "run directory")
        if not path.is_dir():
            raise UsageError(
                f"run directory {path}: {'it is a file' if path.exists() else 'it does not exist'}"
            )
        if not is_run_directory(path):
            raise UsageError(f"run directory {path}: it has no config.yaml; it is not a run directory")
        # Its config.yaml may lack fields, as an earlier version wrote it: a stage goes on as it began.
        begun = [stage for stage in _STAGE_SECTIONS if cls(path, Config()).begun(stage)]
        base = former_config(section for stage in begun for section in _STAGE_SECTIONS[stage])
        try:
            return cls(path, Config.from_file(path / "config.yaml", base))
        except UsageError as error:
            raise UsageError(f"run directory {path} is damaged: {error}") from error

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def file(self, name: str) -> Path:
        """Returns the path of one of `FILES`, or of a file in its folders `export` and `pictures`."""
        if name not in FILES and name.split("/")[0] not in ("export", "pictures"):
            raise KeyError(f"{name!r} is not a file of a run directory")
        return self.path / name

    @contextlib.contextmanager
    def lock(self) -> Iterator[Run]:
        """Holds the run directory; the system frees it when the process ends, however it ends.

        Raises:
            UsageError: another process holds it.
        """
        with locked(self.path, f"run directory {self.path}: another process is using it; wait for it"):
            self._remove_leftovers()
            yield self

    def set_config(self, config: Config) -> None:
        """Replaces the configuration, as before a stage that has not begun yet.

        Raises:
            UsageError: a stage that has begun depends on one of the changed fields; nothing is touched.
        """
        for stage in _STAGE_SECTIONS:
            if self.begun(stage):
                self._check_same(stage, self._depends_on(stage), self._depends_on(stage, config))
        if self.begun("retrain"):
            # The genotype that was trained stands; other ranks would not be its.
            old, new = ({"derive": values.to_dict()["derive"]} for values in (self.config, config))
            self._check_same("retrain", old, new)
        atomic_write(self.file("config.yaml"), config.to_yaml())
        self.config = config

    def begun(self, stage: str) -> bool:
        """Returns whether `search` or `retrain` has finished an epoch, or a trial, in this directory."""
        files = ["checkpoint.npz", "metrics.jsonl", *(["trials"] if stage == "search" else [])]
        return any(self.file(f"{stage}/{name}").exists() for name in files)

    def finished(self, stage: str) -> bool:
        """Returns whether `search` or `retrain` has done all its epochs, or ended early, and written its
        outcome."""
        outcome = self.file({"search": "search/logits.npz", "retrain": "model.keras"}[stage])
        if not outcome.exists():
            return False
        lines = self.metrics(stage)
        if stage == "search":
            return len(lines) >= lines_of_search(self.config)
        settings = self.config.retrain
        return len(lines) >= settings.last_epoch or ends_early(validation_losses(lines), settings.patience)

    def record_command(self, arguments: Sequence[str] = ()) -> None:
        """Writes versions.json: the versions in use, the machine, and one more command line if there is one.

        Args:
            arguments: the command line without the program's name; empty if the run has none.
        """
        known = self._versions()
        commands = known.get("commands", [])
        if arguments:
            commands = [*commands, shlex.join(["gdas-tf", *arguments])]
        made_in = {name: known[name] for name in (_MADE_IN,) if name in known}
        write_json(self.file("versions.json"), {**versions(), **made_in, "commands": commands})

    @property
    def made_in(self) -> Path | None:
        """The folder that relative paths of the configuration count from; None of runs of older versions."""
        folder = self._versions().get(_MADE_IN)
        return Path(folder) if isinstance(folder, str) else None

    def _versions(self) -> dict[str, Any]:
        path = self.file("versions.json")
        return read_json(path) if path.exists() else {}

    def onnx_files(self) -> list[Path]:
        """Returns the ONNX files that were exported, `model.onnx` first."""
        files = sorted((self.path / "export").glob("*.onnx"))
        return [file for file in files if not file.name.startswith(TEMPORARY)]

    def append_metrics(self, stage: str, values: Mapping[str, Any]) -> None:
        """Adds one epoch's line to the metrics of `search` or `retrain`.

        Raises:
            RunError: the disk is full; no half line is left behind.
        """
        append_line(self.file(f"{stage}/metrics.jsonl"), values)

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """Returns the metrics of `search` or `retrain`, one dictionary per finished epoch.

        Raises:
            UsageError: a line is damaged.
        """
        return read_lines(self.file(f"{stage}/metrics.jsonl"))

    def truncate_metrics(self, stage: str, epochs: int) -> None:
        """Keeps the first `epochs` lines of the metrics, as before the continuation from a checkpoint."""
        keep_lines(self.file(f"{stage}/metrics.jsonl"), epochs)

    def save_checkpoint(self, stage: str, arrays: Mapping[str, np.ndarray], epochs_done: int) -> None:
        """Writes the state of `search` or `retrain` after an epoch, in place of the one before.

        Args:
            stage: `search` or `retrain`.
            arrays: everything the continuation needs, by name.
            epochs_done: finished epochs.

        Raises:
            RunError: the disk is full or read-only; the checkpoint before is intact.
        """
        path = self.file(f"{stage}/checkpoint.npz")
        save_checkpoint(path, arrays, epochs_done, self._depends_on(stage))

    def load_checkpoint(self, stage: str) -> tuple[dict[str, np.ndarray], int] | None:
        """Returns the arrays and the number of finished epochs of the last checkpoint, or None without one.

        Raises:
            UsageError: the checkpoint is damaged, was made with another configuration, or by a version whose
                networks compute otherwise.
        """
        found = load_checkpoint(self.file(f"{stage}/checkpoint.npz"))
        if found is None:
            return None
        # Nothing more is computed by the weights of a search that is finished.
        if stage == "retrain" or not self.finished(stage):
            check_arithmetic(found.about, self.path, stage)
        wanted = self._depends_on(stage)
        self._check_same(stage, completed(found.depends_on, wanted), wanted)
        return found.arrays, found.epochs_done

    def check_version(self, stage: str) -> None:
        """Makes sure, before anything is written, that this version can finish a stage that has begun.

        Raises:
            UsageError: the stage is not finished, and was begun by a version whose networks compute
                otherwise; or its checkpoint is damaged.
        """
        if not self.finished(stage):
            found = load_checkpoint(self.file(f"{stage}/checkpoint.npz"))
            if found is not None:
                check_arithmetic(found.about, self.path, stage)

    def _depends_on(self, stage: str, config: Config | None = None) -> dict[str, Any]:
        """Returns all that the outcome of a stage depends on, as nested dictionaries."""
        values = (config or self.config).to_dict()
        result = {"seed": values["seed"], **{name: values[name] for name in _STAGE_SECTIONS[stage]}}
        if stage == "search" and (strategy := values["search"]["strategy"]) in values:
            result[strategy] = values[strategy]
        for option in options(*(name for name in result if name != "seed")):
            if option.free:
                result[option.section].pop(option.name, None)
        for name in ("data_dir", "cache_dir"):  # the same data may be moved elsewhere
            del result["data"][name]
        for name in ("table", "table_column"):  # the outcome is only judged by them
            result.get("search", {}).pop(name, None)
        genotype = self.file("genotype.json")
        if stage == "retrain" and genotype.exists():
            result["genotype"] = read_json(genotype)
        if stage == "retrain" and values["search"]["space"] != "darts":
            # It says how the network is built. (Runs of DARTS from before there were others lack it.)
            result["space"] = {name: values["search"][name] for name in ("space", "definition")}
        return result

    def _check_same(self, stage: str, found: Mapping, wanted: Mapping) -> None:
        changes = differences(found, wanted)
        if self.file("data.json").exists():  # it tells whether data of another name are the same
            changes = [change for change in changes if change[0] != "data.name"]
        if any(name.split(".")[0] == "genotype" for name, _, _ in changes):
            changes = [item for item in changes if item[0].split(".")[0] != "genotype"]
            changes.append(("genotype", "another one", "the one in genotype.json"))
        if changes:
            listed = "; ".join(f"{name} = {old} there, {new} now" for name, old, new in changes)
            raise UsageError(
                f"run directory {self.path}: its {stage} was made with another configuration ({listed}); "
                "use the same values or another run directory"
            )

    def _remove_leftovers(self) -> None:
        """Removes temporary files of processes that were killed."""
        import psutil

        for path in self.path.rglob(f"{TEMPORARY}*"):
            owner = path.name.removeprefix(TEMPORARY).split("-")[0]
            if owner.isdigit() and not psutil.pid_exists(int(owner)):
                remove(path)
