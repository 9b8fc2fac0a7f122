"""Latency, throughput, memory and accuracy of ONNX image classifiers, measured with onnxruntime.

Needs NumPy and onnxruntime (matplotlib for the picture), and never TensorFlow. A measurement is done in
rounds: in each round every file is loaded anew and measured in every setting, one after the other, so that a
machine that slows down or heats up hits all alike. The spread between the rounds gives the interval of each
figure. (Where a file comes to lie in memory makes it some percent faster or slower, for as long as it is
loaded: rounds with one loaded file agree better than two runs do.)
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import atomic_path, atomic_write
from gdas_tf.machine import cores, processor

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_SIDE = 224  # pixels of height and width where a file leaves them open

# 97.5 % quantiles of Student's t distribution, by degrees of freedom; from 30 on the normal distribution's.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
_STUDENT += (2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05)


class Classifier:
    """An ONNX image classifier in onnxruntime: one image input, NHWC or NCHW, of any or one fixed batch size.

    Args:
        path: the file.
        provider: execution provider, as `CPUExecutionProvider`.
        threads: threads within an operator; 0 leaves the choice to onnxruntime.

    Raises:
        UsageError: the file is missing, damaged, or not an image classifier.

    Example:
        >>> Classifier("model.onnx").classify(pixels)
    """

    def __init__(self, path: str | Path, provider: str = "CPUExecutionProvider", threads: int = 0) -> None:
        import onnxruntime

        self.path = Path(path)
        if not self.path.is_file():
            raise UsageError(f"{path}: there is no such file; give an ONNX file")
        self.modified = _modified(self.path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # onnxruntime has an exception class for each kind of damage
            reason = " ".join(str(error).split())
            raise UsageError(f"{path}: onnxruntime cannot load it: {reason:.200}") from error
        self._read_signature()

    def _read_signature(self) -> None:
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _DTYPES:
            found = ", ".join(f"{item.name} {item.type}{item.shape}" for item in inputs)
            raise UsageError(
                f"{self.path}: inputs are {found}; an image classifier has one, of 4 dimensions, of float, "
                "float16 or uint8"
            )
        self.input, self.output = inputs[0].name, outputs[0].name
        self.dtype = _DTYPES[inputs[0].type]
        # onnxruntime gives None or a name for an open dimension.
        shape = [item if isinstance(item, int) and item > 0 else None for item in inputs[0].shape]
        self.batch = shape[0]
        self.channels_first = shape[1] in (1, 3) and shape[3] not in (1, 3)
        height, width, channels = shape[2:] + shape[1:2] if self.channels_first else shape[1:]
        self.image_shape = (height or _SIDE, width or _SIDE, channels or 3)
        self.classes = outputs[0].shape[-1] if isinstance(outputs[0].shape[-1], int) else None
        properties = self.session.get_modelmeta().custom_metadata_map
        self.class_names = json.loads(properties["class_names"]) if "class_names" in properties else None

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Returns images, uint8 [B, H, W, C], as the input wants them: floats in [0, 1], channels first."""
        images = pixels if self.dtype == np.uint8 else (pixels / np.float32(255)).astype(self.dtype)
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2) if self.channels_first else images)

    def calls(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns what each call is fed for a batch: all of it, or parts where the batch size is fixed."""
        if self.batch is None or self.batch == len(images):
            return [images]
        missing = -len(images) % self.batch
        images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        return list(images.reshape(-1, self.batch, *images.shape[1:]))

    def run(self, images: np.ndarray) -> np.ndarray:
        """Returns the first output for prepared images of one call."""
        return self.session.run([self.output], {self.input: images})[0]

    def classify(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the class of each image.

        Args:
            pixels: uint8 [n, H, W, C].

        Returns:
            int64 [n].
        """
        found = []
        for start in range(0, len(pixels), 64):
            batch = pixels[start : start + 64]
            outputs = np.concatenate([self.run(images) for images in self.calls(self.prepare(batch))])
            found.append(outputs.reshape(len(outputs), -1)[: len(batch)].argmax(1))
        return np.concatenate(found)


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
        _Subject(name, count, provider, Classifier(path, provider, count), {size: [] for size in batch_sizes})
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
        (name, size): _peak_memory(path, size) if memory else None
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


def format_table(result: dict[str, Any]) -> str:
    """Returns the result of `benchmark_models` as a table for the terminal."""
    files = {item["file"]: item for item in result["files"]}
    compared, providers = len(files) > 1, len({item["provider"] for item in result["measurements"]}) > 1
    header = [
        "file",
        *(["provider"] if providers else []),
        "threads",
        "batch",
        "p50 ms",
        "interval",
        "p95",
        "p99",
    ]
    header += ["images/s", *(["speed", "interval"] if compared else []), "peak MiB", "file MiB", "accuracy"]
    rows = [header]
    for item in result["measurements"]:
        about = files[item["file"]]
        row = [item["file"], *([item["provider"].removesuffix("ExecutionProvider")] if providers else [])]
        row += [str(item["threads"] or "all"), str(item["batch_size"]), _figure(item["p50_ms"])]
        row += [_interval(item["p50_interval_ms"]), _figure(item["p95_ms"]), _figure(item["p99_ms"])]
        row += [_figure(item["images_per_second"])]
        if compared:
            row += [f"{item['speed']:.2f}", _interval(item["speed_interval"], 2)]
        row += [_figure(item["peak_mib"]), f"{about['bytes'] / 2**20:.2f}"]
        row += [f"{about['accuracy']:.2%}" if about.get("accuracy") is not None else "-"]
        rows.append(row)
    if all(row[-1] == "-" for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    notes = [
        f"{item['file']}: accuracy not measured: {item['note']}"
        for item in result["files"]
        if item.get("note")
    ]
    images = {item["images"] for item in result["files"] if item.get("images")}
    if images:
        notes.insert(0, f"accuracy: on {' or '.join(map(str, sorted(images)))} test images")
    if compared:
        notes.insert(0, f"speed: against {result['files'][0]['file']}, in the same round")
    return "\n".join([*lines, *notes])


def write_csv(result: dict[str, Any], path: str | Path) -> None:
    """Writes the measurements as CSV, one line for each file and setting.

    Raises:
        RunError: the disk is full or read-only.
    """
    files = {item["file"]: item for item in result["files"]}
    text = io.StringIO()
    writer = None
    for item in result["measurements"]:
        row = {}
        for key, value in item.items():
            if key.endswith(("interval", "interval_ms")):
                row[f"{key}_low"], row[f"{key}_high"] = value or (None, None)
            else:
                row[key] = value
        row |= {key: files[item["file"]].get(key) for key in ("bytes", "accuracy")}
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    atomic_write(path, text.getvalue())


def draw_benchmark(result: dict[str, Any], path: str | Path) -> None:
    """Draws a result: accuracy against latency if several files have one, else the latency; and throughput.

    Args:
        result: of `benchmark_models`.
        path: picture to write, PNG or SVG by its suffix.

    Raises:
        RunError: the disk is full or read-only.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    accuracies = {item["file"]: item.get("accuracy") for item in result["files"]}
    series = _series(result["measurements"])
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    try:
        # One file has one accuracy: a picture of a single dot.
        if sum(value is not None for value in accuracies.values()) > 1:
            _draw_accuracy(left, series, accuracies)
        else:
            _draw_latency(left, series)
        for label, items in series.items():
            sizes = [item["batch_size"] for item in items]
            speeds = np.array([item["images_per_second"] for item in items])
            around = [
                item["images_per_second_interval"] or (speed, speed)
                for item, speed in zip(items, speeds, strict=True)
            ]
            right.errorbar(
                sizes, speeds, np.abs(np.array(around).T - speeds), marker="o", capsize=3, label=label
            )
        right.set(xlabel="batch size", ylabel="images per second", title="throughput", ylim=(0, None))
        right.set_xscale("log", base=2)
        right.set_xticks(sizes, sizes)
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        pyplot.close(figure)


@dataclass
class _Subject:
    """One file with one provider and thread count, and the latencies of its batches, in seconds, by round."""

    name: str
    threads: int
    provider: str
    classifier: Classifier
    rounds: dict[int, list[np.ndarray]]

    def load_again(self) -> None:
        """Loads the file anew.

        Raises:
            RunError: it is another one now, or has gone.
        """
        path = self.classifier.path
        if _modified(path) != self.classifier.modified:
            raise RunError(f"{path}: it changed while it was measured; measure it again")
        self.classifier = Classifier(path, self.provider, self.threads)

    def measure(self, size: int, warm_up: int, seconds: float) -> None:
        """Runs batches for a while, twice at least."""
        pixels = np.random.default_rng(0).integers(0, 256, (size, *self.classifier.image_shape), np.uint8)
        calls = self.classifier.calls(self.classifier.prepare(pixels))
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
            raise RunError(f"{self.classifier.path}: fails at batch size {size}: {error!s:.200}") from error
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
            "p50_interval_ms": _prediction_interval(1e3 * medians),
            "images_per_second": float(size / latencies.mean()),
            "images_per_second_interval": _prediction_interval(throughputs),
            "speed": float(np.exp(np.log(speeds).mean())),
            "speed_interval": _prediction_interval(speeds),
        }


def _modified(path: Path) -> int | None:
    """Returns when a file was modified, in ns; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _prediction_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Returns the interval in which a further value lies with 95 %, by Student's t of the logarithms.

    It holds at least all the values that were seen. None for less than two of them.
    """
    if len(values) < 2:
        return None
    logarithms = np.log(values)
    quantile = _STUDENT[len(values) - 2] if len(values) <= len(_STUDENT) + 1 else 1.96
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
    layout = "NCHW" if classifier.channels_first else "NHWC"
    about: dict[str, Any] = {
        "file": name,
        "path": str(classifier.path),
        "bytes": classifier.path.stat().st_size,
        "input": f"{np.dtype(classifier.dtype).name} {layout} {'x'.join(map(str, classifier.image_shape))}",
    }
    if images is None or labels is None:
        return about
    if tuple(images.shape[1:]) != classifier.image_shape:
        about["note"] = (
            f"the images are {list(images.shape[1:])}, the file takes {list(classifier.image_shape)}"
        )
    elif classifier.classes is not None and int(labels.max()) >= classifier.classes:
        about["note"] = f"the data has {int(labels.max()) + 1} classes, the file {classifier.classes}"
    else:
        about |= {"accuracy": float((classifier.classify(images) == labels).mean()), "images": len(labels)}
    return about


def _peak_memory(path: Path, size: int) -> float:
    """Returns the peak resident memory, in MiB, of a new process that loads a file and runs three batches."""
    # -P: in a checkout of this project the folder gdas_tf would stand before what is installed.
    command = [sys.executable, "-P", "-m", "gdas_tf.export.benchmark", str(path), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{path}: fails at batch size {size}: {done.stderr.strip()[-200:]}")
    return float(done.stdout)


def _print_peak_memory(path: str, size: str) -> None:
    """The new process: prints its own peak in MiB."""
    classifier = Classifier(path)
    images = classifier.prepare(np.zeros((int(size), *classifier.image_shape), np.uint8))
    for _ in range(3):
        for call in classifier.calls(images):
            classifier.run(call)
    print(_own_peak_mib())


def _own_peak_mib() -> float:
    # The figure of getrusage is inherited from the process that started this one; that of /proc is not.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import psutil

    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 2**20


def _machine() -> dict[str, Any]:
    """Returns what the figures depend on."""
    import onnxruntime

    return {"processor": processor(), "cores": cores(), "onnxruntime": onnxruntime.__version__}


def _series(measurements: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the measurements of each curve by its label, which says no more than it takes."""
    shown = [key for key in ("provider", "threads") if len({item[key] for item in measurements}) > 1]
    series: dict[str, list[dict[str, Any]]] = {}
    for item in measurements:
        words = {"provider": item["provider"].removesuffix("ExecutionProvider")}
        words["threads"] = f"{item['threads'] or 'all'} threads"
        label = ", ".join([item["file"], *(words[key] for key in shown)])
        series.setdefault(label, []).append(item)
    return series


def _draw_accuracy(
    axes: Any, series: dict[str, list[dict[str, Any]]], accuracies: dict[str, float | None]
) -> None:
    for label, items in series.items():
        item, accuracy = items[0], accuracies[items[0]["file"]]
        if accuracy is None:
            continue
        middle = item["p50_ms"]
        low, high = item["p50_interval_ms"] or (middle, middle)
        axes.errorbar(
            [middle],
            [100 * accuracy],
            xerr=[[max(middle - low, 0)], [max(high - middle, 0)]],
            marker="o",
            capsize=3,
            label=label,
        )
    size = next(iter(series.values()))[0]["batch_size"]
    axes.set(
        xlabel=f"latency at batch size {size}, ms (p50)",
        ylabel="accuracy, %",
        title="accuracy against latency",
    )
    axes.margins(x=0.2, y=0.3)
    axes.set_xlim(left=0)
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))


def _draw_latency(axes: Any, series: dict[str, list[dict[str, Any]]]) -> None:
    for label, items in series.items():
        sizes = [item["batch_size"] for item in items]
        line = axes.plot(sizes, [item["p50_ms"] for item in items], marker="o", label=f"{label}: p50")[0]
        bounds = [[item[key] for item in items] for key in ("p50_ms", "p99_ms")]
        axes.fill_between(sizes, *bounds, alpha=0.2, color=line.get_color(), label="to p99")
    axes.set(xlabel="batch size", ylabel="ms", title="latency of a batch")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, sizes)


def _figure(value: float | None) -> str:
    """Returns a number with three digits that count."""
    if value is None:
        return "-"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if 0 < value < 100 else f"{value:.0f}"


def _interval(bounds: Sequence[float] | None, digits: int | None = None) -> str:
    if bounds is None:
        return "-"
    return "-".join(f"{value:.{digits}f}" if digits is not None else _figure(value) for value in bounds)


if __name__ == "__main__":
    _print_peak_memory(*sys.argv[1:])
