"""An ONNX image classifier behind one interface, whoever exported it: for predict, serve and benchmark.

It reads the signature of a file (input, layout, type, output, classes, metadata), makes the session of
onnxruntime and classifies. It needs NumPy and onnxruntime, and never TensorFlow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gdas_tf.errors import UsageError
from gdas_tf.machine import cores

Layout = Literal["nhwc", "nchw"]

DATA_TYPES: dict[str, np.dtype] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(uint8)": np.dtype(np.uint8),
}
"""Element types of inputs and outputs that are served, by onnxruntime's name."""

_INPUT_RANGES = {"0..1": (0.0, 1.0), "0..255": (0.0, 255.0), "-1..1": (-1.0, 1.0)}


@dataclass(frozen=True)
class InputOptions:
    """What an ONNX file doesn't say of itself; each value takes the place of the file's own metadata.

    The options are for files of other programs. A file that gdas-tf exported says all of this; for it the
    options are ignored.

    Args:
        class_names: names of the classes in the order of the output.
        layout: order of the input's axes.
        image_size: height and width in pixels.
        image_channels: 1 or 3.
        input_range: what black and white are to the network, `0..1`, `0..255` or `-1..1`.
        mean: per channel, subtracted from images in [0, 1].
        std: per channel, images are divided by it.
        assumed_shape: height, width and channels where neither the file nor the other options say them;
            with it, a shape that cannot be told is no error.
    """

    class_names: tuple[str, ...] | None = None
    layout: Layout | None = None
    image_size: tuple[int, int] | None = None
    image_channels: int | None = None
    input_range: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    assumed_shape: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Tensor:
    """Input or output of a model: its name, its type, and its axes after the first, the batch."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


@dataclass
class Classifier:
    """An ONNX image classifier in onnxruntime.

    Attributes:
        path: the file.
        session: of onnxruntime.
        input, output: the tensors as the file has them.
        batch_size: the one batch size that the file takes, or None for any.
        layout: order of the input's axes.
        image_shape: height, width, channels.
        input_range: smallest and largest value of the input, or None when the file doesn't say.
        class_names: names of the classes; none until the network has run when the file has no names.
        logits: whether the output is logits rather than probabilities, which shows when the network runs.
        metadata: the file's own metadata.
        file_size: bytes.
        options: what the user says of the file.
        threads: threads of onnxruntime; 0 for its own choice.

    Example:
        >>> classifier = Classifier.load("runs/digits-quick/export/model.onnx")
        >>> classifier.classify(np.zeros((2, *classifier.image_shape), np.float32)).shape
        (2, 10)
    """

    path: Path
    session: Any
    input: Tensor
    output: Tensor
    batch_size: int | None
    layout: Layout
    image_shape: tuple[int, int, int]
    input_range: tuple[float, float] | None
    class_names: tuple[str, ...]
    metadata: Mapping[str, str]
    file_size: int
    options: InputOptions
    threads: int
    logits: bool = field(default=False, init=False)

    @classmethod
    def load(cls, path: str | Path, *, threads: int = 0, options: InputOptions | None = None) -> Classifier:
        """Loads an ONNX file to classify with, and runs it once.

        Args:
            path: the file.
            threads: threads of onnxruntime; 0 for as many as there are cores.
            options: what the file doesn't say of itself.

        Raises:
            UsageError: the file is missing or damaged, or is not an image classifier.
        """
        # Threads that spin between operations take the cores from the HTTP server.
        classifier = cls.open(
            path, threads=threads or cores(), options=options, providers=_providers(), spinning=False
        )
        try:
            classifier._probe()
        except UsageError as error:
            raise UsageError(f"model {path}: {error}") from error
        return classifier

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        threads: int = 0,
        options: InputOptions | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        spinning: bool = True,
    ) -> Classifier:
        """Loads an ONNX file and reads its signature, and does not run it.

        Args:
            path: the file.
            threads: threads within an operator; 0 leaves the choice to onnxruntime.
            options: what the file doesn't say of itself.
            providers: execution providers, the best one first.
            spinning: whether threads that wait for the next operation keep their cores busy.

        Raises:
            UsageError: the file is missing or damaged, or its signature is not that of an image classifier.
        """
        path = Path(path)
        if not path.is_file():
            raise UsageError(f"model {path}: there is no such file; give an ONNX file")
        try:
            session = open_session(path, threads=threads, providers=providers, spinning=spinning)
            about = read_signature(session, options or InputOptions())
        except UsageError as error:
            raise UsageError(f"model {path}: {error}") from error
        return cls(path=path, session=session, file_size=path.stat().st_size, threads=threads, **about)

    @property
    def genotype(self) -> dict[str, Any] | None:
        """The genotype in the metadata, as JSON, or None."""
        value = _json(self.metadata, "genotype")
        return value if isinstance(value, dict) else None

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Brings images to the layout, range and type of the input.

        Args:
            images: float32 [n, height, width, channels] in [0, 1].

        Returns:
            [n, …] as the input takes it.
        """
        if self.options.mean is not None:
            images = images - np.asarray(self.options.mean, np.float32)
        if self.options.std is not None:
            images = images / np.asarray(self.options.std, np.float32)
        if self.input.dtype == np.uint8:
            images = np.rint(images * 255)
        elif self.input_range is not None:
            low, high = self.input_range
            images = images * (high - low) + low
        if self.layout == "nchw":
            images = images.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(images, self.input.dtype)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the network on a batch as its input takes it, of any length.

        Args:
            batch: [n, …] of the input's type and layout.

        Returns:
            [n, classes], the output as it is.
        """
        if self.batch_size is None or len(batch) == self.batch_size:
            return self._run(batch)
        return np.concatenate([self._run(part) for part in self.calls(batch)])[: len(batch)]

    def calls(self, batch: np.ndarray) -> list[np.ndarray]:
        """Returns what each call of the network is fed for a batch, as its input takes it.

        That is the batch, or parts of it where the batch size is fixed, the last one filled up with zeros.
        """
        if self.batch_size is None or len(batch) == self.batch_size:
            return [batch]
        missing = -len(batch) % self.batch_size
        filled = np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1))
        return list(filled.reshape(-1, self.batch_size, *batch.shape[1:]))

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probabilities that outputs stand for, float32 [n, classes]."""
        outputs = outputs.astype(np.float32)
        if not self.logits:
            return outputs
        powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the probabilities of the classes.

        Args:
            images: float32 [n, height, width, channels] in [0, 1].

        Returns:
            float32 [n, classes].
        """
        return self.probabilities(self.run(self.encode(images)))

    def best_classes(self, probabilities: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        """Returns the most probable classes, best first, as {"label", "index", "probability"}.

        Args:
            probabilities: float32 [classes].
            top_k: how many.
        """
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        return [
            {
                "label": self.class_names[index],
                "index": int(index),
                "probability": float(probabilities[index]),
            }
            for index in order
        ]

    def processor_seconds(self, images: int) -> float:
        """Returns the processor time of a batch, the least of five; other programs don't add to it."""
        batch = self.encode(np.zeros((images, *self.image_shape), np.float32))
        times = []
        for _ in range(5):
            start = time.process_time()
            self.run(batch)
            times.append(time.process_time() - start)
        return min(times)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        output = self.session.run([self.output.name], {self.input.name: batch})[0]
        # Some networks end in [images, classes, 1, 1].
        return output if output.ndim == 2 else output.reshape(len(output), -1)

    def _probe(self) -> None:
        """Runs once, which warms up, counts the classes where the file doesn't, and tells logits."""
        noise = np.random.default_rng(0).random((3, *self.image_shape), np.float32)
        try:
            outputs = self.run(self.encode(noise)).astype(np.float32)
        except Exception as error:
            raise UsageError(
                f"it does not run on images {list(self.image_shape)} ({str(error)[:200]})"
            ) from error
        if len(outputs) != len(noise):
            raise UsageError(
                f"output {self.output.name} is {list(outputs.shape)} for {len(noise)} images; "
                "accepted are [images, classes]"
            )
        classes = outputs.shape[1]
        self.output = Tensor(self.output.name, self.output.dtype, (classes,))
        self.class_names = self.class_names or tuple(str(number) for number in range(classes))
        if len(self.class_names) != classes:
            raise UsageError(f"it has {classes} classes and {len(self.class_names)} class names")
        sums = outputs.sum(axis=-1)
        self.logits = bool((outputs < 0).any() or (np.abs(sums - 1) > 0.02).any())


