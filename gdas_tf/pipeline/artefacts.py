"""What stages hand on to each other, as files: logits, genotypes, networks, ONNX files."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import MissingStageError, UsageError
from gdas_tf.files import read_json
from gdas_tf.numerics.starting import start_tensorflow
from gdas_tf.user_files import read_npz

if TYPE_CHECKING:
    import keras
    import numpy as np

    from gdas_tf.config.config import Config
    from gdas_tf.runs.run import Run
    from gdas_tf.spaces.base import SearchSpace
    from gdas_tf.spaces.genotype import Genotype


def genotype_of_logits(path: str | Path, config: Config) -> Genotype:
    """Returns the genotype of the last arrays in a file.

    Args:
        path: an .npz as a search writes it. Of a strategy that learns logits it has `normal`
            [epochs + 1, edges, operations] (or [edges, operations]), and `reduction` alike unless the
            reduction cell is fixed; of another one the arrays that the strategy has, [epochs + 1, …] each.
        config: strategy, operations, nodes, rule and ranks.

    Raises:
        UsageError: the file is missing, damaged, or doesn't fit the strategy or the search space.
    """
    from gdas_tf.strategies.base import STRATEGIES

    name = config.search.strategy
    kind = STRATEGIES.get(name)
    arrays = load_arrays(path)
    if kind.derives:
        check_logits(path, arrays, config.space)
    last = {key: values[-1] if _has_epochs(key, values) else values for key, values in arrays.items()}
    try:
        genotype = kind.from_config(config).genotype(last, config)
    except KeyError as error:
        raise UsageError(
            f"logits {path}: found {', '.join(arrays)}, and the strategy {name} needs {error.args[0]}; set "
            "search.strategy as searched"
        ) from error
    space = config.space
    if space.name == "darts":
        return genotype
    return dataclasses.replace(genotype, space=space.name, between=space.between)


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays that a search wrote of its strategy, [epochs + 1, …] each.

    Raises:
        UsageError: the file is missing or damaged.
    """
    if not Path(path).is_file():
        raise UsageError(f"logits {path}: there is no such file")
    arrays = dict(read_npz(path, f"logits {path}", "a search writes such files"))
    if not arrays:
        raise UsageError(f"logits {path}: it has no array; a search writes some")
    for name, values in arrays.items():
        dimensions = (2, 3) if name in KINDS else range(1, 33)
        if values.ndim not in dimensions or not values.size:
            raise UsageError(
                f"logits {path}: {name} has shape {list(values.shape)}; accepted is "
                f"[epochs, {'edges, operations' if name in KINDS else '…'}]"
            )
    return arrays


def check_logits(path: str | Path, arrays: Mapping[str, np.ndarray], space: SearchSpace) -> None:
    """Makes sure that arrays are logits of a search space.

    Raises:
        UsageError: there are none, or they have another shape.
    """
    if "normal" not in arrays:
        raise UsageError(f"logits {path}: it has no array `normal`, as a search writes it")
    wanted = (space.edge_count, len(space.operations))
    for name in KINDS:
        if name in arrays and (found := arrays[name].shape[-2:]) != wanted:
            raise UsageError(
                f"logits {path}: {name} has shape {list(found)}, and the search space has {wanted[0]} "
                f"edges and {wanted[1]} operations; set search.operations and search.nodes as searched"
            )


def _has_epochs(name: str, values: np.ndarray) -> bool:
    """Whether the first axis of an array is that of the epochs; logits may be those of one epoch alone."""
    return values.ndim == (3 if name in KINDS else 2 if name in _EDGES else values.ndim)


KINDS = ("normal", "reduction")
"""Names of logits of operations, [epochs, edges, operations]."""

_EDGES = ("normal_edges", "reduction_edges")
"""Names of logits of edges, [epochs, edges]."""


