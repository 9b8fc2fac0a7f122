"""What 8 bits are worth in onnxruntime: an exported network in float32 and as `gdas-tf export` quantises it.

The network has random weights and is calibrated on random images, which the speed doesn't depend on; how
accurate an int8 file is `gdas-tf export` says of a trained one. Both files run in one process and take turns.

Usage:  python benchmarks/quantization.py [--channels 36 --cells 6]
Prints a table and writes JSON. The speed is that of float32's time to int8's in the same round; over 1: int8
is faster.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
from figures import spread, three
from inference import HERE, add_sizes, json_lines, measure

FLOAT32, INT8 = "float32", "int8"
CALIBRATION_IMAGES = 40


def main() -> None:
    """Measures both files of one network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sizes(parser, [1, 8, 64])
    parser.add_argument("--json", type=Path, default=Path("quantization.json"), help="file to write")
    arguments = parser.parse_args()
    import onnx
    import onnxruntime

    from gdas_tf.export.onnx_model import save_onnx
    from gdas_tf.export.quantization import quantize
    from gdas_tf.spaces.genotype import Genotype

    options = {name: getattr(arguments, name) for name in ("channels", "cells", "size", "threads")}
    options["genotype"] = Genotype.load(arguments.genotype).to_json()
    with tempfile.TemporaryDirectory() as directory:
        files = {side: Path(directory) / f"{side}.onnx" for side in (FLOAT32, INT8)}
        script = str(HERE / "inference.py")
        said = json_lines([sys.executable, script, "--export", json.dumps(options), str(files[FLOAT32])])
        images = np.random.default_rng(0).random(
            (CALIBRATION_IMAGES, arguments.size, arguments.size, 3), np.float32
        )
        save_onnx(quantize(onnx.load(files[FLOAT32]), images).model, files[INT8])
        found = measure(files, arguments.batch_sizes, arguments.rounds, arguments.seconds, arguments.threads)
        mebibytes = {side: path.stat().st_size / 2**20 for side, path in files.items()}
    rows = {
        size: {
            "float32_p50_ms": spread(found[FLOAT32][size]),
            "int8_p50_ms": spread(found[INT8][size]),
            "speed": spread([a / b for a, b in zip(found[FLOAT32][size], found[INT8][size], strict=True)]),
        }
        for size in arguments.batch_sizes
    }
    about = {
        "date": date.today().isoformat(),
        "onnxruntime": onnxruntime.__version__,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        **options,
        **said[-1],
        "mebibytes": mebibytes,
    }
    arguments.json.write_text(json.dumps({"about": about, "batch_sizes": rows}, indent=2) + "\n")
    print(
        f"{about['parameters']:,} parameters; " + ", ".join(f"{s} {m:.2f} MiB" for s, m in mebibytes.items())
    )
    print("| batch | float32 p50 ms, min / median / max | int8 | speed of int8 |\n|---|---|---|---|")
    for size, row in rows.items():
        print(f"| {size} | " + " | ".join(three(values) for values in row.values()) + " |")


if __name__ == "__main__":
    main()
