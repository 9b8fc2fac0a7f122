"""A search space of the user's own: from a plugin file, by the command line, to a verified ONNX file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gdas_tf.cli.main import main
from gdas_tf.spaces.base import SPACES
from gdas_tf.spaces.genotype import Genotype

PLUGIN = """
from gdas_tf.spaces.base import SPACES, SearchSpace

SPACES.register(
    "mine",
    SearchSpace(
        ("none", "conv_1x1", "avg_pool_3x3"), 2, name="mine", inputs=1, keep="all", output="last"
    ),
)
"""

TINY = """
    --search-epochs 1 --search-channels 4 --search-cells 1 --search-batch-size 8
    --retrain-epochs 1 --retrain-channels 4 --retrain-cells 1 --retrain-batch-size 16
    --export-formats onnx --benchmark-seconds 0.02 --benchmark-warm-up 1
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    yield path
    SPACES._items.pop("mine", None)


@pytest.mark.slow
def test_a_space_of_ones_own(plugin: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (120, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(120) % 3)
    run = tmp_path / "run"
    options = ["--data", str(tmp_path / "data.npz"), "--plugins", str(plugin), "--search-space", "mine"]
    assert main(["run", str(run), *options, *TINY.split()]) == 0
    genotype = Genotype.load(run / "genotype.json")
    genotype.check_fits(SPACES.get("mine"))
    assert (genotype.inputs, genotype.output) == (1, "last")
    assert [[edge.input for edge in node] for node in genotype.normal] == [[0], [0, 1]]
    (about,) = json.loads((run / "export" / "verification.json").read_text())["formats"].values()
    assert (run / "export" / about["file"]).is_file()
