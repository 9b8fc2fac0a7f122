"""A strategy of a user's own: from a file of theirs to a verified ONNX file, by the command line alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from gdas_tf.cli.main import main

PLUGIN = """
import tensorflow as tf
from keras import Variable
from pydantic import Field
from gdas_tf.config.fields import Section, Whole
from gdas_tf.strategies.base import STRATEGIES, Strategy
from gdas_tf.supernet.paths import Sampled

class MineConfig(Section):
    bonus: Whole = Field(0, ge=0, description="samples that skip_connect is given in advance")

class Mine(Strategy):
    '''Every operation with the same probability; the one that was drawn most often is kept.'''
    section = MineConfig

    def __init__(self, bonus):
        self.bonus = bonus
    def build(self, task):
        self.task, shape = task, (len(task.space.edges), len(task.space.operations))
        skip = tf.one_hot(task.space.operations.index("skip_connect"), shape[1])
        self.counts = {kind: Variable(tf.zeros(shape) + self.bonus * skip, name=kind) for kind in task.cells}
        self.variables = list(self.counts.values())
    def paths(self, step):
        edges, operations = self.counts["normal"].shape
        index = tf.random.stateless_uniform([2, edges], [self.task.seed, step], 0, operations, tf.int32)
        chosen = tf.one_hot(index, operations)
        for row, count in enumerate(self.counts.values()):
            count.assign_add(chosen[row])
        return tuple(Sampled(index[row], chosen[row], tf.ones(edges)) for row in range(2))
    def arrays(self):
        return {kind: count.numpy() for kind, count in self.counts.items()}

STRATEGIES.register("mine", Mine)
"""


@pytest.mark.slow
def test_a_users_strategy(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), np.uint8)
    np.savez("noise.npz", images=images, labels=np.arange(60) % 3)
    tiny = "--search-epochs 2 --search-channels 2 --search-nodes 1 --search-batch-size 8 --retrain-epochs 1"
    tiny += " --retrain-channels 4 --benchmark-seconds 0.02 --benchmark-rounds 1 --data noise.npz"
    tiny += " --search-operations none,skip_connect,conv_1x1 --export-formats onnx"
    own = ["--plugins", "mine.py", "--search-strategy", "mine", "--mine-bonus", "100"]
    assert main(["run", "run", *own, *tiny.split(), "--json"]) == 0
    assert "skip_connect" in Path("run/genotype.json").read_text()
    counts = np.load("run/search/logits.npz")["normal"]
    assert counts.sum((1, 2)).tolist() == [200, 206, 212]  # two edges; 3 steps an epoch
    formats = json.loads(Path("run/export/verification.json").read_text())["formats"]
    assert Path("run/export/model.onnx").exists() and "onnx" in formats
