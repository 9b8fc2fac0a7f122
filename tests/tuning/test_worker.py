"""What the process of trials answers: trainings on D_T judged on D_V, searches in run directories, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_helpers import PLUGIN
from table_helpers import write_table

from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.tuning.worker import Performer

SMALL = {"plugins": ["small.py"], "data.name": "bright.npz", "data.padding": 0, "retrain.network": "small"}
SMALL |= {"retrain.epochs": 2, "retrain.batch_size": 16, "retrain.auxiliary_weight": 0, "retrain.cutout": 0}
TABLE = {"data.name": "bright.npz", "search.strategy": "random", "search.space": "nasbench201"}
TABLE |= {"search.table": "table.csv"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with images whose brightness is their class, a network, and a table."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "small.py").write_text(PLUGIN)
    labels = np.arange(150) % 2
    images = np.random.default_rng(0).integers(0, 120, (150, 8, 8, 1)) + 100 * labels[:, None, None, None]
    np.savez(folder / "bright.npz", images=images.astype(np.uint8), labels=labels)
    write_table(folder / "table.csv")
    return folder


@pytest.fixture
def folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, as the current one."""
    monkeypatch.chdir(place)
    return place


def _request(do: str, values: dict[str, Any], objective: str, **others: Any) -> dict[str, Any]:
    config = Config().override(values).to_dict()
    genotype = None if values is TABLE else Genotype.load("GDAS_V1").to_json()
    return {"do": do, "config": config, "genotype": genotype, "objective": objective, **others}


@pytest.mark.slow
def test_a_training_is_judged_on_d_v_and_repeats_itself(folder) -> None:
    performer = Performer()
    about = performer.answer(_request("check", SMALL, "retrain-loss", searches=False))
    assert about.pop("digest") and about == {"training_images": 60, "validation_images": 60}

    def outcome(**changes: Any) -> dict[str, Any]:
        values = {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
        return performer.answer(_request("perform", values, "retrain-loss", directory=None))

    first = outcome(retrain__learning_rate=0.1)
    trainer = performer._trainer
    other = outcome(retrain__learning_rate=0.01)
    assert performer._trainer is trainer  # the data are loaded once
    again = outcome(retrain__learning_rate=0.1)
    assert first["validation_images"] == 60
    for found in (first, again):
        for name in [name for name in found if name.startswith("seconds")]:
            assert found.pop(name) > 0
    assert again == first
    assert first["loss"] != other["loss"]
    # Other images are read anew.
    outcome(data__image_size=16)
    assert performer._trainer is not trainer and performer._trainer.data.image_shape == (16, 16, 1)


def test_a_search_is_a_run_directory_and_a_table_judges_its_cell(folder) -> None:
    performer = Performer()
    performer.answer(_request("check", TABLE, "true-accuracy", searches=True))
    request = _request("perform", TABLE, "true-accuracy", directory="trials/0001")
    found = performer.answer(request)
    run = Run.open("trials/0001")
    assert run.finished("search") and run.config == Config().override(TABLE)
    assert Genotype.load(run.file("genotype.json")).to_bars() == found["genotype"]
    assert 10 <= found["true_accuracy"] <= 60
    # Killed before its outcome was written, it is not searched again.
    lines = run.file("search/metrics.jsonl").read_text()
    assert performer.answer(request)["true_accuracy"] == found["true_accuracy"]
    assert run.file("search/metrics.jsonl").read_text() == lines


def test_what_fails_in_every_trial_is_found_first(folder) -> None:
    performer = Performer()
    for values, told in (
        ({**SMALL, "retrain.cutout": 8}, "retrain.cutout"),
        ({**SMALL, "data.name": "none.npz"}, "none.npz"),
        ({**TABLE, "search.table": "none.csv"}, "none.csv"),
    ):
        with pytest.raises(UsageError, match=told):
            performer.answer(_request("check", values, "retrain-loss", searches=False))