def parse_genotype(text: str) -> Genotype:
    """Returns the genotype that a file holds, of a known name, or written out in short notation.

    Raises:
        UsageError: it is none of these.
    """
    from gdas_tf.networks.registry import NETWORKS
    from gdas_tf.spaces.genotype import GENOTYPES, Genotype

    if text in GENOTYPES or Path(text).suffix in (".json", ".txt"):
        return Genotype.load(text)
    if text in NETWORKS:
        raise UsageError(
            f"genotype: {text} is a network, which is built of no genotype; name it by retrain.network"
        )
    return Genotype.from_text(text)


def draw_cells(genotype: Genotype, folder: Path) -> list[Path]:
    """Draws the cells of a genotype; returns the pictures' paths."""
    from gdas_tf.drawing.cells import draw_genotype

    return draw_genotype(genotype, folder)


def read_genotype(run: Run) -> Genotype:
    """Returns the genotype of a run.

    Raises:
        UsageError: there is none yet, or it is damaged.
    """
    from gdas_tf.spaces.genotype import Genotype

    path = run.file("genotype.json")
    if not path.exists():
        raise MissingStageError(run.path, "no genotype", "derive")
    return Genotype.load(path)


def takes_genotype(config: Config) -> bool:
    """Whether the network that a configuration names is built of a genotype.

    Raises:
        UsageError: there is no network of that name.
    """
    from gdas_tf.networks.registry import NETWORKS

    return NETWORKS.get(config.retrain.network).takes_genotype


def genotype_of_network(run: Run) -> Genotype | None:
    """Returns the genotype of a run; None where there is none and its network is built of none.

    Raises:
        UsageError: there is none yet, or it is damaged.
    """
    if not run.file("genotype.json").exists() and not takes_genotype(run.config):
        return None
    return read_genotype(run)


def set_genotype(run: Run, genotype: Genotype) -> None:
    """Writes the genotype of a run.

    Raises:
        UsageError: a network was trained with another one in this run; nothing is touched.
    """
    if run.begun("retrain") and genotype != read_genotype(run):
        raise UsageError(
            f"run directory {run.path}: its network was trained with another genotype; "
            "train this one in another run directory"
        )
    genotype.save(run.file("genotype.json"))


def give_genotype(run: Run, genotype: Genotype) -> None:
    """Writes the genotype that somebody gives to a run, in place of one that is found in it.

    Raises:
        UsageError: the network of the run is built of none, or was trained with another one; nothing is
            touched.
    """
    if not takes_genotype(run.config):
        raise UsageError(
            f"run directory {run.path}: the network {run.config.retrain.network} (retrain.network) is built "
            "of no genotype; give none, or the network derived"
        )
    set_genotype(run, genotype)


def model_file(run: Run) -> Path:
    """Returns the path of the retrained network of a run.

    Raises:
        UsageError: there is none yet.
    """
    path = run.file("model.keras")
    if not path.exists():
        raise MissingStageError(run.path, "no trained network", "retrain")
    return path


def load_model(path: str | Path) -> keras.Model:
    """Returns the network of a .keras file.

    Raises:
        UsageError: the file is missing or damaged.
    """
    if not Path(path).is_file():
        raise UsageError(f"model {path}: there is no such file")
    try:
        with open(path, "rb") as file:
            whole = zipfile.is_zipfile(file)
    except OSError as error:
        raise UsageError(f"model {path}: cannot read it: {error.strerror}") from error
    if not whole:
        raise UsageError(
            f"model {path}: damaged or cut off, or not a .keras file; if it is a run directory's, remove it, "
            "and resuming the retraining writes it anew"
        )
    start_tensorflow()
    from gdas_tf.keras_backend import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zipfile, HDF5 and Keras each have errors of their own
        raise UsageError(f"model {path}: damaged or not a .keras file ({error!s:.200})") from error


def verified_accuracies(run: Run) -> dict[str, dict[str, Any]]:
    """Returns what the export measured on held-out images, by the name of the file.

    Raises:
        UsageError: its report is damaged.
    """
    path = run.path / "export" / "verification.json"
    if not path.is_file():
        return {}
    report = read_json(path)
    try:
        return {
            # Reports of earlier versions have one number of images for all files.
            entry["file"]: {"accuracy": entry["accuracy"], "images": entry.get("images", report["images"])}
            for entry in report["formats"].values()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: it is no report of an export; export again") from error
