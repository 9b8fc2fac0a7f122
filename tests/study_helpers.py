"""What tests of studies share: a study whose runs take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

PLUGIN = """
import contextlib
import os
import keras
from keras import layers
from gdas_tf.networks.registry import NETWORKS, Network

def small(genotype, image_shape, classes, *, training=False, seed=None, **options):
    if training and os.path.exists("break"):
        wanted = open("break").read().split()
        if str(seed) in wanted:
            raise ValueError("broken on purpose")
    if training and os.path.exists("fill") and str(seed) == open("fill").read():
        with contextlib.suppress(OSError), open("out/ballast", "wb", buffering=0) as file:
            while file.write(b"0" * 4096):
                pass
    image = keras.Input(image_shape, name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="only_conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(classes, name="logits")(x)
    if training:
        return keras.Model(image, {"logits": logits})
    return keras.Model(image, layers.Softmax(name="probabilities")(logits))

NETWORKS.register("small", Network(small))
"""

COMMON = """
plugins: [small.py]
data: {name: noise.npz, padding: 0}
retrain: {network: small, epochs: 2, batch_size: 16, auxiliary_weight: 0, drop_path: 0, cutout: 0}
search: {epochs: 4, channels: 2, cells: 1, nodes: 2, batch_size: 16, operations: "skip_connect,max_pool_3x3"}
"""


def lay_out(folder: Path, arms: str, seeds: int, random: int, network: str = "small") -> None:
    """Writes data, plugin and study.yaml into a folder.

    A process that loads the plugins of two folders needs another name for the second's network.
    """
    (folder / "small.py").write_text(PLUGIN.replace('"small"', f'"{network}"'))
    generator = np.random.default_rng(0)
    labels = np.arange(160) % 2
    images = generator.integers(0, 120, (160, 8, 8, 1), np.uint8) + 100 * labels[:, None, None, None]
    np.savez(folder / "noise.npz", images=images.astype(np.uint8), labels=labels)
    common = "".join(f"  {line}\n" for line in COMMON.replace("small,", f"{network},").strip().splitlines())
    (folder / "mine.yaml").write_text(f"seeds: {seeds}\nrandom: {random}\nconfig:\n{common}arms:\n{arms}")


def start(folder: Path, *arguments: str, **options) -> subprocess.Popen:
    """Starts the command line in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "gdas_tf.cli", "study", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
        **options,
    )


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Runs the command line in a folder; returns exit code, stdout and stderr."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err
