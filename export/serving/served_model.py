"""A model as it is served: classifier, queue, limits and figures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import numpy as np

from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.batching import Batcher, DeadlineError, InferenceError, QueueFullError
from gdas_tf.export.serving.http import SMALL_JSON, Call, HttpError, busy_error
from gdas_tf.export.serving.memory import give_back
from gdas_tf.export.serving.metrics import ModelMetrics, Statistics

_MARGIN = 0.2
"""How far values may lie outside the range of the input, in parts of its width: resampling that overshoots
reaches half of that."""

_NUMBER_BYTES = 32
"""Bytes of a number in JSON, at most: 17 digits, sign, exponent, comma and some white space."""

_OTHER_BYTES = 2**16
"""Bytes of a request besides its images, at most."""

_OTHER_PARTS = 1000
"""Numbers, arrays and objects of a JSON request besides its images, at most."""

_MUCH_JSON = 2**20
"""Bytes of JSON from which on the memory that it took is worth giving back."""

_AT_ONCE = 2**16
"""Numbers of JSON that become an array at a time; other threads wait for so long."""

Result = TypeVar("Result")


def array_from_json(value: Any, dtype: np.dtype, where: str) -> np.ndarray:
    """Returns nested lists of numbers as an array.

    Args:
        value: what JSON had.
        dtype: type of the array.
        where: what it is, for the error.

    Raises:
        HttpError: 400, it is something else, or a number is out of range.
    """
    if not isinstance(value, list):
        raise HttpError(400, f"{where}: found {type(value).__name__} as data; expected an array of numbers")
    try:
        step = max(1, _AT_ONCE // _numbers_in(value[:1]))
        parts = [np.asarray(value[start : start + step]) for start in range(0, len(value), step)]
        array = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0)
    except ValueError as error:
        raise HttpError(400, f"{where}: the nested arrays are of unequal length") from error
    if array.dtype.kind not in "iuf":
        raise HttpError(400, f"{where}: found something else than numbers in the data")
    if dtype == np.uint8 and array.size and (array.dtype.kind == "f" or array.min() < 0 or array.max() > 255):
        raise HttpError(400, f"{where}: expected whole numbers from 0 to 255")
    with np.errstate(over="ignore"):  # what overflows is infinite, which `check_values` finds
        return array.astype(dtype)


def _numbers_in(value: Any) -> int:
    """Returns how many numbers nested lists of equal length hold, and one for empty ones."""
    numbers = 1
    while isinstance(value, list) and value:
        numbers *= len(value)
        value = value[0]
    return numbers


class ServedModel:
    """A model of one version.

    Args:
        name: its name.
        version: its version.
        classifier: the network.
        max_batch_size, max_delay, queue_size, inline, runs: arguments of its `Batcher`.
        max_images: images of one request at most.
        deadline: seconds until a request must be answered.
        metrics: the counters of its requests.
        figures: what is known of it for people, as `accuracy` and `parameters`.
    """

    def __init__(
        self,
        name: str,
        version: int,
        classifier: Classifier,
        *,
        max_batch_size: int,
        max_delay: float,
        queue_size: int,
        inline: bool,
        runs: int,
        max_images: int,
        deadline: float,
        metrics: ModelMetrics,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.version = str(version)
        self.classifier = classifier
        self.max_images = max_images
        self.deadline = deadline
        self.figures = dict(figures or {})
        self._metrics = metrics
        self.batcher = Batcher(
            classifier.run,
            max_batch_size=max_batch_size,
            max_delay=max_delay,
            queue_size=queue_size,
            inline=inline,
            runs=runs,
            observer=metrics,
        )

    @property
    def statistics(self) -> Statistics:
        """What the model has done so far, in all processes of the server."""
        return self._metrics.statistics

    def check_images(self, images: int) -> None:
        """Makes sure that a request has an accepted number of images.

        Raises:
            HttpError: 400, the number is not accepted.
        """
        if not 1 <= images <= self.max_images:
            raise HttpError(
                400,
                f"model {self.name!r}: found {images} images; accepted are 1 to {self.max_images} a request",
            )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Makes sure that an array is a batch of images as the input takes them.

        Raises:
            HttpError: 400, the array has another shape.
        """
        source = self.classifier.input
        if shape[1:] != source.shape:
            raise HttpError(400, f"{self._input}: found shape {list(shape)}; expected {[-1, *source.shape]}")
        self.check_images(shape[0])

    @property
    def max_body(self) -> int:
        """Bytes of the largest request that the model needs, in JSON."""
        return self.max_images * math.prod(self.classifier.input.shape) * _NUMBER_BYTES + _OTHER_BYTES

    def check_json(self, text: bytes | memoryview) -> None:
        """Makes sure that JSON has no more numbers, arrays and objects than a request of the model needs.

        It is done before they are made: 32 MiB can hold 11 million empty arrays, which take 0.8 GiB.

        Raises:
            HttpError: 400, it holds more.
        """
        text = bytes(text)
        shape = self.classifier.input.shape
        numbers = text.count(b",") + 1
        if numbers > self.max_images * math.prod(shape) + _OTHER_PARTS:
            raise HttpError(
                400,
                f"{self._input}: the JSON has {numbers:,} numbers, more than {self.max_images} images have; "
                f"accepted are 1 to {self.max_images} images a request",
            )
        # Each array but the innermost adds to those of its parts.
        arrays = sum(1 / math.prod(shape[axis:]) for axis in range(len(shape)))
        if text.count(b"[") + text.count(b"{") > numbers * arrays + 2 * self.max_images + _OTHER_PARTS:
            raise HttpError(400, f"{self._input}: the JSON has more arrays than its numbers need")

    @property
    def _input(self) -> str:
        return f"input {self.classifier.input.name!r} of model {self.name!r}"

    def check_values(self, batch: np.ndarray) -> None:
        """Makes sure that all values are numbers, and of the input's range.

        Pixels of 0 to 255 and values of -1 to 1 are no images to a network of 0 to 1: it gives no error
        and answers wrongly. The range may be exceeded by a fifth, as by resampling that overshoots.

        Raises:
            HttpError: 400, a value is no number or out of range.
        """
        if batch.dtype.kind != "f":
            return
        low, high = batch.min(), batch.max()
        if not (low > -np.inf and high < np.inf):  # also false for NaN, which min and max pass on
            raise HttpError(400, f"{self._input}: found NaN or infinity; expected numbers")
        if self.classifier.input_range is not None:
            smallest, largest = self.classifier.input_range
            margin = _MARGIN * (largest - smallest)
            if low < smallest - margin or high > largest + margin:
                raise HttpError(
                    400,
                    f"{self._input}: found values from {low:g} to {high:g}; "
                    f"expected {smallest:g} to {largest:g}; scale them, or send the picture to /classify",
                )

    async def parse(self, call: Call, json_bytes: int, function: Callable[[], Result]) -> Result:
        """Returns what a function reads of a request: in a thread, if that takes long.

        Args:
            call: the request.
            json_bytes: length of its JSON.
            function: parses it.

        Raises:
            HttpError: 504, the deadline passed; or what the function raises.
        """
        if json_bytes <= SMALL_JSON:
            return function()

        def work() -> Result:
            result = function()
            if json_bytes > _MUCH_JSON:
                give_back()
            return result

        return await self._within_deadline(call, call.parser.submit(work))

    async def infer_picture(
        self, call: Call, decoders: Executor, prepare: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Returns the network's outputs for a picture that is still to be decoded.

        The picture has its place in the queue from the start: no more of them wait than the queue may hold.

        Args:
            call: the request.
            decoders: threads for `prepare`.
            prepare: returns the batch of one image as the input takes it.

        Raises:
            HttpError: as `infer`, or what `prepare` raises.
        """
        try:
            self.batcher.reserve(1)
        except QueueFullError as error:
            raise self._busy(error) from error
        loop = asyncio.get_running_loop()
        work = decoders.submit(prepare)
        try:
            batch = await self._within_deadline(call, work)
        except BaseException:
            # A thread that has begun goes on: the place is free when it ends.
            work.cancel()
            work.add_done_callback(lambda _: loop.call_soon_threadsafe(self.batcher.release, 1))
            raise
        return await self.infer(batch, call, reserved=True)

    async def _within_deadline(self, call: Call, work: Future[Result]) -> Result:
        """Returns a future's result; one that has not begun at the deadline is cancelled.

        Raises:
            HttpError: 504, the deadline passed.
        """
        try:
            async with asyncio.timeout(max(0.0, self.deadline - call.elapsed)):
                return await asyncio.wrap_future(work)
        except TimeoutError as error:
            raise self._late(self.deadline) from error

    async def infer(
        self, batch: np.ndarray, call: Call, timeout: float | None = None, *, reserved: bool = False
    ) -> np.ndarray:
        """Returns the network's outputs for a checked batch.

        Args:
            batch: [n, …] as the input takes it.
            call: the request; its time counts from when its body had come in.
            timeout: seconds, if the client wants to wait less than `deadline`.
            reserved: whether the batch has its place in the queue already.

        Raises:
            HttpError: 503, too much to do; 504, the deadline passed; 500, the network failed.
        """
        timeout = self.deadline if timeout is None else min(timeout, self.deadline)
        try:
            return await self.batcher.submit(batch, timeout - call.elapsed, reserved=reserved)
        except QueueFullError as error:
            raise self._busy(error) from error
        except DeadlineError as error:
            raise self._late(timeout) from error
        except InferenceError as error:
            raise HttpError(500, f"model {self.name!r}: the network failed on this batch") from error

    def _busy(self, error: QueueFullError) -> HttpError:
        return busy_error(f"model {self.name!r}: the queue is full", error.retry_after)

    def _late(self, timeout: float) -> HttpError:
        return HttpError(504, f"model {self.name!r}: no answer within {timeout:g} seconds")
