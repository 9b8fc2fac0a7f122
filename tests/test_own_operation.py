"""An operation of a user's own: from a file of theirs to a verified ONNX file, by the command line alone."""

from pathlib import Path

import numpy as np
import pytest

from gdas_tf.cli.main import main
from gdas_tf.operations.base import OPERATIONS

PLUGIN = """
import tensorflow as tf, keras
from gdas_tf.operations.base import OPERATIONS, Operation

class Swish(Operation):
    name, short, color = NAME, "", "#334455"
    def kernel_shapes(self, channels, stride):
        return [(1, 1, channels, channels)]
    norms = lambda self, stride: 1
    def compute(self, x, kernels, stride, norm):
        return norm(tf.nn.conv2d(tf.nn.silu(x), kernels[0], stride, "SAME"))
    def layers(self, build, x, stride, name):
        x = keras.layers.Activation("silu", name=f"{name}_swish")(x)
        return build.batch_norm(build.conv(x, x.shape[-1], 1, f"{name}_conv", strides=stride), f"{name}_bn")
OPERATIONS.register(NAME, Swish())
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OPERATIONS, "_items", dict(OPERATIONS._items))  # other tests see none of it


def _run(name: str, plugin: str) -> int:
    Path(f"{name}.py").write_text(plugin.replace("NAME", repr(name)))
    np.savez("noise.npz", images=np.linspace(0, 1, 3840).reshape(60, 8, 8, 1), labels=np.arange(60) % 3)
    tiny = "--search-epochs 1 --search-channels 2 --search-nodes 1 --search-batch-size 8 --retrain-epochs 1"
    tiny += " --retrain-channels 4 --benchmark-seconds 0.02 --benchmark-rounds 1 --data noise.npz --json"
    tiny += " --export-formats onnx"
    return main(f"run run --plugins {name}.py --search-operations none,{name} {tiny}".split())


@pytest.mark.slow
def test_a_users_operation() -> None:
    assert _run("swish", PLUGIN) == 0
    assert "swish" in Path("run/genotype.json").read_text() and Path("run/export/model.onnx").exists()
    assert '"onnx"' in Path("run/export/verification.json").read_text()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("larger", "kernels[0], stride", "kernels[0], 1", "operation larger at stride 2 "),
        ("rounded", "tf.nn.silu(x)", "tf.round(x)", "it has no gradient by its input"),
        ("nowhere", "tensorflow as tf", "no_such_module", "no_such_module"),
    ],
)
def test_what_cannot_be_searched_is_one_line(name, old, new, message, capsys) -> None:
    assert _run(name, PLUGIN.replace(old, new)) == 2
    assert message in (said := capsys.readouterr().err) and len(said.strip().splitlines()) == 1, said
