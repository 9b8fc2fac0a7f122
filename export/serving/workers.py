"""The server's processes, on granian: start, address, limits on connections, and an end that loses nothing.

granian's main process starts worker processes, each with the models and a listening socket of its own, and
replaces one that dies. Heads of requests are read by its Rust part, within limits of size and time; only
whole ones reach Python.

- SIGTERM or Ctrl-C to the main process: it sends SIGTERM to the workers. A worker first says goodbye in its
  answers (`LAME_DUCK_SECONDS`); then granian closes its port, finishes what was accepted, and ends.
- SIGTERM to all processes at once, as some service managers send it, does the same. Ctrl-C in a terminal goes
  to all as well: workers leave it to the main process.
- The main process is killed: the workers notice and end as with SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from logging import Formatter, LogRecord
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from granian import Granian, loops
from granian.http import HTTP1Settings

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export.inference import InputOptions
from gdas_tf.export.serving.application import Application
from gdas_tf.export.serving.metrics import FOLDER_VARIABLE, Metrics, forget_dead_processes
from gdas_tf.export.serving.origins import Origins
from gdas_tf.export.serving.repository import ModelFile
from gdas_tf.export.serving.server import ServerSettings, load_models
from gdas_tf.machine import cores

try:
    from uvloop import Loop as _Loop
except ImportError:  # as on Windows
    _Loop = asyncio.ProactorEventLoop if sys.platform == "win32" else asyncio.SelectorEventLoop

_log = logging.getLogger("gdas_tf.serve")

LAME_DUCK_SECONDS = 0.5
"""After SIGTERM: how long answers still go out with `Connection: close`, so that clients go elsewhere."""

HEAD_BYTES = 2**16
"""Of a request's head; granian refuses what is some two times longer, at the latest."""

HEAD_SECONDS = 10
"""Until a request's head has come in; also how long a connection may be idle."""

_CONNECTIONS = 10_000
"""Of a process at a time, as far as the system lets it open so many files; some KiB of memory each."""

_OTHER_FILES = 200
"""Files that a process opens besides its connections, at most."""

_END_SECONDS = 11
"""For bodies that are under way at the end, and for the half of a second before it; then some to spare."""

_CODE_SECONDS = 5
"""Until the exit code of a process that has ended is known, at most."""

_CODES = (0, -signal.SIGTERM)
"""Exit codes of processes that lost nothing; SIGTERM ends one that is not ready yet."""

_LOGS = {
    "formatters": {
        "generic": {"()": "logging.Formatter", "fmt": "gdas-tf serve: %(message)s"},
        "access": {"()": "gdas_tf.export.serving.workers.AccessFormatter"},
    },
    "handlers": {
        name: {"class": "logging.StreamHandler", "formatter": formatter, "stream": "ext://sys.stderr"}
        for name, formatter in (("console", "generic"), ("access", "access"))
    },
}
"""All on stderr: stdout is for what --json prints."""

_ACCESS = '[%(time)s] %(addr)s - "%(method)s %(path)s %(protocol)s" %(status)d %(dt_ms).3f'


class AccessFormatter(Formatter):
    """A line of the access log; what clients put into a path cannot look like another line."""

    def format(self, record: LogRecord) -> str:
        """Returns the line."""
        return "".join(
            character if character.isprintable() else f"\\x{ord(character):02x}"
            for character in record.getMessage()
        )


