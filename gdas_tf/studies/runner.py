"""Doing a study: what fits is planned, every run is done once, and all are measured at the end."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import disk_failed
from gdas_tf.notes import note, progress
from gdas_tf.studies import plan as planning
from gdas_tf.studies.executors import Executor, Task, opened
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import Cell, Study, cells

_POLL = 5.0  # seconds between looks at whether the executor is still there


def run_study(
    path: str | Path,
    study: Study,
    *,
    jobs: int = 1,
    budget: float | None = None,
    executor: str = "local",
    scheduler: str | None = None,
    only_plan: bool = False,
) -> dict[str, Any]:
    """Does a study, or goes on with it, and writes its report.

    Every run is trained first, and then all networks are evaluated on the test images, once each: nothing is
    chosen after that. A run that fails does not keep the others from going on. What is finished is not done
    again; what failed is tried again when the study is resumed.

    Args:
        path: the folder of the study: a new one, or that of the same study.
        study: the study.
        jobs: processes side by side on this machine.
        budget: seconds that the study may take; as many runs are planned as fit. A study that was planned
            before keeps its plan.
        executor: "local", or "dask" for the workers of a scheduler.
        scheduler: address of the scheduler.
        only_plan: plan, say what will be seen, and end.

    Returns:
        `failed`, a mapping from the names of runs to reasons; `plan`; and, unless `only_plan`, `report`, what
        `gdas_tf.studies.report.write_report` returns.

    Raises:
        UsageError: the folder is of another study, an arm cannot be run, or the budget is too small.
        RunError: the disk is full, the scheduler is lost, or there are not two runs of each arm.
    """
    folder = StudyFolder(path)
    for arm in study.arms:  # every message about a configuration comes before anything is made
        study.arm_config(arm)
    known = folder.plan() if folder.is_one(path) else None
    if known is not None and budget is not None:
        note(f"study {path}: it is planned already; its {len(cells(folder.study()))} runs stand")
        study = folder.study()
    made = not Path(path).exists()
    with folder.lock():
        try:
            if only_plan and known is not None:
                folder.check_same(study)  # and nothing is written: it is only asked about
                return {"failed": {}, "plan": {**known, "lines": _lines(study, jobs)}}
            folder.begin(study)
            with opened(executor, jobs, scheduler) as machine:
                side_by_side = jobs if executor == "local" else max(1, len(machine.client.nthreads()))
                if known is None:
                    study = _prepare(folder, study, machine, side_by_side, budget)
                if only_plan:
                    return {"failed": {}, "plan": folder.plan()}
                for line in folder.plan()["lines"] if known is None else _lines(study, side_by_side):
                    progress(line)
                failed = _train_all(folder, study, machine)
                failed |= _measure_all(folder, study, machine, side_by_side, failed)
        except UsageError:
            if made and not (folder.path / "runs").exists():
                _remove(folder.path)
            raise
        from gdas_tf.studies.report import write_report

        return {"failed": failed, "plan": folder.plan(), "report": write_report(folder, failed)}


def _lines(study: Study, jobs: int) -> list[str]:
    return planning.describe(study, study.base(), jobs, None)


def _prepare(folder: StudyFolder, study: Study, machine: Executor, jobs: int, budget: float | None) -> Study:
    """Checks all arms, plans the runs, and writes the plan."""
    progress("checking the arms")
    about = _one(machine, _task(folder, "check", "check"))
    cost = None
    if budget is not None or study.equal_compute:
        progress("timing some steps of each arm")
        tasks = [_task(folder, f"timing-{number}", "timing", study.arms) for number in range(1, jobs + 1)]
        timings = list(_all(machine, tasks))
        if study.equal_compute:
            study = planning.equal_compute(study, timings)
        cost = planning.costs(study, timings)
        if budget is not None:
            study = planning.fit(study, cost, budget, jobs)
        folder.write(study)
    lines = planning.describe(study, study.base(), jobs, cost)
    seconds = None if cost is None else cost.seconds(study, jobs)
    folder.write_plan(
        {
            "lines": lines,
            "seeds": study.seeds,
            "random": study.random,
            "jobs": jobs,
            "budget_seconds": budget,
            "planned_seconds": seconds,
            **about.get("result", {}),
        }
    )
    return study


def _train_all(folder: StudyFolder, study: Study, machine: Executor) -> dict[str, str]:
    """Trains every network that is not trained; returns the runs that failed with the reasons."""
    waiting = [cell for cell in cells(study) if not folder.trained(cell)]
    total, failed = len(cells(study)), {}
    if len(waiting) < total:
        progress(f"{total - len(waiting)} of {total} runs are finished already")
    under_way: dict[concurrent.futures.Future, Cell] = {}
    while waiting or under_way:
        for cell in list(waiting):
            if len(under_way) >= machine.slots:
                break
            if cell.search_of in failed:
                failed[cell.name] = f"its search is that of {cell.search_of}, which failed"
                waiting.remove(cell)
            elif cell.search_of is None or folder.searched(cell.search_of):
                waiting.remove(cell)
                under_way[machine.submit(_task(folder, cell.name, "train", [cell.name]))] = cell
        if not under_way:
            continue  # what was waiting for a failed search has failed, too
        for future in _ended(machine, under_way):
            cell = under_way.pop(future)
            outcome = future.result()
            done = total - len(waiting) - len(under_way)
            if outcome["ok"]:
                progress(f"[{done}/{total}] {cell.name}: trained in {outcome['seconds']:.0f} s")
            else:
                failed[cell.name] = outcome["message"]
                note(f"[{done}/{total}] {cell.name}: failed: {outcome['message']}; the others go on")
                _stop_if_hopeless(outcome["message"])
    return failed


def _measure_all(
    folder: StudyFolder, study: Study, machine: Executor, jobs: int, failed: dict[str, str]
) -> dict[str, str]:
    """Evaluates all trained networks; returns those that it could not."""
    left = [cell for cell in cells(study) if cell.name not in failed and folder.measured(cell) is None]
    problems = {}
    if left:
        progress(f"measuring {len(left)} networks on the test images")
        parts = [part for part in (left[start::jobs] for start in range(jobs)) if part]
        tasks = [
            _task(folder, f"measure-{number}", "measure", [cell.name for cell in part])
            for number, part in enumerate(parts, 1)
        ]
        futures = [machine.submit(task) for task in tasks]
        pending = dict.fromkeys(futures)
        while pending:
            for future in _ended(machine, pending):
                del pending[future]
        for future, part in zip(futures, parts, strict=True):
            outcome = future.result()
            if not outcome["ok"]:
                _stop_if_hopeless(outcome["message"])
                problems |= {cell.name: outcome["message"] for cell in part if folder.measured(cell) is None}
    if left or not folder.latency():
        names = [cell.name for cell in cells(study) if folder.measured(cell) is not None]
        outcome = _first(machine, _task(folder, "latency", "latency", names))
        if not outcome["ok"]:
            note(f"the latency of the ONNX files could not be measured: {outcome['message']}")
    return problems


def _stop_if_hopeless(message: str) -> None:
    if disk_failed(message):
        raise RunError(message)


def _task(folder: StudyFolder, name: str, phase: str, names: Iterable[str] = ()) -> Task:
    return Task(name, str(folder.path.absolute()), phase, tuple(names), os.getcwd())


def _ended(machine: Executor, futures: Iterable[concurrent.futures.Future]) -> Sequence[Any]:
    """Waits for the next futures that end."""
    while True:
        done, _ = concurrent.futures.wait(
            futures, timeout=_POLL, return_when=concurrent.futures.FIRST_COMPLETED
        )
        if done:
            return list(done)
        machine.check()


def _first(machine: Executor, task: Task) -> dict[str, Any]:
    return _ended(machine, [machine.submit(task)])[0].result()


def _all(machine: Executor, tasks: Sequence[Task]) -> Iterable[dict[str, Any]]:
    futures = [machine.submit(task) for task in tasks]
    for future in futures:
        while not future.done():
            _ended(machine, [future])
        yield _good(future.result())


def _one(machine: Executor, task: Task) -> dict[str, Any]:
    return _good(_first(machine, task))


def _good(outcome: dict[str, Any]) -> dict[str, Any]:
    if outcome["ok"]:
        return outcome
    raise (UsageError if outcome["wrong_use"] else RunError)(outcome["message"])


def _remove(path: Path) -> None:
    from gdas_tf.files import remove

    remove(path)
