"""Several server processes behind one port.

Python runs one thread at a time in a process, so that one event loop and its networks get some one and a half
cores at most. Here a supervisor accepts the connections and hands each to the server process that has the
fewest; it takes no part in what goes over them. (Processes that accept from one socket share connections
badly: the first to wake takes all that wait, and clients keep connections for long.)

Supervisor and server process are joined by a pair of Unix sockets:

- supervisor to server: `CONNECTION` with the socket, `DRAIN` (say goodbye in answers), `END`; the end of the
  stream, when the supervisor has died, means both;
- server to supervisor: `READY`, `CLOSED` for each connection that has ended; the end of the stream means that
  the server process has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export.inference import InputOptions
from gdas_tf.export.serving.application import Application
from gdas_tf.export.serving.metrics import FOLDER_VARIABLE, Metrics
from gdas_tf.export.serving.repository import ModelFile
from gdas_tf.export.serving.server import (
    LAME_DUCK_SECONDS,
    MAX_CONNECTIONS,
    Server,
    ServerSettings,
    load_models,
)

CONNECTION, DRAIN, END = b"c", b"d", b"e"
READY, CLOSED = b"r", b"-"

_RESTART_SECONDS = 1.0
"""Until a server process that has died is replaced; twice as long each time that this fails."""

_MAX_RESTART_SECONDS = 60.0


def serve(
    files: Sequence[ModelFile],
    options: InputOptions,
    settings: ServerSettings,
    listener: socket.socket,
    ready: Callable[[], None],
    warn: Callable[[str], None],
) -> bool:
    """Serves in `settings.processes` processes until SIGTERM or Ctrl-C, then finishes what was accepted.

    Args:
        files: the models; each process loads them.
        options: what their files don't say.
        settings: how to serve.
        listener: the listening socket.
        ready: called once requests are answered.
        warn: called with what happens to a process that ends unexpectedly.

    Returns:
        Whether it finished; a second signal ends it at once.

    Raises:
        RunError: a process did not start.
    """
    share = dataclasses.replace(
        settings,
        # A request of `max_images` must fit.
        queue_size=max(settings.max_images, -(-settings.queue_size // settings.processes)),
        limits=dataclasses.replace(
            settings.limits,
            max_total_body=max(
                settings.limits.max_body, settings.limits.max_total_body // settings.processes
            ),
        ),
    )
    with _folder() as folder:
        supervisor = _Supervisor(pickle.dumps((list(files), options, share)), folder, listener, warn)
        return asyncio.run(supervisor.run(settings.processes, ready))


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Returns a new folder for the processes' counts: in memory, where the system has such a place.

    Raises:
        RunError: there is no room for it.
    """
    memory = "/dev/shm"
    try:
        return tempfile.TemporaryDirectory(
            prefix="gdas-tf-serve-",
            dir=memory if os.access(memory, os.W_OK) else None,
            ignore_cleanup_errors=True,
        )
    except OSError as error:
        raise RunError(f"the processes cannot share their counts: {error}; or use --processes 1") from error


