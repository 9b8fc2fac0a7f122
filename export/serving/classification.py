"""POST /classify: a picture file in, labelled probabilities out."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Any

import numpy as np

from gdas_tf.export.serving.http import Call, HttpError, Reply, json_reply
from gdas_tf.export.serving.images import ImageError, ImageFormatError, ImageSizeError, load_image
from gdas_tf.export.serving.served_model import ServedModel

FORMATS = ("JPEG", "PNG")
TOP_K = 5
"""Classes in an answer unless the client says otherwise."""


async def classify(model: ServedModel, call: Call, decoders: Executor, max_pixels: int) -> Reply:
    """Answers POST /classify.

    Args:
        model: the model asked for.
        call: body: a JPEG or PNG file, or multipart/form-data with one; query: `top_k`.
        decoders: threads that decode pictures.
        max_pixels: pixels of a picture at most.

    Raises:
        HttpError: 400, 413 or 415 for a bad request, else as `ServedModel.infer`.
    """
    classifier = model.classifier
    top_k = _top_k(call.query, len(classifier.class_names))
    content_type = call.headers.get(b"content-type", b"")
    multipart = content_type.strip().lower().startswith(b"multipart/")
    data = _file_of_form(call.body, content_type) if multipart else call.body
    model.check_room(1)

    def prepare() -> np.ndarray:
        return classifier.encode(
            load_image(data, classifier.image_shape, formats=FORMATS, max_pixels=max_pixels)[None]
        )

    try:
        batch = await asyncio.get_running_loop().run_in_executor(decoders, prepare)
    except ImageFormatError as error:
        raise HttpError(415, str(error)) from error
    except ImageSizeError as error:
        raise HttpError(413, str(error)) from error
    except ImageError as error:
        raise HttpError(400, str(error)) from error
    probabilities = classifier.probabilities(await model.infer(batch))[0]
    return json_reply(
        {
            "model": model.name,
            "version": model.version,
            "classes": classifier.best_classes(probabilities, top_k),
        }
    )


def _top_k(query: dict[str, str], classes: int) -> int:
    text = query.get("top_k", str(TOP_K))
    if not text.isdecimal() or not int(text[:9]) >= 1:
        raise HttpError(400, f"top_k: found {text[:20]!r}; expected a whole number from 1")
    return min(int(text[:9]), classes)


def _file_of_form(body: bytes, content_type: bytes) -> bytes:
    """Returns the one file in a multipart/form-data body.

    Raises:
        HttpError: 400, the form is damaged or has not one file.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import FormParser, parse_options_header

    files: list[bytes] = []

    def take(file: Any) -> None:
        file.file_object.seek(0)
        files.append(file.file_object.read())

    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise HttpError(400, "the form has no boundary, or is another kind than multipart/form-data")
    try:
        parser = FormParser(
            "multipart/form-data",
            on_field=lambda field: None,
            on_file=take,
            boundary=options[b"boundary"],
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1},  # the body's limit holds; no temporary files
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise HttpError(400, "the form is damaged or cut off") from error
    if len(files) != 1:
        raise HttpError(400, f"the form has {len(files)} files; expected one picture")
    return files[0]