def open_session(
    model: Path | bytes,
    *,
    threads: int = 0,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    spinning: bool = True,
) -> Any:
    """Returns onnxruntime's session of a model, a file or its content; see `Classifier.open`.

    Raises:
        UsageError: onnxruntime cannot load it.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4  # its errors are raised as well
    if not spinning:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, settings, providers=list(providers))
    except Exception as error:  # onnxruntime has a dozen of its own, without a common one
        reason = " ".join(str(error).split())
        raise UsageError(
            f"onnxruntime cannot load it: damaged or not an ONNX file ({reason:.200})"
        ) from error


def _providers() -> list[str]:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


def read_signature(session: Any, options: InputOptions) -> dict[str, Any]:
    """Returns what a session, its metadata and the options say of the classifier, by `Classifier`'s names.

    Raises:
        UsageError: it is no image classifier, or a part of its signature is neither in the file nor in the
            options.
    """
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    if metadata.get("producer", "").startswith("gdas-tf"):
        # Such a file says all of itself.
        options = InputOptions(assumed_shape=options.assumed_shape)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise UsageError(f"found {len(inputs)} inputs; an image classifier has one")
    source, target = inputs[0], _classes_output(outputs)
    if source.type not in DATA_TYPES or len(source.shape) != 4:
        raise UsageError(
            f"input {source.name} is {source.type} of shape {source.shape}; accepted are images of "
            f"4 axes of {', '.join(DATA_TYPES)}"
        )
    batch, *axes = (axis if isinstance(axis, int) and axis > 0 else None for axis in source.shape)
    shape, layout = _image_shape(axes, metadata, options)
    dtype = DATA_TYPES[source.type]
    height, width, channels = shape
    return {
        "input": Tensor(source.name, dtype, shape if layout == "nhwc" else (channels, height, width)),
        "output": Tensor(target.name, DATA_TYPES[target.type], _known(target.shape[1:2])),
        "batch_size": batch,
        "layout": layout,
        "image_shape": shape,
        "input_range": _input_range(dtype, metadata, options),
        "class_names": options.class_names or _class_names(metadata),
        "metadata": metadata,
        "options": options,
    }


def _known(axes: Sequence[Any]) -> tuple[int, ...]:
    """Returns the axes if all have a size, else nothing; onnxruntime gives None or a name for an open one."""
    return tuple(axes) if all(isinstance(axis, int) and axis > 0 for axis in axes) else ()


def _classes_output(outputs: Any) -> Any:
    for output in outputs:
        if output.type in DATA_TYPES and len(output.shape) >= 2 and set(output.shape[2:]) <= {1}:
            return output
    found = ", ".join(f"{output.name}: {output.type} {output.shape}" for output in outputs)
    raise UsageError(f"no output of shape [images, classes]; found {found}")


def _image_shape(
    axes: list[int | None], metadata: Mapping[str, str], options: InputOptions
) -> tuple[tuple[int, int, int], Layout]:
    """Returns height, width, channels and the layout.

    Args:
        axes: the input's axes after the batch; None where the file leaves them open.
        metadata: the file's metadata.
        options: what the user says.
    """
    layout = options.layout
    if layout is None:
        layout = "nchw" if axes[0] in (1, 3) and axes[2] not in (1, 3) else "nhwc"
        told_otherwise = "image_shape" in metadata or options.assumed_shape is not None
        if axes[0] not in (1, 3) and axes[2] not in (1, 3) and not told_otherwise:
            raise UsageError(
                f"cannot tell the layout of input axes {axes}; give InputOptions.layout, nchw or nhwc"
            )
    height, width, channels = axes if layout == "nhwc" else (*axes[1:], axes[0])
    told = _json(metadata, "image_shape")
    if isinstance(told, list) and len(told) == 3 and all(isinstance(axis, int) and axis > 0 for axis in told):
        height, width, channels = (
            own or metadata_axis for own, metadata_axis in zip((height, width, channels), told, strict=True)
        )
    if options.image_size is not None:
        if (height, width) != options.image_size and None not in (height, width):
            raise UsageError(
                "InputOptions.image_size: found {}x{}; the file takes {}x{}".format(
                    *options.image_size, height, width
                )
            )
        height, width = options.image_size
    channels = channels or options.image_channels
    if options.assumed_shape is not None:
        height, width, channels = (
            own or assumed
            for own, assumed in zip((height, width, channels), options.assumed_shape, strict=True)
        )
    if height is None or width is None:
        raise UsageError("it takes images of any size; give InputOptions.image_size, height and width")
    if channels is None:
        raise UsageError(
            "it doesn't say how many channels it takes; give InputOptions.image_channels, 1 or 3"
        )
    if channels not in (1, 3):
        raise UsageError(f"it takes images of {channels} channels; accepted are 1 (grey) and 3 (colour)")
    return (height, width, channels), layout


def _input_range(
    dtype: np.dtype, metadata: Mapping[str, str], options: InputOptions
) -> tuple[float, float] | None:
    if dtype == np.uint8:
        return (0.0, 255.0)
    text = options.input_range or metadata.get("input_range")
    if text is None:
        return None
    if text not in _INPUT_RANGES:
        raise UsageError(f"input range {text!r}: accepted are {', '.join(_INPUT_RANGES)}")
    if options.mean is not None or options.std is not None:
        return None
    return _INPUT_RANGES[text]


def _class_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    names = _json(metadata, "class_names")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _json(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[key])
    except (KeyError, ValueError):
        return None
