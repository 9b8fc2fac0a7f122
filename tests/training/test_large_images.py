"""Images over 64 pixels: their stem in the search, and the recipe for ImageNet, at tiny sizes."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from strategy_searches import images, settings

from gdas_tf.config.config import Config
from gdas_tf.config.former import completed
from gdas_tf.data.dataset import DataSet, Split
from gdas_tf.optimizers.schedules import exponential_schedule
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import GENOTYPES
from gdas_tf.spaces.macro import stem_of
from gdas_tf.supernet.stems import CifarStem, ImageNetStem
from gdas_tf.training.retraining import evaluate, learning_rate_of, retrain
from gdas_tf.training.search import build_search_model, search
from gdas_tf.training.trials import trial_config

TINY = {
    "search.nodes": 1,
    "search.channels": 2,
    "search.epochs": 1,
    "search.operations": "skip_connect,avg_pool_3x3",
}


@pytest.mark.parametrize("strategy", ["gdas", pytest.param("darts", marks=pytest.mark.slow)])
def test_strategies_search_on_large_images(tmp_path: Path, strategy: str) -> None:
    config, data = settings({**TINY, "search.strategy": strategy}), images(16, size=72)
    before, after = search(config, data, Run.create(tmp_path / "run", config))["normal"]
    assert np.isfinite(after).all() and (before != after).any()
    supernet = build_search_model(config, data).supernet
    assert isinstance(supernet.stem, ImageNetStem)
    assert [cell.reduce_first for cell in supernet.cells] == [True, False, True, False, True]


def test_the_stem_goes_by_the_size_of_images_unless_it_is_said() -> None:
    assert [stem_of("auto", *size) for size in ((64, 64), (65, 64), (32, 128))] == [
        "cifar",
        "imagenet",
        "cifar",
    ]
    config = settings({**TINY, "search.stem": "cifar"})
    supernet = build_search_model(config, images(8, size=72)).supernet
    assert isinstance(supernet.stem, CifarStem)
    assert not supernet.cells[0].reduce_first


def test_a_search_that_had_no_choice_of_the_stem_goes_on_with_its_own() -> None:
    wanted = {"search": Config().to_dict()["search"]}
    found = {"search": {name: value for name, value in wanted["search"].items() if name != "stem"}}
    assert wanted["search"]["stem"] == "auto"
    assert completed(found, wanted)["search"]["stem"] == "cifar"


@pytest.mark.slow
def test_the_recipe_for_imagenet(tmp_path: Path) -> None:
    sizes = {"retrain.epochs": 2, "retrain.batch_size": 8, "retrain.channels": 4, "retrain.cells": 1}
    config = Config.preset("imagenet").override(sizes)
    assert (config.data.crop, config.data.colour_jitter) == ("resized", (0.4, 0.4, 0.4, 0.2))
    data = images(16, size=72)
    run = Run.create(tmp_path / "run", config)
    result = evaluate(retrain(config, data, GENOTYPES["GDAS_V1"], run), data)
    lines = run.metrics("retrain")
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.097])
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert "top5_accuracy" not in result  # of three classes it is always all


def test_a_learning_rate_that_falls_by_a_factor_each_epoch() -> None:
    rate = exponential_schedule(0.1, 0.5, 3)
    assert [float(rate(step)) for step in range(7)] == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025])
    config = Config.preset("imagenet")
    assert float(learning_rate_of(config.retrain, 10)(2499)) == pytest.approx(0.1 * 0.97**249, rel=1e-5)
    assert trial_config(config, 3).retrain.schedule == "step"  # its few epochs go through a whole cosine


def test_top5_accuracy_counts_the_five_most_probable_classes() -> None:
    names = tuple("abcdefg")
    probabilities = np.float32([[0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02]])
    # A model that takes every image for the same: "f" and "g" are the two that it finds least probable.
    image = keras.Input((8, 8, 1))
    same = keras.layers.Dense(
        7, kernel_initializer="zeros", bias_initializer=lambda *_, **__: probabilities[0]
    )
    model = keras.Model(image, same(keras.layers.Flatten()(image)))
    labels = np.array([0, 4, 4, 5, 6, 6, 1, 3], np.int32)
    split = Split(np.zeros((8, 8, 8, 1), np.uint8), labels)
    result = evaluate(model, DataSet("same", names, split, split, (0.5,), (0.5,)))
    assert (result["accuracy"], result["top5_accuracy"]) == (1 / 8, 5 / 8)
