"""A search space of a YAML file, with an own operation: from its first line to a served ONNX file."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from serving_helpers import serving

from gdas_tf.cli.main import main
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype

SPACE = """
plugins: [blur.py]
operations: [skip_connect, blur_2x2, conv_3x3]
inputs: 1
nodes: 2
keep: all
output: last
reduction: false
macro:
  between: residual
  stem: 1
  preprocess: false
  head_norm: true
"""

PLUGIN = """
import keras
import tensorflow as tf
from gdas_tf.operations.base import OPERATIONS, Operation


class Blur(Operation):
    name = "blur_2x2"

    def compute(self, x, kernels, stride, norm):
        return tf.nn.avg_pool2d(x, 2, stride, "SAME")

    def layers(self, build, x, stride, name):
        return keras.layers.AveragePooling2D(2, strides=stride, padding="same", name=name)(x)


OPERATIONS.register("blur_2x2", Blur())
"""

SEARCH = "--search-epochs 1 --search-channels 4 --search-cells 1 --search-batch-size 8"
RETRAIN = """
    --retrain-epochs 1 --retrain-channels 4 --retrain-cells 1 --retrain-batch-size 16
    --export-formats onnx --benchmark-seconds 0.02 --benchmark-warm-up 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OPERATIONS, "_items", dict(OPERATIONS._items))  # other tests see none of it
    images = np.random.default_rng(0).integers(0, 255, (120, 8, 8, 1), np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(120) % 3)
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text(SPACE)
    (tmp_path / "space" / "blur.py").write_text(PLUGIN)
    return tmp_path


def test_a_space_of_a_file(folder: Path, capsys: pytest.CaptureFixture) -> None:
    search = ["search", "run", "--data", "data.npz", "--search-space", "space/mine.yaml", *SEARCH.split()]
    assert main(search) == 0
    (folder / "space" / "mine.yaml").unlink()  # the run directory has kept it
    assert main(["run", "run", "--resume", *RETRAIN.split()]) == 0
    config = Run.open("run").config
    assert config.space.operations == ("skip_connect", "blur_2x2", "conv_3x3")
    genotype = Genotype.load("run/genotype.json")
    genotype.check_fits(config.space)
    assert (genotype.space, genotype.between) == ("custom", "residual")
    assert "Residual block" in (folder / "run" / "pictures" / "reduction.svg").read_text()
    assert "onnx" in json.loads((folder / "run" / "export" / "verification.json").read_text())["formats"]
    with serving("run/export/model.onnx") as server, urllib.request.urlopen(f"{server.url}/") as answer:
        assert answer.status == 200

    capsys.readouterr()
    assert main(["retrain", "other", "--genotype", "run/genotype.json", "--data", "data.npz"]) == 2
    assert "custom is a space that a YAML file describes; name that file" in capsys.readouterr().err
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("blur.py", "tf.nn.avg_pool2d(x, 2, stride", "tf.nn.avg_pool2d(x, 2, 2"),
            "operation blur_2x2 at str",
        ),
        (("blur.py", "import keras", "import keras, nowhere"), "plugin .*blur.py, line 2: .*nowhere"),
        (
            ("mine.yaml", "blur_2x2", "blur_3x3"),
            "mine.yaml: unknown operation 'blur_3x3'; did you mean blur_2x2",
        ),
        (("mine.yaml", "stem: 1", "stem: 2"), "mine.yaml: stem is 2 and preprocess is False"),
    ],
)
def test_what_cannot_be_searched_leaves_nothing_behind(
    folder: Path, change: tuple[str, str, str], message: str, capsys: pytest.CaptureFixture
) -> None:
    name, old, new = change
    path = folder / "space" / name
    path.write_text(path.read_text().replace(old, new))
    search = ["search", "run", "--data", "data.npz", "--search-space", "space/mine.yaml", *SEARCH.split()]
    assert main(search) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line), line
    assert not (folder / "run").exists()
