"""keras-tuner's distributed form: a chief, which has the oracle, and workers, which do the trials.

Every process gets three environment variables: KERASTUNER_TUNER_ID, `chief` or a name of its own for each
worker; KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, where the chief is to be found. They share the folder
of the tuning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Iterator, Mapping

from gdas_tf.errors import RunError, UsageError

VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")

WAIT = 600.0
"""Seconds that a worker waits for the chief to begin, which looks at the data first."""

SILENCE = 300.0
"""Seconds that a worker waits for an answer, as while somebody starts the chief again."""


@dataclasses.dataclass(frozen=True)
class Role:
    """What a process is.

    Args:
        name: of the process; empty if it is alone.
        host, port: of the chief.
    """

    name: str = ""
    host: str = ""
    port: int = 0

    @property
    def chief(self) -> bool:
        """Whether it has the oracle for others."""
        return "chief" in self.name

    @property
    def worker(self) -> bool:
        """Whether it asks a chief."""
        return bool(self.name) and not self.chief

    @property
    def address(self) -> str:
        """Where the chief is, as host:port."""
        return f"{self.host}:{self.port}"


def role(environment: Mapping[str, str] = os.environ) -> Role:
    """Returns what this process is, as its environment says.

    Raises:
        UsageError: some of the variables are missing, or the port is none.
    """
    values = [environment.get(name, "") for name in VARIABLES]
    if not any(values):
        return Role()
    for name, value in zip(VARIABLES, values, strict=True):
        if not value:
            raise UsageError(
                f"{name}: it is not set, and {' or '.join(one for one in VARIABLES if one != name)} is; "
                "a chief and its workers need all three, a tuning by one process none of them"
            )
    name, host, port = values
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"KERASTUNER_ORACLE_PORT: found {port!r}; accepted is a port, from 1 to 65535")
    return Role(name, host, int(port))


def check_address_is_free(chief: Role) -> None:
    """Makes sure, before a chief makes anything, that it can be reached where it says.

    Raises:
        UsageError: the port is in use, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            chief.host, chief.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UsageError(
            f"chief {chief.address}: cannot listen there: {error.strerror or error}; choose another "
            "KERASTUNER_ORACLE_IP, an address of this machine, or another KERASTUNER_ORACLE_PORT"
        ) from error


def wait_for_chief(worker: Role, seconds: float) -> None:
    """Waits until the chief answers.

    Raises:
        RunError: it does not, in that time.
    """
    import grpc

    with grpc.insecure_channel(worker.address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError as error:
            raise RunError(
                f"chief {worker.address}: no answer in {seconds:g} s; start it (KERASTUNER_TUNER_ID=chief, "
                "with the same address), or, if the tuning has ended, there is nothing left to do"
            ) from error


@contextlib.contextmanager
def asking(worker: Role) -> Iterator[None]:
    """Bounds the time that a worker waits for an answer, and tells of a chief that gives none.

    Raises:
        RunError: the chief no longer answers.
    """
    import grpc
    from keras_tuner.src.distribute import oracle_client

    before = oracle_client.TIMEOUT
    oracle_client.TIMEOUT = SILENCE  # an hour by default
    try:
        yield
    except grpc.RpcError as error:
        raise RunError(
            f"chief {worker.address}: it no longer answers; go on with it by resuming the tuning, and start "
            f"worker {worker.name} again"
        ) from error
    finally:
        oracle_client.TIMEOUT = before
