"""A study on the workers of a dask scheduler, one of which is killed on the way."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from study_helpers import lay_out, run, start

pytest.importorskip("distributed")

from gdas_tf.errors import UsageError
from gdas_tf.studies.executors import DaskExecutor

pytestmark = pytest.mark.slow


def dask(folder, name: str, *arguments: str) -> subprocess.Popen:
    """Starts a program of dask, whose output goes to a file of its name."""
    module = f"distributed.cli.dask_{name.split('-')[0]}"
    with open(folder / f"{name}.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--no-dashboard"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_for(condition, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return found


def test_a_worker_that_is_killed_is_stood_in_for(tmp_path) -> None:
    lay_out(tmp_path, "  one: {cells: random}\n  two: {cells: random}\n", seeds=2, random=2)
    programs = [dask(tmp_path, "scheduler", "--port", "0", "--host", "127.0.0.1")]
    try:
        log = tmp_path / "scheduler.log"
        address = wait_for(lambda: re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text()))[1]
        for number in (1, 2):
            programs.append(dask(tmp_path, f"worker-{number}", address, "--nthreads", "1", "--no-nanny"))
        study = start(tmp_path, "mine.yaml", "out", "--executor", "dask", "--scheduler", address, "--json")
        wait_for(lambda: len(list((tmp_path / "out" / "runs").glob("*/config.yaml"))) >= 2)
        programs[1].send_signal(signal.SIGKILL)
        out, err = study.communicate(timeout=300)
        assert study.returncode == 0, err
        result = json.loads(out)
        assert result["failed"] == {}
        assert [arm["runs"] for arm in result["arms"]] == [2, 2]
    finally:
        for program in programs:
            program.kill()
            program.wait()


def test_a_scheduler_that_cannot_be_reached_is_told_of_in_one_line(tmp_path) -> None:
    lay_out(tmp_path, "  one: {cells: random}\n", seeds=2, random=2)
    code, _, err = run(tmp_path, "mine.yaml", "a", "--executor", "dask", "--scheduler", "tcp://127.0.0.1:9")
    assert code == 2
    assert "scheduler tcp://127.0.0.1:9: no answer in 10 s; start one (dask scheduler)" in err
    assert "Traceback" not in err
    assert not (tmp_path / "a").exists()


def test_without_the_package_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"distributed is not installed; install it \(pip install"):
        DaskExecutor("tcp://127.0.0.1:9")
