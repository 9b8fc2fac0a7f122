"""Batches of a set that exceeds memory, streamed from the disk: time per batch, and memory of the process.

Makes a set of JPEG files in class folders (unless it is there), lets gdas-tf decode it into its cache, and
takes batches of a search and of a retraining in order, each in a process of its own. Memory is what a process
has resident at most, less what it has after TensorFlow's start (a convolution and a small data set). Of some
batches the images are compared with those that a resumed stage would take.

Usage:  python benchmarks/streaming.py --folder /tmp/streaming
Needs gdas-tf alone, and room on the disk: 100,000 images of 128x128 take 0.9 GB as files and 4.6 GiB decoded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

CLASSES = 100
STAGES = ("search", "retraining")


def make_set(folder: Path, images: int, size: int) -> None:
    """Writes the JPEG files that are not there yet, as many of each class."""
    per_class = images // CLASSES
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(
            pool.map(_make_class, *zip(*((folder, c, per_class, size) for c in range(CLASSES)), strict=True))
        )


def _make_class(folder: Path, number: int, images: int, size: int) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(number)
    place = folder / f"class{number:03d}"
    place.mkdir(parents=True, exist_ok=True)
    for image in range(images):
        coarse = generator.integers(0, 256, (8, 8, 3), np.uint8)
        file = place / f"{image:05d}.jpg"
        if not file.exists():
            Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(file, quality=90)


def resident() -> dict[str, float]:
    """Memory of this process in GiB: at most since the last call, now, and now without mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found = {
        name: int(lines[key].split()[0]) / 2**20
        for name, key in (("peak", "VmHWM"), ("now", "VmRSS"), ("anonymous", "RssAnon"))
    }
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Takes batches of one stage; returns seconds and memory."""
    import tensorflow as tf

    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import load_dataset, search_batches, train_batches
    from gdas_tf.training.augmenting import augmentation_of

    tf.nn.conv2d(tf.zeros((1, 8, 8, 3)), tf.zeros((3, 3, 3, 4)), 1, "SAME")
    list(tf.data.Dataset.range(4).map(lambda x: x + 1, num_parallel_calls=2))
    start = resident()
    begun = time.perf_counter()
    data = load_dataset(str(options.folder / "set"), seed=0, cache_dir=options.folder / "cache")
    loading = {"seconds": time.perf_counter() - begun, **resident()}

    config = Config.preset("imagenet")
    augmentation = augmentation_of(config, data, 0)
    batch = options.batch

    def batches(first: int, steps: int) -> Iterator[Any]:
        if options.stage == "search":
            return iter(search_batches(data, batch, 0, augmentation, first, steps))
        return iter(train_batches(data.train, batch, 0, augmentation, first, steps))

    seconds, digests = [], {}
    begun = time.perf_counter()
    for number, taken in enumerate(batches(0, options.steps)):
        if number in options.compare:
            digests[number] = _digest(taken)
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    streaming = resident()
    for number, digest in digests.items():
        if _digest(next(batches(number, 1))) != digest:
            raise SystemExit(f"batch {number} is another one when the stage begins with it")
    later = sorted(seconds[1:])
    return {
        "stage": options.stage,
        "images": len(data.train) + len(data.test),
        "image_shape": data.image_shape,
        "on_disk": type(data.train.images).__name__,
        "start": start,
        "loading": loading,
        "streaming": streaming,
        "beyond_start": {
            "loading": loading["peak"] - start["now"],
            "streaming": streaming["peak"] - start["now"],
        },
        "seconds": {"first": seconds[0], "median": later[len(later) // 2], "all": sum(seconds)},
        "steps": len(seconds),
        "compared": sorted(digests),
    }


def _digest(batch: Any) -> str:
    import tensorflow as tf

    digest = hashlib.sha256()
    for tensor in tf.nest.flatten(batch):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the set and its cache lie")
    parser.add_argument("--images", type=int, default=100_000, metavar="N", help="images [100000]")
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="height and width [128]")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="images a batch [128]")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="batches to take [200]")
    parser.add_argument("--json", default="streaming.json", metavar="FILE", help="what to write")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    options.compare = {0, 1, options.steps // 2, options.steps - 1}

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.stage:
        print(json.dumps(measure(options)))
        return
    make_set(options.folder / "set", options.images, options.size)
    results = []
    for stage in STAGES:
        command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        beyond, seconds = results[-1]["beyond_start"], results[-1]["seconds"]
        print(
            f"{stage}: {results[-1]['images']:,} images as {results[-1]['on_disk']}; "
            f"loaded in {results[-1]['loading']['seconds']:.0f} s; "
            f"a batch in {1000 * seconds['median']:.0f} ms (median of {results[-1]['steps'] - 1}); beyond "
            f"TensorFlow's start {beyond['loading']:.2f} GiB while loading, {beyond['streaming']:.2f} GiB "
            "while streaming",
            flush=True,
        )
        Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
