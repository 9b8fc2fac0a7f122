"""A model as it is served: classifier, queue, limits and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.batching import Batcher, DeadlineError, InferenceError, QueueFullError
from gdas_tf.export.serving.http import HttpError, busy_error
from gdas_tf.export.serving.metrics import ModelMetrics, Statistics


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
        array = np.asarray(value)
    except ValueError as error:
        raise HttpError(400, f"{where}: the nested arrays are of unequal length") from error
    if array.dtype.kind not in "iuf":
        raise HttpError(400, f"{where}: found something else than numbers in the data")
    if dtype == np.uint8 and array.size and (array.dtype.kind == "f" or array.min() < 0 or array.max() > 255):
        raise HttpError(400, f"{where}: expected whole numbers from 0 to 255")
    with np.errstate(over="ignore"):  # what overflows is infinite, which `check_values` finds
        return array.astype(dtype)


class ServedModel:
    """A model of one version.

    Args:
        name: its name.
        version: its version.
        classifier: the network.
        max_batch_size, max_delay, queue_size, inline, runs: of its `Batcher`.
        max_images: images of one request at most.
        deadline: seconds until a request must be answered.
        metrics: counts what it does.
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
            HttpError: 400, it has not.
        """
        if not 1 <= images <= self.max_images:
            raise HttpError(
                400,
                f"model {self.name!r}: found {images} images; accepted are 1 to {self.max_images} a request",
            )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Makes sure that an array is a batch of images as the input takes them.

        Raises:
            HttpError: 400, it is not.
        """
        source = self.classifier.input
        if shape[1:] != source.shape:
            raise HttpError(
                400,
                f"input {source.name!r} of model {self.name!r}: found shape {list(shape)}; "
                f"expected {[-1, *source.shape]}",
            )
        self.check_images(shape[0])

    def check_values(self, batch: np.ndarray) -> None:
        """Makes sure that all values are numbers, and not pixels of 0 to 255 where 0 to 1 is meant.

        The range may be exceeded by its own width, as resampling with overshoot does.

        Raises:
            HttpError: 400, they are not.
        """
        if batch.dtype.kind != "f":
            return
        low, high = batch.min(), batch.max()
        name = self.classifier.input.name
        if not (low > -np.inf and high < np.inf):  # also false for NaN, which min and max pass on
            raise HttpError(
                400, f"input {name!r} of model {self.name!r}: found NaN or infinity; expected numbers"
            )
        if self.classifier.input_range is not None:
            smallest, largest = self.classifier.input_range
            width = largest - smallest
            if low < smallest - width or high > largest + width:
                raise HttpError(
                    400,
                    f"input {name!r} of model {self.name!r}: found values from {low:g} to {high:g}; "
                    f"expected {smallest:g} to {largest:g}; scale them, or send the picture to /classify",
                )

    async def infer(self, batch: np.ndarray, timeout: float | None = None) -> np.ndarray:
        """Returns the network's outputs for a checked batch.

        Args:
            batch: [n, …] as the input takes it.
            timeout: seconds, if the client wants to wait less than `deadline`.

        Raises:
            HttpError: 503, too much to do; 504, the deadline passed; 500, the network failed.
        """
        timeout = self.deadline if timeout is None else min(timeout, self.deadline)
        try:
            return await self.batcher.submit(batch, timeout)
        except QueueFullError as error:
            raise self.busy(error) from error
        except DeadlineError as error:
            raise HttpError(504, f"model {self.name!r}: no answer within {timeout:g} seconds") from error
        except InferenceError as error:
            raise HttpError(500, f"model {self.name!r}: the network failed on this batch") from error

    def check_room(self, images: int) -> None:
        """Makes sure that the queue has room, before work is done for a request.

        Raises:
            HttpError: 503, it has not.
        """
        try:
            self.batcher.check_room(images)
        except QueueFullError as error:
            raise self.busy(error) from error

    def busy(self, error: QueueFullError) -> HttpError:
        """Returns the HTTP error of a full queue."""
        return busy_error(f"model {self.name!r}: the queue is full", error.retry_after)
