"""The process that trains the trials of a search: the program of a worker (`gdas_tf.training.workers`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from gdas_tf.training.serving import serve


def prepare(setup: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    """Returns what answers a request, which is (configuration as a dictionary, genotype as JSON).

    Args:
        setup: `plugins`, `data`, and what `TrialTrainer` takes besides.
    """
    from gdas_tf import plugins
    from gdas_tf.config.config import Config
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.trial import TrialTrainer

    plugins.load(setup.pop("plugins"))
    trainer = TrialTrainer(**setup)

    def train(request: Any) -> dict[str, Any]:
        config, genotype = request
        return trainer.train(Config.from_dict(config), Genotype.from_json(genotype))

    return train


if __name__ == "__main__":
    serve(int(sys.argv[1]), prepare)
