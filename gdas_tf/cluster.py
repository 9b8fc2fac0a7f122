"""The processes of a training on several machines: who they are (TF_CONFIG), and how they find each other.

TensorFlow waits for ever, and silently, for a worker that never comes. So the workers meet here first, within
a time, and the line that ends a wait in vain names those that are missing. Imports no TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gdas_tf.errors import RunError, UsageError

VARIABLE = "TF_CONFIG"

_EXAMPLE = (
    'as {"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}} with '
    "another index in each process"
)
_JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Cluster:
    """All workers, and which of them this process is.

    Args:
        addresses: `host:port` of each, the chief's first.
        number: position of this process among them.
    """

    addresses: tuple[str, ...]
    number: int

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.number == 0

    @classmethod
    def from_environment(cls) -> Cluster:
        """The cluster that the environment variable TF_CONFIG names.

        Raises:
            UsageError: it is not set, or damaged.
        """
        text = os.environ.get(VARIABLE, "")
        if not text.strip():
            raise UsageError(f"{VARIABLE}: it is not set; several workers are named by it, {_EXAMPLE}")
        try:
            found = json.loads(text)
        except ValueError as error:
            raise UsageError(
                f"{VARIABLE}: found {text[:80]!r}, which is no JSON; it must be {_EXAMPLE}"
            ) from error
        with contextlib.suppress(KeyError, TypeError, IndexError, ValueError):
            return cls._of(found["cluster"], found["task"])
        raise UsageError(
            f"{VARIABLE}: found {text[:200]}; it must name workers by host:port, each once, at most one of "
            f"them as chief and no other jobs, and this process among them, {_EXAMPLE}"
        )

    @classmethod
    def _of(cls, jobs: Mapping[str, Sequence[str]], task: Mapping[str, Any]) -> Cluster:
        addresses = tuple(address for job in _JOBS for address in jobs.get(job, ()))
        chiefs, index = len(jobs.get("chief", ())), int(task["index"])
        if not {*jobs} <= {*_JOBS} or chiefs > 1 or len(set(addresses)) < len(addresses):
            raise ValueError
        for address in addresses:
            _host_and_port(address)
        if not 0 <= index < len(jobs[task["type"]]):
            raise IndexError
        return cls(addresses, index + (chiefs if task["type"] == "worker" else 0))


def meet(cluster: Cluster, agreement: str, seconds: float) -> None:
    """Wait until all workers are there; the chief listens at its own address, which is free again afterwards.

    Args:
        cluster: of this process.
        agreement: what must be the same in all workers, as a digest of the configuration.
        seconds: how long to wait.

    Raises:
        RunError: somebody did not come, or the chief's port is taken.
        UsageError: the workers do not agree.
    """
    (_gather if cluster.chief else _join)(cluster, agreement, time.monotonic() + seconds, seconds)


def _gather(cluster: Cluster, agreement: str, deadline: float, seconds: float) -> None:
    port = _host_and_port(cluster.addresses[0])[1]
    came: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        try:
            door = stack.enter_context(socket.create_server(("", port)))
        except OSError as error:
            raise RunError(
                f"{VARIABLE}: cannot listen at port {port}, the chief's ({error.strerror}); name a free one"
            ) from error
        while len(came) < len(cluster.addresses) - 1:
            try:
                door.settimeout(max(deadline - time.monotonic(), 0.001))
                caller = stack.enter_context(door.accept()[0])
            except TimeoutError as error:
                missing = [i for i in range(1, len(cluster.addresses)) if i not in came]
                named = ", ".join(f"{i} ({cluster.addresses[i]})" for i in missing)
                raise RunError(
                    f"worker {named} did not come within {seconds:g} s; start the same command in every "
                    "worker, or wait longer by distribution.wait"
                ) from error
            number, said = _heard(caller)
            if number not in range(1, len(cluster.addresses)):  # somebody who scans ports
                continue
            if said != agreement:
                raise UsageError(
                    f"worker {number} ({cluster.addresses[number]}) was started with another configuration "
                    "or another version; start the same command in every worker"
                )
            came[number] = caller
        for caller in came.values():
            with contextlib.suppress(OSError):
                caller.sendall(b"go\n")


def _join(cluster: Cluster, agreement: str, deadline: float, seconds: float) -> None:
    address = cluster.addresses[0]
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RunError(
                f"the chief ({address}) did not answer within {seconds:g} s; start the same command in every "
                "worker, or wait longer by distribution.wait"
            )
        try:
            with socket.create_connection(_host_and_port(address), timeout=left) as line:
                line.sendall(f"{json.dumps([cluster.number, agreement])}\n".encode())
                if line.makefile("rb").readline() == b"go\n":
                    return
        except OSError:
            time.sleep(min(0.2, max(left, 0)))
            continue
        raise RunError(f"the chief ({address}) ended the wait for the workers; see what it said")


def _heard(caller: socket.socket) -> tuple[int, str]:
    """Number and agreement that a worker sends; -1 of anybody else."""
    try:
        caller.settimeout(5)
        number, agreement = json.loads(caller.makefile("rb").readline(1000))
        return int(number), str(agreement)
    except (OSError, ValueError, TypeError):
        return -1, ""


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not 0 < int(port) < 2**16:
        raise ValueError(address)
    return host.strip("[]"), int(port)
