"""What is served and how: settings, models, address."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export.inference import Classifier, InputOptions
from gdas_tf.export.serving.application import Limits
from gdas_tf.export.serving.metrics import Metrics, ModelMetrics
from gdas_tf.export.serving.repository import ModelFile
from gdas_tf.export.serving.served_model import ServedModel
from gdas_tf.machine import cores

_INLINE_SECONDS = 0.004
"""A network that does its largest batch in less runs in the event loop; a thread would wait for its turn."""

_INLINE_ALONE_SECONDS = 0.02
"""The same for a process that has one core: a thread would take that from the event loop anyway."""

_SERIAL_SECONDS = 0.02
"""A network that does one image in less runs each batch on one core, and a batch at a time on each core.
Threads that share the work of small operators wait for each other longer than they compute."""

_DEFAULT_PROCESSES = 8
"""At most; what further cores do for a process, its threads do."""

MAX_PROCESSES = 1 if sys.platform == "win32" else 256
"""One where processes cannot share a port."""

_QUEUED_REQUESTS = 4
"""Requests of the largest size that a process holds, if nothing else is said."""


@dataclass(frozen=True)
class ServerSettings:
    """How to serve.

    Args:
        host: address to listen on.
        port: TCP port; 0 for any free one.
        token: bearer token that clients must send, or None.
        allowed_hosts: names that the server is called by, besides those of the loopback and of `host`.
        threads: threads of onnxruntime per model; 0 for one or all cores, as the model is small or large;
            batches run at a time as far as there are cores for them.
        processes: server processes, each with the models; 0 for as many as `default_processes` says.
        max_batch_size: images of a batch at most.
        max_delay: seconds that a busy server waits for a batch to fill, at most.
        queue_size: images accepted and not answered per model, at most; 0 for some of the largest requests.
        max_images: images of one request, at most.
        deadline: seconds until a request is answered, else 504.
        limits: what a client may ask.
        access_log: whether to log each request.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    threads: int = 0
    processes: int = 0
    max_batch_size: int = 16
    max_delay: float = 0.002
    queue_size: int = 0
    max_images: int = 128
    deadline: float = 10.0
    limits: Limits = field(default_factory=Limits)
    access_log: bool = False

    @property
    def queue_share(self) -> int:
        """Images that one of the processes accepts: a request of the largest size at least."""
        share = -(-self.queue_size // max(1, self.processes)) or _QUEUED_REQUESTS * self.max_images
        return max(self.max_images, share)

    @property
    def limits_share(self) -> Limits:
        """The limits of one of the processes."""
        bodies = self.limits.max_total_body // max(1, self.processes)
        return replace(self.limits, max_total_body=max(bodies, _QUEUED_REQUESTS * self.limits.max_body))


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
                queue_size=settings.queue_share,
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


def reserve(host: str, port: int) -> socket.socket:
    """Returns a socket that holds an address, so that no other program takes it, and does not listen.

    The server's processes listen on sockets of their own, among which the system deals out connections
    (SO_REUSEPORT). That alone would also let a second server take part of the connections.

    Raises:
        UsageError: there is no such address.
        RunError: the port is taken or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"ServerSettings.host {host}: no such address on this machine") from error
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
        if hasattr(socket, "SO_REUSEPORT"):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        held.close()
        raise RunError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another ServerSettings.port"
        ) from error
    return held


def url(held: socket.socket) -> str:
    """Returns the URL of an address that a socket holds."""
    host, port = held.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
