"""`gdas-tf tune`: what its arguments mean, what is refused, and whole tunings, killed and side by side."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from study_helpers import lay_out

pytest.importorskip("keras_tuner")

from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.tuning.study import TuningFolder

SMALL = "--plugins small.py --data noise.npz --data-padding 0 --retrain-epochs 2"
SMALL += " --genotype GDAS_V1 --retrain-network small --retrain-batch-size 16"
SMALL += " --retrain-auxiliary-weight 0 --retrain-cutout 0"
VARY = "--vary retrain.learning_rate=1e-3..1:log --vary retrain.nesterov=true,false"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with noise.npz and small.py."""
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, "  one: {cells: random}\n", seeds=2, random=2)
    return tmp_path


def _answer(monkeypatch: pytest.MonkeyPatch, arguments: str) -> list:
    """The folder and the tuning that a command line asks for; nothing is done."""
    asked = []

    def record(folder, tuning):
        asked.extend([str(folder), tuning])
        raise KeyboardInterrupt

    monkeypatch.setattr("gdas_tf.tuning.runner.run_tuning", record)
    assert main(["tune", *arguments.split()]) == 130
    return asked


def test_what_there_is_says_what_is_tuned(folder, monkeypatch) -> None:
    learning = "--vary search.architecture_learning_rate=1e-4..1e-2:log"
    path, tuning = _answer(monkeypatch, learning)
    assert path == "runs/tune-digits-quick" and (tuning.objective, tuning.searches) == ("search-loss", True)
    assert (tuning.tuner, tuning.trials, tuning.genotype) == ("random", 20, None)

    path, tuning = _answer(monkeypatch, f"out --genotype GDAS_V1 --preset small {VARY}")
    assert path == "out" and (tuning.objective, tuning.searches) == ("retrain-loss", False)
    assert Genotype.from_json(tuning.genotype) == Genotype.load("GDAS_V1")
    assert tuning.base.data.name == "cifar10"

    config = Config.preset("quick").override({"retrain.epochs": 7})
    run = Run.create("runs/mine", config)
    path, tuning = _answer(monkeypatch, f"runs/mine {learning}")
    assert path == "runs/tune-mine" and tuning.searches and tuning.base == config
    Genotype.load("GDAS_V1").save(run.file("genotype.json"))
    path, tuning = _answer(monkeypatch, f"runs/mine there --tuner hyperband --factor 2 {VARY}")
    assert path == "there" and not tuning.searches and tuning.most_epochs == 7
    assert (tuning.objective, tuning.trials, tuning.factor) == ("retrain-loss", None, 2)
    path, tuning = _answer(monkeypatch, f"runs/mine --objective search-accuracy {learning}")
    assert tuning.searches and tuning.genotype is None

    (folder / "my.yaml").write_text("retrain: {drop_path: [0, 0.1], channels: 4..8}\n")
    _, tuning = _answer(monkeypatch, "--network resnet20 --space my.yaml --vary retrain.channels=8,16")
    assert not tuning.searches and tuning.genotype is None
    assert {name: one.describe() for name, one in tuning.dimensions.items()} == {
        "retrain.drop_path": "0,0.1",
        "retrain.channels": "8,16",
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--genotype GDAS_V1", "vary: nothing is varied; give a field and its range"),
        (
            "--genotype GDAS_V1 --vary retrain.drop_path=0..2",
            "vary retrain.drop_path: found 2; it must be below 1",
        ),
        ("--genotype GDAS_V1 --vary retrain.drop=0,1", "did you mean retrain.drop_path?"),
        ("--genotype GDAS_V1 --vary search.channels=4,8", "the objective retrain-loss does not depend on it"),
        ("--genotype GDAS_V1 --objective search-loss --vary data.padding=0,1", "which is of a search"),
        ("--vary search.epochs=1..2 --tuner hyperband", "the tuner hyperband sets it"),
        ("--vary data.padding=0,1 --tuner hyperband --trials 3", "follows from the epochs and the factor"),
        (
            "--vary data.padding=0,1 --factor 3",
            "factor: it goes with the tuner hyperband, and the tuner is random",
        ),
        ("--vary data.padding=0,1 --trials 0", "trials: found 0"),
        ("--vary data.padding=0,1 --objective true-accuracy", "name it: --search-table"),
        ("--space none.yaml", "space file none.yaml: cannot read it"),
        ("out --resume", "tuning out: there is none; leave --resume out to begin it"),
        ("out other --vary data.padding=0,1", "the first is no run directory"),
    ],
)
def test_wrong_use_is_one_line(folder, capsys, arguments: str, told: str) -> None:
    assert main(["tune", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (folder / "runs").exists() and not (folder / "out").exists()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"KERASTUNER_TUNER_ID": "chief"}, "KERASTUNER_ORACLE_IP: it is not set"),
        (
            {"KERASTUNER_TUNER_ID": "a", "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": "x"},
            "KERASTUNER_ORACLE_PORT: found 'x'; accepted is a port",
        ),
        (
            {
                "KERASTUNER_TUNER_ID": "chief",
                "KERASTUNER_ORACLE_IP": "192.0.2.1",
                "KERASTUNER_ORACLE_PORT": "9",
            },
            "chief 192.0.2.1:9: cannot listen there",
        ),
    ],
)
def test_a_damaged_environment_is_one_line(folder, capsys, monkeypatch, environment, told: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["tune", "out", "--network", "resnet20", *VARY.split()]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not (folder / "out").exists()


def test_a_chief_that_never_comes_is_waited_for_a_bounded_time(folder, capsys, monkeypatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    values = {"TUNER_ID": "worker1", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": str(port)}
    for name, value in values.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    monkeypatch.setattr("gdas_tf.tuning.distributed.WAIT", 0.5)
    assert main(["tune", "out"]) == 1
    assert f"chief 127.0.0.1:{port}: no answer in 0.5 s; start it" in capsys.readouterr().err


def _start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "gdas_tf.cli", "tune", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "", **environment},
    )


def _wait_for(condition, process: subprocess.Popen, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_tuning_that_is_killed_goes_on_and_its_best_can_be_trained(folder, monkeypatch) -> None:
    arguments = ["out", *SMALL.split(), *VARY.split(), "--trials", "5", "--json"]
    process = _start(folder, *arguments)
    _wait_for(lambda: (folder / "out/trials/0002.json").exists(), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {one["number"]: one for one in TuningFolder(folder / "out").trials()}
    process = _start(folder, "out", "--resume", "--json")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert len(result["trials"]) == 5 and result["importance"] is None
    after = {one["number"]: one for one in TuningFolder(folder / "out").trials()}
    assert {number: after[number] for number in kept} == kept
    assert f"{len(kept)} trials have ended already" in err
    assert (
        main(
            ["retrain", "--genotype", "out/genotype.json", "--config", "out/best.yaml", "--run-dir", "better"]
        )
        == 0
    )
    assert Run.open("better").finished("retrain")
    assert main(["tune", "out"]) == 2  # it exists
    assert main(["tune", "out", "--report"]) == 0


@pytest.mark.slow
def test_a_chief_and_two_workers_do_a_tuning_and_one_that_is_killed_comes_back(folder) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    arguments = [*SMALL.split(), *VARY.split(), "--trials", "6", "--json"]
    processes = {
        name: _start(
            folder, "out", *(arguments if name == "chief" else ["--json"]), KERASTUNER_TUNER_ID=name, **where
        )
        for name in ("chief", "worker1", "worker2")
    }
    try:
        _wait_for(lambda: list((folder / "out").glob("trials/*.json")), processes["chief"])
        processes["worker1"].send_signal(signal.SIGKILL)
        processes["worker1"].communicate()
        processes["worker1"] = _start(folder, "out", "--json", KERASTUNER_TUNER_ID="worker1", **where)
        results = {}
        for name, process in processes.items():
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, f"{name}: {err}"
            results[name] = json.loads(out)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert [one["failed"] for one in results["chief"]["trials"]] == [None] * 6
    assert results["worker2"] == {"worker": "worker2", "trials": results["worker2"]["trials"]}
    assert results["worker2"]["trials"] >= 1
    scores = [one["score"] for one in results["chief"]["trials"]]
    assert scores == sorted(scores) and Path(folder / "out/best.yaml").is_file()
