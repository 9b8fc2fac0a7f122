"""Where the processes of a study run: on this machine, or on the workers of a dask scheduler."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import write_json, writing
from gdas_tf.machine import cores
from gdas_tf.studies.folder import StudyFolder

_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg"}
_WAIT_FOR_SCHEDULER = 10.0
_WAIT_FOR_WORKERS = 30.0
_GRACE = 10.0
_LOOK = 2.0


def default_jobs() -> int:
    """Returns how many runs to do side by side where nobody says it.

    Small networks keep one core busy. A process needs about 1 GiB; and TensorFlow takes a GPU for itself.
    """
    return 1 if os.path.exists("/dev/nvidia0") else min(4, cores())


@dataclasses.dataclass(frozen=True)
class Task:
    """A process to be started.

    Args:
        name: of its outcome and its log.
        folder: of the study, an absolute path.
        phase: one of `gdas_tf.studies.work.PHASES`.
        names: of runs or arms.
        where: the folder that relative paths of the configuration count from.
        threads: operations of TensorFlow that may run side by side; 0 leaves it alone.
        stop: a file that ends the process when it appears; empty if nothing does. On another machine this is
            the only way to end it.
    """

    name: str
    folder: str
    phase: str
    names: tuple[str, ...]
    where: str
    threads: int = 0
    stop: str = ""


class Executor(Protocol):
    """Starts tasks."""

    slots: int
    """Tasks that may be under way at once."""

    def submit(self, task: Task) -> concurrent.futures.Future[dict[str, Any]]:
        """Starts a task; the future gives its outcome."""

    def check(self) -> None:
        """Makes sure that what was submitted can still end.

        Raises:
            RunError: it cannot.
        """


class _Processes:
    """Processes that are under way."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen] = set()
        self.lock = threading.Lock()
        self.closed = False

    def run(self, task: Task) -> int | None:
        folder = StudyFolder(task.folder)
        log = folder.log_path(task.name)
        folder.outcome_path(task.name).unlink(missing_ok=True)
        environment = {**os.environ, **_ENVIRONMENT}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        if task.threads:
            environment.setdefault("TF_NUM_INTEROP_THREADS", str(task.threads))
        command = [sys.executable, "-P", "-m", "gdas_tf.studies.work"]
        command += [task.name, task.folder, task.phase, *task.names]
        where = task.where if os.path.isdir(task.where) else None
        with open(log, "ab") as output:
            with self.lock:
                if self.closed:
                    return None
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,  # it ends when the other end of this pipe does
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=where,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the study, which then ends its processes
                )
                self.running.add(process)
            try:
                return _wait(process, task.stop)
            finally:
                process.stdin.close()
                with self.lock:
                    self.running.discard(process)

    def close(self) -> None:
        with self.lock:
            self.closed = True
            left = list(self.running)
        for process in left:
            process.terminate()
        for process in left:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
                continue
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen, stop: str) -> int:
    """Waits for a process, or ends it when a file appears."""
    while True:
        try:
            return process.wait(_LOOK if stop else None)
        except subprocess.TimeoutExpired:
            if os.path.exists(stop):
                process.terminate()


def perform(task: Task, processes: _Processes | None = None) -> dict[str, Any]:
    """Runs a task in a process of its own, and returns its outcome; a full disk is one as well."""
    processes, folder = processes or _Processes(), StudyFolder(task.folder)
    log = folder.log_path(task.name)
    try:
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
    except RunError as error:
        return _failed(task, str(error))
    try:
        code = processes.run(task)
    finally:
        if sys.exc_info()[0] is not None:
            processes.close()
    outcome = folder.outcome(task.name)
    if outcome is None:
        how = f"its process ended with exit code {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                how = f"its process was ended by {signal.Signals(-code).name}"
            if code == -9:
                how += ", as the system does where memory is short"
        outcome = _failed(task, how)
        # On a full disk a process cannot say what is wrong; this one, which finds the same, can.
        try:
            write_json(folder.outcome_path(task.name), outcome)
        except RunError as error:
            outcome = _failed(task, str(error))
    return outcome


