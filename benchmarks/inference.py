"""Inference in onnxruntime: the file that `gdas-tf export` makes beside PyTorch's export of the same network.

Both networks have the same cells, sizes and number of parameters (which is checked) and random weights; batch
norms of ours get random statistics, so that none of them folds away for being the identity. Exported are:

- gdas-tf: image (NHWC, 0 to 1) to probabilities, normalisation and softmax in the graph;
- torch, legacy: `torch.onnx.export(dynamo=False)`, image (NCHW) to logits, without normalisation and softmax;
- torch, dynamo: the same with `dynamo=True`, which needs the package onnxscript.

So ours does a little more: the transposition of the images, the normalisation and the softmax. All files run
in one process, in the same onnxruntime with the same options, and take turns; a round gives one p50 for each.

Usage:  python benchmarks/inference.py [--torch-python /path/to/venv-with-torch/bin/python]
Prints a table and writes JSON. The ratio is to the faster of torch's files; 1 or less: ours is no slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from figures import TORCH_PYTHON, spread, three

from gdas_tf.export.benchmark.files import encode_pixels
from gdas_tf.export.inference import Classifier

HERE = Path(__file__).resolve().parent
OURS = "gdas-tf"
TORCH = {"torch, legacy": False, "torch, dynamo": True}  # value: the argument `dynamo` of torch.onnx.export
CLASSES = 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # CIFAR-10's
FEWEST_CALLS = 5


def export_ours(options: dict[str, Any], path: str) -> None:
    """Writes our file and prints the number of parameters.

    It is called in a process of its own: TensorFlow's threads are gone when the files are measured.
    """
    from keras import layers

    from gdas_tf.export.onnx_model import describe, save_onnx, to_onnx
    from gdas_tf.networks.derived import build_network, count_parameters
    from gdas_tf.spaces.genotype import Genotype

    genotype = Genotype.from_json(options["genotype"])
    image = (options["size"], options["size"], 3)
    sizes = {"channels": options["channels"], "cells": options["cells"]}
    network = build_network(genotype, image, CLASSES, mean=MEAN, std=STD, seed=0, **sizes)
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            scale, variance = random.uniform(0.8, 1.2, (2, *shape))
            offset, mean = random.normal(0, 0.1, (2, *shape))
            layer.set_weights([scale, offset, mean, variance])
    names = [str(number) for number in range(CLASSES)]
    save_onnx(to_onnx(network, describe(network, names, genotype)), path)
    print(json.dumps({"parameters": count_parameters(network)}))


def json_lines(command: list[str], text: str = "") -> list[dict[str, Any]]:
    """Runs a program and returns what it prints as JSON, line by line."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def export_all(arguments: argparse.Namespace, directory: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Returns the files by side, and what is said of them; ends the program if the parameters differ."""
    from gdas_tf.spaces.genotype import Genotype

    options = {name: getattr(arguments, name) for name in ("channels", "cells", "size", "threads")}
    options["genotype"] = Genotype.load(arguments.genotype).to_json()
    files = {side: directory / f"{side.replace(', ', '_')}.onnx" for side in (OURS, *TORCH)}
    parameters = {}
    command = [sys.executable, __file__, "--export", json.dumps(options), str(files[OURS])]
    parameters[OURS] = json_lines(command)[-1]["parameters"]
    # The step that torch_network.py does first moves the statistics of its batch norms; two images do.
    more = {"batch": 2, "auxiliary_weight": 0, "drop_path": 0, "channels_last": False}
    command = [arguments.torch_python, str(HERE / "torch_network.py"), json.dumps(options | more)]
    requests = [
        json.dumps({"do": "onnx", "path": str(files[side]), "dynamo": dynamo})
        for side, dynamo in TORCH.items()
    ]
    started, *answers = json_lines(command, "\n".join(requests) + "\n")
    parameters["torch"] = started["parameters"]
    if len(set(parameters.values())) > 1:
        raise SystemExit(f"the networks have different numbers of parameters: {parameters}")
    for side, answer in zip(TORCH, answers, strict=True):
        if "error" in answer:
            print(f"{side}: not measured, {answer['error']}", file=sys.stderr)
            del files[side]
    return files, {**options, "parameters": parameters[OURS], "torch": started["framework"]}


