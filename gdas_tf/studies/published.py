"""Published figures beside those of a study, where data set and size agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdas_tf.config.config import Config
from gdas_tf.files import read_json
from gdas_tf.studies.grid import Study

PUBLISHED = Path(__file__).with_name("published.json")


def beside_published(study: Study, by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Returns the published figures, each with the mean error of the arm that does the same.

    Args:
        study: the study.
        by_arm: what there is to say of each run, by arm; see `gdas_tf.studies.analysis`.

    Returns:
        `rows`, each with `ours`, which is `arm` and `error` in percent, or None; `comparable`; `because`,
        what differs where they are not; and `sources`.
    """
    facts = read_json(PUBLISHED)
    differ = _differences(study, next(iter(by_arm.values()))[0], facts)
    rows = []
    for row in facts["rows"]:
        # The first of several arms that do the same: others vary what a published row does not say.
        arm = None if differ else next((arm for arm in by_arm if _alike(study, arm, row, facts)), None)
        error = None if arm is None else float(np.mean([100.0 - run["accuracy"] for run in by_arm[arm]]))
        rows.append({**row, "ours": None if arm is None else {"arm": arm, "error": error}})
    return {"comparable": not differ, "because": differ, "rows": rows, "sources": facts["sources"]}


def _differences(study: Study, run: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """What makes a study another one than the published ones, if anything does."""
    differ = []
    if run["data"] != facts["data"]:
        differ.append(f"the data are {run['data']}")
    elif run["training_images"] != facts["training_images"]:
        differ.append(f"there are {run['training_images']:,} training images")
    if list(run["image_shape"][:2]) != facts["image_size"]:
        differ.append(f"the images have {run['image_shape'][0]}x{run['image_shape'][1]} pixels")
    return differ + _other_values(study.base(), facts)


def _other_values(config: Config, facts: Mapping[str, Any]) -> list[str]:
    """The values of a configuration that the published networks were not trained with."""
    values = {field: config.get(f"retrain.{field}") for field in facts["retrain"]}
    return [
        f"retrain.{field} is {value}"
        for field, value in values.items()
        if value not in facts["retrain"][field]
    ]


def _alike(study: Study, arm: str, row: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether an arm does what a published row did: GDAS, or random cells of its space."""
    config, of_arm = study.arm_config(arm), study.arms[arm]
    if of_arm.cells != row["cells"] or of_arm.same_as is not None or _other_values(config, facts):
        return False
    if config.search.space != "darts" or config.search.reduction != row["reduction"]:
        return False
    if row["cells"] == "random":
        return True
    return config.search.strategy == "gdas" and list(config.derive.ranks) == row["ranks"]
