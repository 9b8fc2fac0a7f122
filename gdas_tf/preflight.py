"""What can be known before the first step of a run is found out before it, not after hours of training."""

from __future__ import annotations

import importlib.util
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gdas_tf.data.augmentation import Augmentation
from gdas_tf.errors import RunError, UsageError
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.training.dividing import check_divided

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.spaces.base import SearchSpace

STAGES = ("search", "retrain", "export", "benchmark", "draw")
"""The stages that have something to check, in their order."""

_ONNX = ("onnx", "tf2onnx", "onnxruntime")
_PACKAGES = {"onnx": _ONNX, "onnx_float16": _ONNX, "onnx_int8": _ONNX, "triton": _ONNX}


def check_before_start(
    config: Config,
    data: DataSet,
    stages: Sequence[str] = STAGES,
    genotype: Genotype | None = None,
    directory: str | Path | None = None,
    replicas: int = 1,
) -> None:
    """Makes sure, as far as it can be known, that the stages to come will not fail. Takes a second or two.

    Args:
        config: configuration of the run.
        data: its data set.
        stages: those of `STAGES` that will be run.
        genotype: the cells that will be trained; None where the search has yet to find them. All its
            operations are tried then.
        directory: the run directory, if it exists.
        replicas: how many share a batch.

    Raises:
        UsageError: a stage cannot be done with this configuration or these data; the message names the field
            of the configuration, as `retrain.cutout`, or the package that is missing.
        RunError: a folder that a stage writes to cannot be written.

    Example:
        >>> check_before_start(Config.preset("quick"), load_dataset("digits"), ["search"])
    """
    check_class_names(data)
    if not len(data.test):
        raise UsageError(f"data {data.name}: it has no test images; the network could not be evaluated")
    _check_folders(directory)
    for stage in ("search", "retrain"):
        if stage in stages:
            check_augmentation(config, data.image_shape, stage)
            # Of the search a batch is taken of each half; how many images the smaller one has is seen there.
            check_divided(config, stage, replicas, len(data.train))
    if "search" in stages and not (directory and (Path(directory) / "search").exists()):
        # One that has begun keeps what it began with.
        STRATEGIES.get(config.search.strategy).from_config(config).check(config, data)
    if "export" in stages:
        check_packages(config.export.formats)
    if "benchmark" in stages:
        from gdas_tf.export.benchmark.measuring import available_providers

        available_providers(config.benchmark.providers)
    if "draw" in stages:
        _check_drawing()
    if "retrain" in stages:
        _check_validation(config, data)
        _check_network(config, data, genotype)


def check_text(what: str, text: str) -> None:
    """Makes sure that a text can be written to JSON, ONNX and a terminal.

    Names of files may be any bytes; Python gives those that are not UTF-8 as lone surrogates, which nothing
    can write.

    Args:
        what: what the text is, as `class`.
        text: the text.

    Raises:
        UsageError: it cannot be written as UTF-8.
    """
    try:
        text.encode("utf-8")
        return
    except UnicodeEncodeError:
        pass
    shown, advice = ascii(text), "rename it"
    try:
        name = os.fsencode(text)
        shown = "'" + name.decode("ascii", "backslashreplace") + "'"
        name.decode("utf-8")
    except UnicodeError:  # archives of other systems are unpacked so
        pass
    else:
        advice = "the locale knows no such characters: set the environment variable LC_ALL to C.UTF-8"
    raise UsageError(f"{what} {shown}: the name cannot be read as text in UTF-8; {advice}")


def check_class_names(data: DataSet) -> None:
    """Makes sure that the class names can be written to the files of a run.

    Raises:
        UsageError: one cannot.
    """
    for name in data.class_names:
        check_text(f"data {data.name}: class", name)


def check_packages(formats: Sequence[str]) -> None:
    """Makes sure that what formats of the export need is installed.

    Args:
        formats: names of registered formats (`gdas_tf.config.names.names("format")`).

    Raises:
        UsageError: a package is missing.
    """
    for name in formats:
        for package in _PACKAGES.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise UsageError(
                    f"export.formats: {name} needs the package {package}, which is not installed; install it "
                    f"(pip install {package}), or leave {name} out"
                )


def _check_folders(directory: str | Path | None) -> None:
    try:
        with tempfile.TemporaryFile():  # the export has its own folder there
            pass
    except OSError as error:
        raise RunError(
            f"folder for temporary files: cannot write it ({error.strerror}); set the environment variable "
            "TMPDIR to a folder that can be written"
        ) from error
    if directory is None:
        return
    for folder in (Path(directory) / name for name in ("", "search", "retrain", "export", "pictures")):
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise RunError(f"cannot write {folder}: it is read-only, another user's, or a file")


def check_augmentation(config: Config, image_shape: tuple[int, int, int], stage: str) -> None:
    """Makes sure that images of a shape can be augmented as a stage, `search` or `retrain`, would have it.

    Raises:
        UsageError: the padding or CutOut's square is as big as the image; the message names the field.
    """
    field = f"{stage}.cutout"
    changes = {
        "data.padding": Augmentation(padding=config.data.padding, crop=config.data.crop),
        "data.colour_jitter": Augmentation(colour_jitter=config.data.colour_jitter),
        field: Augmentation(cutout=config.get(field), mean=(0.0,) * image_shape[2]),
    }
    for field, augmentation in changes.items():
        try:
            augmentation.check(image_shape)
        except UsageError as error:
            # Its own name of the value stands before the colon.
            raise UsageError(f"{field}: {str(error).partition(': ')[2]}") from error


def _check_validation(config: Config, data: DataSet) -> None:
    from gdas_tf.training.retraining import training_positions

    training_positions(config, data)


def _check_drawing() -> None:
    try:
        import gdas_tf.drawing.cells  # noqa: F401
    except Exception as error:  # matplotlib has an error for each setting of the user's
        raise UsageError(
            f"pictures: matplotlib cannot be imported ({' '.join(str(error).split()):.120}); set the "
            "environment variable MPLBACKEND to agg, or install matplotlib anew"
        ) from error


def _check_network(config: Config, data: DataSet, genotype: Genotype | None) -> None:
    """Builds the network that will be trained, with two normal cells a block at most: more are like those."""
    from gdas_tf.networks.registry import build
    from gdas_tf.operations.checks import checked
    from gdas_tf.training.retraining import network_options

    if genotype is None:
        for name in config.space.operations:
            checked(name)
    settings = config.retrain
    options = network_options(config, data)
    build(
        settings.network,
        genotype or every_operation(config.space, fixed_reduction=config.search.reduction == "fixed"),
        training=True,
        drop_path=settings.drop_path,
        auxiliary=settings.auxiliary_weight > 0,
        seed=config.seed,
        dtype=settings.precision,
        **{**options, "cells": min(options["cells"], 2)},
    )


def every_operation(space: SearchSpace, fixed_reduction: bool = False) -> Genotype:
    """Returns a genotype with every operation of a search space, in its normal and in its reduction cell.

    Where the output is the last node, each node takes those just before it, so that all have a way to it.
    """
    names = iter(itertools.cycle(space.operations))
    nodes = -(-len(space.operations) // space.inputs)
    step = int(space.output == "last")
    cell = [
        [(next(names), step * number + source) for source in range(space.inputs)] for number in range(nodes)
    ]
    reduction = None if fixed_reduction or not space.reduction else cell
    return Genotype.of(space, cell, reduction)
