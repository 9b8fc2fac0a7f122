"""The record, in a run directory, of the data that its search and its retraining were made on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gdas_tf.data.identity import DataIdentity, DataRecord, check_same_data
from gdas_tf.errors import UsageError
from gdas_tf.files import atomic_path, read_json, write_json
from gdas_tf.runs.run import Run
from gdas_tf.user_files import read_npz

if TYPE_CHECKING:
    from gdas_tf.data.dataset import DataSet


def has_begun(run: Run) -> bool:
    """Returns whether anything in a run directory depends on the data already."""
    return run.begun("search") or run.begun("retrain")


def read_record(run: Run) -> DataRecord | None:
    """Returns the record of the data that the search or the retraining of a run began on; None without one.

    Raises:
        UsageError: it is damaged.
    """
    path, arrays = run.file("data.json"), run.file("data.npz")
    if not path.exists():
        return None
    try:
        identity = DataIdentity.from_json(read_json(path))
        found = read_npz(arrays, "data.npz", "bring it back as it was")
        return DataRecord(identity, *(found[name].astype(np.uint64) for name in ("train", "test")))
    except (UsageError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"run directory {run.path}: data.json and data.npz, which say what data it was made on, are "
            f"damaged ({error}); remove both to go on without the comparison"
        ) from error


def record_data(run: Run, stage: str, data: DataSet) -> DataRecord | None:
    """Notes in a run directory what data a stage begins on, or compares them with those noted before.

    A run directory has one record. Nothing is noted where the stage itself began without a record: it is not
    known on which data.

    Args:
        run: the run directory.
        stage: `search` or `retrain`.
        data: the data that the stage sees.

    Returns:
        The record of the run directory, or None if it has none.

    Raises:
        UsageError: a stage of the run has begun on other data.
        RunError: the record cannot be written.
    """
    record = read_record(run) if has_begun(run) else None
    if record is not None:
        check_same_data(record, data, f"run directory {run.path}")
        return record
    if run.begun(stage):
        return None
    record = DataRecord.of(data)
    with atomic_path(run.file("data.npz")) as temporary, open(temporary, "wb") as file:
        np.savez(file, train=record.train_hashes, test=record.test_hashes)
    write_json(run.file("data.json"), record.identity.to_json())
    return record
