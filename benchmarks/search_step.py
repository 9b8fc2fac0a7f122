"""The search step against PyTorch's: one weight and one architecture update on the same random images.

Runs the peer (../shared/bench/torch_supernet.py, or torch_nasbench201.py of that space) and gdas-tf in turns,
each in its own process, and prints seconds a step, peak resident memory, the time to the first finished step,
and the ratios.

    python benchmarks/search_step.py --torch-python /path/to/venv-with-torch/bin/python
    python benchmarks/search_step.py --size 8 --cells 1
    python benchmarks/search_step.py --space nasbench201 --cells 5
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

from figures import BESIDE, TORCH_PYTHON, spread, three

PEERS = BESIDE / "shared" / "bench"
PEER_OF = {"darts": "torch_supernet.py", "nasbench201": "torch_nasbench201.py"}


def ours(options: argparse.Namespace) -> None:
    """Measure gdas-tf in this process and print one JSON line."""
    import numpy as np
    import tensorflow as tf

    from gdas_tf.optimizers.loss_scale import loss_scaled
    from gdas_tf.optimizers.torch_sgd import SGD
    from gdas_tf.runtime import graphs_as_written, set_up
    from gdas_tf.spaces.base import SearchSpace
    from gdas_tf.strategies.gdas import GDAS
    from gdas_tf.supernet.branches import forward_branches
    from gdas_tf.supernet.network import Supernet
    from gdas_tf.training.search_model import SearchModel

    set_up()
    begin = time.perf_counter()
    if options.space == "darts":
        space = SearchSpace.named(options.operations, nodes=options.nodes)
    else:
        space = SearchSpace.named(space=options.space)
    sizes = {"channels": options.channels, "cells": options.cells}
    supernet = Supernet(space, 10, **sizes, jit_compile=options.jit, dtype=options.precision)
    strategy = GDAS()
    model = SearchModel(supernet, strategy)
    model.compile(loss_scaled(SGD(0.025), supernet.compute_dtype, masked=True))
    model.build((options.batch, options.size, options.size, 3))
    strategy.begin_epoch(0, 1)  # temperature 10
    if options.force:
        chosen = np.float32(space.operations.index(options.force) == np.arange(len(space.operations)))
        for logits in strategy.logits.values():
            logits.assign(np.tile(1e6 * chosen, (space.edge_count, 1)))
    x = tf.random.normal((options.batch, options.size, options.size, 3))
    y = tf.random.uniform((options.batch,), 0, 10, tf.int32)
    step = tf.function(lambda: model.train_step(((x, y), (x, y))), autograph=False)
    with graphs_as_written():  # as fit does
        step.get_concrete_function()
        traced = time.perf_counter() - begin
        float(step()["loss"])
    first = time.perf_counter() - begin
    times = []
    for number in range(options.warmup + options.steps):
        start = time.perf_counter()
        with graphs_as_written():
            float(step()["loss"])
        if number >= options.warmup:
            times.append(time.perf_counter() - start)
    result = {
        "framework": f"gdas-tf, tensorflow {tf.__version__}",
        "weights": supernet.count_trainable(),
        "edges": len(supernet.cells) * space.edge_count,
        "edge_shapes": forward_branches.cache_info().currsize,
        "traced_s": round(traced, 2),
        "first_step_s": round(first, 2),
        "step_s": {
            "median": round(statistics.median(times), 4),
            "min": round(min(times), 4),
            "max": round(max(times), 4),
        },
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    if tf.config.list_logical_devices("GPU"):
        result["peak_gpu_mib"] = round(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20)
    print(json.dumps(result))


def run(command: list[str]) -> dict:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True)
    if output.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{output.stderr[-2000:]}")
    return json.loads(output.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"batch": 64, "channels": 16, "cells": 2, "nodes": 4, "size": 32, "steps": 15, "rounds": 2}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--warmup", type=int, default=12, help="steps before the measured ones, in which branches load"
    )
    parser.add_argument("--space", default="darts", choices=PEER_OF, help="search space")
    parser.add_argument("--operations", default="gdas", help="operations of the space darts (ours only)")
    parser.add_argument("--force", help="sample this operation on all edges (ours only)")
    parser.add_argument("--precision", default="float32", help="Keras dtype policy (ours only)")
    parser.add_argument("--jit", action="store_true", help="compile each operation with XLA (ours only)")
    parser.add_argument("--torch-python", default=TORCH_PYTHON, help="a Python with torch 2.13.0")
    parser.add_argument("--peer", type=Path, help="the peer's script, by default that of the space")
    parser.add_argument("--no-peer", action="store_true", help="measure gdas-tf alone")
    parser.add_argument("--json", type=Path, default=Path("search_step.json"), help="file to write")
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        ours(options)
        return

    options.peer = options.peer or PEERS / PEER_OF[options.space]
    names = ["batch", "channels", "cells", "size", "steps"]
    names += ["nodes"] if options.space == "darts" else []
    size = [item for name in names for item in (f"--{name}", str(getattr(options, name)))]
    extra = ["--space", options.space]
    extra += ["--operations", options.operations, "--precision", options.precision]
    extra += ["--force", options.force] if options.force else []
    extra += ["--jit"] if options.jit else []
    sides = {"gdas-tf": [sys.executable, __file__, "--ours", *size, *extra, "--warmup", str(options.warmup)]}
    if not options.no_peer:
        if not Path(options.torch_python).exists() or not options.peer.exists():
            sys.exit(
                f"the peer needs {options.torch_python} (a venv with torch 2.13.0: --torch-python) and "
                f"{options.peer} (--peer); --no-peer measures gdas-tf alone"
            )
        for layout, flags in (("torch NCHW", []), ("torch channels last", ["--channels-last"])):
            sides[layout] = [options.torch_python, str(options.peer), *size, *flags]
    results: dict[str, list[dict]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, command in sides.items():
            results[name].append(run(command))
            print(f"{name:20} {json.dumps(results[name][-1])}", file=sys.stderr, flush=True)

    summary = {}
    for name, rows in results.items():
        summary[name] = {
            "median_s": statistics.median(row["step_s"]["median"] for row in rows),
            "min_s": min(row["step_s"]["min"] for row in rows),
            "max_s": max(row["step_s"]["max"] for row in rows),
            "peak_rss_mib": max(row["peak_rss_mib"] for row in rows),
            "first_step_s": min((row["first_step_s"] for row in rows if "first_step_s" in row), default=None),
        }
    print(f"{'':20} {'median s':>9} {'min':>8} {'max':>8} {'MiB':>6} {'first s':>8}")
    for name, row in summary.items():
        first = f"{row['first_step_s']:8.1f}" if row["first_step_s"] else f"{'-':>8}"
        print(
            f"{name:20} {row['median_s']:9.3f} {row['min_s']:8.3f} {row['max_s']:8.3f} "
            f"{row['peak_rss_mib']:6d} {first}"
        )
    if not options.no_peer:
        layouts = [name for name in summary if name != "gdas-tf"]
        best = min(layouts, key=lambda name: summary[name]["median_s"])
        # The two sides of a ratio come from the same turn.
        turns = spread(
            [
                mine["step_s"]["median"] / theirs["step_s"]["median"]
                for mine, theirs in zip(results["gdas-tf"], results[best], strict=True)
            ]
        )
        summary["ratio"] = {
            "to": best,
            "step": turns,
            "memory": summary["gdas-tf"]["peak_rss_mib"] / summary[best]["peak_rss_mib"],
        }
        print(
            f"ratio to {best}, less is better: step {three(turns)} (min / median / max), "
            f"memory {summary['ratio']['memory']:.2f}"
        )
    about = {"date": date.today().isoformat(), **vars(options)}
    options.json.write_text(json.dumps({"about": about, **summary}, default=str, indent=2) + "\n")


if __name__ == "__main__":
    main()
