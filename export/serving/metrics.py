"""Prometheus metrics of the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass
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
    """The metrics of one model; told of each batch by its `Batcher`."""

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        self.statistics = Statistics()
        labels = {"model": name, "version": version}
        self._images = metrics.images.labels(**labels)
        self._batch = metrics.batch.labels(**labels)
        self._inference = metrics.inference.labels(**labels)
        self._waited = metrics.waited.labels(**labels)
        self._queue = metrics.queue.labels(**labels)

    def batch_done(self, images: int, requests: int, seconds: float, waited: float) -> None:
        """Counts a batch; see `batching.Observer`."""
        counts = self.statistics
        counts.images += images
        counts.requests += requests
        counts.batches += 1
        counts.seconds += seconds
        counts.waited += waited
        counts.last = time.time()
        self._images.inc(images)
        self._batch.observe(images)
        self._inference.observe(seconds)
        self._waited.inc(waited)

    def batch_failed(self, requests: int) -> None:
        """Counts the requests of a batch on which the network failed."""
        self.statistics.failures += requests

    def watch_queue(self, size: Callable[[], int]) -> None:
        """Takes the function that tells how many images are accepted and not answered."""
        self._queue.set_function(size)


class Metrics:
    """The metrics of a server, in a registry of their own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        model = ("model", "version")
        self._registry = registry
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "gdas_tf_requests",
            "Requests answered, by API and HTTP status.",
            ("api", "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "gdas_tf_request_seconds",
            "Time from the request's head to its answer.",
            ("api",),
            buckets=_SECONDS,
            registry=registry,
        )
        # Finding a metric by its labels takes longer than counting.
        self._of_api: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.images = Counter("gdas_tf_images", "Images classified.", model, registry=registry)
        self.batch = Histogram(
            "gdas_tf_batch_images", "Images of a batch.", model, buckets=_BATCHES, registry=registry
        )
        self.inference = Histogram(
            "gdas_tf_inference_seconds", "Run time of a batch.", model, buckets=_SECONDS, registry=registry
        )
        self.waited = Counter(
            "gdas_tf_queue_seconds", "Time that requests spent in the queue.", model, registry=registry
        )
        self.queue = Gauge(
            "gdas_tf_queue_images", "Images accepted and not answered yet.", model, registry=registry
        )

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

    def exposition(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