@loops.register("gdas_tf")
class WorkerLoop(_Loop):
    """The event loop of a worker: it stops only after the application has said goodbye.

    Attributes:
        drain: called at the first SIGTERM.
    """

    drain: Callable[[], None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._stopping = False
        asyncio.set_event_loop(self)

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:
        """Puts `drain` before what granian does on SIGTERM, and leaves Ctrl-C to the main process."""
        if sig == signal.SIGTERM:
            super().add_signal_handler(sig, partial(self._stop, partial(callback, *args)))
        elif sig != signal.SIGINT:
            super().add_signal_handler(sig, callback, *args)

    def _stop(self, end: Callable[[], None]) -> None:
        if not self._stopping:
            self._stopping = True
            if self.drain is not None:
                self.drain()
            self.call_later(LAME_DUCK_SECONDS, end)


def serve(
    files: Sequence[ModelFile],
    options: InputOptions,
    settings: ServerSettings,
    held: socket.socket,
    ready: Callable[[], None],
) -> bool:
    """Serves in `settings.processes` processes until SIGTERM or Ctrl-C, then finishes what was accepted.

    Args:
        files: the models; each process loads them.
        options: what their files don't say.
        settings: how to serve.
        held: holds the address.
        ready: called once requests are answered.

    Returns:
        Whether it finished; a second signal ends it at once.

    Raises:
        RunError: a process did not start, or processes ended again and again.
    """
    multiprocessing.set_start_method("spawn", force=True)  # a fork would have half of onnxruntime's threads
    reader, writer = multiprocessing.Pipe(duplex=False)
    address, port = held.getsockname()[:2]
    server = Granian(
        "gdas-tf serve",
        address,
        port,
        interface="asgi",
        workers=settings.processes,
        loop="gdas_tf",
        http="1",
        websockets=False,
        backlog=1024,
        backpressure=_connections(),
        http1_settings=HTTP1Settings(
            header_read_timeout=HEAD_SECONDS * 1000, max_buffer_size=HEAD_BYTES, pipeline_flush=True
        ),
        log_level="error",
        log_dictconfig=_LOGS,
        log_access=settings.access_log,
        log_access_format=_ACCESS,
        workers_kill_timeout=math.ceil(settings.deadline) + _END_SECONDS,
    )
    signals = _Signals()
    server.on_startup(signals.take)
    starting = _Starting(server, reader, held, ready)
    server.on_startup(starting.start)
    with _counting_together(settings.processes):
        try:
            server.serve(
                target_loader=partial(work, list(files), options, settings, writer), wrap_loader=False
            )
        except SystemExit as error:
            if not signals.taken:
                why = "ended again and again" if starting.done else "did not start"
                raise RunError(f"a server process {why}; what it said stands above") from error
    return signals.complete()


class _Signals:
    """What SIGTERM and Ctrl-C do to the main process: the second one ends all at once."""

    def __init__(self) -> None:
        self.taken = False
        self._workers: list[multiprocessing.process.BaseProcess] = []

    def take(self) -> None:
        """Puts itself before granian's handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, partial(self._handle, signal.getsignal(number)))

    def _handle(self, theirs: Callable[[int, Any], None], number: int, frame: Any) -> None:
        if self.taken:
            for worker in self._workers:
                worker.kill()
            return
        self.taken = True
        self._workers = multiprocessing.active_children()
        theirs(number, frame)

    def complete(self) -> bool:
        """Returns whether each process had its time to finish, and logs how one ended that had not."""
        lost = {_exit_code(worker) for worker in self._workers}.difference(_CODES)
        for code in lost:
            _log.error("a server process ended with exit code %s", code)
        return not lost


def _exit_code(process: multiprocessing.process.BaseProcess) -> int | None:
    """Returns the exit code of a process that has ended.

    granian waits for it in two threads. The system tells the code to one of them only: until that one has
    written it down, the process counts as alive for the other.
    """
    end = time.monotonic() + _CODE_SECONDS
    while (code := process.exitcode) is None and time.monotonic() < end:
        time.sleep(0.01)
    return code


class _Starting:
    """Waits until all workers have loaded the models and the first one listens.

    Args:
        server: granian's server. Until then it must not replace a worker that dies, which could not start.
        reader: gives a message from each worker that has loaded the models.
        held: holds the address.
        ready: called when all have started.
    """

    def __init__(
        self, server: Granian, reader: Connection, held: socket.socket, ready: Callable[[], None]
    ) -> None:
        self.done = False
        self._server = server
        self._reader = reader
        self._held = held
        self._ready = ready

    def start(self) -> None:
        """Waits in a thread."""
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # the server has ended
            for _ in range(self._server.workers):
                self._reader.recv_bytes()
            self._wait_for_port()
            self._server.respawn_failed_workers = self.done = True
            self._ready()
            while True:  # those that replace others say it as well
                self._reader.recv_bytes()

    def _wait_for_port(self) -> None:
        host, port = self._held.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        while True:
            with contextlib.suppress(ConnectionRefusedError, TimeoutError):
                socket.create_connection((host, port), timeout=1).close()
                return
            time.sleep(0.01)


@contextlib.contextmanager
def _counting_together(processes: int) -> Any:
    """Gives several processes a folder for their counts: in memory, where the system has such a place.

    Raises:
        RunError: there is no room for it.
    """
    if processes == 1:
        yield
        return
    memory = "/dev/shm"
    try:
        folder = tempfile.TemporaryDirectory(
            prefix="gdas-tf-serve-",
            dir=memory if os.access(memory, os.W_OK) else None,
            ignore_cleanup_errors=True,
        )
    except OSError as error:
        raise RunError(
            f"the processes cannot share their counts: {error}; or give 1 as ServerSettings.processes"
        ) from error
    with folder as path:
        os.environ[FOLDER_VARIABLE] = path
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLE]


def _connections() -> int:
    """Lets processes open as many files as the system allows, and returns how many connections that is."""
    try:
        import resource
    except ImportError:  # as on Windows
        return _CONNECTIONS
    wanted = _CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(_CONNECTIONS, soft - _OTHER_FILES))


def work(
    files: Sequence[ModelFile], options: InputOptions, settings: ServerSettings, writer: Connection
) -> Application:
    """Returns the application of a worker process, which granian then serves.

    Args:
        files: the models.
        options: what their files don't say.
        settings: how to serve.
        writer: the pipe to the main process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process gets it as well
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is not None:
        forget_dead_processes(Path(folder))
    metrics = Metrics()
    try:
        models = load_models(files, settings, metrics, options)
    except (OSError, RunError, UsageError) as error:
        sys.exit(f"gdas-tf: failed: {error}")
    parent = multiprocessing.parent_process()

    def closed() -> None:
        if folder is not None and parent is not None and not parent.is_alive():
            shutil.rmtree(folder, ignore_errors=True)  # nobody else is left to tidy up

    application = Application(
        models,
        metrics,
        settings.limits_share,
        token=settings.token,
        origins=Origins(settings.host, settings.allowed_hosts),
        decoders=max(1, cores() // settings.processes),
        closed=closed,
    )
    loop = asyncio.get_event_loop()
    if isinstance(loop, WorkerLoop):
        loop.drain = application.drain
    if parent is not None and sys.platform != "win32":
        _end_with(parent.sentinel, loop)
    # What is there now stays: the garbage collector need not look through it again and again.
    gc.collect()
    gc.freeze()
    writer.send_bytes(b"r")
    return application


def _end_with(sentinel: int, loop: asyncio.AbstractEventLoop) -> None:
    """Ends this process as by SIGTERM when another one has ended."""

    def end() -> None:
        loop.remove_reader(sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(sentinel, end)
