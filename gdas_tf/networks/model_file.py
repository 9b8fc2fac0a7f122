"""The file of a trained network: what Keras writes, with the record of the data in its metadata."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.data.identity import DataIdentity, DataRecord
from gdas_tf.files import atomic_path

if TYPE_CHECKING:
    import keras

_METADATA = "metadata.json"  # as Keras names it
_KEY = "gdas_tf"


def save_model(model: keras.Model, path: str | Path, record: DataRecord | None = None) -> None:
    """Writes a network as a .keras file, which `keras.saving.load_model` loads as any other.

    The metadata, which Keras does not read back, hold the record of the data: the identity, and the hashes of
    the training images (8 bytes an image). The time of writing is left out: the same network and record
    give the same bytes.

    Args:
        model: the network.
        path: the file, atomically replaced.
        record: of the data that it was trained on.

    Raises:
        RunError: the disk is full or read-only.
    """
    with atomic_path(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary) as file:
            members = {name: file.read(name) for name in file.namelist()}
        metadata = json.loads(members[_METADATA])
        metadata.pop("date_saved", None)
        if record is not None:
            metadata[_KEY] = _to_json(record)
        members[_METADATA] = json.dumps(metadata, ensure_ascii=False).encode()
        with zipfile.ZipFile(temporary, "w") as file:
            for name, content in members.items():
                file.writestr(zipfile.ZipInfo(name), content)


def read_model_record(path: str | Path) -> DataRecord | None:
    """Returns the record of the data that the network of a .keras file was trained on. Needs no Keras.

    Returns:
        The record, without hashes of test images; None if the file holds none, as those of others, or cannot
        be read, which whoever loads the network reports.
    """
    try:
        with zipfile.ZipFile(path) as file:
            values = json.loads(file.read(_METADATA))[_KEY]
        hashes = np.frombuffer(base64.b64decode(values["train_hashes"]), "<u8").astype(np.uint64)
        return DataRecord(DataIdentity.from_json(values["data"]), hashes)
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return None


def _to_json(record: DataRecord) -> dict[str, Any]:
    hashes = np.sort(record.train_hashes).astype("<u8").tobytes()
    return {"data": record.identity.to_json(), "train_hashes": base64.b64encode(hashes).decode()}
