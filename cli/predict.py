"""`gdas-tf predict`: classifies pictures with an exported network."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.cli import options
from gdas_tf.cli.classifier_options import add_input_options, input_options, positive
from gdas_tf.cli.console import print_result
from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    from gdas_tf.export.inference import Classifier

_BATCH = 16

_DESCRIPTION = """\
Classifies pictures with an ONNX image classifier: the classes with the highest probabilities. Pictures are
prepared as in training and as gdas-tf serve does. Those that cannot be read are reported, the others done;
the exit code is 1 then."""

_EXAMPLES = """\
  gdas-tf predict runs/digits-quick seven.png
  gdas-tf predict runs/photos holiday/ --top-k 1 --csv > holiday.csv
  gdas-tf predict resnet50.onnx cat.jpg --class-names imagenet.txt \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
"""


@dataclass
class _Prediction:
    """A picture and its best classes, or what is wrong with it."""

    file: str
    classes: list[dict[str, Any]]
    error: str | None = None


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "predict", "MODEL IMAGE ...", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="ONNX file or run directory")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="picture, or folder with pictures at any depth"
    )
    parser.add_argument(
        "--top-k", type=positive(int, 1), default=3, metavar="N", help="classes of a picture, best first [3]"
    )
    parser.add_argument("--csv", action="store_true", help="print a table of comma-separated values")
    parser.add_argument(
        "--threads", type=positive(int, 0), default=0, metavar="N", help="0 for all cores [0]"
    )
    add_input_options(parser)
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Predicts."""
    from gdas_tf.export.inference import Classifier
    from gdas_tf.export.serving.repository import model_path

    if args.json and args.csv:
        raise UsageError("predict: --json and --csv exclude each other")
    files = _find_pictures(args.images)
    classifier = Classifier.load(model_path(args.model), threads=args.threads, options=input_options(args))
    top_k = min(args.top_k, len(classifier.class_names))
    predictions = list(_predict(classifier, files, top_k))
    if args.csv:
        _print_csv(predictions, top_k)
    else:
        results = [
            {"file": item.file, "error": item.error}
            if item.error
            else {"file": item.file, "classes": item.classes}
            for item in predictions
        ]
        print_result(args.json, {"model": str(args.model), "predictions": results}, _table(predictions))
    broken = [item for item in predictions if item.error]
    for item in broken:
        print(f"gdas-tf: {item.file}: {item.error}", file=sys.stderr)
    return 1 if broken else 0


def _find_pictures(arguments: Sequence[str]) -> list[Path]:
    """Returns the files among arguments, and the pictures in the folders among them, in order of their names.

    Raises:
        UsageError: an argument doesn't exist, or a folder has no pictures.
    """
    from gdas_tf.data.picture_files import PictureFinder, accepted
    from gdas_tf.notes import note

    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            below = PictureFinder(path).find(path)
            left_alone = ", ".join(below.left_alone(path))
            if not below.files:
                hint = f"; left alone: {left_alone}" if left_alone else ""
                raise UsageError(f"folder {path}: it has no pictures{hint}; accepted are {accepted()}")
            if left_alone:
                note(f"folder {path}: left alone: {left_alone}")
            found += below.files
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"picture {path}: there is no such file or folder")
    return found


def _predict(classifier: Classifier, files: Sequence[Path], top_k: int) -> Iterator[_Prediction]:
    """Yields the predictions in the order of the files, which are read and classified in batches."""
    import numpy as np
    from tqdm import tqdm

    from gdas_tf.data.images import MAX_PIXELS
    from gdas_tf.export.serving.images import ImageError, load_image

    progress = tqdm(total=len(files), unit=" pictures", leave=False, disable=None if len(files) > 1 else True)
    with progress:
        for start in range(0, len(files), _BATCH):
            predictions, images = [], []
            for file in files[start : start + _BATCH]:
                prediction = _Prediction(str(file), [])
                try:
                    # The user's own files may be as large as in training; a server takes less of strangers.
                    images.append(
                        load_image(file.read_bytes(), classifier.image_shape, max_pixels=MAX_PIXELS)
                    )
                except OSError as error:
                    prediction.error = f"cannot read it: {error.strerror}"
                except ImageError as error:
                    prediction.error = str(error)
                predictions.append(prediction)
                progress.update()
            rows = iter(classifier.classify(np.stack(images)) if images else ())
            for prediction in predictions:
                if prediction.error is None:
                    prediction.classes = classifier.best_classes(next(rows), top_k)
            yield from predictions


def _table(predictions: Sequence[_Prediction]) -> str:
    """Returns a line per picture: its name, then labels and probabilities in columns."""
    done = [item for item in predictions if not item.error]
    file_width = max((len(item.file) for item in done), default=0)
    label_width = max((len(best["label"]) for item in done for best in item.classes), default=0)
    lines = []
    for item in done:
        cells = (f"{best['label']:<{label_width}} {best['probability']:>6.1%}" for best in item.classes)
        lines.append(f"{item.file:<{file_width}}  " + "   ".join(cells))
    return "\n".join(lines)


def _print_csv(predictions: Sequence[_Prediction], top_k: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = [name for rank in range(1, top_k + 1) for name in (f"label_{rank}", f"probability_{rank}")]
    writer.writerow(["file", *columns, "error"])
    for item in predictions:
        values = [value for best in item.classes for value in (best["label"], f"{best['probability']:.6f}")]
        values += [""] * (len(columns) - len(values))
        writer.writerow([item.file, *values, item.error or ""])
