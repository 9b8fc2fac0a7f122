"""Rounds in which ONNX image classifiers are measured in turn.

In each round every file is loaded anew and measured in every setting, one after the other, so that a machine
that slows down or heats up hits all alike. The spread between the rounds gives the interval of each figure.
(Where a file comes to lie in memory makes it some percent faster or slower, for as long as it is loaded:
rounds with one loaded file agree better than two runs do.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export.benchmark.files import encode_pixels, open_file, predicted_classes
from gdas_tf.export.benchmark.memory import peak_memory
from gdas_tf.export.inference import Classifier
from gdas_tf.machine import cores, processor


def benchmark_models(
    paths: Sequence[str | Path],
    *,
    batch_sizes: Sequence[int] = (1, 8, 64),
    threads: Sequence[int] = (0,),
    seconds: float = 2.0,
    warm_up: int = 5,
    rounds: int = 5,
    providers: Sequence[str] = ("auto",),
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    memory: bool = True,
) -> dict[str, Any]:
    """Measures ONNX image classifiers side by side.

    Args:
        paths: the files, ours or anybody's.
        batch_sizes: images at once; a file of a fixed batch size is called as often as needed.
        threads: threads within an operator, 0 for as many as there are cores.
        seconds: time for each file and setting, over all rounds.
        warm_up: calls before each round that do not count.
        rounds: number of rounds, 2 or more for intervals.
        providers: execution providers; "auto" stands for all that onnxruntime has on this machine.
        images, labels: uint8 [n, H, W, C] and int [n], to measure accuracy on.
        memory: whether to measure the peak memory, in a process for each file and batch size.

    Returns:
        A JSON-able dictionary: `machine`; `files`, each with `file`, `bytes`, `input` and, where measured,
        `accuracy` and `images`; `measurements`, each with `file`, `provider`, `threads`, `batch_size`,
        `calls`, `p50_ms`, `p95_ms`, `p99_ms` of the latency of a batch, `p50_interval_ms`,
        `images_per_second` with `images_per_second_interval`, `speed` against the first file (ratio of the
        p50 within the same round) with `speed_interval`, and `peak_mib` of a process that loads the file and
        runs it. An interval is where 95 % of such rounds fall, so that the figure of another run lies in it.

    Raises:
        UsageError: a file is missing or is no image classifier, or a provider is not there.
        RunError: a file fails when it is run, or changes meanwhile.

    Example:
        >>> print(format_table(benchmark_models(["model.onnx"], batch_sizes=(1,))))
    """
    if not paths:
        raise UsageError("benchmark: there is no file to measure; give ONNX files")
    paths = [Path(path) for path in paths]
    names = _short_names(paths)
    subjects = [
        _Subject(name, path, count, provider, {size: [] for size in batch_sizes})
        for provider in available_providers(providers)
        for count in threads
        for name, path in zip(names, paths, strict=True)
    ]
    files = [
        _describe(name, subject.classifier, images, labels)
        for name, subject in zip(names, subjects, strict=False)
    ]
    for number in range(rounds):
        if number:
            for subject in subjects:
                subject.load_again()
        for size in batch_sizes:
            # Who comes first in a round may find a cooler machine: everybody does in turn.
            first = number % len(subjects)
            for subject in subjects[first:] + subjects[:first]:
                subject.measure(size, warm_up, seconds / rounds)
    peaks = {
        (name, size): peak_memory(path, size) if memory else None
        for name, path in zip(names, paths, strict=True)
        for size in batch_sizes
    }
    measurements = []
    for size in batch_sizes:
        for start in range(0, len(subjects), len(paths)):
            group = subjects[start : start + len(paths)]
            for subject in group:
                measurements.append(
                    subject.summarize(size, group[0]) | {"peak_mib": peaks[subject.name, size]}
                )
    return {"machine": _machine(), "files": files, "measurements": measurements}


@dataclass
class _Subject:
    """One file with one provider and thread count, and the latencies of its batches, in seconds, by round."""

    name: str
    path: Path
    threads: int
    provider: str
    rounds: dict[int, list[np.ndarray]]
    classifier: Classifier = field(init=False)
    modified: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.modified = _modified(self.path)
        self._load()

    def _load(self) -> None:
        self.classifier = open_file(self.path, self.threads, self.provider)

    def load_again(self) -> None:
        """Loads the file anew.

        Raises:
            RunError: the file has changed, or is gone.
        """
        if _modified(self.path) != self.modified:
            raise RunError(f"{self.path}: it changed while it was measured; measure it again")
        self._load()

    def measure(self, size: int, warm_up: int, seconds: float) -> None:
        """Runs batches for a while, twice at least."""
        pixels = np.random.default_rng(0).integers(0, 256, (size, *self.classifier.image_shape), np.uint8)
        calls = self.classifier.calls(encode_pixels(self.classifier, pixels))
        latencies = []
        try:
            for _ in range(warm_up):
                self._batch(calls)
            end = time.perf_counter() + seconds
            while len(latencies) < 2 or time.perf_counter() < end:
                begun = time.perf_counter()
                self._batch(calls)
                latencies.append(time.perf_counter() - begun)
        except Exception as error:
            raise RunError(f"{self.path}: fails at batch size {size}: {error!s:.200}") from error
        self.rounds[size].append(np.array(latencies))

    def _batch(self, calls: list[np.ndarray]) -> None:
        for images in calls:
            self.classifier.run(images)

    def medians(self, size: int) -> np.ndarray:
        """Returns the median latency of each round, in seconds."""
        return np.array([np.median(latencies) for latencies in self.rounds[size]])

    def summarize(self, size: int, first: _Subject) -> dict[str, Any]:
        """Returns the measurement of one batch size, with the speed against the first file."""
        medians, latencies = self.medians(size), np.concatenate(self.rounds[size])
        p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
        throughputs = np.array([size / latencies.mean() for latencies in self.rounds[size]])
        speeds = first.medians(size) / medians
        return {
            "file": self.name,
            "provider": self.provider,
            "threads": self.threads,
            "batch_size": size,
            "calls": len(latencies),
            "p50_ms": 1e3 * p50,
            "p95_ms": 1e3 * p95,
            "p99_ms": 1e3 * p99,
            "p50_interval_ms": prediction_interval(1e3 * medians),
            "images_per_second": float(size / latencies.mean()),
            "images_per_second_interval": prediction_interval(throughputs),
            "speed": float(np.exp(np.log(speeds).mean())),
            "speed_interval": prediction_interval(speeds),
        }


def _modified(path: Path) -> int | None:
    """Returns when a file was modified, in ns; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def prediction_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Returns the interval in which a further value lies with 95 %, by Student's t of the logarithms.

    It holds at least all the values that were seen. None for less than two of them.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    logarithms = np.log(values)
    quantile = stdtrit(len(values) - 1, 0.975)
    reach = quantile * logarithms.std(ddof=1) * math.sqrt(1 + 1 / len(values))
    low, high = math.exp(logarithms.mean() - reach), math.exp(logarithms.mean() + reach)
    return min(low, float(values.min())), max(high, float(values.max()))


