"""Workers: TF_CONFIG, and how they meet before TensorFlow connects them."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from gdas_tf.cluster import Cluster, meet
from gdas_tf.errors import RunError, UsageError

WORKERS = {"worker": ["host0:1000", "host1:1001"]}
FIRST = {"type": "worker", "index": 0}


def _set(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    monkeypatch.setenv("TF_CONFIG", value if isinstance(value, str) else json.dumps(value))


def test_workers_are_numbered_after_the_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {"worker": ["host1:1001", "host2:1002"], "chief": ["host0:1000"]}
    _set(monkeypatch, {"cluster": jobs, "task": {"type": "worker", "index": 1}})
    cluster = Cluster.from_environment()
    assert cluster == Cluster(("host0:1000", "host1:1001", "host2:1002"), 2)
    assert not cluster.chief
    _set(monkeypatch, {"cluster": WORKERS, "task": FIRST})
    assert Cluster.from_environment().chief


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "TF_CONFIG: it is not set; several workers are named by it, as "),
        ('{"cluster": ', "TF_CONFIG: found .*, which is no JSON; it must be as"),
        ({"cluster": WORKERS}, "TF_CONFIG: found .*; it must name workers by host:port"),
        ([1], "must name workers"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": 2}}, "must name workers"),
        ({"cluster": WORKERS, "task": {"type": "ps", "index": 0}}, "must name workers"),
        ({"cluster": {**WORKERS, "ps": ["host2:1002"]}, "task": FIRST}, "must name workers"),
        ({"cluster": {"worker": ["host0:1000", "host0:1000"]}, "task": FIRST}, "must name workers"),
        ({"cluster": {"worker": ["host0", "host1:1001"]}, "task": FIRST}, "must name workers"),
        ({"cluster": {"worker": ["host0:70000"]}, "task": FIRST}, "must name workers"),
    ],
)
def test_a_damaged_tf_config_is_refused(monkeypatch: pytest.MonkeyPatch, value: object, message: str) -> None:
    _set(monkeypatch, value)
    with pytest.raises(UsageError, match=message):
        Cluster.from_environment()


@pytest.fixture
def addresses() -> tuple[str, ...]:
    """Three addresses of this machine; nobody listens there."""
    doors = [socket.create_server(("localhost", 0)) for _ in range(3)]
    found = tuple(f"localhost:{door.getsockname()[1]}" for door in doors)
    for door in doors:
        door.close()
    return found


def _meet(
    addresses: tuple[str, ...], agreements: dict[int, str], seconds: float
) -> dict[int, Exception | None]:
    """What comes of the workers that come, by number."""
    ends: dict[int, Exception | None] = {}

    def come(number: int, agreement: str) -> None:
        try:
            ends[number] = meet(Cluster(addresses, number), agreement, seconds)
        except (RunError, UsageError) as error:
            ends[number] = error

    threads = [threading.Thread(target=come, args=item) for item in agreements.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return ends


def test_workers_meet_in_any_order(addresses: tuple[str, ...]) -> None:
    assert _meet(addresses, {2: "same", 1: "same", 0: "same"}, 10) == {0: None, 1: None, 2: None}
    socket.create_server(("", int(addresses[0].rpartition(":")[2]))).close()  # free for TensorFlow


def test_a_worker_that_never_comes_is_named(addresses: tuple[str, ...]) -> None:
    ends = _meet(addresses, {0: "same", 2: "same"}, 0.5)
    assert isinstance(ends[0], RunError)
    assert f"worker 1 ({addresses[1]}) did not come within 0.5 s; start the same command" in str(ends[0])
    assert "the chief" in str(ends[2])


def test_a_chief_that_never_comes_is_named(addresses: tuple[str, ...]) -> None:
    ends = _meet(addresses, {1: "same"}, 0.3)
    assert f"the chief ({addresses[0]}) did not answer within 0.3 s" in str(ends[1])


def test_workers_of_another_command_are_refused(addresses: tuple[str, ...]) -> None:
    ends = _meet(addresses, {0: "same", 1: "another"}, 10)
    assert isinstance(ends[0], UsageError)
    assert f"worker 1 ({addresses[1]}) was started with another configuration" in str(ends[0])


def test_a_port_that_is_taken_is_named(addresses: tuple[str, ...]) -> None:
    with socket.create_server(("", int(addresses[0].rpartition(":")[2]))):
        ends = _meet(addresses, {0: "same"}, 1)
    assert "TF_CONFIG: cannot listen at port" in str(ends[0])
