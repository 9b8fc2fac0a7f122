"""The peak memory of a process that loads an ONNX file and runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gdas_tf.errors import RunError


def peak_memory(path: Path, size: int) -> float:
    """Returns the peak resident memory, in MiB, of a new process that loads a file and runs three batches."""
    # -P: in a checkout of this project the folder gdas_tf would stand before what is installed.
    command = [sys.executable, "-P", "-m", "gdas_tf.export.benchmark.child", str(path), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{path}: fails at batch size {size}: {done.stderr.strip()[-200:]}")
    return float(done.stdout)
