"""The options with which `predict` and `serve` take ONNX files that don't say all of themselves."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    from gdas_tf.export.inference import InputOptions


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options; all models of others in a command share them."""
    group = parser.add_argument_group(
        "models of others",
        "For files that don't say all of themselves. Those of gdas-tf export do, and ignore these options.",
    )
    group.add_argument(
        "--class-names", metavar="FILE", help="names of the classes, one a line or a JSON array [0, 1, …]"
    )
    group.add_argument(
        "--layout", choices=("nhwc", "nchw"), help="order of the input's axes [told by its shape]"
    )
    group.add_argument(
        "--image-size", type=_size, metavar="N|HxW", help="pixels of an image, if the file leaves them open"
    )
    group.add_argument("--image-channels", type=int, choices=(1, 3), help="1 for grey, 3 for colour")
    group.add_argument(
        "--input-range",
        choices=("0..1", "0..255", "-1..1"),
        help="values of black and white [0..1; of uint8 inputs 0..255]",
    )
    group.add_argument(
        "--mean", type=_numbers, metavar="X,…", help="per channel, subtracted from images in 0..1"
    )
    group.add_argument("--std", type=_numbers, metavar="X,…", help="per channel, images are divided by it")


def input_options(args: argparse.Namespace) -> InputOptions:
    """Returns what the options say.

    Raises:
        UsageError: the class names cannot be read, or two options don't go together.
    """
    from gdas_tf.export.inference import InputOptions

    if args.input_range is not None and (args.mean is not None or args.std is not None):
        raise UsageError("--input-range: --mean and --std give the range already; leave it out")
    return InputOptions(
        class_names=None if args.class_names is None else _class_names(args.class_names),
        layout=args.layout,
        image_size=args.image_size,
        image_channels=args.image_channels,
        input_range=args.input_range,
        mean=args.mean,
        std=args.std,
    )


def _class_names(path: str) -> tuple[str, ...]:
    from gdas_tf.user_files import parse_json, read_text

    text = read_text(path, f"--class-names {path}")
    if text.lstrip().startswith("["):
        try:
            names = parse_json(text)
        except ValueError as error:
            raise UsageError(f"--class-names {path}: {error}") from error
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"--class-names {path}: expected names, one a line or a JSON array of strings")
    return tuple(names)


def positive(kind: type, minimum: float) -> Callable[[str], float]:
    """Returns a parser of numbers from `minimum` up."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not minimum <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"found {text!r}; expected a number from {minimum:g} up")
        return value

    return parse


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected pixels, as 224 or 224x320 (height x width)"
        )
    return int(match[1]), int(match[2] or match[1])


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(item) for item in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected numbers, as 0.5,0.5,0.5") from error
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"found {len(values)} numbers; expected 1 or 3, one per channel")
    return values
