"""Dynamic batching: requests that arrive while the network runs go into the next batch together."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

_log = logging.getLogger("gdas_tf.serve")


class QueueFullError(Exception):
    """The queue holds as much as it may.

    Args:
        retry_after: whole seconds after which there should be room again.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("queue full")
        self.retry_after = retry_after


class DeadlineError(Exception):
    """The deadline of a request passed before its answer was there."""


class InferenceError(Exception):
    """The network failed on a batch."""


class Observer(Protocol):
    """Is told of each batch and of the queue."""

    def batch_done(self, images: int, requests: int, seconds: float, waited: float) -> None:
        """Takes a batch's images and requests, its run time, and its requests' time in the queue."""

    def batch_failed(self, requests: int) -> None:
        """Takes the number of requests of a batch on which the network failed."""

    def queue_changed(self, images: int) -> None:
        """Takes how many images are accepted and not answered."""


class _Job:
    """A request's images, or a part of them, and the future of their outputs."""

    __slots__ = ("batch", "future", "images", "arrived")

    def __init__(self, batch: np.ndarray, future: asyncio.Future[np.ndarray], arrived: float) -> None:
        self.batch = batch
        self.future = future
        self.images = len(batch)
        self.arrived = arrived


class Batcher:
    """Collects requests into batches and runs them, `runs` batches at a time.

    An idle network runs what has come at once. While batches run, requests queue up and make the next one.
    After a batch it waits, `max_delay` at most, until half of the requests that were in flight, and are not
    in another batch that runs, are in the queue: clients that were answered just now are about to ask again,
    and while half of them travel, the other half computes.

    All of it happens in the event loop, but for the network itself, which runs in threads of its own. A
    network that is done sooner than a thread gets its turn runs in the event loop too (`inline`): requests
    wait in their sockets meanwhile.

    Args:
        run: takes [n, …], returns [n, classes].
        max_batch_size: images of a batch at most.
        max_delay: seconds.
        queue_size: images accepted and not answered yet, at most.
        inline: whether the network runs in the event loop.
        runs: batches that run at a time, if it doesn't.
        observer: is told of each batch.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        *,
        max_batch_size: int = 16,
        max_delay: float = 0.002,
        queue_size: int = 256,
        inline: bool = False,
        runs: int = 1,
        observer: Observer | None = None,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.max_delay = max_delay
        self.queue_size = queue_size
        self.inline = inline
        self.runs = 1 if inline else runs
        self.pending = 0
        self._run = run
        self._observer = observer
        self._jobs: deque[_Job] = deque()
        self._queued = 0
        self._running = 0  # batches
        self._running_images = 0
        self._dispatching = False  # whether `_dispatch` is about to be called
        self._timer: asyncio.TimerHandle | None = None  # that calls `_schedule` later
        self._seconds_per_image = 0.0
        self._finished = -math.inf
        self._in_flight = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._threads = ThreadPoolExecutor(self.runs, thread_name_prefix="network")

    async def close(self) -> None:
        """Ends after everything accepted is done; nothing more is accepted."""
        self._closed = True
        await self._idle.wait()
        self._threads.shutdown()

    def reserve(self, images: int) -> None:
        """Accepts images that are still to be prepared; then `submit` them, or else `release` them.

        Raises:
            QueueFullError: they cannot be accepted now.
        """
        if self._closed or self.pending + images > self.queue_size:
            raise QueueFullError(max(1, math.ceil(self.pending * self._seconds_per_image)))
        self._count(images)
        self._idle.clear()

    def release(self, images: int) -> None:
        """Gives back the places of images that were reserved and that will not be submitted."""
        self._end(images)

    async def submit(self, batch: np.ndarray, timeout: float, *, reserved: bool = False) -> np.ndarray:
        """Returns the network's outputs for a request.

        Args:
            batch: [n, …], 1 <= n <= queue_size.
            timeout: seconds until the deadline.
            reserved: whether `reserve` has accepted its images; their places are used up, whatever happens.

        Raises:
            QueueFullError: nothing was accepted.
            DeadlineError: the deadline passed.
            InferenceError: the network failed.
        """
        images = len(batch)
        if not reserved:
            self.reserve(images)
        self._queued += images
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        jobs = [
            _Job(batch[start : start + self.max_batch_size], loop.create_future(), now)
            for start in range(0, images, self.max_batch_size)
        ]
        deadline = loop.call_later(timeout, _expire, jobs)
        self._jobs.extend(jobs)
        self._schedule()
        try:
            if len(jobs) == 1:
                return await jobs[0].future
            return np.concatenate(await asyncio.gather(*(job.future for job in jobs)))
        finally:
            deadline.cancel()

    def _schedule(self) -> None:
        """Sees to it that the next batch is dispatched when its time has come."""
        if self._running == self.runs or self._dispatching or not self._jobs:
            return
        loop = asyncio.get_running_loop()
        if self._queued < self._wanted():
            delay = self._finished + self.max_delay - time.perf_counter()
            if delay > 0:
                if self._timer is None:
                    self._timer = loop.call_later(delay, self._wait_no_longer)
                return
        # Not at once: first the event loop takes in the other requests that have come.
        self._dispatching = True
        loop.call_soon(self._dispatch)

    def _wait_no_longer(self) -> None:
        self._timer = None
        self._in_flight = 0
        self._schedule()

    def _wanted(self) -> int:
        """Returns how many images are worth waiting for."""
        return min(self.max_batch_size, (self._in_flight + 1) // 2)

    def _dispatch(self) -> None:
        """Begins the next batch."""
        self._dispatching = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken: list[_Job] = []
        images = 0
        while self._jobs and images + self._jobs[0].images <= self.max_batch_size:
            job = self._jobs.popleft()
            self._queued -= job.images
            if job.future.done():  # its deadline has passed
                self._count(-job.images)
            else:
                taken.append(job)
                images += job.images
        if not taken:
            self._end(0)
            return
        self._running += 1
        self._running_images += images
        batch = taken[0].batch if len(taken) == 1 else np.concatenate([job.batch for job in taken])
        started = time.perf_counter()
        if self.inline:
            self._finish(taken, started, self._try(batch))
        else:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(self._threads, self._try, batch).add_done_callback(
                lambda future: self._finish(taken, started, future.result())
            )
            self._schedule()

    def _try(self, batch: np.ndarray) -> tuple[np.ndarray | None, float]:
        """Returns the network's outputs, None if it fails, and the seconds that it took."""
        started = time.perf_counter()
        try:
            outputs = self._run(batch)
        except Exception:
            _log.exception("the network failed on a batch")
            outputs = None
        return outputs, time.perf_counter() - started

    def _finish(self, jobs: list[_Job], started: float, outcome: tuple[np.ndarray | None, float]) -> None:
        """Hands out the outputs of a batch."""
        outputs, seconds = outcome
        images = sum(job.images for job in jobs)
        self._running -= 1
        self._running_images -= images
        self._finished = time.perf_counter()
        self._in_flight = self.pending - self._running_images
        start = 0
        for job in jobs:
            if not job.future.done():
                if outputs is None:
                    job.future.set_exception(InferenceError())
                else:
                    job.future.set_result(outputs[start : start + job.images])
            start += job.images
        if self._observer and outputs is None:
            self._observer.batch_failed(len(jobs))
        elif self._observer:
            self._observer.batch_done(images, len(jobs), seconds, sum(started - job.arrived for job in jobs))
        self._seconds_per_image += 0.1 * (seconds / images / self.runs - self._seconds_per_image)
        self._end(images)

    def _count(self, images: int) -> None:
        self.pending += images
        if self._observer:
            self._observer.queue_changed(self.pending)

    def _end(self, images: int) -> None:
        self._count(-images)
        self._schedule()
        if not self.pending:
            self._idle.set()


def _expire(jobs: list[_Job]) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(DeadlineError())