def available_providers(providers: Sequence[str]) -> list[str]:
    """Returns the execution providers to measure, by their full names.

    Raises:
        UsageError: onnxruntime has not all of them here.
    """
    import onnxruntime

    # The one of Azure sends the images to a server.
    here = [name for name in onnxruntime.get_available_providers() if name != "AzureExecutionProvider"]
    short = {name.removesuffix("ExecutionProvider").lower(): name for name in here}
    chosen: dict[str, None] = {}
    for provider in providers:
        if provider == "auto":
            chosen.update(dict.fromkeys(here))
        elif (name := short.get(provider.removesuffix("ExecutionProvider").lower())) is not None:
            chosen[name] = None
        else:
            raise UsageError(
                f"benchmark.providers: found {provider!r}; onnxruntime has here: {', '.join(sorted(short))}"
            )
    return list(chosen)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Returns the file names, with as many folders before them as it takes to tell them apart."""
    names = [path.name for path in paths]
    parts = 1
    while len(set(names)) < len(set(paths)) and parts < max(len(path.parts) for path in paths):
        parts += 1
        names = [str(Path(*path.parts[-parts:])) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError("benchmark: a file is named twice; name each once")
    return names


def _describe(
    name: str, classifier: Classifier, images: np.ndarray | None, labels: np.ndarray | None
) -> dict[str, Any]:
    """Returns what is said of a file, with its accuracy where the images fit."""
    about: dict[str, Any] = {
        "file": name,
        "path": str(classifier.path),
        "bytes": classifier.file_size,
        "input": f"{classifier.input.dtype.name} {classifier.layout.upper()} "
        + "x".join(map(str, classifier.image_shape)),
    }
    if images is None or labels is None:
        return about
    if tuple(images.shape[1:]) != classifier.image_shape:
        about["note"] = (
            f"the images are {list(images.shape[1:])}, the file takes {list(classifier.image_shape)}"
        )
    elif classifier.output.shape and int(labels.max()) >= classifier.output.shape[0]:
        about["note"] = f"the data has {int(labels.max()) + 1} classes, the file {classifier.output.shape[0]}"
    else:
        found = predicted_classes(classifier, images)
        about |= {"accuracy": float((found == labels).mean()), "images": len(labels)}
    return about


def _machine() -> dict[str, Any]:
    """Returns what the figures depend on."""
    import onnxruntime

    return {"processor": processor(), "cores": cores(), "onnxruntime": onnxruntime.__version__}