def _failed(task: Task, message: str) -> dict[str, Any]:
    return {"task": task.name, "phase": task.phase, "ok": False, "wrong_use": False, "message": message}


class LocalExecutor:
    """Processes of this machine.

    Args:
        jobs: how many run side by side.
    """

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self.processes = _Processes()
        self.pool = concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="study")

    def submit(self, task: Task) -> concurrent.futures.Future[dict[str, Any]]:
        if self.slots > 1:
            task = dataclasses.replace(task, threads=max(1, cores() // self.slots))
        return self.pool.submit(perform, task, self.processes)

    def check(self) -> None:
        return

    def close(self) -> None:
        """Ends all processes that are under way."""
        self.processes.close()
        self.pool.shutdown(wait=True, cancel_futures=True)


class DaskExecutor:
    """Workers of a dask scheduler, on machines that share the folder of the study.

    A task of a worker that dies is done again by another one.

    Args:
        address: of the scheduler, as `tcp://host:8786`.

    Raises:
        UsageError: dask.distributed is not installed, or no scheduler answers.
        RunError: the scheduler has no worker.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise UsageError(
                "executor dask: the package distributed is not installed; install it "
                "(pip install 'gdas-tf[study]')"
            ) from error
        _quiet()
        try:
            self.client = distributed.Client(address, timeout=_WAIT_FOR_SCHEDULER, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(
                f"scheduler {address}: no answer in {_WAIT_FOR_SCHEDULER:g} s; start one (dask scheduler) "
                "and give its address, as tcp://host:8786"
            ) from error
        self.address = address
        try:
            self.client.wait_for_workers(1, timeout=_WAIT_FOR_WORKERS)
        except TimeoutError as error:
            self.client.close()
            raise RunError(
                f"scheduler {address}: it has no worker after {_WAIT_FOR_WORKERS:g} s; start some "
                f"(dask worker {address})"
            ) from error
        self.executor = self.client.get_executor(pure=False, retries=3)
        self.slots = 10_000  # the scheduler has them wait
        self.stop: Path | None = None
        self.futures: list[concurrent.futures.Future] = []

    def submit(self, task: Task) -> concurrent.futures.Future[dict[str, Any]]:
        if self.stop is None:
            self.stop = StudyFolder(task.folder).outcome_path("x").with_name(f"stop-{uuid.uuid4().hex}")
        future = self.executor.submit(perform, dataclasses.replace(task, stop=str(self.stop)))
        self.futures = [one for one in self.futures if not one.done()] + [future]
        return future

    def check(self) -> None:
        if self.client.status != "running":
            raise RunError(f"scheduler {self.address}: the connection is lost; start it again, and go on")

    def close(self) -> None:
        """Takes back what has not begun, ends what has, and leaves the scheduler."""
        if self.stop is not None and not all(future.done() for future in self.futures):
            with contextlib.suppress(OSError):
                self.stop.touch()
        with contextlib.suppress(Exception):
            self.executor.shutdown(wait=False)
        with contextlib.suppress(Exception):
            self.client.close(timeout=5)


def _quiet() -> None:
    """Lets dask say nothing on stderr of connections that it tries: the error says it in one line."""
    import logging

    for name in ("distributed", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def opened(kind: str, jobs: int, address: str | None) -> Iterator[Executor]:
    """Gives an executor, and ends what it has under way when the block ends.

    Args:
        kind: "local" or "dask".
        jobs: processes side by side, of a local one.
        address: of the scheduler.

    Raises:
        UsageError: there is no such executor, or its arguments are missing.
    """
    if kind not in ("local", "dask"):
        raise UsageError(f"executor: found {kind!r}; accepted are local, dask")
    if kind == "dask" and not address:
        raise UsageError(
            "executor dask: the address of its scheduler is missing; give it, as tcp://host:8786"
        )
    if kind == "local" and address:
        raise UsageError("scheduler: it goes with the executor dask; choose that one, or leave it out")
    if jobs < 1:
        raise UsageError(f"jobs: found {jobs}; it must be at least 1")
    executor = LocalExecutor(jobs) if kind == "local" else DaskExecutor(address)
    try:
        yield executor
    finally:
        executor.close()
