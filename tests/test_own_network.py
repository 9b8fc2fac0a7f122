"""A network of a user's own: from a file of theirs to a verified ONNX file, by the command line alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from gdas_tf.cli.main import main
from gdas_tf.errors import UsageError
from gdas_tf.networks.registry import NETWORKS, Network, build

PLUGIN = """
import keras
from keras import layers
from gdas_tf.networks.registry import NETWORKS, Network

def mine(genotype, image_shape, classes, *, training=False, channels=36, **options):
    image = keras.Input(image_shape, name="image")
    x = layers.Conv2D(channels, 3, activation="relu", name="only_conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(classes, name="logits")(x)
    if training:
        return keras.Model(image, {"logits": logits})
    return keras.Model(image, layers.Softmax(name="probabilities")(logits))

NETWORKS.register("mine", Network(mine, takes_genotype=False))
"""


def test_a_users_network(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(NETWORKS, "_items", dict(NETWORKS._items))  # other tests see none of it
    Path("mine.py").write_text(PLUGIN)
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), np.uint8)
    np.savez("noise.npz", images=images, labels=np.arange(60) % 3)
    tiny = "--search-epochs 1 --search-channels 2 --search-nodes 1 --search-batch-size 8 --retrain-epochs 1"
    tiny += " --retrain-channels 4 --benchmark-seconds 0.02 --benchmark-rounds 1 --data noise.npz"
    tiny += " --search-operations skip_connect,conv_1x1 --export-formats onnx"
    own = ["--plugins", "mine.py", "--retrain-network", "mine"]
    assert main(["run", "run", *own, *tiny.split(), "--json"]) == 0
    from keras.saving import load_model

    assert "only_conv" in [layer.name for layer in load_model("run/model.keras").layers]
    formats = json.loads(Path("run/export/verification.json").read_text())["formats"]
    assert Path("run/export/model.onnx").exists() and "onnx" in formats


def test_what_does_not_fit_is_named(monkeypatch) -> None:
    with pytest.raises(UsageError, match="network derived: it is built of a genotype, and there is none"):
        build("derived", None, (8, 8, 1), 3)
    with pytest.raises(UsageError, match="unknown network 'deriwed'; did you mean derived"):
        build("deriwed", None, (8, 8, 1), 3)
    monkeypatch.setitem(NETWORKS._items, "mine", Network(lambda *_, **__: 1 / 0, takes_genotype=False))
    with pytest.raises(UsageError, match="network mine: a network .* cannot be built: division by zero"):
        build("mine", None, (8, 8, 1), 3)
