"""Processes that work for this one, side by side, one request after the other in each.

TensorFlow starts once in a process and then serves many requests. The workers end with the process that
began them, however that one ends: what they read their requests from is closed then.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from gdas_tf.errors import RunError, UsageError
from gdas_tf.machine import cores
from gdas_tf.notes import note

TRIALS = "gdas_tf.training.trial_worker"
"""The program of a worker that trains genotypes."""

TRIES = 2
"""How often a request is given to a worker, if workers die of it."""


class WorkerDied(RunError):
    """Every worker that was given a request died before there was an answer."""


class Workers:
    """Worker processes, of which each runs a program that ends in `gdas_tf.training.serving.serve`.

    A worker starts with its first request.

    Args:
        setup: What each worker is given once, before its first request; anything that pickle takes.
        jobs: Number of workers, at most.
        program: The module that a worker runs.
        one_thread: Operations within a worker use one thread each, so that results do not depend on how many
            workers there are; as many operations go on at a time as cores are left for it. Without it a
            worker computes as a process of the command line does.

    Example:
        >>> with Workers(setup, jobs=2) as workers:
        ...     [workers.submit(request) for request in requests]
    """

    def __init__(self, setup: Any, jobs: int, program: str = TRIALS, one_thread: bool = True) -> None:
        self.setup, self.jobs, self.program, self.one_thread = setup, jobs, program, one_thread
        self._requests: queue.Queue[tuple[Any, ...] | None] = queue.Queue()
        self._closed = False
        self._processes: list[_Process | None] = [None] * jobs
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def submit(
        self,
        name: str,
        request: Any,
        finish: Callable[[Any], Any],
        wanted: Callable[[], bool] = lambda: True,
        leave_out: Callable[[], Any] = lambda: None,
    ) -> Future:
        """Gives a request to the next worker that is free.

        Args:
            name: What it is, for messages.
            request: Anything that pickle takes.
            finish: Makes a result of the worker's answer, in a thread of this process, as soon as there is
                one. It gets a `WorkerDied` where workers die of the request.
            wanted: Whether it is still to be done; asked when a worker is free, in the order of requests.
            leave_out: Makes the result where it is not.

        Returns:
            A future of the result. It raises what `finish` does, and the `UsageError` or `RunError` that a
            worker met.
        """
        future: Future = Future()
        self._requests.put((name, request, finish, wanted, leave_out, future))
        if len(self._threads) < self.jobs:
            place = len(self._threads)
            thread = threading.Thread(target=self._serve, args=(place,), name=f"worker {place}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Ends all workers at once, whatever they are at; requests without an answer are cancelled."""
        with self._lock:
            self._closed = True
            processes = [process for process in self._processes if process]
        for process in processes:
            process.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                waiting = self._requests.get_nowait()
                if waiting:
                    waiting[-1].cancel()
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, place: int) -> None:
        """The thread that looks after one worker."""
        while (waiting := self._requests.get()) is not None:
            name, request, finish, wanted, leave_out, future = waiting
            try:
                result = finish(self._ask(place, name, request)) if wanted() else leave_out()
            except BaseException as error:  # of whatever kind, it belongs to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

    def _ask(self, place: int, name: str, request: Any) -> Any:
        for attempt in range(1, TRIES + 1):
            process = self._process(place)
            try:
                kind, answer = process.ask(request)
            except (EOFError, OSError):
                how = f"process {process.process.pid} {process.ended()}"
                self._processes[place] = None
                if self._closed:
                    raise RunError("the workers were stopped") from None
                note(
                    f"{name}: {how} while it trained it; "
                    + ("it is tried once more" if attempt < TRIES else "it counts as failed")
                )
                continue
            if kind == "answer":
                return answer
            raise {"UsageError": UsageError}.get(kind, RunError)(f"{name}: {answer}")
        return WorkerDied(f"the process that trained it died {TRIES} times, the last one {how}")

    def _process(self, place: int) -> _Process:
        with self._lock:
            if self._closed:
                raise RunError("the workers were stopped")
            if self._processes[place] is None:
                threads = max(1, cores() // self.jobs) if self.one_thread else None
                self._processes[place] = _Process(self.program, threads, self.setup)
            return self._processes[place]


class _Process:
    """One worker process and the connection to it.

    Args:
        program: The module that it runs.
        threads: Operations that go on at a time, with one thread each; None leaves both to the program.
        setup: What it is given before its first request.
    """

    def __init__(self, program: str, threads: int | None, setup: Any) -> None:
        self.setup = setup
        self.asked = False
        self.connection: Connection
        self.connection, theirs = Pipe()
        environment = dict(os.environ)
        if threads is not None:
            environment |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": str(threads)}
        command = [sys.executable, "-m", program, str(theirs.fileno())]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=environment,
        )
        theirs.close()

    def ask(self, request: Any) -> tuple[str, Any]:
        if not self.asked:  # not under the lock: big data take their time
            self.connection.send(self.setup)
            self.asked = True
        self.connection.send(request)
        return self.connection.recv()

    def kill(self) -> None:
        """Ends it; what waits for its answer meets the end of the connection."""
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()

    def ended(self) -> str:
        """Waits for its end, closes the connection, and says how it ended."""
        self.connection.close()
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            return "stopped answering"
        if code < 0:
            return f"was ended by signal {-code}" + (" (perhaps for want of memory)" if code == -9 else "")
        return f"ended with code {code}"
