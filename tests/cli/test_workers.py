"""Two processes that search together: one of them killed, both started again."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

_OPTIONS = [
    "--data=digits",
    "--preset=quick",
    "--search-epochs=3",
    "--search-channels=4",
    "--search-cells=1",
    "--search-nodes=1",
    "--search-operations=none,skip_connect,conv_1x1",
]


def _command(run: Path, *more: str, task: int | None = None, ports: tuple[int, ...] = ()) -> subprocess.Popen:
    environment = dict(os.environ)
    if task is not None:
        jobs = {"worker": [f"localhost:{port}" for port in ports]}
        environment["TF_CONFIG"] = json.dumps({"cluster": jobs, "task": {"type": "worker", "index": task}})
    command = [sys.executable, "-m", "gdas_tf.cli", "search", str(run), *_OPTIONS, *more]
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ports() -> tuple[int, int]:
    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(2)]
        return tuple(door.getsockname()[1] for door in doors)


@pytest.mark.slow
def test_workers_go_on_where_one_was_killed(tmp_path: Path) -> None:
    """They end with the bits of a search by two devices of one machine that nobody disturbed."""
    ports, run = _ports(), tmp_path / "workers"
    divided = ("--distribution=multi_worker",)
    workers = [_command(run, *divided, task=task, ports=ports) for task in range(2)]
    metrics = run / "search" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers[1].kill()
    workers[1].communicate()
    _, said = workers[0].communicate(timeout=300)
    assert workers[0].returncode == 1, said
    assert "a worker went away" in said.splitlines()[-1]
    assert "--resume" in said.splitlines()[-1]

    ports = _ports()
    again = [_command(run, *divided, "--resume", task=task, ports=ports) for task in range(2)]
    for worker in again:
        _, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
    whole = _command(tmp_path / "whole", "--distribution=mirrored", "--distribution-replicas=2")
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    one, other = (np.load(tmp_path / name / "search/checkpoint.npz") for name in ("workers", "whole"))
    assert one.files == other.files
    assert one["replicas"] == 2
    for name in set(one.files) - {"about.json"}:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.slow
def test_a_worker_that_never_comes_ends_in_one_line(tmp_path: Path) -> None:
    ports, run = _ports(), tmp_path / "run"
    lone = _command(run, "--distribution=multi_worker", "--distribution-wait=1", task=0, ports=ports)
    _, said = lone.communicate(timeout=120)
    assert lone.returncode == 1
    assert f"worker 1 (localhost:{ports[1]}) did not come within 1 s" in said.splitlines()[-1]
    assert "--distribution-wait" in said.splitlines()[-1]
    assert not run.exists()
