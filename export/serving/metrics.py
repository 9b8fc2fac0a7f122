"""Prometheus metrics of the server, and the statistics that are read from them.

Several processes count together when $PROMETHEUS_MULTIPROC_DIR names a folder before this is imported: each
keeps its numbers in files there, and whichever is asked sums them (prometheus_client's multiprocess mode).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Statistics:
    """What a model has done so far: whole numbers, seconds, and `last`, the time of the last batch."""

    images: int = 0
    requests: int = 0
    batches: int = 0
    failures: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    last: float = 0.0


class ModelMetrics:
    """The metrics of one model; told of each batch and of its queue by its `Batcher`."""

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        labels = {"model": name, "version": version}
        self._read = lambda: metrics.statistics(labels)
        self._images = metrics.images.labels(**labels)
        self._done = metrics.inferences.labels(**labels, outcome="success")
        self._failed = metrics.inferences.labels(**labels, outcome="failure")
        self._batch = metrics.batch.labels(**labels)
        self._inference = metrics.inference.labels(**labels)
        self._waited = metrics.waited.labels(**labels)
        self._queue = metrics.queue.labels(**labels)
        self._last = metrics.last.labels(**labels)

    @property
    def statistics(self) -> Statistics:
        """What the model has done so far, in all processes."""
        return self._read()

    def batch_done(self, images: int, requests: int, seconds: float, waited: float) -> None:
        """Counts a batch; see `batching.Observer`."""
        self._images.inc(images)
        self._done.inc(requests)
        self._batch.observe(images)
        self._inference.observe(seconds)
        self._waited.inc(waited)
        self._last.set(time.time())

    def batch_failed(self, requests: int) -> None:
        """Counts the requests of a batch on which the network failed."""
        self._failed.inc(requests)

    def queue_changed(self, images: int) -> None:
        """Takes how many images are accepted and not answered."""
        self._queue.set(images)


class Metrics:
    """The metrics of a server."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        model = ("model", "version")
        self._requests = Counter(
            "gdas_tf_requests",
            "Requests answered, by API and HTTP status.",
            ("api", "code"),
            registry=own,
        )
        self._seconds = Histogram(
            "gdas_tf_request_seconds",
            "Time from the request's head to its answer.",
            ("api",),
            buckets=_SECONDS,
            registry=own,
        )
        # Finding a metric by its labels takes longer than counting.
        self._of_api: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.images = Counter("gdas_tf_images", "Images classified.", model, registry=own)
        self.inferences = Counter(
            "gdas_tf_inferences",
            "Requests that the network answered, or failed on.",
            (*model, "outcome"),
            registry=own,
        )
        self.batch = Histogram(
            "gdas_tf_batch_images", "Images of a batch.", model, buckets=_BATCHES, registry=own
        )
        self.inference = Histogram(
            "gdas_tf_inference_seconds", "Run time of a batch.", model, buckets=_SECONDS, registry=own
        )
        self.waited = Counter(
            "gdas_tf_queue_seconds", "Time that requests spent in the queue.", model, registry=own
        )
        self.queue = Gauge(
            "gdas_tf_queue_images",
            "Images accepted and not answered yet.",
            model,
            registry=own,
            multiprocess_mode="livesum",
        )
        self.last = Gauge(
            "gdas_tf_last_batch_timestamp_seconds",
            "When the last batch was done, as Unix time.",
            model,
            registry=own,
            multiprocess_mode="max",
        )
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            self._counts = self._all = own
            ProcessCollector(registry=own)
        else:
            self._counts, self._all = CollectorRegistry(), CollectorRegistry()
            counts = MultiProcessCollector(self._counts, folder)
            self._all.register(counts)
            self._all.register(_ProcessesCollector(lambda: live_processes(Path(folder))))

    def request_done(self, api: str, status: int, seconds: float) -> None:
        """Counts a request.

        Args:
            api: which API it belongs to; one of a few.
            status: HTTP status of the answer.
            seconds: time it took.
        """
        counters = self._of_api.get((api, status))
        if counters is None:
            counters = self._requests.labels(api, str(status)), self._seconds.labels(api)
            self._of_api[api, status] = counters
        counters[0].inc()
        counters[1].observe(seconds)

    def statistics(self, labels: dict[str, str]) -> Statistics:
        """Returns what the model of these labels has done."""
        found = {
            (sample.name, sample.labels.get("outcome")): sample.value
            for metric in self._counts.collect()
            for sample in metric.samples
            if "le" not in sample.labels and labels.items() <= sample.labels.items()
        }

        def read(name: str, outcome: str | None = None) -> float:
            return found.get((f"gdas_tf_{name}", outcome), 0.0)

        return Statistics(
            images=int(read("images_total")),
            requests=int(read("inferences_total", "success")),
            batches=int(read("batch_images_count")),
            failures=int(read("inferences_total", "failure")),
            seconds=read("inference_seconds_sum"),
            waited=read("queue_seconds_total"),
            last=read("last_batch_timestamp_seconds"),
        )

    def exposition(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return generate_latest(self._all)


def live_processes(folder: Path) -> list[int]:
    """Returns the processes that count in a folder; each has a file for its part of the queue."""
    return sorted(int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_livesum_*.db"))


def forget_dead_processes(folder: Path) -> None:
    """Takes the parts of the queue out of a folder that processes had which have died; their counts stay."""
    for process in live_processes(folder):
        if not psutil.pid_exists(process):
            mark_process_dead(process, str(folder))


class _ProcessesCollector(Collector):
    """`ProcessCollector` of several processes: their sum, and when the first began."""

    def __init__(self, processes: Callable[[], list[int]]) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        merged: dict[str, Metric] = {}
        for process in self._processes():
            for metric in ProcessCollector(pid=lambda pid=process: pid, registry=None).collect():
                if metric.name not in merged:
                    merged[metric.name] = metric
                    continue
                ours, theirs = merged[metric.name].samples, metric.samples
                combine = min if metric.name == "process_start_time_seconds" else lambda a, b: a + b
                merged[metric.name].samples = [
                    first._replace(value=combine(first.value, second.value))
                    for first, second in zip(ours, theirs, strict=True)
                ]
        return merged.values()
