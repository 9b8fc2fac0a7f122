"""One step of the search by each strategy beside GDAS's: random images, processes of their own, in turns.

Every registered strategy that trains a supernet is measured, with the defaults of its section; `--strategies`
takes some by name, with options as in `darts:order=second`. A step has one batch of D_T and one of D_V. What
a strategy does at the ends of epochs is not in it.

    python benchmarks/strategies.py
    python benchmarks/strategies.py --strategies gdas:gates=all,gdas:samples=4,darts,darts:order=second
    python benchmarks/strategies.py --spaces nasbench201 --cells 5
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from figures import spread, three

BASE = "gdas"
"""What all others are measured beside."""


def measure(options: argparse.Namespace) -> None:
    """Measure one strategy in this process and print one JSON line."""
    import numpy as np
    import tensorflow as tf

    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet, Split
    from gdas_tf.runtime import graphs_as_written, set_up
    from gdas_tf.training.search import build_search_model, weight_optimizer

    set_up()
    strategy, _, given = options.one.partition(":")
    values = {
        "search.strategy": strategy,
        "search.space": options.spaces,
        "search.channels": options.channels,
    }
    values |= {"search.cells": options.cells, "search.batch_size": options.batch}
    for item in filter(None, given.split(":")):
        name, _, value = item.partition("=")
        values[name if "." in name else f"{strategy}.{name}"] = value
    config = Config().override(values)
    pixels = np.zeros((20, options.size, options.size, 3), np.uint8)
    split = Split(pixels, np.arange(20, dtype=np.int32) % 10)
    names = tuple(map(str, range(10)))
    begin = time.perf_counter()
    model = build_search_model(config, DataSet("noise", names, split, split, (0.5,) * 3, (0.25,) * 3))
    model.compile(weight_optimizer(config.search, 100))
    model.build((options.batch, options.size, options.size, 3))
    model.strategy.begin_epoch(0, 1)
    x = tf.random.stateless_uniform((options.batch, options.size, options.size, 3), [0, 1])
    y = tf.random.stateless_uniform((options.batch,), [0, 2], 0, 10, tf.int32)
    step = tf.function(lambda: model.train_step(((x, y), (x, y))), autograph=False)
    times = []
    for number in range(options.warmup + options.steps):
        start = time.perf_counter()
        with graphs_as_written():  # as fit does
            float(step()["loss"])
        if number == 0:
            first = time.perf_counter() - begin
        if number >= options.warmup:
            times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({"step_s": statistics.median(times), "first_step_s": first, "peak_rss_mib": round(peak)})
    )


def run(name: str, space: str, options: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--one", name, "--spaces", space]
    for field in ("batch", "channels", "cells", "size", "steps", "warmup"):
        command += [f"--{field}", str(getattr(options, field))]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True)
    if output.returncode:
        sys.exit(f"{name} in the space {space} failed: {output.stderr.strip().splitlines()[-1]}")
    return json.loads(output.stdout.strip().splitlines()[-1])


def registered() -> list[str]:
    """The strategies that train a supernet by their defaults."""
    from gdas_tf.config.config import Config
    from gdas_tf.strategies.base import STRATEGIES

    found = []
    for name in STRATEGIES:
        strategy = STRATEGIES.get(name).from_config(Config().override({"search.strategy": name}))
        if strategy.trains_supernet:
            found.append(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strategies", help="comma list of NAME or NAME:option=value:…; by default all")
    parser.add_argument("--spaces", default="darts,nasbench201", help="comma list of search spaces")
    sizes = {"batch": 64, "channels": 16, "cells": 1, "size": 32, "steps": 10, "rounds": 3}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--warmup", type=int, default=6, help="steps before the measured ones, in which branches load"
    )
    parser.add_argument("--json", type=Path, default=Path("strategies.json"), help="file to write")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options)
        return

    names = options.strategies.split(",") if options.strategies else registered()
    names = [BASE, *(name for name in names if name != BASE)]
    summary: dict[str, dict] = {}
    for space in options.spaces.split(","):
        rows: dict[str, list[dict]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                rows[name].append(run(name, space, options))
                print(f"{space} {name:28} {json.dumps(rows[name][-1])}", file=sys.stderr, flush=True)
        print(f"\n{space}\n{'':28} {'step s':>8} {'MiB':>6} {'first s':>8}  step beside {BASE}'s")
        for name, measured in rows.items():
            # The two sides of a ratio come from the same turn.
            ratio = spread(
                [own["step_s"] / base["step_s"] for own, base in zip(measured, rows[BASE], strict=True)]
            )
            median = {key: statistics.median(row[key] for row in measured) for key in measured[0]}
            summary.setdefault(space, {})[name] = {**median, "ratio": ratio}
            print(
                f"{name:28} {median['step_s']:8.3f} {median['peak_rss_mib']:6.0f} "
                f"{median['first_step_s']:8.1f}  {three(ratio)}"
            )
    about = {"date": date.today().isoformat(), **vars(options)}
    options.json.write_text(json.dumps({"about": about, **summary}, default=str, indent=2) + "\n")


if __name__ == "__main__":
    main()
