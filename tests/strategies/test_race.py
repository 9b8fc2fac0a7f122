"""Successive halving over candidates of any proposers, from what a user writes to a verified ONNX file."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.errors import RunError, UsageError
from gdas_tf.runs.journal import Journal
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import GENOTYPES, Genotype
from gdas_tf.strategies.base import Task
from gdas_tf.strategies.proposers import candidates_of
from gdas_tf.strategies.race import Race
from gdas_tf.training.trials import Outcome

SPACE = SearchSpace()


# ---- who takes part


def test_candidates_of_all_kinds(tmp_path) -> None:
    finished = tmp_path / "finished"
    finished.mkdir()
    (finished / "config.yaml").write_text("")
    GENOTYPES["DARTS_V2"].save(finished / "genotype.json")
    GENOTYPES["DARTS_V1"].save(tmp_path / "mine.txt")
    texts = [str(finished), "GDAS_V1", str(tmp_path / "mine.txt"), "random:2", "GDAS_V1", "random:1"]
    found = candidates_of(texts, SPACE, seed=3, fixed_reduction=False)
    labels = [*texts[:3], "random-0", "random-1", "random-2"]
    assert [candidate.label for candidate in found] == labels  # GDAS_V1 is there once
    assert [candidate.random for candidate in found] == [False] * 3 + [True] * 3
    assert found[0].genotype == GENOTYPES["DARTS_V2"] and found[1].genotype == GENOTYPES["GDAS_V1"]
    again = candidates_of(["random:3"], SPACE, seed=3, fixed_reduction=False)
    assert [one.genotype for one in again] == [one.genotype for one in found[3:]]
    other = candidates_of(["random:3"], SPACE, seed=4, fixed_reduction=False)
    assert not {one.genotype for one in again} & {one.genotype for one in other}
    assert candidates_of(["random:1"], SPACE, 3, fixed_reduction=True)[0].genotype.reduction is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GDAS_V2", "GDAS_V2 is no path and no name; did you mean GDAS_V1"),
        ("runs/none", "runs/none is no path and no name; accepted are run directories"),
        ("random:0", "found 'random:0'; accepted is random:N"),
        ("random:many", "found 'random:many'; accepted is random:N"),
        ("none.json", "none.json: there is no such file"),
        ("normal=sep3@0+sep3@1 reduction=fixed", "does not fit: normal cell: found 1 node"),
        ("normal=sep3@0 inputs=1 reduction=fixed", "does not fit: inputs is 1"),
        (
            "normal=" + "/".join(["conv_3x3@0+sep3@1"] * 4) + " reduction=fixed",
            "conv_3x3 is not in the search",
        ),
    ],
)
def test_a_candidate_that_does_not_fit(text, message) -> None:
    with pytest.raises(UsageError) as error:
        candidates_of([text], SPACE, 0, False)
    assert message in str(error.value) and str(error.value).startswith("race.candidates: ")


def test_a_run_that_is_not_finished_is_named(tmp_path) -> None:
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UsageError, match="this run has no genotype yet; derive one first"):
        candidates_of([str(tmp_path)], SPACE, 0, False)


def test_rungs_rise() -> None:
    with pytest.raises(UsageError, match=r"race\.epochs: found 3,3; each rung has more epochs"):
        Config().override({"search.strategy": "race", "race.epochs": (3, 3)})


# ---- the race itself


class Known:
    """Trials whose outcomes are known beforehand, by genotype and epochs."""

    def __init__(self, losses) -> None:
        self.losses, self.kept, self.trained = losses, None, []

    def remember(self, make):
        self.kept = self.kept or make()
        return self.kept

    def run_all(self, genotypes, epochs):
        self.trained.append((epochs, len(genotypes)))
        return [self.outcome(genotype, epochs) for genotype in genotypes]

    def outcome(self, genotype, epochs):
        loss = self.losses(genotype, epochs)
        failed = None if math.isfinite(loss) else "the training diverged"
        return Outcome(loss, 0.5, 10, 1.0, failed)


def _race(tmp_path, losses, **options) -> tuple[Race, Known, list]:
    race = Race(**options)
    race.build(Task(SPACE, {"normal": 0, "reduction": 0}, seed=1))
    race.journal = Journal(tmp_path / "candidates.jsonl")
    trials = Known(losses)
    return race, trials, list(race.search(trials))


def _number(genotype: Genotype) -> int:
    return int((genotype.name or "x-99").split("-")[1])


def test_the_best_part_goes_on(tmp_path) -> None:
    race, trials, rounds = _race(
        tmp_path,
        lambda genotype, epochs: abs(_number(genotype) - 4) + 1 / epochs,
        candidates=["random:9"],
        epochs=[1, 3, 9],
        keep=1 / 3,
    )
    assert trials.trained == [(1, 9), (3, 3), (9, 1)]
    assert race.best.label == "random-4"
    assert [line["best_loss"] for line in rounds] == [1, 1 / 3, 1 / 9]
    lines = [json.loads(line) for line in (tmp_path / "candidates.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1] * 9 + [2] * 3 + [3]
    assert [line["candidate"] for line in lines[9:12]] == ["random-4", "random-3", "random-5"]
    found = race.genotype({name: np.stack([array])[-1] for name, array in race.arrays().items()}, Config())
    assert found == race.best.genotype


def test_the_winner_is_never_worse_than_the_best_random_cell(tmp_path) -> None:
    """A published cell that is first in short trainings and last in long ones."""

    def losses(genotype: Genotype, epochs: int) -> float:
        return float(epochs) if genotype.name in GENOTYPES else 2.0 + 0.01 * _number(genotype)

    race, trials, rounds = _race(
        tmp_path, losses, candidates=["GDAS_V1", "DARTS_V1", "random:4"], epochs=[1, 9], keep=0.3
    )
    assert trials.trained == [(1, 6), (9, 3)]  # two by their losses, and the best random one
    assert race.best.label == "random-0"
    assert rounds[-1]["best_loss"] == rounds[-1]["random_loss"] == 2.0


def test_failures_are_last_and_all_of_them_end_the_race(tmp_path) -> None:
    race, _, rounds = _race(
        tmp_path,
        lambda genotype, epochs: math.inf if _number(genotype) < 3 else 1.0,
        candidates=["random:4"],
        epochs=[1, 2],
    )
    assert race.best.label == "random-3" and rounds[0]["failed"] == 3
    with pytest.raises(RunError, match="all 4 candidates failed"):
        _race(tmp_path, lambda *_: math.inf, candidates=["random:4"], epochs=[1, 2])


def test_what_was_lined_up_stays(tmp_path) -> None:
    path = tmp_path / "mine.json"
    GENOTYPES["DARTS_V2"].save(path)
    race, trials, _ = _race(tmp_path, lambda *_: 1.0, candidates=[str(path)], epochs=[1])
    path.unlink()
    list(race.search(trials))
    assert race.best.genotype == GENOTYPES["DARTS_V2"]


# ---- from the command line

TINY = (
    "--data noise.npz --data-padding 0 --search-strategy race --search-nodes 1 --race-candidates "
    "random:2,normal=sep3@0+skip@1\\ reduction=fixed --race-epochs 1,2 --race-channels 2 --race-cells 1 "
    "--race-batch-size 16 --race-learning-rate 0.1"
).replace("\\ ", "~")
REST = "--retrain-epochs 1 --retrain-channels 4 --benchmark-seconds 0.02 --benchmark-rounds 1"


def _words(text: str) -> list[str]:
    return [word.replace("~", " ") for word in text.split()]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (96, 8, 8, 1), np.uint8)
    np.savez("noise.npz", images=images, labels=np.arange(96) % 3)
    return tmp_path


@pytest.mark.slow
def test_from_the_command_line_killed_and_resumed(folder) -> None:
    command = [sys.executable, "-m", "gdas_tf.cli", "run", "run", *_words(f"{TINY} {REST}")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        trials = Path("run/search/trials")
        _wait_for(lambda: trials.is_dir() and list(trials.glob("[!.]*.json")))
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    _wait_for(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))
    shutil.copytree("run", "copy")
    done = {path.name: path.stat().st_mtime_ns for path in trials.glob("[!.]*.json")}
    assert 0 < len(done) < 5

    assert main(["run", "run", "--resume", "--json"]) == 0
    assert all((trials / name).stat().st_mtime_ns == written for name, written in done.items())
    formats = json.loads(Path("run/export/verification.json").read_text())["formats"]
    assert Path("run/export/model.onnx").exists() and "onnx" in formats
    assert Path("run/pictures/race.png").exists()

    # One that was not killed, with two jobs, ends the same to the last bit.
    assert main(["search", "other", *_words(TINY), "--race-jobs", "2", "--json"]) == 0
    for name in ("candidates.jsonl", "logits.npz"):
        assert Path("run/search", name).read_bytes() == Path("other/search", name).read_bytes(), name
    metrics = [
        [
            {**json.loads(line), "seconds": 0}
            for line in Path(run, "search/metrics.jsonl").read_text().splitlines()
        ]
        for run in ("run", "other")
    ]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 2


def test_a_candidate_that_does_not_fit_is_refused_before_anything_is_done(folder, capfd) -> None:
    words = _words(TINY)
    words[words.index("--race-candidates") + 1] = "random:2,GDAS_V1"
    assert main(["run", "run", *words]) == 2
    assert "--race-candidates: GDAS_V1 does not fit: normal cell: found 4 nodes" in capfd.readouterr().err
    assert not os.path.exists("run")


def _wait_for(what, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)
