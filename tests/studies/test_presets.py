"""What a preset would take, of timings that are made up here."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.pipeline.division import Costs, Images, seconds_of_search
from gdas_tf.studies import presets
from gdas_tf.studies.executors import Task
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.presets import Estimate, estimate
from gdas_tf.training.seconds import Seconds, TrialSeconds


class Timed:
    """Answers as a process would whose steps take half a second, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def submit(self, task: Task) -> concurrent.futures.Future[dict[str, Any]]:
        self.tasks.append(task)
        study = StudyFolder(task.folder).study()
        arm = task.names[0]
        self.data = dict(np.load(study.arm_config(arm).data.name))
        few = Images(training=256, d_t=128, d_v=128, test=10)
        retrain = Seconds(before=4.0, step=0.5, ending=0.0, spent=6.0)
        costs = Costs(few, retrain, Seconds(before=2.0, step=0.5, ending=0.0, spent=4.0))
        if study.arm_config(arm).search.strategy == "robust":
            trial = TrialSeconds(to_start=5.0, before=3.0, step=0.5, judging=1.0, judged=128)
            costs = costs._replace(judging=(1.0, 0.01), trial=trial)
        found = {**costs.to_plain(), "spent": 10.0}
        future: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        future.set_result({"ok": True, "result": {arm: found}, "seconds": 20.0, "peak_mib": 900.0})
        return future


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Timed:
    timed = Timed()

    @contextlib.contextmanager
    def opened(*arguments: Any) -> Iterator[Timed]:
        yield timed

    monkeypatch.setattr(presets, "opened", opened)
    return timed


def test_steps_are_those_of_all_images(machine: Timed) -> None:
    told: list[Estimate] = []
    found = estimate((48, 64, 3), 10, 4000, ["quick"], told.append)
    assert told == found
    # 30 epochs of 31 steps of 64 of a half; 40 epochs of 62 steps of 64 of all.
    assert found[0].search == pytest.approx(2.0 + 0.5 * 30 * 31)
    assert found[0].training == pytest.approx(20.0 - 10.0 + 3.0 + 4.0 + 0.5 * 40 * 62)
    assert found[0].memory == pytest.approx(900 + 2 * 4000 * 48 * 64 * 3 / 2**20)
    assert machine.data["x_train"].shape[1:] == (48, 64, 3) and len(machine.data["x_train"]) == 256
    assert set(machine.data["y_train"].tolist()) == set(range(10))


def test_trainings_of_candidates_count_with_all_images(machine: Timed) -> None:
    found = estimate((32, 32, 3), 300, 500, ["robust"])
    assert len(machine.data["x_train"]) == 600  # every class has images
    config = Config.preset("robust")
    trial = TrialSeconds(to_start=5.0, before=3.0, step=0.5, judging=1.0, judged=128)
    search = Seconds(before=2.0, step=0.5, ending=0.0, spent=4.0)
    costs = Costs(Images(500, 250, 250, 0), search, search, (1.0, 0.01), trial)
    assert found[0].search == pytest.approx(seconds_of_search(config, costs))
    assert found[0].search > seconds_of_search(config, costs._replace(trial=None))


def test_a_preset_that_does_not_fit_the_images_says_so(machine: Timed) -> None:
    found = estimate((8, 500, 3), 10, 4000, ["paper", "quick"])
    assert found[0].problem is not None and found[0].problem.startswith("retrain.cutout: found 16 pixels")
    assert found[1].problem is None and len(machine.tasks) == 1
    with pytest.raises(UsageError, match="found 'fast'"):
        estimate((8, 8, 1), 2, 10, ["fast"])
