"""The studies that have a name, and the sizes at which a study runs by preset."""

from __future__ import annotations

from typing import Any

from gdas_tf.config.names import names
from gdas_tf.errors import UsageError
from gdas_tf.registry import Registry
from gdas_tf.studies.grid import Study

DEFAULT = "verdict"

SIZES: dict[str, dict[str, Any]] = {
    # 15 runs in under ten minutes on two cores.
    "quick": {
        "search.epochs": 16,
        "search.channels": 8,
        "retrain.epochs": 12,
        "retrain.channels": 8,
    },
}
"""What a study changes of a preset: it runs a dozen times and more what a preset is made to run once."""

COMMON: dict[str, Any] = {"retrain.validation": 0.1, "export.formats": ["onnx"], "export.images": 200}
"""What every study changes of the configuration.

The validation part of the retraining chooses the best of the random cells, so that the test images choose
nothing. Of each network only the ONNX file's latency is needed.
"""

_RANDOM: dict[str, Any] = {"cells": "random"}
_FIXED = {"search.reduction": "fixed"}
_SEARCHED = {"search.reduction": "searched"}

_STUDIES: dict[str, dict[str, Any]] = {
    "verdict": {
        "about": "does the search beat a random cell on these data?",
        "arms": {"search": {}, "random": _RANDOM},
    },
    "table1": {
        "about": "both cells searched, and the fixed reduction cell (FRC), beside random cells of both kinds",
        "arms": {
            "both cells": _SEARCHED,
            "FRC": _FIXED,
            "random": {**_RANDOM, **_SEARCHED},
            "random FRC": {**_RANDOM, **_FIXED},
        },
        "questions": [("both cells", "random"), ("FRC", "random FRC"), ("FRC", "both cells")],
    },
    "table3": {
        "about": "which ranks of one search with the fixed reduction cell (FRC) make the best network?",
        "config": {"derive.rule": "pairs"},  # the table of 2020 was made by that rule
        "arms": {
            "FRC, ranks 1,2": {**_FIXED, "derive.ranks": [1, 2]},
            "FRC, ranks 2,3": {**_FIXED, "derive.ranks": [2, 3]},
            "FRC, ranks 3,4": {**_FIXED, "derive.ranks": [3, 4]},
            "random": {**_RANDOM, **_SEARCHED},
            "random FRC": {**_RANDOM, **_FIXED},
        },
        "questions": [
            ("FRC, ranks 1,2", "random FRC"),
            ("FRC, ranks 3,4", "FRC, ranks 1,2"),
            ("FRC, ranks 2,3", "random FRC"),
            ("FRC, ranks 3,4", "random FRC"),
            ("random FRC", "random"),
        ],
    },
    "sampling": {
        "about": "is sampling by Gumbel noise better than sampling the softmax directly?",
        "arms": {
            "Gumbel": {"search.sampler": "gumbel"},
            "direct": {"search.sampler": "direct"},
            "random": _RANDOM,
        },
        "questions": [("Gumbel", "direct"), ("Gumbel", "random"), ("direct", "random")],
    },
    "none": {
        "about": "is the operation none to be left out when a genotype is derived?",
        "arms": {
            "none left out": {"derive.keep_none": False},
            "none kept": {"derive.keep_none": True},
            "random": _RANDOM,
        },
        "questions": [("none left out", "none kept"), ("none left out", "random"), ("none kept", "random")],
    },
    "macro": {
        "about": "N normal cells in every block, or N - 1 in the later two?",
        "config": {"search.cells": 2, "retrain.cells": 2},  # with N = 1 the later blocks would have none
        "arms": {
            "paper": {"search.macro": "paper", "retrain.macro": "paper"},
            "AutoDL": {"search.macro": "autodl", "retrain.macro": "autodl"},
            "random": {**_RANDOM, "retrain.macro": "paper"},
        },
        "questions": [("paper", "AutoDL"), ("paper", "random")],
    },
    "precision": {
        "about": "does mixed precision cost accuracy, and does it save time here?",
        "arms": {
            "float32": {"search.precision": "float32", "retrain.precision": "float32"},
            "mixed": {"search.precision": "mixed_bfloat16", "retrain.precision": "mixed_bfloat16"},
            "random": {**_RANDOM, "retrain.precision": "float32"},
        },
        "questions": [("mixed", "float32"), ("float32", "random")],
    },
    "noise": {
        "about": "how much of the spread of random cells is the cell, and how much the seed of the training?",
        "random": 16,
        "arms": {"random": _RANDOM, "again": {**_RANDOM, "same_as": "random"}},
    },
    "strategies": {
        "about": "every strategy, for as long as the first one searches, beside random cells",
        "equal_compute": True,
        "arms": {},  # of those that are registered when it is asked for
    },
}

STUDIES: Registry[dict[str, Any]] = Registry("study")
"""Studies by name, as the values of `gdas_tf.studies.grid.Study`."""

for _name, _values in _STUDIES.items():
    STUDIES.register(_name, {"name": _name, **_values})


def built_in(name: str) -> Study:
    """Returns the study of a name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in STUDIES:
        raise UsageError(
            f"study {name!r}: there is no study, YAML file or folder of a study of that name; "
            f"{STUDIES.hint(name)}"
        )
    values = dict(STUDIES.get(name))
    if not values["arms"]:
        searching = {one: {"search.strategy": one} for one in names("strategy") if one != "random"}
        values["arms"] = {**searching, "random": _RANDOM}
    return Study(**values)
