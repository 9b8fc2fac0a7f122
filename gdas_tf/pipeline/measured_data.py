"""The data to measure a network on: those that it was made on, or what it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import UsageError
from gdas_tf.notes import note

if TYPE_CHECKING:
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataRecord


def compared(
    data: DataSet, record: DataRecord, owner: str, accept: bool, advice: str
) -> tuple[DataSet, dict[str, Any]]:
    """Returns the data set to measure a network on, and what the result says of a change of the data.

    Args:
        data: the data set as it is today.
        record: of the data that the network was made on.
        owner: what the record belongs to, for messages.
        accept: measure on what was not trained on, if the data have changed.
        advice: what to do about a change, for the message.

    Raises:
        UsageError: classes, image shape, seed or fraction are others; or the images are, and `accept` is
            false.
    """
    from gdas_tf.data.identity import check_network_fits, check_same_draw, describe_change, untrained_part

    check_network_fits(record, data, owner)
    check_same_draw(record, data, owner)
    change = describe_change(record, data)
    if change is None:
        return data, {}
    if not accept:
        raise UsageError(f"data {data.name}: it is not what {owner} was made on: {change}; {advice}")
    data = untrained_part(record, data)
    note(
        f"data {data.name}: it is not what {owner} was made on: {change}; measured are the {len(data.test)} "
        "images that it was not trained on"
    )
    return data, {"data_change": change}


def common_record(records: Mapping[str, DataRecord | None]) -> DataRecord | None:
    """Returns the record of the data that several networks were made on; None if none has one.

    Args:
        records: what each file says of the data of its network, by what to call the file.

    Raises:
        UsageError: they are of different data, or held out different images.
    """
    known = {owner: record for owner, record in records.items() if record is not None}
    owner, record = next(iter(known.items()), (None, None))
    for other, its in known.items():
        same = its.identity.class_names == record.identity.class_names
        if not (same and its.identity.same_images(record.identity)):
            raise UsageError(
                f"{owner} and {other} were made on different data, or held out different images; measure "
                "each on its own"
            )
    return record


def data_of_networks(
    data: DataSet, records: Mapping[str, DataRecord | None], accept_changed_data: bool | None = None
) -> tuple[DataSet, dict[str, Any]]:
    """Returns the data set to measure the networks of lone files on.

    Args:
        data: the data set, read and divided as the files say (`DataIdentity.options`).
        records: what each file says of the data of its network, by what to call the file.
        accept_changed_data: measure on what was not trained on, if the data have changed; None if that cannot
            be done.

    Returns:
        The data set, and what the result says of a change that was accepted.

    Raises:
        UsageError: the data are not those of the files, or the files are of different data.
    """
    record = common_record(records)
    for stranger in (owner for owner, its in records.items() if its is None):
        drawn = f"; the {len(data.test)} that are measured were drawn with {data.draw}" if data.draw else ""
        note(
            f"{stranger} does not say what data it was made on: it cannot be known which images were held "
            f"out from its training{drawn}"
        )
    if record is None:
        return data, {}
    owner = next(owner for owner, its in records.items() if its is not None)
    advice = "bring the data back as they were"
    if accept_changed_data is not None:
        advice += ", or measure on the images that were not trained on by accept_changed_data"
    return compared(data, record, owner, bool(accept_changed_data), advice)
