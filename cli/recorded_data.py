"""The data to measure the networks of lone files on, which are read and divided as these files say."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gdas_tf.cli.console import say
from gdas_tf.cli.job import compared, load_data
from gdas_tf.cli.options import resolve_config
from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    from gdas_tf.config.sections import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataRecord


def load_data_of(
    args: argparse.Namespace, records: Mapping[str, DataRecord | None]
) -> tuple[Config, DataSet, dict[str, Any]]:
    """Loads the data set to measure the networks of lone files on, read and divided as these files say.

    Seed, fraction of test images, image size and channels come from the files, unless options give them.

    Args:
        args: parsed arguments of the subcommand.
        records: what each file says of the data that its network was made on, by what to call the file.

    Returns:
        The configuration, the data set, and what the result says of a change that `--accept-changed-data`
        accepted.

    Raises:
        UsageError: the data are not those of the files, or the files are of different data.
    """
    known = {owner: record for owner, record in records.items() if record is not None}
    owner, record = next(iter(known.items()), (None, None))
    for other, its in known.items():
        same = its.identity.class_names == record.identity.class_names
        if not (same and its.identity.same_images(record.identity)):
            raise UsageError(
                f"{owner} and {other} were made on different data, or held out different images; measure "
                "each by a command of its own"
            )
    config = resolve_config(args, carried=record.identity.options if record else None)
    data = load_data(config)
    for stranger in (owner for owner, record in records.items() if record is None):
        drawn = f"; the {len(data.test)} that are measured were drawn with {data.draw}" if data.draw else ""
        say(
            f"{stranger} does not say what data it was made on: it cannot be known which images were held "
            f"out from its training{drawn}"
        )
    if record is None:
        return config, data, {}
    accept = getattr(args, "accept_changed_data", None)
    advice = "bring the data back as they were"
    if accept is not None:
        advice += ", or measure on the images that were not trained on by --accept-changed-data"
    return config, *compared(data, record, owner, bool(accept), advice)
