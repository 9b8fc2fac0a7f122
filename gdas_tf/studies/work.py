"""The program of one process of a study: one or several of its runs, or a part of them.

    python -P -m gdas_tf.studies.work TASK STUDY_FOLDER PHASE [NAME …]

It writes how it ended to `tasks/TASK.json`. It ends when the process that started it does: that holds a pipe
to its stdin, which the system closes however that process ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gdas_tf import pipeline
from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import TEMPORARY, atomic_path, write_json, writing
from gdas_tf.machine import own_peak_memory
from gdas_tf.numerics.starting import start_tensorflow
from gdas_tf.pipeline.stage_timing import time_stages
from gdas_tf.spaces.genotype import Genotype, random_genotype
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import Cell, cells

_PATIENCE = 60.0  # seconds for a process that is about to end to let go of a run directory


def train(folder: StudyFolder, names: list[str]) -> dict[str, Any]:
    """Does a run up to its trained network; what is done of it already is not done again."""
    for cell in _chosen(folder, names):
        with _job(folder, cell) as job:
            # A random cell stays what was drawn: the genotype is in the run directory from the first on.
            if cell.random:
                if not job.run.file("genotype.json").exists():
                    pipeline.set_genotype(job.run, draw(cell))
            elif not job.run.file("genotype.json").exists() or not job.run.begun("retrain"):
                _take_search(folder, cell)
                pipeline.run_search(job)
                pipeline.run_derivation(job)
            pipeline.run_retraining(job)
    return {}


def measure(folder: StudyFolder, names: list[str]) -> dict[str, Any]:
    """Evaluates trained networks on the test images, once each, and writes their ONNX files."""
    from gdas_tf.costs.flops import multiply_adds

    problems = {}
    for cell in _chosen(folder, names):
        if folder.measured(cell) is not None:
            continue
        with _job(folder, cell) as job:
            whole = pipeline.run_evaluation(job)
            model, data = pipeline.load_model(job.run.file("model.keras")), job.data
            found = {name: whole[name] for name in ("accuracy", "loss", "images", "parameters")}
            found |= {
                "own_test_images": data.draw is not None,
                "image_shape": data.image_shape,
                "classes": data.classes,
                "data": data.name,
                "training_images": len(data.train),
                "multiply_adds": multiply_adds(model),
            }
            try:
                pipeline.run_export(job)
            except RunError as error:  # the accuracy stands
                problems[cell.name] = found["export_failed"] = " ".join(str(error).split())
            write_json(folder.measured_path(cell), found)
    return {"exports_failed": problems} if problems else {}


def latency(folder: StudyFolder, names: list[str]) -> dict[str, Any]:
    """Measures the latency of one image by all ONNX files, in turns, with one thread."""
    from gdas_tf.export.benchmark import benchmark_models

    files = {}
    for cell in _chosen(folder, names):
        file = folder.run_path(cell) / "export" / "model.onnx"
        if file.is_file():
            files[cell.name] = file
    if not files:
        return {}
    result = benchmark_models(
        list(files.values()),
        batch_sizes=(1,),
        threads=(1,),
        seconds=1.0,
        rounds=5,
        providers=("cpu",),
        memory=False,
    )
    measured = [item["p50_ms"] for item in result["measurements"]]
    write_json(folder.path / "latency.json", dict(zip(files, measured, strict=True)))
    return {}


def check(folder: StudyFolder, names: list[str]) -> dict[str, Any]:
    """Finds out what would fail later, for one run of each arm; gets the data where they are not here yet."""
    seen: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for cell in [cell for cell in cells(folder.study()) if cell.number == 1]:
        key = repr(cell.config.data)
        data = seen[key] = seen.get(key) or pipeline.load_data(cell.config)
        from gdas_tf import preflight

        stages = ["retrain", "export"] if cell.random else ["search", "retrain", "export"]
        genotype = draw(cell) if cell.random else None
        try:
            preflight.check_before_start(cell.config, data, stages, genotype)
        except UsageError as error:
            raise UsageError(f"arm {cell.arm}: {error}") from error
        about = {"training_images": len(data.train), "image_shape": data.image_shape}
    return about


def timing(folder: StudyFolder, names: list[str]) -> dict[str, Any]:
    """Times some steps of the search and of the retraining of arms; nothing of it is kept."""
    first = [cell for cell in cells(folder.study()) if cell.number == 1 and cell.arm in names]
    return {cell.arm: _time(cell) for cell in first}


PHASES: dict[str, Callable[[StudyFolder, list[str]], dict[str, Any]]] = {
    "check": check,
    "timing": timing,
    "train": train,
    "measure": measure,
    "latency": latency,
}


def draw(cell: Cell) -> Genotype:
    """Returns the genotype of a random cell, uniform in its search space."""
    return random_genotype(cell.config.space, cell.drawn_by, cell.config.search.reduction)


def _time(cell: Cell) -> dict[str, Any]:
    """What `gdas_tf.pipeline.division.Costs` has of a run, and the seconds that its timing took."""
    data = pipeline.load_data(cell.config)
    start_tensorflow()
    begun = time.monotonic()
    found = time_stages(cell.config, data, searched=not cell.random and cell.search_of is None)
    return {**found.to_plain(), "spent": time.monotonic() - begun}


def _take_search(folder: StudyFolder, cell: Cell) -> None:
    """Copies the finished search of another cell, so that the run directory is whole by itself."""
    path = folder.run_path(cell)
    if cell.search_of is None or (path / "search").exists():
        return
    other = folder.run_path(cell.search_of)
    for name in ("data.json", "data.npz"):
        if (other / name).exists():
            with atomic_path(path / name) as temporary:
                shutil.copyfile(other / name, temporary)
    with atomic_path(path / "search") as temporary:  # all of it is there, or nothing
        shutil.copytree(other / "search", temporary, ignore=shutil.ignore_patterns(f"{TEMPORARY}*"))


def _job(folder: StudyFolder, cell: Cell) -> contextlib.AbstractContextManager[pipeline.Job]:
    return pipeline.begin_or_go_on(folder.run_path(cell), cell.config, _PATIENCE)


def _chosen(folder: StudyFolder, names: list[str]) -> list[Cell]:
    known = {cell.name: cell for cell in cells(folder.study())}
    return [known[name] for name in names]


def _end_with_parent() -> None:
    """Ends this process at once when stdin does; a checkpoint is never half written."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):  # not by sys.stdin, the lock of which would make the end of Python a crash
                pass
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def _message(error: Exception, log: Path) -> str:
    """What an error says, in a line. A full disk is that of the log, as of Keras' lines of progress: whatever
    writes another file names it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        try:
            with writing(log):
                raise error
        except RunError as named:
            return str(named)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def main(arguments: list[str]) -> int:
    """Does one task; returns the exit code."""
    _end_with_parent()
    task, path, phase, *names = arguments
    folder = StudyFolder(path)
    started = time.monotonic()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    outcome: dict[str, Any] = {"task": task, "phase": phase, "names": names, "load": load}
    try:
        outcome |= {"ok": True, "result": PHASES[phase](folder, names)}
    except (UsageError, RunError) as error:
        outcome |= {"ok": False, "wrong_use": isinstance(error, UsageError), "message": str(error)}
    except Exception as error:
        import traceback

        with contextlib.suppress(OSError):  # the log is on a disk that may be full
            traceback.print_exc()
        outcome |= {"ok": False, "wrong_use": False, "message": _message(error, folder.log_path(task))}
    outcome |= {"seconds": time.monotonic() - started, "peak_mib": own_peak_memory()}
    write_json(folder.outcome_path(task), outcome)
    if not outcome["ok"]:
        with contextlib.suppress(OSError):
            print(f"failed: {outcome['message']}", flush=True)
    return 0 if outcome["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