class _Worker:
    """A server process, as the supervisor sees it.

    Args:
        process: the process.
        channel: the supervisor's end of the sockets between them.
    """

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self.process = process
        self.channel = channel
        self.connections = 0
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def serves(self) -> bool:
        """Whether it has become ready, and has not ended."""
        return self.ready.done() and self.ready.result()

    @property
    def end(self) -> str:
        """How it ended, for people."""
        code = self.process.returncode
        return f"server process {self.process.pid} ended unexpectedly, with exit code {code}"

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class _Supervisor:
    """Starts and replaces server processes, and deals out connections.

    Args:
        task: pickled, what `_work` needs.
        folder: where the processes count.
        listener: the listening socket.
        warn: takes what happens to processes.
    """

    def __init__(
        self, task: bytes, folder: str, listener: socket.socket, warn: Callable[[str], None]
    ) -> None:
        self._task = task
        self._folder = folder
        self._listener = listener
        self._warn = warn
        self._workers: list[_Worker] = []
        self._changed = asyncio.Event()  # a worker has become ready
        self._stopping = asyncio.Event()
        self._complete = True  # whether everything accepted was answered

    async def run(self, processes: int, ready: Callable[[], None]) -> bool:
        """See `serve`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self._listener.setblocking(False)
        tasks = []
        try:
            workers = [await self._start() for _ in range(processes)]
            tasks = [asyncio.create_task(self._keep(worker)) for worker in workers]
            started = await asyncio.gather(*(worker.ready for worker in workers))
            if self._stopping.is_set():
                return True
            if not all(started):
                raise RunError("a server process did not start; what it said stands above")
            accepting = asyncio.create_task(self._accept())
            ready()
            await self._stopping.wait()
            self._tell(DRAIN)
            await asyncio.sleep(LAME_DUCK_SECONDS)
            accepting.cancel()
            self._listener.close()
            self._tell(END)
            await asyncio.gather(*tasks)
            return self._complete
        finally:
            for worker in self._workers:
                worker.kill()
            for task in tasks:
                task.cancel()

    def _stop(self) -> None:
        """Takes SIGTERM and Ctrl-C; the second one ends all at once."""
        if self._stopping.is_set():
            for worker in self._workers:
                worker.kill()
        self._stopping.set()

    def _tell(self, message: bytes) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):  # it has died; `_watch` sees to that
                worker.channel.send(message)

    async def _start(self) -> _Worker:
        """Starts a server process.

        Raises:
            RunError: the system has no room for another process or file descriptor.
        """
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "gdas_tf.export.serving.processes", str(theirs.fileno())),
                    stdin=asyncio.subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, FOLDER_VARIABLE: self._folder},
                    # Ctrl-C in a terminal goes to the supervisor alone, which ends the others in order.
                    start_new_session=True,
                )
        except OSError as error:
            raise RunError(f"a server process cannot be started: {error.strerror}") from error
        ours.setblocking(False)
        worker = _Worker(process, ours)
        self._workers.append(worker)
        assert process.stdin is not None
        process.stdin.write(self._task)
        process.stdin.close()
        return worker

    async def _keep(self, worker: _Worker) -> None:
        """Watches a server process, and replaces it when it ends although it should not."""
        await self._watch(worker)
        if not worker.serves:  # it did not start, and would not the next time
            return
        reason, delay = worker.end, _RESTART_SECONDS
        while not self._stopping.is_set():
            self._warn(f"{reason}; another one starts in {delay:g} s")
            if await self._stops_within(delay):
                return
            delay = min(2 * delay, _MAX_RESTART_SECONDS)
            try:
                worker = await self._start()
            except RunError as error:
                reason = str(error)
                continue
            await self._watch(worker)
            reason = worker.end
            if worker.serves:
                delay = _RESTART_SECONDS

    async def _stops_within(self, seconds: float) -> bool:
        """Returns whether the server is stopped within some seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _watch(self, worker: _Worker) -> None:
        """Takes what a server process says until it ends."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while messages := await loop.sock_recv(worker.channel, 4096):
                worker.connections -= messages.count(CLOSED)
                if READY in messages:
                    worker.ready.set_result(True)
                    self._changed.set()
        self._workers.remove(worker)
        worker.channel.close()
        if await worker.process.wait() != 0 and self._stopping.is_set():
            self._complete = False
        mark_process_dead(worker.process.pid, self._folder)
        if not worker.ready.done():
            worker.ready.set_result(False)

    async def _accept(self) -> None:
        """Gives each new connection to the server process that has the fewest."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:  # it has gone away again, or there are no more file descriptors
                await asyncio.sleep(0.01)
                continue
            with connection:
                while not self._give(connection):
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), 0.01)

    def _give(self, connection: socket.socket) -> bool:
        """Returns whether a server process took a connection."""
        for worker in sorted(self._workers, key=lambda worker: worker.connections):
            if worker.serves:
                with contextlib.suppress(OSError):  # it has just died, or doesn't read
                    socket.send_fds(worker.channel, [CONNECTION], [connection.fileno()])
                    worker.connections += 1
                    return True
        return False


class _WorkerServer(Server):
    """The server of one process: its connections and its end come from the supervisor.

    Args:
        application: what answers.
        settings: how to serve.
        channel: to the supervisor.

    Attributes:
        orphaned: whether the supervisor has died.
    """

    def __init__(self, application: Application, settings: ServerSettings, channel: socket.socket) -> None:
        super().__init__(application, settings, -(-MAX_CONNECTIONS // settings.processes))
        self._channel = channel
        self._tasks: set[asyncio.Task[None]] = set()
        self.orphaned = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say_closed = functools.partial(self._say, CLOSED)

        class Protocol(self.config.http_protocol_class):  # as uvicorn makes it for a connection of its own
            def connection_lost(self, error: Exception | None) -> None:
                super().connection_lost(error)
                say_closed()

        self._protocol = functools.partial(
            Protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._read)
        self._say(READY)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Leaves signals to the supervisor, which gets them as well when they go to the whole group."""

    def _say(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # the supervisor has died; `_read` sees to that
            self._channel.send(message)

    def _read(self) -> None:
        """Takes one message of the supervisor."""
        loop = asyncio.get_running_loop()
        try:
            message, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if message == CONNECTION:
            task = loop.create_task(self._serve_connection(socket.socket(fileno=descriptors[0])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif message == DRAIN:
            self.application.draining = True
        else:
            loop.remove_reader(self._channel)
            if message == END:
                self.should_exit = True
            else:
                self.orphaned = self.application.draining = True
                loop.call_later(LAME_DUCK_SECONDS, self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def _serve_connection(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # the client has gone away
            connection.close()
            self._say(CLOSED)


def work() -> None:
    """Is a server process; see the top of this file."""
    # Also before the server runs: signals are the supervisor's.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    files, options, settings = pickle.load(sys.stdin.buffer)
    metrics = Metrics()
    try:
        models = load_models(files, settings, metrics, options)
    except (OSError, RunError, UsageError) as error:
        sys.exit(f"gdas-tf: failed: {error}")
    application = Application(models, metrics, settings.limits, settings.token)
    server = _WorkerServer(application, settings, channel)
    server.run([])
    if server.orphaned:  # nobody else is left to tidy up
        shutil.rmtree(os.environ[FOLDER_VARIABLE], ignore_errors=True)


if __name__ == "__main__":
    work()
