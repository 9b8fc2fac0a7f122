"""POST /classify: a picture file in, labelled probabilities out."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np

from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.http import Call, HttpError, Reply, json_reply
from gdas_tf.export.serving.images import ImageError, ImageFormatError, ImageSizeError, load_image
from gdas_tf.export.serving.served_model import ServedModel

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Those that people have of what training takes; of the others Pillow cannot tell each by its first bytes."""

MAX_PARTS = 20
"""Parts of a form at most."""

TOP_K = 5
"""Classes in an answer unless the client says otherwise."""


async def classify(model: ServedModel, call: Call, decoders: Executor, max_pixels: int) -> Reply:
    """Answers POST /classify.

    Args:
        model: the model asked for.
        call: body: a picture file, or multipart/form-data with one; query: `top_k`.
        decoders: threads that decode pictures.
        max_pixels: pixels of a picture at most.

    Raises:
        HttpError: 400, 413 or 415 for a bad request, else as `ServedModel.infer`.
    """
    classifier = model.classifier
    top_k = _top_k(call.query, len(classifier.class_names))
    outputs = await model.infer_picture(call, decoders, lambda: _prepare(classifier, call, max_pixels))
    return json_reply(
        {
            "model": model.name,
            "version": model.version,
            "classes": classifier.best_classes(classifier.probabilities(outputs)[0], top_k),
        }
    )


def _prepare(classifier: Classifier, call: Call, max_pixels: int) -> np.ndarray:
    """Returns the picture of a request as a batch of one, as the network takes it."""
    content_type = call.headers.get(b"content-type", b"")
    multipart = content_type.strip().lower().startswith(b"multipart/")
    data = _file_of_form(call.body, content_type) if multipart else call.body
    try:
        image = load_image(data, classifier.image_shape, formats=FORMATS, max_pixels=max_pixels)
    except ImageFormatError as error:
        raise HttpError(415, str(error)) from error
    except ImageSizeError as error:
        raise HttpError(413, str(error)) from error
    except ImageError as error:
        raise HttpError(400, str(error)) from error
    return classifier.encode(image[None])


def _top_k(query: dict[str, str], classes: int) -> int:
    text = query.get("top_k", str(TOP_K))
    if not text.isdecimal() or not int(text[:9]) >= 1:
        raise HttpError(400, f"top_k: found {text[:20]!r}; expected a whole number from 1")
    return min(int(text[:9]), classes)


def _file_of_form(body: bytes, content_type: bytes) -> bytes:
    """Returns the one file in a multipart/form-data body.

    Raises:
        HttpError: 400, the form is damaged, has too many parts, or has not one file.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import FormParser, parse_options_header

    files: list[bytes] = []

    def take(file: Any) -> None:
        file.file_object.seek(0)
        files.append(file.file_object.read())

    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise HttpError(400, "the form has no boundary, or is another kind than multipart/form-data")
    parts = body.count(b"--" + boundary) - 1  # the last one ends the form
    if parts > MAX_PARTS:  # counted before they are parsed, which takes some 20 us each
        raise HttpError(400, f"the form has {parts:,} parts; accepted are {MAX_PARTS} at most, one a picture")
    try:
        parser = FormParser(
            "multipart/form-data",
            on_field=lambda field: None,
            on_file=take,
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1},  # the body's limit holds; no temporary files
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise HttpError(400, "the form is damaged or cut off") from error
    if len(files) != 1:
        raise HttpError(400, f"the form has {len(files)} files; expected one picture")
    return files[0]
