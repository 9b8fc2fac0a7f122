"""The HTTP server: loads the models, listens, and stops without losing what it accepted."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export.inference import Classifier, InputOptions
from gdas_tf.export.serving.application import Application, Limits
from gdas_tf.export.serving.metrics import Metrics, ModelMetrics
from gdas_tf.export.serving.repository import ModelFile
from gdas_tf.export.serving.served_model import ServedModel
from gdas_tf.machine import cores

LAME_DUCK_SECONDS = 0.5
"""After SIGTERM: how long answers still go out with `Connection: close`, so that clients go elsewhere."""

_INLINE_SECONDS = 0.004
"""A network that does its largest batch in less runs in the event loop; a thread would wait for its turn."""

_INLINE_ALONE_SECONDS = 0.02
"""The same for a process that has one core: a thread would take that from the event loop anyway."""

_SERIAL_SECONDS = 0.02
"""A network that does one image in less runs each batch on one core, and a batch at a time on each core.
Threads that share the work of small operators wait for each other longer than they compute."""

_DEFAULT_PROCESSES = 8
"""At most; what further cores do for a process, its threads do."""

MAX_PROCESSES = 256 if hasattr(socket, "send_fds") else 1
"""One where a connection cannot be handed to another process, as on Windows."""

MAX_CONNECTIONS = 1000
BACKLOG = 1024


@dataclass(frozen=True)
class ServerSettings:
    """How to serve.

    Args:
        host: address to listen on.
        port: TCP port; 0 for any free one.
        token: bearer token that clients must send, or None.
        threads: threads of onnxruntime per model; 0 for one or all cores, as the model is small or large;
            batches run at a time as far as there are cores for them.
        processes: server processes, each with the models; 0 for as many as `default_processes` says.
        max_batch_size: images of a batch at most.
        max_delay: seconds that a busy server waits for a batch to fill, at most.
        queue_size: images accepted and not answered per model and process, at most.
        max_images: images of one request, at most.
        deadline: seconds until a request is answered, else 504.
        limits: what a client may ask.
        access_log: whether to log each request.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    threads: int = 0
    processes: int = 0
    max_batch_size: int = 16
    max_delay: float = 0.002
    queue_size: int = 256
    max_images: int = 128
    deadline: float = 10.0
    limits: Limits = field(default_factory=Limits)
    access_log: bool = False


def is_loopback(host: str) -> bool:
    """Returns whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_processes(models: Sequence[ServedModel]) -> int:
    """Returns how many processes serve models best: one a core, if each of their batches runs on one core.

    Requests and networks then wait for no other's turn at Python's lock. A network that takes all cores for a
    batch has them in one process.
    """
    one_core = all(model.classifier.threads == 1 for model in models)
    return min(cores(), _DEFAULT_PROCESSES, MAX_PROCESSES) if one_core else 1


def load_models(
    files: Iterable[ModelFile], settings: ServerSettings, metrics: Metrics, options: InputOptions
) -> list[ServedModel]:
    """Loads the models to serve.

    Raises:
        UsageError: a file is damaged or no image classifier.
    """
    models = []
    for file in files:
        # Measured with one thread: the time that threads wait for each other is not the network's.
        classifier = Classifier.load(file.path, threads=settings.threads or 1, options=options)
        batch_seconds = classifier.processor_seconds(settings.max_batch_size)
        if not settings.threads and classifier.processor_seconds(1) > _SERIAL_SECONDS:
            classifier = Classifier.load(file.path, threads=cores(), options=options)
        runs = max(1, cores() // (max(1, settings.processes) * classifier.threads))
        models.append(
            ServedModel(
                file.name,
                file.version,
                classifier,
                max_batch_size=settings.max_batch_size,
                max_delay=settings.max_delay,
                queue_size=settings.queue_size,
                inline=batch_seconds < (_INLINE_SECONDS if runs > 1 else _INLINE_ALONE_SECONDS),
                runs=runs,
                max_images=settings.max_images,
                deadline=settings.deadline,
                metrics=ModelMetrics(metrics, file.name, str(file.version)),
                figures=_figures(classifier, file.run_directory),
            )
        )
    return models


def _figures(classifier: Classifier, run_directory: Path | None) -> dict[str, Any]:
    """Returns accuracy, parameters and precision, as far as the file or else the run directory has them."""
    found: dict[str, Any] = {}
    if run_directory is not None and (run_directory / "evaluation.json").is_file():
        from gdas_tf.files import read_json

        found.update(read_json(run_directory / "evaluation.json"))
    found.update(classifier.metadata)
    figures: dict[str, Any] = {}
    for name, kind in (("accuracy", float), ("parameters", int), ("precision", str)):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            figures[name] = kind(found[name])
    return figures


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        UsageError: there is no such address.
        RunError: the port is taken or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: no such address on this machine") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise RunError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port"
        ) from error
    return listener


def url(listener: socket.socket) -> str:
    """Returns the URL that a listening socket is reached at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Goes on answering for a moment after SIGTERM, then finishes what it accepted and ends.

    Args:
        application: what answers.
        settings: how to serve.
        connections: connections at a time, at most.
    """

    def __init__(self, application: Application, settings: ServerSettings, connections: int) -> None:
        log = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
        log["handlers"]["access"]["stream"] = "ext://sys.stderr"  # stdout is for what --json prints
        config = uvicorn.Config(
            application,
            log_config=log,
            log_level="info" if settings.access_log else "warning",
            access_log=settings.access_log,
            ws="none",
            lifespan="on",
            server_header=False,
            limit_concurrency=connections,
            backlog=BACKLOG,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=max(1, round(settings.deadline)) + 5,
        )
        super().__init__(config)
        self.application = application

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is told to end."""
        # What is there now stays: the garbage collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        super().run(sockets)


class _SingleServer(Server):
    """A server that is the whole program: it takes the signals, and says when it is ready."""

    def __init__(self, application: Application, settings: ServerSettings, ready: Callable[[], None]) -> None:
        super().__init__(application, settings, MAX_CONNECTIONS)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Takes SIGTERM and Ctrl-C; the second one ends the server at once."""
        if self.application.draining:
            self.should_exit = self.force_exit = True
        else:
            self.application.draining = True
            self._loop.call_soon_threadsafe(self._loop.call_later, LAME_DUCK_SECONDS, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def serve(
    models: Sequence[ServedModel],
    metrics: Metrics,
    settings: ServerSettings,
    listener: socket.socket,
    ready: Callable[[], None],
) -> bool:
    """Serves in this process until SIGTERM or Ctrl-C, then finishes what was accepted.

    Args:
        models: the models; the first is the default.
        metrics: those that the models count in.
        settings: how to serve.
        listener: the listening socket.
        ready: called once requests are answered.

    Returns:
        Whether it finished; a second signal ends it at once.
    """
    application = Application(models, metrics, settings.limits, settings.token)
    server = _SingleServer(application, settings, ready)
    server.run([listener])
    return not server.force_exit
