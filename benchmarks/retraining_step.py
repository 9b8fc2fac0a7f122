"""The training step of a derived network, and its inference, beside the same network in PyTorch.

Both sides run in processes of their own and take turns, step by step, on the same images, so that a machine's
drift hits both alike. PyTorch is measured in both memory layouts; the ratio is to the faster one.

Usage:  python benchmarks/retraining_step.py [--torch-python /path/to/venv-with-torch/bin/python]
Needs an environment with torch (pip install torch) beside the one of gdas-tf. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from figures import TORCH_PYTHON, spread, three

HERE = Path(__file__).resolve().parent
WAYS = {"torch, NCHW": "nchw", "torch, channels last": "channels_last", "gdas-tf": "ours"}


class Peer:
    """A process that steps when told to: one JSON line each way."""

    def __init__(self, command: list[str], threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.about = self._answer()
        self.seconds: dict[str, list[float]] = {"step": [], "infer": []}
        self.peak_mib = 0

    def run(self, what: str, count: int, keep: bool = True) -> None:
        self.process.stdin.write(json.dumps({"do": what, "count": count}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.peak_mib = answer["peak_mib"]
        if keep:
            self.seconds[what] += answer["seconds"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args[0]} ended with code {self.process.wait()}")
        return json.loads(line)


def serve_ours(options: dict[str, Any]) -> None:
    """The side of gdas-tf: answers the lines on standard input as torch_network.py does."""
    import resource

    answers, sys.stdout = sys.stdout, sys.stderr
    import keras
    import tensorflow as tf

    from gdas_tf.networks.derived import build_network, count_parameters
    from gdas_tf.networks.registry import copy_weights
    from gdas_tf.optimizers.flat_sgd import FlatSGD
    from gdas_tf.runtime import graphs_as_written, set_up
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.retraining import RetrainingModel

    set_up()
    tf.config.threading.set_inter_op_parallelism_threads(options["threads"])
    begun = time.perf_counter()
    size, batch, precision = options["size"], options["batch"], options["precision"]
    genotype = Genotype.from_json(options["genotype"])
    shape = {"image_shape": (size, size, 3), "classes": 10}
    shape |= {"channels": options["channels"], "cells": options["cells"]}
    network = build_network(
        genotype,
        drop_path=options["drop_path"],
        auxiliary=options["auxiliary_weight"] > 0,
        training=True,
        seed=0,
        dtype=precision,
        **shape,
    )
    model = RetrainingModel(network, options["auxiliary_weight"])
    optimizer = FlatSGD(0.025)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, jit_compile=False)
    optimizer.build(network.trainable_variables)
    deployed = build_network(genotype, **shape)
    copy_weights(network, deployed)

    images = tf.random.stateless_uniform((batch, size, size, 3), seed=(0, 0))
    labels = tf.random.stateless_uniform((batch,), (0, 1), 0, 10, tf.int32)
    train = tf.function(
        lambda: model.train_step((images, labels))["loss"], jit_compile=options["jit"] or None
    )
    predict = tf.function(lambda: deployed(images, training=False))
    calls = {"step": lambda: train().numpy(), "infer": lambda: predict().numpy()}

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    with graphs_as_written():  # as fit does
        calls["step"]()
    about = {"framework": f"tensorflow {tf.__version__}", "ready_s": time.perf_counter() - begun}
    answer({**about, "parameters": count_parameters(network)})
    for line in sys.stdin:
        request = json.loads(line)
        seconds = []
        for _ in range(request["count"]):
            begun = time.perf_counter()
            calls[request["do"]]()
            seconds.append(time.perf_counter() - begun)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer({"seconds": seconds, "peak_mib": round(peak)})


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from gdas_tf.spaces.genotype import Genotype

    genotype = Genotype.load(arguments.genotype).to_json()
    names = ("channels", "cells", "batch", "size", "threads", "auxiliary_weight", "drop_path")
    options = {name: getattr(arguments, name) for name in names} | {"genotype": genotype}
    ours_only = {"precision": arguments.precision, "jit": arguments.jit}
    commands = {}
    for way, key in WAYS.items():
        text = json.dumps({**options, **ours_only, "channels_last": key == "channels_last"})
        if key == "ours":
            commands[way] = [sys.executable, str(HERE / "retraining_step.py"), "--serve", text]
        else:
            commands[way] = [arguments.torch_python, str(HERE / "torch_network.py"), text]
    peers = {way: Peer(command, arguments.threads) for way, command in commands.items()}
    if len({peer.about["parameters"] for peer in peers.values()}) > 1:
        raise SystemExit("the networks have different numbers of parameters")
    for what in ("step", "infer"):
        for peer in peers.values():
            peer.run(what, 2, keep=False)
        for _ in range(arguments.rounds):
            for peer in peers.values():
                peer.run(what, arguments.steps)
    for peer in peers.values():
        peer.close()
    results = {
        way: {
            **peer.about,
            "peak_mib": peer.peak_mib,
            **{f"{what}_s": spread(seconds) for what, seconds in peer.seconds.items()},
        }
        for way, peer in peers.items()
    }
    ratios = {}
    for what in ("step_s", "infer_s"):
        others = [way for way in WAYS if way != "gdas-tf"]
        fastest = min(others, key=lambda way: results[way][what]["median"])
        # Steps that were taken in the same turn: a slow minute of the machine is in both.
        ours, theirs = (peers[way].seconds[what.removesuffix("_s")] for way in ("gdas-tf", fastest))
        ratios[what] = {"to": fastest, **spread([a / b for a, b in zip(ours, theirs, strict=True)])}
    about = {"date": date.today().isoformat(), **ours_only, **options}
    return {"about": about, "results": results, "ratios": ratios}


def table(result: dict[str, Any]) -> str:
    lines = ["| | training step s, min / median / max | inference s, likewise | first step s | peak MiB |"]
    lines.append("|---|---|---|---|---|")
    for way, values in result["results"].items():
        spreads = [three(values[what], 3) for what in ("step_s", "infer_s")]
        lines.append(
            f"| {way} | {spreads[0]} | {spreads[1]} | {values['ready_s']:.1f} | {values['peak_mib']} |"
        )
    ratios = [three(values) for values in result["ratios"].values()]
    lines.append(f"| **ratio to the faster layout** | {ratios[0]} | {ratios[1]} | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--genotype", default="GDAS_V1", help="name, .json or .txt")
    sizes = {"channels": 16, "cells": 2, "batch": 64, "size": 32, "threads": os.cpu_count()}
    for name, default in {**sizes, "rounds": 4, "steps": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--auxiliary-weight", type=float, default=0.4)
    parser.add_argument("--drop-path", type=float, default=0.1)
    parser.add_argument("--precision", default="float32", help="of gdas-tf; PyTorch computes in float32")
    parser.add_argument("--jit", action="store_true", help="compile the step of gdas-tf with XLA")
    parser.add_argument("--torch-python", default=TORCH_PYTHON)
    parser.add_argument("--json", type=Path, default=Path("retraining_step.json"), help="file to write")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_ours(json.loads(arguments.serve))
        return
    result = measure(arguments)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