def measure(
    files: dict[str, Path], batch_sizes: list[int], rounds: int, seconds: float, threads: int
) -> dict[str, dict[int, list[float]]]:
    """Returns the p50 latency of each round in ms, by side and batch size."""
    classifiers = {side: Classifier.open(path, threads=threads) for side, path in files.items()}
    found: dict[str, dict[int, list[float]]] = {side: {size: [] for size in batch_sizes} for side in files}
    sides = list(classifiers)
    shape = classifiers[sides[0]].image_shape
    for size in batch_sizes:
        pixels = np.random.default_rng(0).integers(0, 256, (size, *shape), np.uint8)
        images = {side: encode_pixels(classifier, pixels) for side, classifier in classifiers.items()}
        for side, classifier in classifiers.items():
            if not np.isfinite(classifier.run(images[side])).all():
                raise SystemExit(f"{side}: the outputs are no numbers")
        for number in range(rounds):
            # Who comes first may find a cooler machine: everybody does in turn.
            first = number % len(sides)
            for side in sides[first:] + sides[:first]:
                times = latencies(classifiers[side], images[side], seconds)
                found[side][size].append(1e3 * statistics.median(times))
    return found


def latencies(classifier: Classifier, images: np.ndarray, seconds: float) -> list[float]:
    for _ in range(2):
        classifier.run(images)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < FEWEST_CALLS or time.perf_counter() < end:
        begun = time.perf_counter()
        classifier.run(images)
        times.append(time.perf_counter() - begun)
    return times


def summarize(files: dict[str, Path], found: dict[str, dict[int, list[float]]]) -> dict[str, Any]:
    """Returns the figures of each side, and the ratios of the same round to the faster of the others."""
    import onnx

    sides = {
        side: {
            "nodes": len(onnx.load(path).graph.node),
            "bytes": path.stat().st_size,
            "p50_ms": {size: spread(values) for size, values in found[side].items()},
        }
        for side, path in files.items()
    }
    ratios = {}
    for size, ours in found[OURS].items():
        others = {side: statistics.median(found[side][size]) for side in files if side != OURS}
        fastest = min(others, key=others.__getitem__)
        values = [mine / theirs for mine, theirs in zip(ours, found[fastest][size], strict=True)]
        ratios[size] = {"to": fastest, **spread(values)}
    return {"sides": sides, "ratios": ratios}


def table(result: dict[str, Any]) -> str:
    sizes = list(result["ratios"])
    lines = [
        "| | nodes | MiB | "
        + " | ".join(f"p50 ms at batch {size}, min / median / max" for size in sizes)
        + " |",
        "|" + "---|" * (len(sizes) + 3),
    ]
    for side, values in result["sides"].items():
        cells = [side, str(values["nodes"]), f"{values['bytes'] / 2**20:.2f}"]
        lines.append("| " + " | ".join(cells + [three(values["p50_ms"][size]) for size in sizes]) + " |")
    ratios = [f"{three(values)} (to {values['to']})" for values in result["ratios"].values()]
    lines.append("| **ratio, ours / torch** | | | " + " | ".join(ratios) + " |")
    return "\n".join(lines)


def add_sizes(parser: argparse.ArgumentParser, batch_sizes: list[int]) -> None:
    """Adds the options of what is measured, and how long."""
    parser.add_argument("--genotype", default="GDAS_V1", help="name, .json or .txt [GDAS_V1]")
    sizes = {"channels": 16, "cells": 2, "size": 32, "rounds": 5, "threads": os.cpu_count()}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"[{default}]")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=batch_sizes, help=f"{batch_sizes}")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each file, batch size and round [1]")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sizes(parser, [1, 64])
    parser.add_argument(
        "--torch-python",
        default=TORCH_PYTHON,
        help="Python with torch, onnx and onnxscript",
    )
    parser.add_argument("--json", type=Path, default=Path("inference.json"), help="file to write")
    parser.add_argument("--export", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export:
        export_ours(json.loads(arguments.export[0]), arguments.export[1])
        return
    import onnxruntime

    with tempfile.TemporaryDirectory() as directory:
        files, about = export_all(arguments, Path(directory))
        found = measure(files, arguments.batch_sizes, arguments.rounds, arguments.seconds, arguments.threads)
        result = summarize(files, found)
    about |= {"onnxruntime": onnxruntime.__version__, "rounds": arguments.rounds}
    result = {"about": {"date": date.today().isoformat(), **about, "seconds": arguments.seconds}, **result}
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
