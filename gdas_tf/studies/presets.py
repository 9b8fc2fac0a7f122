"""What each preset would take on this machine for images of a shape, by short timings on made-up images."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdas_tf.config.config import Config
from gdas_tf.config.presets import AT_ANY_SIZE, PRESETS
from gdas_tf.data.store import MEMORY_LIMIT
from gdas_tf.errors import UsageError
from gdas_tf.pipeline.division import Images
from gdas_tf.preflight import check_augmentation
from gdas_tf.studies.executors import Executor, Task, opened
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import Study
from gdas_tf.studies.plan import costs

_FILE = "made-up.npz"
_STEPS = 2  # of an epoch that is timed


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a preset takes.

    Attributes:
        preset: its name.
        search: seconds of the search; None where it trains candidates and does not say how many.
        training: seconds of the retraining, with starting the program.
        memory: MiB of resident memory at the peak, with the images.
        problem: why it cannot be run on such images; None if it can.
    """

    preset: str
    search: float | None = None
    training: float = 0.0
    memory: float = 0.0
    problem: str | None = None


def estimate(
    image_shape: tuple[int, int, int],
    classes: int,
    training_images: int,
    presets: Sequence[str] = AT_ANY_SIZE,
    told: Callable[[Estimate], None] = lambda estimate: None,
) -> list[Estimate]:
    """Times some steps of the search and of the retraining of presets, each in a process of its own.

    The images are made up, few, and of the shape given, so that nothing has to be read. What a step takes is
    multiplied by the number of steps.

    Args:
        image_shape: height, width, channels.
        classes: number of classes.
        training_images: number of training images.
        presets: their names.
        told: called with each estimate as soon as there is one.

    Raises:
        UsageError: there is no preset of a name.
    """
    for name in presets:
        Config.preset(name)
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="gdas-tf-presets-") as temporary,
        opened("local", 1, None) as machine,
    ):
        for name in presets:
            found.append(
                _estimate(Path(temporary) / name, name, image_shape, classes, training_images, machine)
            )
            told(found[-1])
    return found


def _estimate(
    path: Path,
    preset: str,
    image_shape: tuple[int, int, int],
    classes: int,
    training_images: int,
    machine: Executor,
) -> Estimate:
    path.mkdir()
    changes = {name: value for name, value in PRESETS[preset].items() if name != "data.name"}
    try:
        config = Config.preset("paper").override(changes)
        if (size := config.data.image_size) is not None:  # such a preset brings images to its own size
            image_shape = (*((size, size) if isinstance(size, int) else size), image_shape[2])
        for stage in ("search", "retrain"):
            check_augmentation(config, image_shape, stage)
        few = _STEPS * max(2 * config.search.batch_size, config.retrain.batch_size)
        _make_up(path / _FILE, image_shape, classes, max(min(few, training_images), 2 * classes))
        study = Study(
            name=preset,
            preset="paper",
            config={"data.name": str(path / _FILE)},
            arms={preset: {"changes": changes}},
        )
        folder = StudyFolder(path / "study")
        folder.begin(study)
        task = Task("timing", str(folder.path), "timing", (preset,), os.getcwd())
        outcome = _outcome(machine.submit(task))
    except UsageError as error:
        return Estimate(preset, problem=str(error))
    if not outcome["ok"]:
        return Estimate(preset, problem=outcome["message"])
    outcome["result"][preset]["images"] = _images(training_images)
    cost = costs(study, [outcome])
    size = training_images * float(np.prod(image_shape))
    # Decoded images stand in memory twice, as an array and as a tensor, unless they are left on the disk.
    images = 2 * size if size <= MEMORY_LIMIT else 0.0
    return Estimate(
        preset,
        None if preset in cost.unknown else cost.search[preset],
        cost.training[preset],
        outcome["peak_mib"] + images / 2**20,
    )


def _make_up(path: Path, image_shape: tuple[int, int, int], classes: int, count: int) -> None:
    """Writes images of noise, with labels in turns, as a data set."""
    images = np.random.default_rng(0).integers(0, 256, (count, *image_shape), np.uint8)
    labels = np.arange(count, dtype=np.int32) % classes
    names = np.array([str(number) for number in range(classes)])
    test = {"x_test": images[:classes], "y_test": labels[:classes]}
    np.savez(path, x_train=images, y_train=labels, class_names=names, **test)


def _images(training_images: int) -> Images:
    """The numbers of all images, in the place of the few that were timed."""
    half = max(training_images // 2, 1)
    return Images(training_images, half, max(training_images - half, 1), 0)


def _outcome(future: concurrent.futures.Future[dict[str, Any]]) -> dict[str, Any]:
    """Waits for a process; Ctrl-C is heard in between."""
    while True:
        try:
            return future.result(timeout=1.0)
        except concurrent.futures.TimeoutError:
            continue
