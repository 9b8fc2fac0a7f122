"""The search step and the retraining step by one replica and by several, of one batch, in turns.

Each number of replicas runs in a process of its own, on the GPUs of this machine or, where there is none, on
as many logical CPUs; prints seconds a step and peak resident memory, and the ratio to one replica.

    python benchmarks/replicas.py
    python benchmarks/replicas.py --replicas 1,2,4,8 --batch 512 --steps 50    # of a machine with eight GPUs
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from figures import spread, three


def measure(options: argparse.Namespace, replicas: int) -> dict[str, Any]:
    """Seconds a step in this process, and its memory."""
    from gdas_tf.numerics.starting import start_tensorflow

    start_tensorflow()
    import numpy as np
    import tensorflow as tf

    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.split import Split
    from gdas_tf.distribution import start
    from gdas_tf.spaces.genotype import GENOTYPES
    from gdas_tf.training.retraining import learning_rate_of, model_to_train
    from gdas_tf.training.search import build_search_model, weight_optimizer

    distribution = start("mirrored" if replicas > 1 else "none", replicas, 1, "")
    shape = (options.batch, options.size, options.size, 3)
    generator = np.random.default_rng(0)
    labels = np.arange(options.batch, dtype=np.int32) % 10
    images = generator.integers(0, 256, shape, dtype=np.uint8)
    data = DataSet("noise", tuple("0123456789"), *[Split(images, labels)] * 2, (0.5,) * 3, (0.25,) * 3)
    sizes = {"channels": options.channels, "cells": options.cells, "precision": options.precision}
    values = {f"{stage}.{name}": value for stage in ("search", "retrain") for name, value in sizes.items()}
    config = Config().override(values)
    with distribution.scope():
        if options.stage == "search":
            model = build_search_model(config, data)
            model.compile(weight_optimizer(config.search, options.steps))
            model.build((distribution.part(options.batch), *shape[1:]))
            model.strategy.begin_epoch(0, 1)
        else:
            model = model_to_train(config, data, GENOTYPES["GDAS_V1"], learning_rate_of(config.retrain, 100))
    batch = (images / np.float32(255), labels)
    one = tf.data.Dataset.from_tensors((batch, batch) if options.stage == "search" else batch)
    seconds: list[float] = []

    class Times(tf.keras.callbacks.Callback):
        def on_train_batch_begin(self, number: int, logs: Any = None) -> None:
            self.begun = time.perf_counter()

        def on_train_batch_end(self, number: int, logs: Any = None) -> None:
            float(logs["loss"])  # waits for the step
            seconds.append(time.perf_counter() - self.begun)

    steps = options.warmup + options.steps
    batches = distribution.share(one.repeat(steps))
    model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[Times()])
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {"replicas": distribution.replicas, "seconds": seconds[options.warmup :], "peak_rss_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"batch": 64, "channels": 16, "cells": 2, "size": 32, "steps": 10, "rounds": 2, "warmup": 8}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--replicas", default="1,2", help="numbers of replicas")
    parser.add_argument("--stage", choices=("search", "retrain"), default="search")
    parser.add_argument("--precision", default="float32", help="number format of the computation")
    parser.add_argument("--json", type=Path, default=Path("replicas.json"), help="file to write")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options, options.one)))
        return
    numbers = [int(text) for text in options.replicas.split(",")]
    seconds: dict[int, list[list[float]]] = {number: [] for number in numbers}
    memory = dict.fromkeys(numbers, 0)
    for _ in range(options.rounds):
        for number in numbers:
            command = [sys.executable, *sys.argv, "--one", str(number)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds[number].append(found["seconds"])
            memory[number] = max(memory[number], found["peak_rss_mib"])
    results = {}
    print("| replicas | s a step, min / median / max | ratio to the first, likewise, by turns | peak MiB |")
    print("|---|---|---|---|")
    for number in numbers:
        steps = spread([value for turn in seconds[number] for value in turn])
        turns = zip(seconds[number], seconds[numbers[0]], strict=True)
        ratio = spread([spread(ours)["median"] / spread(first)["median"] for ours, first in turns])
        results[number] = {"step_s": steps, "ratio": ratio, "peak_rss_mib": memory[number]}
        print(f"| {number} | {three(steps, 3)} | {three(ratio)} | {memory[number]} |")
    about = {"date": date.today().isoformat(), **vars(options)}
    options.json.write_text(json.dumps({"about": about, "results": results}, default=str, indent=2) + "\n")


if __name__ == "__main__":
    main()
